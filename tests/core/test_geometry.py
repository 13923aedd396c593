"""Where slices lie in the patient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_paddle.core import Geometry, Volume
from medseg_paddle.errors import DataError

PLANES = ("sagittal", "coronal", "axial")  # slices across the axis to the left, to the back, to the head


def grid(order=(2, 1, 0), signs=(1, 1, 1), spacing=(3.0, 2.0, 1.0), tilt: float = 0.0) -> Geometry:
    """Index axes along the patient axes `order`, turned about the left-right axis by `tilt` degrees."""
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, list(order)] * signs * spacing
    affine[:3, 3] = (7, -8, 9)
    return Geometry((4, 5, 6), affine)


@pytest.mark.parametrize(
    ("order", "tilt", "plane"),
    [
        ((2, 1, 0), 0, "axial"),
        ((2, 0, 1), 0, "axial"),
        ((1, 2, 0), 0, "coronal"),
        ((0, 2, 1), 0, "sagittal"),
        ((2, 1, 0), 20, "axial"),  # a head scan along the skull base
        ((2, 1, 0), 35, "oblique"),
        ((2, 1, 0), 55, "oblique"),
        ((2, 1, 0), 75, "coronal"),
        ((0, 2, 1), 45, "sagittal"),  # turned within its own plane
    ],
)
def test_the_plane_of_slices_by_hand(order, tilt, plane):
    assert grid(order, tilt=tilt).plane == plane


@given(
    order=st.permutations(range(3)).map(tuple),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    tilt=st.floats(-25, 25),
)
def test_cut_anew_every_voxel_stays_where_it_was(order, signs, spacing, tilt):
    geometry = grid(order, signs, spacing, tilt)
    volume = Volume(np.arange(120).reshape(4, 5, 6), geometry, "HU")
    assert geometry.plane == PLANES[order[0]]
    for plane in PLANES:
        cut = volume.transposed(geometry.sliced_along(plane))
        assert (cut.geometry.plane, cut.units) == (plane, "HU")
        for index in itertools.product((0, 3), (0, 4), (0, 5)):
            there = tuple(index[axis] for axis in geometry.sliced_along(plane))
            assert cut.array[there] == volume.array[index]
            assert cut.geometry.to_lps(np.array(there)) == pytest.approx(geometry.to_lps(np.array(index)))
    assert geometry.sliced_along(geometry.plane) == (0, 1, 2)


def test_units_that_nobody_knows_are_refused():
    with pytest.raises(DataError, match="units 'Gy'") as caught:
        Volume(np.zeros((4, 5, 6)), grid(), "Gy")
    assert "HU, arbitrary, unknown" in caught.value.hint
