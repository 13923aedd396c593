"""The compact list of foreground pixels against the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medseg_paddle.preprocess.foreground import Foreground, ForegroundClasses

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


@settings(max_examples=40)
@given(labels, st.sampled_from([255, 1, -1]))
def test_by_class_every_pixel_of_every_class_is_drawn_and_no_other(
    label: np.ndarray, ignore_index: int
) -> None:
    found = ForegroundClasses(label, ignore_index)
    again = ForegroundClasses(label, ignore_index, *found.kept)
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    drawn = [found.draw(rng) for _ in range(2500)]
    assert drawn[:50] == [again.draw(other) for _ in range(50)]
    wanted = {(r, c) for r, c in np.argwhere(label != 0) if label[r, c] != ignore_index}
    assert set(drawn) == (wanted or {None})


def test_by_class_each_class_is_drawn_alike_however_small() -> None:
    label = np.zeros((300, 300), np.uint8)
    label[:200, :200], label[250:257, 250:257] = 1, 2
    rng, found = np.random.default_rng(0), ForegroundClasses(label, 255)
    classes = [label[place] for place in (found.draw(rng) for _ in range(2000)) if place is not None]
    assert np.bincount(classes).tolist() == pytest.approx([0, 1000, 1000], abs=100)
    assert sum(array.nbytes for array in found.kept) == 2 + 2 * 300 * 4
