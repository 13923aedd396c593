"""From a folder of annotated images to a data set: PNG pictures, lists by split, a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config.prepare import IGNORE_INDEX, PrepareSpec
from medseg_paddle.core import (
    MANIFEST_NAME,
    SPLITS,
    Case,
    LabelSet,
    Manifest,
    Place,
    Split,
    Unit,
    fingerprint,
)
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.io.files import new_folder, write_text
from medseg_paddle.io.images import write_image, write_label
from medseg_paddle.preprocess.duplicates import Appearance, appearance
from medseg_paddle.steps.dataset_origin import origin
from medseg_paddle.steps.dataset_sources import Picture, Source, find_sources
from medseg_paddle.steps.dataset_suspicions import near_copies

_LEAST_MAXIMUM = 65536 // 4

Progress = Callable[[int, int, str], None]


def write_dataset(
    spec: PrepareSpec,
    *,
    source: Path,
    destination: Path,
    labels: LabelSet,
    name: str,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Read a source folder strictly, split it by patient, and write it as a data set.

    Parameters
    ----------
    spec : PrepareSpec
        The `prepare` section of a recipe.
    source : Path
        Folder that the patterns of `spec` are taken in; only read.
    destination : Path
        The data set: ``images``, ``labels``, ``rois`` (PNG), ``train_list.txt``, ``val_list.txt``,
        ``test_list.txt``, ``manifest.json``. Appears complete or not at all.
    labels : LabelSet
        The classes; a label value beyond them must be in ``spec.label_map``.
    name : str
        Of the data set.
    overwrite : bool
        Replace an earlier data set.
    progress : callable, optional
        Called with (done, total, name) after each image or volume.

    Returns
    -------
    Manifest

    Raises
    ------
    RecipeError
        ``spec.label_map`` names a class that `labels` has not.
    DataError
        No image; 16-bit pictures that use less than a quarter of their range; an image without a label or the
        reverse; sizes or geometries that differ; a label value nobody declared; too few patients for the
        splits; a patient in two splits; an unreadable file.
    SetupError
        `destination` cannot be written, is not empty, or lies around `source`.
    """
    require_place(source, destination, overwrite=overwrite)
    _require_classes(spec, labels)
    sources = find_sources(spec, source)
    units = [Unit(one.name, one.patient, one.center, one.split) for one in sources]
    places = spec.deal(units)  # before anything is read: most that can be wrong with it is known already
    with new_folder(destination, overwrite=overwrite) as folder:
        cases: list[Case] = []
        looks: list[Appearance] = []
        written: set[str] = set()
        deep: list[int] = []
        for done, one in enumerate(sources, start=1):
            present: set[int] = set()
            for picture in one.read():
                if picture.id.casefold() in written:  # some file systems do not tell A from a
                    raise DataError(
                        f"two images would be named '{picture.id}', the second is of {one.name}",
                        hint="set `key` (or `patient`) in `prepare` so that names differ",
                    )
                written.add(picture.id.casefold())
                if picture.image.dtype == np.uint16:
                    deep.append(int(picture.image.max()))
                label = _mapped(picture, spec.label_map, labels)
                cases.append(_write(folder, picture, label, one))
                looks.append(appearance(picture.image))
                present.update(np.unique(label).tolist())
            units[done - 1] = replace(units[done - 1], classes=frozenset(present - {IGNORE_INDEX}))
            if progress is not None:
                progress(done, len(sources), one.name)
        _require_full_range(deep)
        if spec.stratify:
            places = spec.deal(units)
        splits = _by_split(cases, places)
        manifest = Manifest(
            name=name,
            labels=labels,
            splits=splits,
            root=folder,
            fingerprints=fingerprint(sorted(folder.glob("*/*.png")), folder),
            source={**origin(spec, source, sources), **near_copies(cases, looks, places)},
        )
        for split in SPLITS:
            write_text(folder / f"{split}_list.txt", "".join(_line(folder, case) for case in splits[split]))
        write_text(folder / MANIFEST_NAME, manifest.to_json())
    return Manifest.load(destination)


def require_place(source: Path, destination: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier data set, and that only if told to; above all the source.

    Raises
    ------
    SetupError
        `destination` lies around `source`, holds something else, or a data set and `overwrite` is false.
    """
    if source.resolve().is_relative_to(destination.resolve()):
        raise SetupError(
            f"{destination} holds the source {source} and would be replaced",
            hint="write to a folder beside it",
        )
    taken = destination.is_dir() and any(destination.iterdir())
    if taken and not (destination / MANIFEST_NAME).is_file():
        raise SetupError(
            f"{destination} holds files and is no data set (no {MANIFEST_NAME})",
            hint="write to a new folder",
        )
    if taken and not overwrite:
        raise SetupError(
            f"{destination} is there already and not empty",
            hint="replace it with --overwrite, take it as it is with --keep, or name a new folder",
        )


def _require_classes(spec: PrepareSpec, labels: LabelSet) -> None:
    beyond = sorted(
        {index for index in (spec.label_map or {}).values() if len(labels) <= index != IGNORE_INDEX}
    )
    if beyond:
        raise RecipeError(
            f"`label_map` names class {beyond[0]}, there are {len(labels)} ({', '.join(labels.names)})",
            hint=f"map to 0..{len(labels) - 1}, or to {IGNORE_INDEX} for pixels to leave out",
        )


def _require_full_range(maxima: Sequence[int]) -> None:
    """Refuse 16-bit pictures that use little of their range, such as the 12 bits of a detector.

    A model would see nearly black pictures: 0..255 is the range of 16 bits here as everywhere.
    """
    if maxima and max(maxima) < _LEAST_MAXIMUM:
        raise DataError(
            f"none of the {len(maxima)} pictures with 16 bits has a value above {max(maxima)} of 65535: they are "
            "nearly black",
            hint="multiply all by one factor that fills the range (16 for 12-bit values), and the pictures that are "
            "predicted later by the same",
        )


def _by_split(cases: Sequence[Case], places: Mapping[str, Place]) -> dict[Split, tuple[Case, ...]]:
    dealt: dict[Split, list[Case]] = {split: [] for split in SPLITS}
    for case in cases:
        place = places[case.patient]
        dealt[place.split].append(replace(case, fold=place.fold))
    return {split: tuple(own) for split, own in dealt.items()}


def _write(folder: Path, picture: Picture, classes: NDArray[np.uint8], source: Source) -> Case:
    """Write one picture's files."""
    image, label = (folder / kind / f"{picture.id}.png" for kind in ("images", "labels"))
    write_image(image, picture.image)
    write_label(label, classes)
    roi = None
    if picture.roi is not None:
        roi = folder / "rois" / f"{picture.id}.png"
        write_label(roi, picture.roi.astype(np.uint8) * 255)
    return Case(
        id=picture.id,
        image=image,
        label=label,
        roi=roi,
        patient=source.patient,
        volume=picture.volume,
        slicing=picture.slicing,
        center=source.center,
    )


def _mapped(picture: Picture, label_map: Mapping[int, int] | None, labels: LabelSet) -> NDArray[np.uint8]:
    """Turn stored label values into class indices."""
    mapping = label_map if label_map is not None else {index: index for index in range(len(labels))}
    values, counts = np.unique(picture.label, return_counts=True)
    undeclared = {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in mapping}
    if undeclared:
        listed = ", ".join(f"{value} ({count} pixels)" for value, count in undeclared.items())
        line = (
            {**mapping, **dict.fromkeys(undeclared, "?")}
            if label_map
            else _example(undeclared, mapping, values)
        )
        shown = ", ".join(f"{value}: {index}" for value, index in line.items())
        raise DataError(
            f"{picture.label_path} holds label values that nobody declared: {listed}",
            hint=f"say in `prepare` which class each value is, such as `label_map: {{{shown}}}`, "
            f"with {IGNORE_INDEX} for pixels to leave out",
        )
    table = np.zeros(int(values.max(initial=0)) + 1, dtype=np.uint8)
    for value in values:
        table[value] = mapping[int(value)]
    return np.asarray(table[picture.label])


def _example(
    undeclared: Mapping[int, int], mapping: Mapping[int, int], values: NDArray[Any]
) -> dict[int, int | str]:
    """Spell out the line to add: the usual 0 and 255 of a mask, else what must be filled in."""
    present = {int(value): int(value) for value in values if int(value) in mapping}
    if set(present) <= {0} and len(undeclared) == 1 and len(mapping) == 2:
        return {0: 0, **dict.fromkeys(undeclared, 1)}
    return {**present, **dict.fromkeys(undeclared, "?")}


def _line(folder: Path, case: Case) -> str:
    label = "" if case.label is None else f" {case.label.relative_to(folder).as_posix()}"
    return f"{case.image.relative_to(folder).as_posix()}{label}\n"
