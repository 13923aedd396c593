"""Outlines of masks, against a hand-drawn one and matplotlib's reading of polygons."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path
from scipy import ndimage

from medseg_paddle.io.contours import outlines

MASKS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def covered(polygons, points) -> np.ndarray:
    """How many polygons hold each point ``(n, 2)``."""
    return sum(
        (Path(np.vstack([one, one[:1]])).contains_points(points).astype(int) for one in polygons),
        np.zeros(len(points), int),
    )


def area(polygon) -> float:
    """Positive where it runs clockwise, rows counted down (the shoelace formula)."""
    rows, columns = polygon.astype(float).T
    return float(columns @ np.roll(rows, -1) - rows @ np.roll(columns, -1)) / 2


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_polygons_hold_the_pixels_of_the_mask_to_their_very_borders_and_no_others(mask):
    polygons = outlines(mask)
    rows, columns = np.indices(mask.shape).reshape(2, -1) + 0.5
    for down in (-0.45, 0, 0.45):
        for right in (-0.45, 0, 0.45):
            points = np.stack([rows + down, columns + right], axis=1)
            assert (covered(polygons, points) == mask.ravel()).all()
    assert sum(area(one) for one in polygons) == mask.sum()
    # Each is an outer border (a part that hangs together by sides), its holes within it.
    assert len(polygons) == ndimage.label(mask)[1]
    assert all(area(one) > 0 for one in polygons)
    for one in polygons:
        steps = np.diff(np.vstack([one, one[:1]]), axis=0)
        assert ((steps == 0).sum(axis=1) == 1).all()


def test_a_hole_is_reached_through_a_keyhole():
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    (polygon,) = outlines(mask)
    walk = [tuple(corner) for corner in polygon.tolist()]
    start = walk.index((0, 0))
    # Clockwise around the outside to the left side, in at row 1, round the hole the other way, and out again.
    assert [*walk[start:], *walk[:start]] == [
        (0, 0), (0, 3), (3, 3), (3, 0), (1, 0), (1, 1), (2, 1), (2, 2), (1, 2), (1, 0),
    ]  # fmt: skip


def test_nothing_has_no_outline_and_islands_in_a_hole_have_their_own():
    assert outlines(np.zeros((3, 4))) == []
    mask = np.ones((5, 5), int)
    mask[1:4, 1:4] = 0
    mask[2, 2] = 7
    assert sorted(area(one) for one in outlines(mask)) == [1, 16]


@pytest.mark.parametrize("turns", range(4))
def test_pixels_that_touch_at_a_corner_are_two(turns):
    assert [area(one) for one in outlines(np.rot90(np.eye(2), turns))] == [1, 1]
