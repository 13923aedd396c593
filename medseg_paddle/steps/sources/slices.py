"""From volumes and their label volumes to pictures, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config.prepare import PrepareSpec, WindowSpec
from medseg_paddle.core import Slicing, Volume, Within
from medseg_paddle.core.geometry import require_same_frame
from medseg_paddle.errors import DataError
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.window import clipped_share, window_to_uint8, window_to_uint16
from medseg_paddle.steps.sources.base import Picture, WholeVolume
from medseg_paddle.steps.sources.names import require_size

_GEOMETRY_TOLERANCE_MM = 0.05
_MOST_CLIPPED = 0.99
_USUAL_RANGE = (0.5, 99.5)  # percentiles
_CORNERS = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])


def on_grid(one: Path, volume: Volume, two: Path, other: Volume, what: str) -> tuple[Volume, str]:
    """A second volume on the grid of a first, its axes flipped or exchanged where it stores the same voxels so.

    Programs that write NIfTI often store rows from the other side, or the axes in another order, than the DICOM
    series they read. No value is interpolated.

    Returns
    -------
    volume : Volume
    note : str
        What was done; empty where nothing was.

    Raises
    ------
    DataError
        They do not lie at the same place in the patient.
    """
    # Index of the first to index of the second; of the same voxels every column is a unit vector, or its opposite.
    steps = np.rint(np.linalg.inv(other.geometry.affine) @ volume.geometry.affine)[:3, :3]
    whole = np.abs(steps)
    is_turned = (steps != np.eye(3)).any()
    if not is_turned or (whole.sum(axis=0) != 1).any() or (whole.sum(axis=1) != 1).any():
        require_one_grid(one, volume, two, other, what)
        return other, ""
    first, second, third = (int(axis) for axis in whole.argmax(axis=0))
    turned = other.transposed((first, second, third))
    affine, array = turned.geometry.affine.copy(), turned.array
    for axis in np.flatnonzero(steps.sum(axis=0) < 0):
        affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
        affine[:, axis] *= -1
        array = np.flip(array, axis)
    turned = Volume(array, replace(turned.geometry, affine=affine), other.units)
    require_one_grid(one, volume, two, turned, what)
    return turned, f"{what}s that store their image's grid with axes flipped or exchanged are turned"


def require_one_grid(one: Path, volume: Volume, two: Path, other: Volume, what: str) -> None:
    """Refuse two volumes that do not lie at the same place in the patient.

    Raises
    ------
    DataError
        Their shapes or their corners differ, or the frames of reference that these are measured in.
    """
    require_size(one, volume.array.shape, two, other.array.shape)
    try:
        require_same_frame(volume.geometry, other.geometry)
    except DataError as error:
        raise DataError(f"{one} and its {what} {two}: {error.message}", hint=error.hint) from error
    corners = np.array(volume.geometry.shape) * _CORNERS
    apart = np.abs(volume.geometry.to_lps(corners) - other.geometry.to_lps(corners)).max()
    if apart > _GEOMETRY_TOLERANCE_MM:
        raise DataError(
            f"{one} and its {what} {two} lie up to {apart:.3g} mm apart in the patient",
            hint=f"resample the {what} to the image's grid (nearest neighbour for a label), or correct its header",
        )


def slices(
    name: str,
    volumes: Sequence[Volume],
    labels: NDArray[Any],
    label_paths: Sequence[Path],
    patient: str,
    spec: PrepareSpec,
    notes: Sequence[str] = (),
) -> Iterator[Picture]:
    """Cut volumes on one grid, a channel each, into windowed, upright slices; or leave them whole.

    Parameters
    ----------
    name : str
        The slices are ``<name>_000`` and so on.
    volumes : sequence of Volume
    labels : ndarray, (slices, rows, columns)
    label_paths : sequence of Path
        Of each slice, for messages.
    patient : str
    spec : PrepareSpec
        Its windows, one for all channels or one for each.
    notes : sequence of str
        What was done to bring them to one grid; empty texts are passed over.
    """
    first = volumes[0]
    if spec.volumes == "whole":
        yield whole(name, volumes, labels, label_paths[0], patient, notes)
        return
    if not spec.windows:
        raise DataError(
            f"{label_paths[0]}: volumes become pictures by a window, and the recipe has none",
            hint="add `window: {level: ..., width: ...}` to `prepare`, in the units of the volumes",
        )
    windows = spec.windows * len(volumes) if len(spec.windows) == 1 else spec.windows
    if len(windows) != len(volumes):
        raise DataError(
            f"{label_paths[0]}: {len(volumes)} channels, `window` is for {len(windows)}",
            hint="give one window, or one for each channel",
        )
    for number, (volume, window) in enumerate(zip(volumes, windows, strict=True), start=1):
        _require_within(name, number, volume, window)
    convert = window_to_uint16 if spec.bits == 16 else window_to_uint8
    upright = Upright.of(first.geometry)
    slicing = Slicing(first.geometry.plane, upright.spacing(first.geometry), first.units)
    across, towards = first.geometry.spacing[0], first.geometry.axis_codes[0]
    for place, label in enumerate(labels):
        planes = [
            upright.apply(convert(volume.array[place], window.level, window.width))
            for volume, window in zip(volumes, windows, strict=True)
        ]
        yield Picture(
            id=f"{name}_{place:03d}",
            image=np.ascontiguousarray(planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)),
            label=np.ascontiguousarray(upright.apply(label)),
            label_path=label_paths[place],
            patient=patient,
            volume=name,
            slicing=replace(slicing, within=Within(place, len(labels), across, towards)),
            notes=tuple(dict.fromkeys(filter(None, notes))) if place == 0 else (),
        )


def whole(
    name: str,
    volumes: Sequence[Volume],
    labels: NDArray[Any],
    label_path: Path,
    patient: str = "",
    notes: Sequence[str] = (),
) -> WholeVolume:
    """Volumes on one grid, a channel each, as they are; the arguments are those of :func:`slices`."""
    geometry = volumes[0].geometry
    upright = Upright.of(geometry)
    return WholeVolume(
        id=name,
        image=middle(volumes),
        label=labels,
        label_path=label_path,
        patient=patient,
        volume=name,
        slicing=Slicing(geometry.plane, upright.spacing(geometry), volumes[0].units),
        notes=tuple(dict.fromkeys(filter(None, notes))),
        volumes=tuple(volumes),
    )


def middle(volumes: Sequence[Volume]) -> NDArray[np.uint8]:
    """The middle one of :func:`shown`."""
    return next(islice(shown(volumes), len(volumes[0].array) // 2, None))


def shown(volumes: Sequence[Volume]) -> Iterator[NDArray[np.uint8]]:
    """The slices of volumes to be looked at, upright, 0..255 from the lowest to the highest usual intensity."""
    windows = []
    for volume in volumes:
        low, high = (float(value) for value in np.percentile(volume.array, _USUAL_RANGE))
        windows.append(((low + high) / 2, max(high - low, 1e-6)))
    upright = Upright.of(volumes[0].geometry)
    for place in range(len(volumes[0].array)):
        planes = [
            upright.apply(window_to_uint8(volume.array[place], *window))
            for volume, window in zip(volumes, windows, strict=True)
        ]
        yield np.ascontiguousarray(planes[0] if len(planes) == 1 else np.stack(planes, axis=-1))


def upright_labels(volume: Volume, labels: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The slices of a label on the grid of `volume`, as :func:`shown` turns them."""
    upright = Upright.of(volume.geometry)
    yield from (np.ascontiguousarray(upright.apply(label)) for label in labels)


def _require_within(name: str, channel: int, volume: Volume, window: WindowSpec) -> None:
    """Refuse a window that makes nearly all of a volume black or white."""
    share = clipped_share(volume.array, window.level, window.width)
    if share <= _MOST_CLIPPED:
        return
    low, high = (float(value) for value in np.percentile(volume.array, _USUAL_RANGE))
    raise DataError(
        f"{name}, channel {channel}: {share:.2%} of the voxels lie outside the window of level {window.level:g} and "
        f"width {window.width:g}; most lie in {low:.4g}..{high:.4g}",
        hint=f"set `window` in `prepare` to what the volumes hold; for these values `window: {{level: "
        f"{(low + high) / 2:.4g}, width: {max(high - low, 1):.4g}}}`",
    )
