"""What there is to look at: a prepared data set, PaddleSeg's lists, or a source folder and a recipe.

Nothing here stops at a problem: it becomes a finding, and what else there is, is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from medseg_paddle.config import Recipe
from medseg_paddle.config.prepare import IGNORE_INDEX, PrepareSpec
from medseg_paddle.core import MANIFEST_NAME, SPLITS, Case, LabelSet, Manifest, Slicing, Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import IMAGE_SUFFIXES, read_label, read_samples
from medseg_paddle.io.nifti import read_nifti_channels
from medseg_paddle.io.volumes import is_volume, read_label_volume
from medseg_paddle.steps.check.findings import Finding, error, note
from medseg_paddle.steps.check.sources import Picture, WholeVolume, case_name, label_file, look_into
from medseg_paddle.steps.sources.slices import require_one_grid, shown, upright_labels

_SEPARATORS = " \t,;"
Kind = Literal["manifest", "lists", "source"]


@dataclass(frozen=True, eq=False)
class Look:
    """One picture with its label, as read.

    Attributes
    ----------
    id : str
    image : ndarray, (height, width) or (height, width, channels)
    label : ndarray, (height, width), or None
        Values as stored.
    slicing : Slicing or None
        Set for a slice of a volume, whose intensities went through a window.
    """

    id: str
    image: NDArray[Any]
    label: NDArray[Any] | None
    slicing: Slicing | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """Something that is read in one go, or fails in one go.

    Attributes
    ----------
    id : str
    image, label : Path or None
        Files, to find out what is wrong when reading fails.
    read : callable
        Yields what is in it.
    """

    id: str
    image: Path
    label: Path | None
    read: Callable[[], Iterator[Look]]


@dataclass(frozen=True, eq=False)
class Unit:
    """A case as a person counts them: a picture, or a volume with all its slices.

    Attributes
    ----------
    id, patient, center : str
        Patient and centre are empty where nobody says.
    split : str
        ``"train"``, ``"val"``, ``"test"``, or ``"auto"`` for one not dealt out yet.
    parts : tuple of Part
    """

    id: str
    patient: str
    center: str
    split: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Gathered:
    """All that is to be looked at.

    Attributes
    ----------
    kind : {"manifest", "lists", "source"}
    root : Path
    units : tuple of Unit
    findings : tuple of Finding
        What was found on the way.
    labels : LabelSet or None
        The classes; None where nobody names them.
    mapping : dict or None
        Stored value to class index; None where nobody says.
    label_map_asked : bool
        Whether a `label_map` line is the remedy of an undeclared value.
    """

    kind: Kind
    root: Path
    units: tuple[Unit, ...]
    findings: tuple[Finding, ...] = ()
    labels: LabelSet | None = None
    mapping: Mapping[int, int] | None = field(default=None)
    label_map_asked: bool = False


def gather_units(data: Path, recipe: Recipe | None) -> Gathered:
    """Find out what kind of folder `data` is, and what is in it.

    Raises
    ------
    DataError
        It is none of the three kinds, or nothing at all can be read of it.
    """
    if not data.is_dir():
        raise DataError(f"{data} is no folder", hint="name a data set or the folder that holds the images")
    if (data / MANIFEST_NAME).is_file():
        return _from_manifest(data)
    if recipe is not None and recipe.prepare is not None:
        return from_source(data, recipe.prepare, recipe.label_set)
    lists = {split: data / name for split, name in _list_names(recipe).items()}
    if any(path.is_file() for path in lists.values()):
        return _from_lists(data, lists, recipe)
    raise DataError(
        f"{data} holds neither {MANIFEST_NAME} nor train_list.txt",
        hint="name a prepared data set, or say with --config RECIPE how its images and labels are found "
        "(docs/howto/own-images.md)",
    )


# --- a prepared data set ----------------------------------------------------------------------------------


def _from_manifest(root: Path) -> Gathered:
    findings: list[Finding] = []
    manifests: dict[str, Manifest] = {}
    for split in SPLITS:  # one at a time: what is wrong between splits is found by looking, not by failing
        try:
            manifests[split] = Manifest.load(root, splits=(split,))
        except DataError as failure:
            findings.append(error("manifest-broken", f"{split}: {failure.message}", failure.hint))
    if not manifests:
        raise DataError(findings[0].message, hint=findings[0].remedy)
    labels = next(iter(manifests.values())).labels
    units = [
        unit
        for split, manifest in manifests.items()
        for unit in _units(manifest.splits[split], split)  # type: ignore[index]
    ]
    mapping = {**{index: index for index in range(len(labels))}, IGNORE_INDEX: IGNORE_INDEX}
    return Gathered("manifest", root, tuple(units), tuple(findings), labels, mapping)


def _units(cases: Sequence[Case], split: str) -> Iterator[Unit]:
    """Cases of one volume together."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    for name, members in groups.items():
        parts = tuple(
            Part(
                case.id,
                case.image,
                case.label,
                partial(_read_files, case.id, case.image, case.label, case.slicing),
            )
            for case in members
        )
        yield Unit(name, members[0].patient, _center(members[0]), split, parts)


def _center(of: Any) -> str:
    """Centre of a case or a source; empty where the data set's version knows none."""
    return str(getattr(of, "center", "") or "")


def _read_files(name: str, image: Path, label: Path | None, slicing: Slicing | None) -> Iterator[Look]:
    if is_volume(image):
        volumes = read_nifti_channels(image)
        indices = None
        if label is not None:
            found = read_label_volume(label)
            require_one_grid(image, volumes[0], label, found, "label")
            indices = found.array
        yield from _slices(name, volumes, indices, slicing)
        return
    yield Look(name, read_samples(image), None if label is None else read_label(label), slicing)


def _slices(
    name: str, volumes: Sequence[Volume], labels: NDArray[Any] | None, slicing: Slicing | None
) -> Iterator[Look]:
    """A whole volume as slices to be looked at."""
    turned = repeat(None) if labels is None else upright_labels(volumes[0], labels)
    for place, (image, label) in enumerate(zip(shown(volumes), turned, strict=False)):
        yield Look(f"{name}_{place:03d}", image, label, slicing)


# --- lists ------------------------------------------------------------------------------------------------


def _list_names(recipe: Recipe | None) -> dict[str, str]:
    names: dict[str, str] = {}
    for split in SPLITS:
        spec = None if recipe is None else recipe.dataset(split)
        names[split] = getattr(spec, f"{split}_path", None) or f"{split}_list.txt"
    return names


def _from_lists(root: Path, lists: Mapping[str, Path], recipe: Recipe | None) -> Gathered:
    findings: list[Finding] = []
    units: list[Unit] = []
    listed: set[Path] = set()
    for split, path in lists.items():
        if not path.is_file():
            findings.append(note("no-list", f"there is no {path.name}, so no {split} set"))
            continue
        before = len(findings)
        found = list(_listed(root, path, findings))
        if not found and len(findings) == before:
            judge = error if split == "train" else note
            findings.append(
                judge("empty-list", f"{path.name} names no image", "write `image label` lines, one a case")
            )
        units.extend(
            Unit(
                name,
                "",
                "",
                split,
                (Part(name, image, label, partial(_read_files, name, image, label, None)),),
            )
            for name, image, label in found
        )
        listed.update(
            file.resolve() for _, image, label in found for file in (image, label) if file is not None
        )
    findings.extend(_not_listed(root, listed))
    labels = None if recipe is None else recipe.label_set
    mapping = None
    if labels is not None:
        mapping = {**{index: index for index in range(len(labels))}, IGNORE_INDEX: IGNORE_INDEX}
    return Gathered("lists", root, tuple(units), tuple(findings), labels, mapping)


def _listed(root: Path, path: Path, findings: list[Finding]) -> Iterator[tuple[str, Path, Path | None]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        findings.append(
            error("list-broken", f"{path.name} cannot be read: {failure}", "save it as UTF-8 text")
        )
        return
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        names = _split_line(root, line.strip())
        if names is None:
            findings.append(
                error(
                    "list-line",
                    f"{path.name}, line {number}: expected an image and a label, got '{line.strip():.80}'",
                    "write `image label`, or another separator where a path holds spaces",
                )
            )
            continue
        image, label = names
        if image in seen:
            findings.append(
                error(
                    "listed-twice",
                    f"{path.name}: {image} is in line {seen[image]} and in line {number}",
                    "list every image once; it would count twice",
                    (Path(image).with_suffix("").as_posix(),),
                )
            )
            continue
        seen[image] = number
        yield Path(image).with_suffix("").as_posix(), root / image, None if label is None else root / label


def _split_line(root: Path, line: str) -> tuple[str, str | None] | None:
    """Image and label of a line: where both sides of a separator are files, there; else by blanks."""
    for place, sign in enumerate(line):
        if sign in _SEPARATORS:
            image, label = line[:place].strip(), line[place + 1 :].strip(_SEPARATORS)
            if image and label and (root / image).is_file() and (root / label).is_file():
                return image, label
    if (root / line).is_file():
        return line, None
    parts = [part for part in line.replace(",", " ").replace(";", " ").split() if part]
    return {1: (parts[0], None), 2: (parts[0], parts[-1])}.get(len(parts)) if parts else None


def _not_listed(root: Path, listed: set[Path]) -> Iterator[Finding]:
    """Pictures that lie where listed ones lie, and are in no list."""
    folders = {path.parent for path in listed if path.parent.is_dir()}
    left = sorted(
        path
        for folder in folders
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.resolve() not in listed
    )
    if left:
        base = root.resolve()
        names = [
            path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name for path in left
        ]
        more = ", ..." if len(names) > 3 else ""
        yield note(
            "not-listed",
            f"{len(names)} pictures are in no list: {', '.join(names[:3])}{more}",
            "add them to a list if they belong to the data set",
            names,
        )


# --- a source folder --------------------------------------------------------------------------------------


def from_source(root: Path, spec: PrepareSpec, labels: LabelSet) -> Gathered:
    """What a source folder holds, found as `medseg prepare` finds it."""
    folder = look_into(spec, root, labels)
    units = []
    for source in folder.sources:
        read = partial(_read_source, source.read, folder.label_of)
        part = Part(case_name(source), source.files[0], label_file(source), read)
        units.append(Unit(part.id, source.patient, _center(source), source.split, (part,)))
    return Gathered(
        "source", root, tuple(units), folder.findings, labels, folder.mapping, label_map_asked=True
    )


def _read_source(
    read: Callable[[], Iterator[Picture]], label_of: Callable[[Picture], NDArray[Any]]
) -> Iterator[Look]:
    for picture in read():
        if isinstance(picture, WholeVolume):
            yield from _slices(picture.id, picture.volumes, label_of(picture), picture.slicing)
        else:
            yield Look(picture.id, picture.image, label_of(picture), picture.slicing)
