"""Images brought to one mean and spread by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import Preprocessing
from medseg_paddle.preprocess.standardize import StandardizeImage

LABEL = np.zeros((2, 2), np.uint8)


def noise(rows: int, columns: int, channels: int, seed: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (rows, columns, channels)).astype(np.uint8)


def test_by_hand():
    image = np.array([[90, 110], [110, 90]], np.uint8)[..., None]  # mean 100, standard deviation 10
    found = StandardizeImage(mean=120, std=20).forward(image)
    np.testing.assert_allclose(found[..., 0], [[100, 140], [140, 100]])
    assert found.dtype == np.float32


def test_what_is_dark_neither_counts_nor_changes():
    image = np.array([[90, 110], [5, 0]], np.uint8)[..., None]
    found = StandardizeImage(mean=120, std=20, above=10).forward(image)
    np.testing.assert_allclose(found[..., 0], [[100, 140], [5, 0]])
    dark = np.full((2, 2, 3), 4, np.uint8)
    np.testing.assert_array_equal(StandardizeImage(above=10).forward(dark), dark)


def test_a_flat_channel_is_not_stretched():
    flat = np.full((4, 4, 1), 30, np.float32)
    flat[0, 0] = 30.1
    found = StandardizeImage(mean=100, std=50).forward(flat)
    assert np.abs(found - 100).max() < 6


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), channels=st.integers(1, 6), seed=st.integers(0, 999),
    above=st.sampled_from([None, 0, 100]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_training_and_prediction_compute_the_same_to_the_last_bit(rows, columns, channels, seed, above):
    """A training has whole grey levels in 8 bits, where a prediction has the same numbers as float32."""
    image = noise(rows, columns, channels, seed)
    image.setflags(write=False)
    step = StandardizeImage(above=above)
    trained, label = step(image, LABEL, np.random.default_rng(0))
    predicted = Preprocessing.from_specs([{"type": "StandardizeImage", "above": above}]).forward(
        image.astype(np.float32)
    )
    np.testing.assert_array_equal(trained.transpose(2, 0, 1), predicted)
    assert label is LABEL


@given(
    gain=st.lists(st.floats(0.5, 1.5), min_size=3, max_size=3),
    shift=st.lists(st.floats(-20, 20), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_linear_change_of_the_scanner_makes_no_difference(gain, shift, seed):
    image = noise(30, 20, 3, seed, 60, 120).astype(np.float32)
    step = StandardizeImage()
    other = image * np.array(gain, np.float32) + np.array(shift, np.float32)
    np.testing.assert_allclose(step.forward(image), step.forward(other), atol=0.02)


def test_mean_and_deviation_are_the_wanted_ones():
    image = noise(80, 60, 3, 1, 60, 120)
    found = StandardizeImage(mean=130, std=40).forward(image)
    np.testing.assert_allclose(found.mean(axis=(0, 1)), 130, atol=0.01)
    np.testing.assert_allclose(found.std(axis=(0, 1)), 40, atol=0.01)


def test_it_stands_in_a_preprocessing_and_is_written_with_it():
    specs = [{"type": "StandardizeImage", "mean": 100.0, "std": 30.0, "above": 5.0}, {"type": "Normalize"}]
    made = Preprocessing.from_specs(specs)
    assert Preprocessing.from_specs(made.specs) == made
    planes = np.random.default_rng(0).uniform(size=(2, 9, 7)).astype(np.float32)
    np.testing.assert_array_equal(made.restore(planes, (9, 7)), planes)


@pytest.mark.parametrize("wrong", [{"mean": -1}, {"std": 0}, {"std": 300}, {"above": 256}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        StandardizeImage(**wrong)
