"""From a volume to the slices a network sees: window and orientation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_paddle.core import Geometry
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.window import window_to_uint8


def test_window_by_hand():
    # Lung window -600/1500 is -1350..150 HU; -600 lies at 127.5, which rounds half to even.
    values = np.array([-3000, -1350, -975, -600, -225, 150, 3000])
    assert window_to_uint8(values, -600, 1500).tolist() == [0, 0, 64, 128, 191, 255, 255]
    assert window_to_uint8(np.array([np.inf, -np.inf]), 0, 2).tolist() == [255, 0]


def test_window_0_to_255_keeps_8_bit_values():
    values = np.arange(256)
    assert (window_to_uint8(values, 127.5, 255) == values).all()


def test_a_voxel_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="2 voxels are not a number"):
        window_to_uint8(np.array([0, np.nan, np.nan]), 0, 1)


@pytest.mark.parametrize(("level", "width"), [(0, 0), (0, -1), (0, np.nan), (np.inf, 1)])
def test_a_window_that_is_none_is_refused(level, width):
    with pytest.raises(RecipeError, match="window of level"):
        window_to_uint8(np.zeros(3), level, width)


def affine(*columns: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(columns).T
    return matrix


LEFT, BACK, HEAD = np.eye(3)


@pytest.mark.parametrize(
    ("slices", "rows", "columns", "expected"),
    [
        (HEAD, BACK, LEFT, Upright(False, False, False)),  # axial DICOM, head first supine
        (HEAD, -BACK, -LEFT, Upright(False, True, True)),  # NIfTI stored RAS; a prone patient in DICOM
        (HEAD, LEFT, BACK, Upright(True, False, False)),
        (BACK, -HEAD, LEFT, Upright(False, False, False)),  # coronal DICOM
        (LEFT, -HEAD, BACK, Upright(False, False, False)),  # sagittal DICOM
        (-LEFT, HEAD, BACK, Upright(False, True, False)),
    ],
)
def test_upright_by_hand(slices, rows, columns, expected):
    assert Upright.of(Geometry((2, 3, 4), affine(slices * 5, rows, columns))) == expected


@given(
    order=st.sampled_from(list(itertools.permutations(range(3)))),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    tilt=st.floats(-0.5, 0.5),
)
def test_whatever_the_storage_the_upright_slice_runs_the_same_way(order, signs, spacing, tilt):
    """Rows and columns of an upright slice lead back/left, feet/left or feet/back; undo is the inverse."""
    c, s = np.cos(tilt), np.sin(tilt)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    stored = affine(*(turn @ (np.eye(3)[a] * f * d) for a, f, d in zip(order, signs, spacing, strict=True)))
    geometry = Geometry((2, 3, 4), stored)
    upright = Upright.of(geometry)
    index = np.stack(np.meshgrid(0, range(3), range(4), indexing="ij"), axis=-1)[0]
    position = geometry.to_lps(index)
    turned = np.stack([upright.apply(position[..., i]) for i in range(3)], axis=-1)
    down, across = turned[1, 0] - turned[0, 0], turned[0, 1] - turned[0, 0]
    expected = {2: (BACK, LEFT), 1: (-HEAD, LEFT), 0: (-HEAD, BACK)}[order[0]]
    assert down @ expected[0] > 0.8 * np.linalg.norm(down)
    assert across @ expected[1] > 0.8 * np.linalg.norm(across)
    planes = np.stack([upright.apply(position[..., i]) for i in range(3)])
    assert (upright.undo(planes) == np.moveaxis(position, -1, 0)).all()
