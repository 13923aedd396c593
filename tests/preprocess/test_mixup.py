"""Mixup: two labels and a weight in one label, and how batches are mixed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess.augment import Mixup
from medseg_paddle.preprocess.augment.mixup import mixed, packed, unpacked

IGNORED = st.sampled_from([255, 0, -1, 300, 65535])
labels = arrays(np.int64, (3, 4), elements=st.integers(0, 254))


@given(first=labels, second=labels, share=st.integers(0, 2**16), ignore=IGNORED, hidden=st.booleans())
def test_both_labels_and_the_weight_come_out_as_they_went_in(first, second, share, ignore, hidden):
    if hidden:
        first[0, 0] = second[1, 1] = ignore
    label = packed(first, second, share / 2**16, ignore)
    assert (label.dtype, label.shape) == (np.int64, (3, 4))
    one, two, weight = unpacked(label, ignore)
    np.testing.assert_array_equal(one, first)
    np.testing.assert_array_equal(two, second)
    assert weight == share / 2**16


@pytest.mark.parametrize("value", [0, 1, 255, 65535, -1])
def test_a_plain_label_is_told_from_a_mixture(value):
    assert unpacked(np.full((2, 2), value, np.int64), 255) is None


def test_images_are_averaged_with_the_weight():
    first, second = np.full((1, 2, 2), 10, np.float32), np.full((1, 2, 2), 20, np.float32)
    np.testing.assert_array_equal(mixed(first, second, 0.25), np.full((1, 2, 2), 17.5))
    assert (first == 10).all()


def test_weights_follow_the_beta_distribution_and_partners_are_others():
    draws = [Mixup(alpha=2, prob=1).draw(np.random.default_rng(seed), 4) for seed in range(2000)]
    weights = np.array([draw.weight for draw in draws])
    assert weights.mean() == pytest.approx(0.5, abs=0.02)
    assert weights.var() == pytest.approx(2 * 2 / (4**2 * 5), abs=0.005)  # a b / ((a + b)^2 (a + b + 1))
    assert {draw.step for draw in draws} == {1, 2, 3}
    assert (weights * 2**16 == np.rint(weights * 2**16)).all()


def test_batches_are_mixed_as_often_as_asked():
    drawn = [Mixup(prob=0.25).draw(np.random.default_rng(seed), 2) for seed in range(1000)]
    assert 210 < sum(draw is not None for draw in drawn) < 290


@pytest.mark.parametrize("arguments", [{"alpha": 0}, {"prob": 1.5}])
def test_wrong_parameters_are_recipe_errors(arguments):
    with pytest.raises(RecipeError, match=f"mixup.{next(iter(arguments))}"):
        Mixup(**arguments)
