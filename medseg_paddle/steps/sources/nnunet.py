"""nnU-Net's layout: a dataset.json of version 1 or 2 beside imagesTr, labelsTr, imagesTs and labelsTs.

Version 1 (and the Medical Segmentation Decathlon) counts ``modality``, names its cases in ``training`` and has
``labels`` from value to name; version 2 has ``channel_names``, ``file_ending``, ``labels`` from name to value, and
may name its cases in ``dataset``. Channels are files ``CASE_0000``, ``CASE_0001``, ...; the Decathlon's single
files lack the suffix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_paddle.config.prepare import PrepareSet
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import IMAGE_SUFFIXES
from medseg_paddle.io.pictures import samples
from medseg_paddle.io.volumes import VOLUME_SUFFIXES, is_volume
from medseg_paddle.steps.sources.base import Search, Source
from medseg_paddle.steps.sources.names import below_root, index_file, listed
from medseg_paddle.steps.sources.pictures import source_of
from medseg_paddle.steps.sources.volumes import volume_source

_CHANNEL = re.compile(r"(.+)_(\d{4})$")
_DIGITS = 4


@dataclass(frozen=True)
class DatasetJson:
    """What a dataset.json says.

    Attributes
    ----------
    path : Path
    version : int
        1 or 2.
    channels : tuple of str
        Names of the channels, such as ``"CT"``.
    labels : dict
        Class name to stored value; regions of several values are left out.
    regions : tuple of str
        Names that stand for several values.
    ending : str
        Of all image files.
    cases : dict or None
        Case to its image files and label file, where the JSON names them, relative to its folder.
    """

    path: Path
    version: int
    channels: tuple[str, ...]
    labels: dict[str, int]
    regions: tuple[str, ...]
    ending: str
    cases: dict[str, tuple[tuple[str, ...], str]] | None

    @classmethod
    def load(cls, path: Path) -> DatasetJson:
        """Read a dataset.json.

        Raises
        ------
        DataError
            Missing, no JSON, or without channels, labels or file ending.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            version = 2 if "channel_names" in content else 1
            names = content["channel_names" if version == 2 else "modality"]
            channels = tuple(str(names[key]) for key in sorted(names, key=int))
            labels, regions = _labels(content["labels"])
            ending = str(content.get("file_ending") or _first_ending(path.parent, content))
            cases = _named_cases(path, content, version, ending, len(channels))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
            StopIteration,
            RecursionError,
        ) as error:
            raise DataError(
                f"{path} is no dataset.json of nnU-Net ({type(error).__name__}: {error})",
                hint="it needs channel_names, labels and file_ending (version 2), or modality and labels (version 1)",
            ) from error
        if not channels or not labels:
            raise DataError(f"{path} names no {'labels' if channels else 'channels'}", hint="complete it")
        return cls(path, version, channels, labels, regions, ending, cases)

    @property
    def is_volume(self) -> bool:
        """Whether the cases are volumes and no pictures."""
        return is_volume(Path(f"x{self.ending}"))


def nnunet(search: Search, part: PrepareSet) -> Iterator[Source]:
    """The cases of imagesTr and labelsTr, or of imagesTs and labelsTs."""
    path = index_file(search, part.index or "")
    if path is None:
        return
    try:
        said = DatasetJson.load(path)
    except DataError as error:
        search.problems.append(error)
        return
    if not said.ending.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES)):
        search.fault(f"{path}: files '*{said.ending}' are not read", hint="convert them to NIfTI or PNG")
        return
    if search.spec.volumes == "whole" and not said.is_volume:
        search.fault(
            f"{path}: files '*{said.ending}' are pictures", hint="take `volumes: whole` out of `prepare`"
        )
        return
    search.value_names.append((path, {value: name for name, value in said.labels.items()}))
    images, labels = (path.parent / f"{kind}{part.part}" for kind in ("images", "labels"))
    named = said.cases if part.part == "Tr" else None
    cases = _by_folder(search, said, images, labels) if named is None else _by_name(search, said, named)
    gone = [one for files, label in cases.values() for one in (*files, label) if not one.is_file()]
    if gone:
        search.fault(
            f"{path} names {len(gone)} files that are not there: {listed([search.below(one) for one in gone])}",
            hint="copy them from the source of the data set, or correct dataset.json",
        )
    if named is not None:
        known = {one for files, label in cases.values() for one in (*files, label)}
        beside = [
            one for folder in (images, labels) for one in _files(folder, said.ending) if one not in known
        ]
        if beside:
            search.left_out.append(
                f"{len(beside)} files that {path.name} does not name: {listed(_names(beside))}"
            )
    for case, (files, label) in cases.items():
        if any(not one.is_file() for one in (*files, label)):
            continue
        if said.is_volume:
            yield from volume_source(search, part, case, files, label)
        else:
            yield from source_of(search, part, case, files, label, None)


def _by_name(
    search: Search, said: DatasetJson, named: Mapping[str, tuple[tuple[str, ...], str]]
) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """The cases whose files the JSON names; those with files outside the source folder are a problem."""
    cases = {}
    for case, (files, label) in sorted(named.items()):
        below = [below_root(search.root, said.path.parent, one) for one in (*files, label)]
        inside = [one for one in below if one is not None]
        if len(inside) < len(below):
            outside = next(name for name, one in zip((*files, label), below, strict=True) if one is None)
            search.fault(
                f"{said.path}: case '{case}' names '{outside}', which is not below {search.root}",
                hint="name files below the source folder, or prepare from a folder that holds all of them",
            )
            continue
        paths = [_existing(one, said.ending) for one in inside[:-1]]
        if len(paths) != len(said.channels) and not (
            len(paths) == 1 and paths[0].is_file() and _holds_all(search, said, paths[0])
        ):
            search.fault(
                f"{said.path}: case '{case}' has {len(paths)} images, channel_names {len(said.channels)}",
                hint="name one image for each channel",
            )
            continue
        cases[case] = (tuple(paths), inside[-1])
    return cases


def _by_folder(
    search: Search, said: DatasetJson, images: Path, labels: Path
) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """The cases whose files lie in two folders, where the JSON does not name them."""
    for folder in (images, labels):
        if not folder.is_dir():
            search.fault(f"{folder} is not there", hint="correct `index` or `part` in `prepare`")
            return {}
    channels: dict[str, dict[int, Path]] = {}
    for path in _files(images, said.ending):
        name = path.name[: -len(said.ending)]
        match = _CHANNEL.fullmatch(name)
        case, channel = (match[1], int(match[2])) if match else (name, 0)
        channels.setdefault(case, {})[channel] = path
    cases = {}
    wanted = set(range(len(said.channels)))
    for case, found in channels.items():
        label = labels / f"{case}{said.ending}"
        if set(found) != wanted and not (set(found) == {0} and _holds_all(search, said, found[0])):
            search.fault(
                f"{images}: case '{case}' has channels {sorted(found)}, dataset.json names {len(wanted)}",
                hint="add the missing files, or correct channel_names",
            )
        elif not label.is_file():
            search.fault(
                f"{search.root}: no label for {search.below(found[0])}",
                hint=f"add {search.below(label)}, or move the image away",
            )
        else:
            cases[case] = (tuple(found[number] for number in sorted(found)), label)
    orphans = [path for path in _files(labels, said.ending) if path.name[: -len(said.ending)] not in channels]
    if orphans:
        search.fault(
            f"{search.root}: label without an image: {listed(_names(orphans))}",
            hint="add the missing images, or move these labels away",
        )
    return cases


def _holds_all(search: Search, said: DatasetJson, path: Path) -> bool:
    """Whether one picture holds all channels, as those in colour do (version 2)."""
    if said.is_volume:
        return False
    try:
        return samples(path) == len(said.channels)
    except DataError as error:
        search.problems.append(error)
        return True  # what is wrong is said


def _files(folder: Path, ending: str) -> list[Path]:
    """Files of a folder with an ending; those whose names begin with a dot are macOS's and no images."""
    return [path for path in sorted(folder.glob(f"*{ending}")) if not path.name.startswith(".")]


def _names(paths: list[Path]) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in paths]


def _existing(path: Path, ending: str) -> Path:
    """The file that version 1 means: it names ``CASE.nii.gz`` where the disk may have ``CASE_0000.nii.gz``."""
    suffixed = path.with_name(f"{path.name[: -len(ending)]}_{0:0{_DIGITS}d}{ending}")
    return suffixed if suffixed.is_file() and not path.is_file() else path


def _labels(said: Mapping[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Name to value, both ways round: version 1 has ``{"1": "tumour"}``, version 2 ``{"tumour": 1}``."""
    found: dict[str, int] = {}
    regions = []
    for key, value in said.items():
        if isinstance(value, str):
            found[value] = int(key)
        elif isinstance(value, list):
            regions.append(key)
        else:
            found[key] = int(value)
    return dict(sorted(found.items(), key=lambda item: item[1])), tuple(regions)


def _first_ending(folder: Path, content: Mapping[str, Any]) -> str:
    """File ending of a dataset.json that does not say it, from the first case it names or the first label."""
    training = content.get("training") or []
    names = [str(training[0]["label"])] if training else []
    names += [path.name for path in sorted((folder / "labelsTr").glob("*")) if not path.name.startswith(".")][
        :1
    ]
    endings = sorted((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES), key=len, reverse=True)
    return next(ending for ending in endings if names[0].lower().endswith(ending))


def _named_cases(
    path: Path, content: Mapping[str, Any], version: int, ending: str, channels: int
) -> dict[str, tuple[tuple[str, ...], str]] | None:
    if version == 2 and "dataset" in content:
        return {
            str(case): (tuple(map(str, files["images"])), str(files["label"]))
            for case, files in content["dataset"].items()
        }
    if not content.get("training"):
        return None
    cases: dict[str, tuple[tuple[str, ...], str]] = {}
    for entry in content["training"]:
        image, label = str(entry["image"]).removeprefix("./"), str(entry["label"]).removeprefix("./")
        case, labelled = (Path(name).name[: -len(ending)] for name in (image, label))
        if labelled not in (case, case.removesuffix(f"_{0:0{_DIGITS}d}")):
            raise DataError(
                f"{path} pairs image '{image}' with label '{label}'",
                hint="correct the entry in `training`: an image and its label have the same name",
            )
        if case in cases:
            raise DataError(f"{path} names case '{case}' twice", hint="keep one of its entries in `training`")
        base = image[: -len(ending)]
        files = (
            (image,) if channels == 1 else tuple(f"{base}_{n:0{_DIGITS}d}{ending}" for n in range(channels))
        )
        cases[case] = (files, label)
    return cases
