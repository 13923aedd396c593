"""Weights of classes from their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from medseg_paddle.core import class_weights
from medseg_paddle.errors import DataError


def test_by_hand():
    # 100 pixels, 2 classes: 100 / (2 * 80) and 100 / (2 * 20)
    assert class_weights([80, 20]) == (0.625, 2.5)
    assert class_weights([600, 300, 100]) == pytest.approx((1000 / 1800, 1000 / 900, 1000 / 300))


@given(st.lists(st.integers(1, 300), min_size=2, max_size=6))
def test_as_scikit_learn_balances(pixels):
    labels = np.repeat(np.arange(len(pixels)), pixels)
    expected = compute_class_weight("balanced", classes=np.arange(len(pixels)), y=labels)
    np.testing.assert_allclose(class_weights(pixels), expected, rtol=1e-12)


@given(st.lists(st.integers(1, 10**12), min_size=2, max_size=6))
def test_every_class_weighs_the_same_and_a_pixel_one_on_average(pixels):
    together = [weight * count for weight, count in zip(class_weights(pixels), pixels, strict=True)]
    assert together == pytest.approx([sum(pixels) / len(pixels)] * len(pixels))
    assert sum(together) == pytest.approx(sum(pixels))


def test_a_class_that_is_nowhere_has_no_weight():
    with pytest.raises(DataError, match="no pixel of tumour in the training set") as error:
        class_weights([50, 20, 0], ["background", "liver", "tumour"])
    assert "as numbers" in error.value.hint
    with pytest.raises(DataError, match="class 1"):
        class_weights([50, 0])
