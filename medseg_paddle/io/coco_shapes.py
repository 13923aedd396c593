"""COCO's shapes as pixels: polygons and run lengths.

The rules are those of COCO's own API (``common/maskApi.c`` of cocodataset/cocoapi, by Piotr Dollar and
Tsung-Yi Lin; simplified BSD licence), so that a mask is here what it is for everybody.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Outlines are followed on a grid this much finer than the pixels.
_SCALE = 5

# Of a pixel: programs that draw on the border write coordinates this far outside.
_MARGIN = 1.0


def shape_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Pixels of one object.

    Parameters
    ----------
    segmentation : list or dict
        Polygons ``[[x, y, x, y, ...], ...]``, together one object, or run lengths
        ``{"size": [height, width], "counts": ...}`` as numbers or in COCO's compressed text.
    height, width : int
        Of the picture.

    Returns
    -------
    ndarray, shape (height, width), bool

    Raises
    ------
    ValueError, TypeError, KeyError
        What cannot be drawn: no shape, a polygon of less than three points or more than a pixel outside
        the picture, run lengths of another size.
    """
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has neither polygons nor run lengths (a box alone is not a mask)")
    mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in segmentation:
        _draw(mask, polygon)
    return mask


def _draw(mask: NDArray[np.bool_], flat: Any) -> None:
    """Add the inside of a polygon to a mask."""
    height, width = mask.shape
    points = np.asarray(flat, dtype=np.float64)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
        raise ValueError("a polygon needs at least three points x, y")
    points = points.reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a polygon's point is not a finite number")
    outside = (points < -_MARGIN) | (points > np.array([width, height]) + _MARGIN)
    if outside.any():
        x, y = points[outside.any(axis=1)][0]
        raise ValueError(f"its point ({x:g}, {y:g}) lies outside the picture of {width} x {height} pixels")
    # C's conversion to int: towards zero.
    fine = np.trunc(_SCALE * points + 0.5).astype(np.int64)
    xs, ys = _outline(fine)
    crossed = xs[1:] != xs[:-1]
    column = (np.minimum(xs[1:], xs[:-1])[crossed] + 0.5) / _SCALE - 0.5
    row = np.ceil(np.clip((np.minimum(ys[1:], ys[:-1])[crossed] + 0.5) / _SCALE - 0.5, 0, height))
    on_centre = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    column, row = column[on_centre].astype(np.int64), row[on_centre].astype(np.int64)
    if not len(column):
        return
    # Going down a column, every crossing of the outline changes between outside and inside.
    first, last = int(column.min()), int(column.max()) + 1
    flips = (column - first) * height + row
    changes = np.bincount(flips, minlength=(last - first) * height)[: (last - first) * height]
    mask[:, first:last] |= (np.cumsum(changes) % 2).astype(np.bool_).reshape(-1, height).T


def _outline(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All points of the closed outline through `corners` on the fine grid, one a step."""
    xs, ys = [], []
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = abs(x2 - x1), abs(y2 - y1)
        steps = np.arange(max(dx, dy) + 1)
        # Always from the lower end of the longer axis, so that a shared edge has the same points both ways.
        flip = x1 > x2 if dx >= dy else y1 > y2
        (xa, ya), (xb, yb) = ((x2, y2), (x1, y1)) if flip else ((x1, y1), (x2, y2))
        if flip:
            steps = steps[::-1]
        if dx >= dy:
            slope = (yb - ya) / dx if dx else 0.0
            xs.append(xa + steps)
            ys.append(np.trunc(ya + slope * steps + 0.5).astype(np.int64))
        else:
            slope = (xb - xa) / dy
            ys.append(ya + steps)
            xs.append(np.trunc(xa + slope * steps + 0.5).astype(np.int64))
    return np.concatenate(xs), np.concatenate(ys)


def _run_lengths(runs: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    if list(runs["size"]) != [height, width]:
        raise ValueError(f"its run lengths are of size {runs['size']}, the picture of [{height}, {width}]")
    counts = _decompressed(runs["counts"]) if isinstance(runs["counts"], str) else runs["counts"]
    lengths = np.asarray(counts)
    if (
        lengths.ndim != 1
        or lengths.dtype.kind not in "iu"
        or (lengths < 0).any()
        or (lengths > height * width).any()
    ):
        raise ValueError("its run lengths are not numbers of pixels")
    if int(lengths.sum()) != height * width:
        raise ValueError(
            f"its run lengths cover {int(lengths.sum())} pixels, the picture has {height * width}"
        )
    inside = np.arange(len(lengths)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, lengths).reshape(width, height).T)


def _decompressed(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: 5 bits a character, each length less the one before the last."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("its compressed run lengths are damaged")
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its compressed run lengths are cut short")
    return counts
