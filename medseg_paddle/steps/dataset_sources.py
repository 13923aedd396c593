"""What a source folder holds: images with their annotations, found by the patterns of a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config.prepare import PrepareSet, PrepareSpec, WindowSpec
from medseg_paddle.core import Slicing, Split, Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom import group_by_series, load_series
from medseg_paddle.io.dicom_file import read_slice
from medseg_paddle.io.images import read_label, read_roi, read_samples
from medseg_paddle.io.nifti import read_label_nifti, read_nifti
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.window import window_to_uint8
from medseg_paddle.steps.dataset_groups import Member, grouped

_ENDINGS = (
    ".nii.gz",
    ".nii",
    ".dcm",
    ".ima",
    ".dicom",
    ".png",
    ".jpg",
    ".jpeg",
    ".tif",
    ".tiff",
    ".gif",
    ".bmp",
)
_SHOWN = 5
_GEOMETRY_TOLERANCE_MM = 0.05


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as it is written, upright, with its raw label.

    Attributes
    ----------
    id, patient, volume, slicing
        As in :class:`medseg_paddle.core.Case`.
    image : ndarray, (height, width) or (height, width, 3), uint8 or uint16
        16 bits where a picture has them: prediction reads such a picture without rounding, too.
    label : ndarray, (height, width), uint8 or uint16
        Values as stored.
    roi : ndarray, (height, width), bool, or None
    label_path : Path
        Where the label was read, for messages.
    """

    id: str
    image: NDArray[Any]
    label: NDArray[Any]
    label_path: Path
    patient: str
    roi: NDArray[np.bool_] | None = None
    volume: str = ""
    slicing: Slicing | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """A picture or a volume to read.

    Attributes
    ----------
    name : str
        For messages and progress.
    split : str
        As the recipe or its table has it: a split, or ``"auto"``.
    patient : str
    files : tuple of Path
        All that it is read from, an image first.
    read : callable
        Yields its pictures.
    key : str
        What it has in common with its label; empty for a series.
    center : str
        Where it was taken; empty where nobody said.
    """

    name: str
    split: Split | Literal["auto"]
    patient: str
    files: tuple[Path, ...]
    read: Callable[[], Iterator[Picture]]
    key: str = ""
    center: str = ""


def find_sources(spec: PrepareSpec, root: Path) -> list[Source]:
    """All images of a source folder, paired with their annotations.

    Raises
    ------
    DataError
        No such folder; a pattern finds nothing; an image lacks its label or the reverse; two files have one
        key; the table of patients, centres and splits is not right.
    """
    if not root.is_dir():
        raise DataError(f"source folder {root} is not there", hint="name the folder that holds the images")
    find = {"pairs": _pairs, "nifti": _niftis, "dicom": _series}[spec.reader]
    sources = [source for part in spec.sets for source in find(spec, part, root)]
    members = [Member(one.files[0], one.key, one.patient, one.split) for one in sources]
    read = () if spec.table is None else (root / spec.table.file,)
    return [
        replace(one, split=its.wanted, patient=its.patient, center=its.center, files=(*one.files, *read))
        for one, its in zip(sources, grouped(spec, root, members), strict=True)
    ]


def _pairs(spec: PrepareSpec, part: PrepareSet, root: Path) -> Iterator[Source]:
    images, labels = _keyed(spec, part.images, root), _keyed(spec, part.labels, root)
    rois = None if part.rois is None else _keyed(spec, part.rois, root)
    _require_partners(images, labels, "label", root)
    if rois is not None:
        _require_partners(images, rois, "roi", root)
    for key, path in _only(part, images, root).items():
        patient = _patient(spec, path, root, default=key)
        roi = None if rois is None else rois[key]
        files = tuple(file for file in (path, labels[key], roi) if file is not None)
        read = partial(_read_pair, _file_name(key, path), path, labels[key], roi, patient)
        yield Source(path.name, part.split, patient, files, read, key)


def _read_pair(
    name: str, path: Path, label_path: Path, roi_path: Path | None, patient: str
) -> Iterator[Picture]:
    image = read_samples(path)
    label = read_label(label_path)
    _require_size(path, image.shape[:2], label_path, label.shape)
    roi = None
    if roi_path is not None:
        roi = read_roi(roi_path)
        _require_size(path, image.shape[:2], roi_path, roi.shape)
    yield Picture(name, image, label, label_path, patient, roi)


def _niftis(spec: PrepareSpec, part: PrepareSet, root: Path) -> Iterator[Source]:
    images, labels = _keyed(spec, part.images, root), _keyed(spec, part.labels, root)
    _require_partners(images, labels, "label", root)
    for key, path in _only(part, images, root).items():
        patient = _patient(spec, path, root, default=key)
        read = partial(_read_nifti_pair, _file_name(key, path), path, labels[key], patient, spec.window)
        yield Source(path.name, part.split, patient, (path, labels[key]), read, key)


def _read_nifti_pair(
    name: str, path: Path, label_path: Path, patient: str, window: WindowSpec | None
) -> Iterator[Picture]:
    volume, labels = read_nifti(path), read_label_nifti(label_path)
    _require_size(path, volume.array.shape, label_path, labels.array.shape)
    corners = np.array(volume.geometry.shape) * np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    apart = np.abs(volume.geometry.to_lps(corners) - labels.geometry.to_lps(corners)).max()
    if apart > _GEOMETRY_TOLERANCE_MM:
        raise DataError(
            f"{path} and its label {label_path} lie up to {apart:.3g} mm apart in the patient",
            hint="resample the label to the image's grid (nearest neighbour), or correct its header",
        )
    yield from _slices(name, volume, labels.array, [label_path] * len(labels.array), patient, window)


def _series(spec: PrepareSpec, part: PrepareSet, root: Path) -> Iterator[Source]:
    masks = _keyed(spec, part.labels, root)
    found = group_by_series(_glob(part.images, root))
    if not found:
        raise DataError(
            f"{root}: no DICOM image among '{part.images}'",
            hint="correct the pattern of the images in `prepare`",
        )
    keyed = _by_key(spec, [path for paths in found.values() for path in paths], root)
    _require_partners(keyed, masks, "mask", root)
    mask_of = {path: masks[key] for key, path in keyed.items()}
    counts: dict[str, int] = {}
    for paths in sorted(found.values()):
        patient = _patient(spec, paths[0], root, default=read_slice(paths[0]).patient_id)
        name = _file_name(patient, paths[0])
        counts[name] = counts.get(name, 0) + 1
        if counts[name] > 1:
            name = f"{name}-{counts[name]}"
        files = tuple(file for path in paths for file in (path, mask_of[path]))
        yield Source(
            name,
            part.split,
            patient,
            files,
            partial(_read_series, name, paths, mask_of, patient, spec.window),
        )


def _read_series(
    name: str, paths: list[Path], mask_of: Mapping[Path, Path], patient: str, window: WindowSpec | None
) -> Iterator[Picture]:
    series = load_series(paths)
    mask_paths = [mask_of[path] for path in series.paths]
    masks = []
    for path, mask_path in zip(series.paths, mask_paths, strict=True):
        masks.append(read_label(mask_path))
        _require_size(path, series.volume.array.shape[1:], mask_path, masks[-1].shape)
    yield from _slices(name, series.volume, np.stack(masks), mask_paths, patient, window)


def _slices(
    name: str,
    volume: Volume,
    labels: NDArray[Any],
    label_paths: list[Path],
    patient: str,
    window: WindowSpec | None,
) -> Iterator[Picture]:
    """Cut a volume into windowed, upright slices."""
    if window is None:
        raise AssertionError("PrepareSpec asks for a window with every volume reader")
    upright = Upright.of(volume.geometry)
    slicing = Slicing(volume.geometry.plane, upright.spacing(volume.geometry), volume.units)
    for place, (values, label) in enumerate(zip(volume.array, labels, strict=True)):
        yield Picture(
            id=f"{name}_{place:03d}",
            image=np.ascontiguousarray(upright.apply(window_to_uint8(values, window.level, window.width))),
            label=np.ascontiguousarray(upright.apply(label)),
            label_path=label_paths[place],
            patient=patient,
            volume=name,
            slicing=slicing,
        )


# --- names and partners -----------------------------------------------------------------------------------


def _glob(pattern: str, root: Path) -> list[Path]:
    paths = [path for path in root.glob(pattern) if path.is_file() and not path.name.startswith(".")]
    if not paths:
        raise DataError(
            f"{root}: no file matches '{pattern}'",
            hint="correct the pattern in `prepare`, or the source folder",
        )
    return sorted(paths)


def _keyed(spec: PrepareSpec, pattern: str, root: Path) -> dict[str, Path]:
    return _by_key(spec, _glob(pattern, root), root)


def _by_key(spec: PrepareSpec, paths: Iterable[Path], root: Path) -> dict[str, Path]:
    keyed: dict[str, Path] = {}
    for path in paths:
        key = _key(spec, path, root)
        if key in keyed:
            raise DataError(
                f"{keyed[key]} and {path} have the same key '{key}'",
                hint="set `key` in `prepare` to an expression that tells them apart, with the folder's name",
            )
        keyed[key] = path
    return keyed


def _key(spec: PrepareSpec, path: Path, root: Path) -> str:
    if spec.key is not None:
        return _search("key", spec.key, path, root)
    stem = _stem(path)
    # Slices of all patients are often named alike: P1/ct/IM1.dcm, P1/mask/IM1.png, P2/ct/IM1.dcm, ...
    return (path.parent.parent.relative_to(root) / stem).as_posix() if spec.reader == "dicom" else stem


def _patient(spec: PrepareSpec, path: Path, root: Path, *, default: str) -> str:
    patient = default if spec.patient is None else _search("patient", spec.patient, path, root)
    if not patient:
        raise DataError(
            f"{path} names no patient (PatientID is empty)",
            hint="set `patient` in `prepare` to a regular expression for the path, such as '^([^/]+)/'",
        )
    return patient


def _search(what: str, pattern: str, path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    match = re.search(pattern, name)
    found = "" if match is None else "-".join(group for group in match.groups() if group)
    if not found:
        raise DataError(
            f"the `{what}` pattern '{pattern}' finds nothing in '{name}'",
            hint=f"correct `{what}` in `prepare`",
        )
    return found


def _stem(path: Path) -> str:
    ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)]


def _file_name(key: str, path: Path) -> str:
    """Turn a key into a name without spaces or other signs that lists and shells trip over."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip("-.")
    if not name:
        raise DataError(
            f"{path}: no file name can be made of '{key}'", hint="set `key` or `patient` in `prepare`"
        )
    return name


def _only(part: PrepareSet, images: Mapping[str, Path], root: Path) -> dict[str, Path]:
    """Keep the images that the set's list names; all where there is no list."""
    if part.only is None:
        return dict(images)
    listing = root / part.only
    try:
        lines = [
            line.strip() for line in listing.read_text(encoding="utf-8-sig").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"list {listing} cannot be read: {error}", hint="correct `only` in `prepare`"
        ) from error
    named: dict[str, str] = {}
    for key, path in images.items():
        for name in (path.relative_to(root).as_posix(), path.name, _stem(path)):
            named[name] = key
    unknown = [line for line in lines if line not in named and line.split()[0] not in named]
    if unknown:
        raise DataError(
            f"{listing} names {_listed(unknown)}, not among the images '{part.images}'",
            hint="list images by file name, or by path below the source folder",
        )
    chosen = {named.get(line) or named[line.split()[0]] for line in lines}
    return {key: path for key, path in images.items() if key in chosen}


def _require_partners(images: Mapping[str, Path], others: Mapping[str, Path], what: str, root: Path) -> None:
    lonely = [path.relative_to(root).as_posix() for key, path in images.items() if key not in others]
    if lonely:
        raise DataError(
            f"{root}: no {what} for {_listed(lonely)}",
            hint=f"add the missing {what}s, move these images away, or correct `key` in `prepare`",
        )
    orphans = [path.relative_to(root).as_posix() for key, path in others.items() if key not in images]
    if orphans:
        raise DataError(
            f"{root}: {what} without an image: {_listed(orphans)}",
            hint=f"add the missing images, move these {what}s away, or correct `key` in `prepare`",
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _require_size(
    image: Path, image_shape: tuple[int, ...], other: Path, other_shape: tuple[int, ...]
) -> None:
    if image_shape != other_shape:
        one, two = (" x ".join(map(str, shape)) for shape in (image_shape, other_shape))
        raise DataError(
            f"{image} is {one}, {other} is {two}",
            hint="export the annotation again on the image's own grid; resizing it would move its outline",
        )
