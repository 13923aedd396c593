"""What layout a folder somebody gave seems to have, and the lines of a recipe that read it.

A proposal to look at, never a default: a real preparation does what its recipe says.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from medseg_paddle.errors import DataError, MedsegError
from medseg_paddle.io.dicom import group_by_series
from medseg_paddle.io.images import IMAGE_SUFFIXES, read_label
from medseg_paddle.io.volumes import VOLUME_SUFFIXES, is_volume, read_label_volume
from medseg_paddle.steps.sources.names import listed, stem
from medseg_paddle.steps.sources.nnunet import DatasetJson
from medseg_paddle.steps.sources.pictures import cut_line

_IMAGE_WORDS = (
    "image",
    "images",
    "img",
    "imgs",
    "imagestr",
    "photos",
    "pictures",
    "data",
    "ct",
    "mr",
    "mri",
    "scans",
)
_LABEL_WORDS = ("label", "labels", "mask", "masks", "lab", "gt", "annotations", "annotation", "seg", "segs",
                "segmentation", "segmentations", "labelstr", "groundtruth", "ground_truth", "manual")  # fmt: skip
_SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
                "test": "test", "testing": "test"}  # fmt: skip
_SAMPLED = 12  # label files looked into for a proposal
_LONGEST_LIST = 1 << 24
_WIDTH = 110


@dataclass(frozen=True)
class Layout:
    """A layout that a folder seems to have.

    Attributes
    ----------
    what : str
        For people.
    prepare : dict
        A `prepare` section; its window and fractions are to be filled in by a person.
    labels : tuple of str
        Class names, where the folder says them.
    remarks : tuple of str
        What to see to.
    """

    what: str
    prepare: dict[str, Any]
    labels: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        section: dict[str, Any] = {"labels": list(self.labels)} if self.labels else {}
        text = yaml.safe_dump(
            {**section, "prepare": self.prepare}, sort_keys=False, default_flow_style=None, width=_WIDTH,
            allow_unicode=True,
        )  # fmt: skip
        said = [f"found: {self.what}", *(f"see to: {remark}" for remark in self.remarks)]
        return "\n".join([*said, "to put into the recipe:", "", text.rstrip()])


def recognise(root: Path) -> tuple[Layout, ...]:
    """The layouts that a folder may have, the most certain first.

    Raises
    ------
    DataError
        There is no such folder, or nothing in it is recognised.
    """
    if not root.is_dir():
        raise DataError(f"source folder {root} is not there", hint="name the folder that holds the images")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    looks: tuple[Callable[[Path, Sequence[Path]], Layout | None], ...] = (
        _nnunet, _lists, _coco, _dicom, _objects, _folders, _cases,
    )  # fmt: skip
    found = [layout for look in looks if (layout := look(root, files)) is not None]
    if not found:
        kinds = Counter("".join(path.suffixes[-2:]).lower() or "no ending" for path in files).most_common(4)
        counted = ", ".join(f"{count} of {kind}" for kind, count in kinds) or "no files"
        raise DataError(
            f"the layout of {root} is not recognised ({counted})",
            hint="write a `prepare` section (docs/howto/own-images.md) and look with --dry-run --config",
        )
    return tuple(found)


# --- layouts that a file describes ------------------------------------------------------------------------


def _nnunet(root: Path, files: Sequence[Path]) -> Layout | None:
    for path in files:
        if path.name != "dataset.json":
            continue
        try:
            said = DatasetJson.load(path)
        except DataError:
            continue
        name = path.relative_to(root).as_posix()
        has_test = (path.parent / "labelsTs").is_dir()
        sets = [{"split": "auto" if not has_test else "train", "index": name}]
        if has_test:
            sets.append({"split": "test", "index": name, "part": "Ts"})
        section: dict[str, Any] = {"reader": "nnunet", "sets": sets}
        remarks = []
        if said.is_volume:
            section |= _window_for([channel.upper() for channel in said.channels], remarks)
            if all(channel.upper() == "CT" for channel in said.channels):
                section["units"] = "HU"
        values = list(said.labels.values())
        if values != list(range(len(values))) or "ignore" in said.labels:
            classes = [value for name, value in said.labels.items() if name != "ignore"]
            section["label_map"] = {
                value: 255 if name == "ignore" else classes.index(value)
                for name, value in said.labels.items()
            }
        if said.regions:
            remarks.append(f"regions of several labels are not made: {', '.join(said.regions)}")
        names = tuple(name for name in said.labels if name != "ignore")
        what = f"nnU-Net's {name}, version {said.version}, channels {', '.join(said.channels)}"
        return Layout(what, _with_splits(section), names, tuple(remarks))
    return None


def _lists(root: Path, files: Sequence[Path]) -> Layout | None:
    sets = []
    counted = []
    labels: list[Path] = []
    for path in files:
        if path.suffix.lower() not in (".txt", ".csv", ".lst") or path.stat().st_size > _LONGEST_LIST:
            continue
        try:
            lines = [
                line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
            ]
        except (OSError, UnicodeDecodeError):
            continue
        cut = [cut_line(root, line, None) for line in lines[:_SAMPLED]]
        if not cut or not all(len(ways) == 1 and len(ways[0]) == 2 for ways in cut):
            continue
        labels += [way[0][1] for way in cut]
        sets.append({"split": _split_word(path.stem), "index": path.relative_to(root).as_posix()})
        counted.append(f"{path.name} ({len(lines)} lines)")
    if not sets:
        return None
    order = ["train", "val", "test", "auto"]
    sets.sort(key=lambda one: order.index(one["split"]))
    section = {"reader": "lists", "sets": sets, **_mapping(labels)}
    return Layout(f"PaddleSeg's lists {', '.join(counted)}", _with_splits(section))


def _coco(root: Path, files: Sequence[Path]) -> Layout | None:
    sets = []
    categories: dict[int, str] = {}
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    for path in files:
        content = _json(path) if path.suffix.lower() == ".json" else None
        if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
            continue
        try:
            names = {Path(str(image["file_name"])).name for image in content["images"]}
            categories |= {int(one["id"]): str(one["name"]) for one in content["categories"]}
        except (KeyError, TypeError, ValueError):
            continue
        own = [picture for picture in pictures if picture.name in names]
        if own:
            sets.append(
                {
                    "split": _split_word(path.stem),
                    "images": _pattern(root, own),
                    "index": path.relative_to(root).as_posix(),
                }
            )
    if not sets:
        return None
    names = ("background", *categories.values())
    section: dict[str, Any] = {"reader": "coco", "sets": sets}
    if list(categories) != list(range(1, len(categories) + 1)):
        section["label_map"] = {one: index for index, one in enumerate(categories, start=1)}
    what = f"COCO annotations in {listed([one['index'] for one in sets])}"
    return Layout(what, _with_splits(section), names if len(set(names)) == len(names) else ())


# --- layouts by the names of folders and files ------------------------------------------------------------


def _dicom(root: Path, files: Sequence[Path]) -> Layout | None:
    likely = [
        p for p in files if not p.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES, ".json", ".txt"))
    ]
    if not likely:
        return None
    series = group_by_series(likely, on_bad=lambda _, __: None)
    images = [path for paths in series.values() for path in paths]
    segmentations = [
        path for paths in series.values() if len(paths) == 1 for path in paths if _labelled(root, path)
    ]
    images = [path for path in images if path not in segmentations]
    masks = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES or is_volume(p)] or segmentations
    if not images or not masks:
        return None
    remarks: list[str] = []
    section: dict[str, Any] = {
        "reader": "dicom",
        "sets": [{"images": _pattern(root, images), "labels": _pattern(root, masks)}],
        **_window_for([], remarks),
        **_mapping(masks),
    }
    kind = (
        "DICOM SEG" if masks is segmentations else "label volumes" if is_volume(masks[0]) else "mask pictures"
    )
    what = f"{len(series)} DICOM series with {len(masks)} {kind}"
    return Layout(what, _with_splits(section), (), tuple(remarks))


def _objects(root: Path, files: Sequence[Path]) -> Layout | None:
    """One folder per picture, with a folder of masks: images/A.png and masks/*.png below each."""
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    by_case: dict[Path, dict[str, list[Path]]] = {}
    for path in pictures:
        by_case.setdefault(path.parent.parent, {}).setdefault(path.parent.name.lower(), []).append(path)
    fitting = {
        case: folders
        for case, folders in by_case.items()
        if case != root and len(images := _only_word(folders, _IMAGE_WORDS)) == 1 and _only_word(folders, _LABEL_WORDS)
        and images
    }  # fmt: skip
    if len(fitting) < 2 or not any(len(_only_word(one, _LABEL_WORDS)) > 1 for one in fitting.values()):
        return None
    images = [path for folders in fitting.values() for path in _only_word(folders, _IMAGE_WORDS)]
    masks = [path for folders in fitting.values() for path in _only_word(folders, _LABEL_WORDS)]
    section = {
        "reader": "objects",
        "key": "^(.*)/[^/]+/[^/]+$",
        "sets": [{"images": _pattern(root, images), "labels": _pattern(root, masks)}],
        "instances": 1,
    }
    what = f"{len(images)} pictures with {len(masks)} masks, one per object"
    return Layout(what, _with_splits(section))


def _folders(root: Path, files: Sequence[Path]) -> Layout | None:
    """A folder of images and one of labels, perhaps below folders for train, val and test."""
    readable = [path for path in files if path.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES))]
    by_place: dict[Path, dict[str, list[Path]]] = {}
    for path in readable:
        for folder in path.relative_to(root).parents[:-1]:
            word = folder.name.lower()
            kind = "labels" if word in _LABEL_WORDS else "images" if word in _IMAGE_WORDS else None
            if kind is not None:
                rest = Path(*folder.parts[:-1])
                if kind == "images" and any(part.lower() in _LABEL_WORDS for part in rest.parts):
                    continue
                by_place.setdefault(rest, {}).setdefault(kind, []).append(path)
                break
    pairs = {place: kinds for place, kinds in by_place.items() if {"images", "labels"} <= kinds.keys()}
    if not pairs or len(pairs) > len(_SPLIT_WORDS):
        return None
    sets, labels, images = [], [], []
    for place, kinds in sorted(pairs.items()):
        words = [_SPLIT_WORDS[part.lower()] for part in place.parts if part.lower() in _SPLIT_WORDS]
        sets.append(
            {
                "split": words[0] if words else "auto",
                "images": _pattern(root, kinds["images"]),
                "labels": _pattern(root, kinds["labels"]),
            }
        )
        images += kinds["images"]
        labels += kinds["labels"]
    return _paired_layout("a folder of images and one of labels", sets, images, labels)


def _cases(root: Path, files: Sequence[Path]) -> Layout | None:
    """One folder per case, with files of the same names or the same endings in each."""
    readable = [path for path in files if path.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES))]
    by_case: dict[Path, list[Path]] = {}
    for path in readable:
        by_case.setdefault(path.parent, []).append(path)
    by_case.pop(root, None)
    roles = [{_role(path, case): path for path in paths} for case, paths in by_case.items()]
    common = set.intersection(*map(set, roles)) if len(roles) > 1 else set()
    labels = [role for role in common if set(re.split(r"[^a-z]+", role.lower())) & set(_LABEL_WORDS)]
    images = sorted(common - set(labels))
    if len(labels) != 1 or not images:
        return None
    patterns = [_pattern(root, [one[role] for one in roles]) for role in images]
    label_files = [one[labels[0]] for one in roles]
    sets = [
        {
            "split": "auto",
            "images": patterns if len(patterns) > 1 else patterns[0],
            "labels": _pattern(root, label_files),
        }
    ]
    layout = _paired_layout(
        f"one folder for each of {len(roles)} cases", sets, [one[images[0]] for one in roles], label_files
    )
    section = {"reader": layout.prepare.pop("reader"), "key": "^(.*)/", **layout.prepare}
    return replace(layout, prepare=section)


def _paired_layout(
    what: str, sets: list[dict[str, Any]], images: Sequence[Path], labels: Sequence[Path]
) -> Layout:
    remarks: list[str] = []
    volumes = is_volume(images[0])
    section: dict[str, Any] = {"reader": "volumes" if volumes else "pairs", "sets": sets}
    stems = [{stem(path) for path in paths} for paths in (images, labels)]
    if stems[0] != stems[1]:
        digits = [{tuple(re.findall(r"\d+", name)[-1:]) for name in names} for names in stems]
        if digits[0] == digits[1] and len(digits[0]) == len(images):
            section = {"reader": section["reader"], "key": r"(\d+)\D*$", "sets": sets}
        else:
            remarks.append("the names of images and labels differ: say with `key` what they have in common")
    if volumes:
        section |= _window_for([], remarks)
    section |= _mapping(labels)
    return Layout(
        f"{what}: {len(images)} images, {len(labels)} labels", _with_splits(section), (), tuple(remarks)
    )


# --- pieces -----------------------------------------------------------------------------------------------


def _only_word(folders: dict[str, list[Path]], words: Sequence[str]) -> list[Path]:
    return [path for name, paths in folders.items() if name in words for path in paths]


def _role(path: Path, case: Path) -> str:
    """A file's name without the name of its case."""
    return path.name.replace(case.name, "").lower()


def _labelled(root: Path, path: Path) -> bool:
    return any(
        word in _LABEL_WORDS for word in re.split(r"[^a-z]+", path.relative_to(root).as_posix().lower())
    )


def _split_word(name: str) -> str:
    words = [_SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in _SPLIT_WORDS]
    return words[0] if words else "auto"


def _with_splits(section: dict[str, Any]) -> dict[str, Any]:
    """Add the fractions that the sets leave to be drawn."""
    named = {one["split"] for one in section["sets"] if "split" in one} or {"auto"}
    if "val" not in named:
        section["val_fraction"] = 0.15
    if "test" not in named:
        section["test_fraction"] = 0.2
    return section


def _window_for(channels: Sequence[str], remarks: list[str]) -> dict[str, Any]:
    remarks.append("the window is an example (soft tissue of CT): set the intensities that matter")
    window = {"level": 40, "width": 400}
    return {"window": [window] * len(channels) if len(channels) > 1 else window}


def _mapping(labels: Sequence[Path]) -> dict[str, Any]:
    """The mapping that some of the label files suggest; none where their values are 0, 1, 2, ... or unreadable."""
    values: set[int] = set()
    step = max(1, len(labels) // _SAMPLED)
    for path in list(labels)[::step][:_SAMPLED]:
        try:
            array = read_label_volume(path).array if is_volume(path) else read_label(path)
        except MedsegError:
            return {}
        values |= {int(value) for value in np.unique(array)}
    if values <= set(range(len(values))) or not values:
        return {}
    if len(values) == 2 and 0 in values:
        return {"label_map": {0: 0, max(values): 1}}
    if len(values) > _SAMPLED:
        soft = max(values) == 255 and min(values) == 0
        return {"label_threshold": 128} if soft else {"instances": 1}
    return {"label_map": {value: index for index, value in enumerate(sorted(values))}}


def _pattern(root: Path, paths: Sequence[Path]) -> str:
    """The narrowest glob of the form ``fixed/*/name*.end`` that matches all paths."""
    split = [path.relative_to(root).parts for path in paths]
    if len({len(parts) for parts in split}) > 1:
        common = _common_parts([parts[:-1] for parts in split])
        return "/".join([*common, "**", _name_pattern([parts[-1] for parts in split])])
    columns = list(zip(*split, strict=True))
    folders = [column[0] if len(set(column)) == 1 else "*" for column in columns[:-1]]
    return "/".join([*folders, _name_pattern(columns[-1])])


def _common_parts(all_parts: Sequence[tuple[str, ...]]) -> list[str]:
    common = []
    for column in zip(*all_parts, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return common


def _name_pattern(names: Sequence[str]) -> str:
    if len(set(names)) == 1:
        return names[0]
    endings = {name[len(stem(Path(name))) :] for name in names}
    tails = {re.sub(r"^.*\d", "", stem(Path(name))) for name in names}
    ending = endings.pop() if len(endings) == 1 else ""
    # A common end of the names, such as _mask, tells labels from images that lie beside them.
    tail = tails.pop() if len(tails) == 1 and ending else ""
    return f"*{tail}{ending}"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
