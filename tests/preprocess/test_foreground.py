"""The compact list of foreground pixels against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medseg_paddle.preprocess.foreground import Foreground

labels = arrays(
    np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255])
)


@given(labels, st.sampled_from([255, 1, -1]))
def test_it_lists_what_argwhere_lists(label: np.ndarray, ignore_index: int) -> None:
    wanted = [(r, c) for r, c in np.argwhere(label != 0) if label[r, c] != ignore_index]
    found = Foreground(label, ignore_index)
    again = Foreground(label, ignore_index, found.ends)
    assert [found[n] for n in range(len(found))] == [again[n] for n in range(len(again))] == wanted
    for beyond in (-1, len(wanted)):
        with pytest.raises(IndexError):
            found[beyond]


def test_it_takes_four_bytes_a_row() -> None:
    label = np.ones((100, 5000), np.uint8)
    found = Foreground(label, 255)
    assert (len(found), found.ends.nbytes) == (500_000, 400)
