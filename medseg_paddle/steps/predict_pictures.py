"""The slices of a volume that show what was found in it, as pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import LabelSet, Volume
from medseg_paddle.description import Description
from medseg_paddle.io.overlay import contact_sheet, draw_overlay
from medseg_paddle.io.patient_sides import mark_sides, side_letters
from medseg_paddle.preprocess import ForegroundRange, HuWindow, VolumePreprocessing
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.window import window_to_uint8

_MOST_SLICES = 16
_SHEET_COLUMNS = 4
_LEAST_SIDE = 512
_DARKEST, _BRIGHTEST = 0.5, 99.5  # percentiles, where a model has no window
_MOST_LOOKED_AT = 2_000_000


@dataclass(frozen=True, eq=False)
class ShownSlice:
    """A slice with the contours of what was found in it.

    Attributes
    ----------
    index : int
        Slice of the volume.
    title : str
    picture : ndarray, shape (H, W, 3), uint8, RGB
        Upright, of square pixels, with the sides of the patient at its edges and a legend below, which may be wider.
    """

    index: int
    title: str
    picture: NDArray[np.uint8]


def shown_slices(
    volume: Volume, found: NDArray[Any], labels: LabelSet, description: Description, amounts: dict[str, str]
) -> list[ShownSlice]:
    """Draw the slices with the most of each structure, and others evenly spread over what was found; 16 together.

    Parameters
    ----------
    volume : Volume
        The first channel.
    found : ndarray, shape ``volume.geometry.shape``
        Label of each voxel.
    labels : LabelSet
    description : Description
        Of the bundle; its window, or what it clips values to, or 0.5 to 99.5 percent of the values where it has none.
    amounts : dict
        Of each structure's name: how much there is, for the legend.
    """
    geometry = volume.geometry
    upright, letters = Upright.of(geometry), side_letters(geometry)
    size = _size_of_square_pixels(upright, geometry.shape[1:], geometry.spacing[1:])
    level, width = _window(volume, description)
    named = LabelSet(
        tuple(replace(one, name=f"{one.name} {amounts.get(one.name, '')}".rstrip()) for one in labels)
    )
    shown = []
    for k in _slices_to_show(found, len(labels)):
        grey = window_to_uint8(np.ascontiguousarray(upright.apply(volume.array[k])), level, width)
        # Labels have no more than 16 bits, and OpenCV has no kernel for 64.
        classes = np.ascontiguousarray(upright.apply(found[k])).astype(np.int32)
        picture = draw_overlay(
            np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR), np.uint8),
            cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST_EXACT),
            named,
        )
        title = f"slice {k + 1} of {len(found)}"
        picture[: size[1], : size[0]] = mark_sides(picture[: size[1], : size[0]], letters)
        shown.append(ShownSlice(k, title, picture))
    return shown


def sheet(slices: list[ShownSlice]) -> NDArray[np.uint8]:
    """All of them in one picture."""
    return contact_sheet(
        [one.picture for one in slices], titles=[one.title for one in slices], columns=_SHEET_COLUMNS
    )


def titled(one: ShownSlice, by: str) -> NDArray[np.uint8]:
    """One of them under its title, with the name of who drew the contours."""
    return contact_sheet([one.picture], titles=[f"{one.title}   contours: {by}"], columns=1)


def _slices_to_show(found: NDArray[Any], classes: int) -> list[int]:
    """Without findings, evenly spread over all slices."""
    # Slice by slice, for NumPy counts in 64 bits.
    areas = np.stack([np.bincount(part.ravel(), minlength=classes)[1:] for part in found], axis=1)
    largest = [int(area.argmax()) for area in areas if area.any()]
    chosen = set(sorted(dict.fromkeys(largest), key=largest.index)[:_MOST_SLICES])
    candidates = np.flatnonzero(areas.any(axis=0))
    if not candidates.size:
        candidates = np.arange(len(found))
    spread = np.linspace(0, len(candidates) - 1, min(_MOST_SLICES, len(candidates))).round().astype(int)
    # From the middle outwards, should not all of them have room.
    for place in sorted(spread, key=lambda one: abs(one - len(candidates) / 2)):
        if len(chosen) < _MOST_SLICES:
            chosen.add(int(candidates[place]))
    return sorted(chosen)


def _size_of_square_pixels(
    upright: Upright, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> tuple[int, int]:
    """Width and height, as OpenCV has them, for pixels of the finer spacing, and a longer side of 512 at least."""
    rows, columns = (side * length / min(spacing) for side, length in zip(shape, spacing, strict=True))
    if upright.transposed:
        rows, columns = columns, rows
    factor = max(1.0, _LEAST_SIDE / max(rows, columns))
    return max(1, round(columns * factor)), max(1, round(rows * factor))


def _window(volume: Volume, description: Description) -> tuple[float, float]:
    window = description.channel_windows[0] if description.channel_windows else description.window
    if window is not None:
        return window.level, window.width
    preprocessing = description.preprocessing
    clipped = preprocessing.normalization if isinstance(preprocessing, VolumePreprocessing) else None
    if isinstance(clipped, HuWindow):
        return clipped.level, clipped.width
    if isinstance(clipped, ForegroundRange):
        return (clipped.low + clipped.high) / 2, clipped.high - clipped.low
    values = volume.array.ravel()[:: max(1, volume.array.size // _MOST_LOOKED_AT)].astype(np.float32)
    low, high = np.percentile(values, [_DARKEST, _BRIGHTEST])
    return float(low + high) / 2, float(max(high - low, np.finfo(np.float32).eps))
