"""Outlines of a mask along the borders of its pixels, each a closed polygon; holes hang on it by a keyhole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Steps to the right, down, left, up: each direction's right turn is the next one.
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
_RIGHT = 0

Corner = tuple[int, int]


def outlines(mask: NDArray[Any]) -> list[NDArray[np.int64]]:
    """One polygon for each part of a mask; parts that touch at a corner alone are two.

    Pixel (r, c) reaches from corner (r, c) to corner (r + 1, c + 1). The polygons run clockwise (rows count down)
    along the borders between pixels that belong to the mask and those that do not, so that they hold the centre of
    every pixel of the mask, that of no other, and the mask's area. A hole is reached and left again on the line from
    its topmost border to the left: the keyhole of DICOM PS3.3, C.8.8.6.3.

    Parameters
    ----------
    mask : ndarray, shape (H, W)
        Not 0 where it holds.

    Returns
    -------
    list of ndarray, shape (n, 2), int64
        Corners (row, column) of each polygon, the last of them not the first; at most every turn is one.
    """
    loops = _loops(mask != 0)
    owner: dict[Corner, int] = {}
    for number, loop in enumerate(loops):
        owner.update(dict.fromkeys(loop, number))
    # In this order, what a hole is hung on is whole already: it begins higher up or farther to the left.
    for number in sorted(range(len(loops)), key=lambda index: min(loops[index])):
        loop = loops[number]
        if _is_hole(loop):
            _hang(loop, loops, owner)
    return [np.array(_turns(loop)) for loop in loops if loop]


def _loops(mask: NDArray[np.bool_]) -> list[list[Corner]]:
    """Closed walks over the corners, the mask on the right hand; those around holes run the other way round."""
    inside = np.pad(mask, 1)
    here = inside[1:-1, 1:-1]
    starts: list[set[Corner]] = []
    for outside, shift in (
        (inside[:-2, 1:-1], (0, 0)),  # above: the top border runs right from the upper left corner
        (inside[1:-1, 2:], (0, 1)),
        (inside[2:, 1:-1], (1, 1)),
        (inside[1:-1, :-2], (1, 0)),
    ):
        corners = np.argwhere(here & ~outside) + shift
        starts.append({(r, c) for r, c in corners.tolist()})
    loops = []
    while starts[_RIGHT]:  # every loop has a top border
        first = next(iter(starts[_RIGHT]))
        corner, direction = first, _RIGHT
        loop: list[Corner] = []
        while not loop or (corner, direction) != (first, _RIGHT):
            loop.append(corner)
            corner = (corner[0] + _STEPS[direction][0], corner[1] + _STEPS[direction][1])
            # The right turn first: it stays with the same pixel where two touch at a corner.
            direction = next(
                way for way in ((direction + turn) % 4 for turn in (1, 0, 3)) if corner in starts[way]
            )
            starts[direction].remove(corner)
        loops.append(loop)
    return loops


def _is_hole(loop: list[Corner]) -> bool:
    """Whether the topmost border runs to the left, so that the mask lies above it."""
    top = loop.index(min(loop))
    before, after = loop[top - 1], loop[(top + 1) % len(loop)]
    return before[0] == loop[top][0] and after[0] > loop[top][0]


def _hang(hole: list[Corner], loops: list[list[Corner]], owner: dict[Corner, int]) -> None:
    """Put a hole into the polygon that lies to the left of its topmost, leftmost corner; the hole's list is emptied."""
    start = hole.index(min(hole))
    row, column = hole[start]
    column -= 1
    while (row, column) not in owner:
        column -= 1
    target = owner[row, column]
    polygon = loops[target]
    place = polygon.index((row, column))
    around = [*hole[start:], *hole[: start + 1]]
    way = [(row, at) for at in range(column + 1, hole[start][1])]
    polygon[place : place + 1] = [polygon[place], *way, *around, *way[::-1], polygon[place]]
    owner.update(dict.fromkeys(hole, target))
    hole.clear()


def _turns(loop: list[Corner]) -> list[Corner]:
    """The corners where the walk changes its direction."""
    kept = []
    for before, here, after in zip([loop[-1], *loop[:-1]], loop, [*loop[1:], loop[0]], strict=True):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    return kept
