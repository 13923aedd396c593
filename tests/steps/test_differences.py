"""Where two trainings differ: known arrays and curves, answers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medseg_paddle.steps.differences import compare_curves, differing_arrays

anything = arrays(
    np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32, allow_nan=True)
)


@given(anything)
def test_an_array_is_the_same_as_its_copy_whatever_it_holds(array):
    assert differing_arrays({"a": array}, {"a": array.copy()}) == []


def test_one_changed_number_is_found_with_its_size():
    weights = np.array([[1.0, -4.0], [2.0, 0.0]], np.float32)
    other = weights.copy()
    other[1, 0] = 2.5
    (found,) = differing_arrays({"a": weights, "b": weights}, {"a": weights, "b": other})
    assert (found.name, found.greatest, found.relative, found.share) == ("b", 0.5, 0.125, 0.25)


def test_the_last_bit_counts_and_so_does_the_sign_of_zero():
    one = np.array([1.0, 0.0], np.float32)
    assert differing_arrays({"a": one}, {"a": np.nextafter(one, np.float32(2), dtype=np.float32)})
    (found,) = differing_arrays({"a": one}, {"a": np.array([1.0, -0.0], np.float32)})
    assert (found.greatest, found.share) == (0.0, 0.5)


def test_arrays_of_another_shape_or_type_or_none_at_all_differ():
    one = np.zeros(4, np.float32)
    found = differing_arrays({"a": one, "b": one, "c": one}, {"a": one.reshape(2, 2), "b": one.astype(int)})
    assert [difference.name for difference in found] == ["a", "b", "c"]
    assert all(math.isinf(difference.greatest) for difference in found)


def test_a_nan_is_told_from_a_number():
    one, other = np.array([1.0, 2.0], np.float32), np.array([np.nan, 2.0], np.float32)
    (found,) = differing_arrays({"a": one}, {"a": other})
    assert found.share == 0.5
    assert "a: 50%" in str(found)


def test_curves_are_compared_where_both_have_points():
    found = compare_curves({1: 3.0, 2: 2.0, 3: 1.0}, {2: 2.0, 3: 1.5, 4: 9.0})
    assert (found.compared, found.first, found.greatest, found.at_first) == (2, 3, 0.5, (1.0, 1.5))
    assert compare_curves({1: math.nan, 2: 1.0}, {1: math.nan}).first is None
    gone = compare_curves({1: math.nan, 2: 1.0}, {1: 2.0, 2: 1.25})
    assert (gone.first, gone.greatest) == (1, 0.25)


def test_nothing_in_common_is_nothing_compared():
    assert compare_curves({1: 1.0}, {2: 1.0}).compared == 0
