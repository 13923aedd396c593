"""Styles of other pictures: known answers, and what must stay as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess.augment import RandomFourierStyle, RandomHistogramMatch

KINDS = (RandomHistogramMatch, RandomFourierStyle)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(
    rows: int,
    columns: int,
    channels: int = 3,
    low: int = 0,
    high: int = 256,
    seed: int = 0,
    kind: Any = np.uint8,
) -> np.ndarray:
    """Smooth blobs with some noise, of levels low to high."""
    generator = rng(seed)
    y, x = np.mgrid[:rows, :columns] / max(rows, columns)
    planes = []
    for _ in range(channels):
        a, b, c = generator.uniform(1, 6, 3)
        plane = np.sin(a * x + b * y + c) + 0.3 * generator.standard_normal((rows, columns))
        plane = (plane - plane.min()) / np.ptp(plane)
        planes.append(low + plane * (high - 1 - low))
    return np.stack(planes, axis=-1).astype(kind)


def as_published(source: np.ndarray, target: np.ndarray, share: float) -> np.ndarray:
    """Yang and Soatto's own steps, on CHW: shifted spectra, the block in the middle exchanged."""
    axes = (-2, -1)
    spectrum = np.fft.fft2(source, axes=axes)
    amplitude, phase = np.abs(spectrum), np.angle(spectrum)
    amplitude = np.fft.fftshift(amplitude, axes=axes)
    other = np.fft.fftshift(np.abs(np.fft.fft2(target, axes=axes)), axes=axes)
    _, h, w = amplitude.shape
    b = int(np.floor(min(h, w) * share))
    middle = (slice(None), slice(h // 2 - b, h // 2 + b + 1), slice(w // 2 - b, w // 2 + b + 1))
    amplitude[middle] = other[middle]
    amplitude = np.fft.ifftshift(amplitude, axes=axes)
    return np.real(np.fft.ifft2(amplitude * np.exp(1j * phase), axes=axes))


@pytest.mark.parametrize("size", [(60, 80), (61, 47), (33, 64)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.09, 0.25])
def test_fourier_style_is_the_published_one_for_pictures_of_one_size(size, share):
    image = picture(*size, kind=np.float32)
    other = picture(*size, low=60, high=140, seed=1, kind=np.float32)
    step = RandomFourierStyle((RandomFourierStyle.style_of(other),), beta=(share, share), prob=1)
    found, _ = step(image, np.zeros(size, np.uint8), rng())
    expected = as_published(image.transpose(2, 0, 1), other.transpose(2, 0, 1), share).transpose(1, 2, 0)
    np.testing.assert_allclose(found, np.clip(expected, 0, 255), atol=2e-3)
    if share == 0.05:
        assert np.abs(found - image).mean() > 10


def test_the_mean_alone_is_that_of_a_picture_of_any_size():
    other = picture(100, 31, low=80, high=120, seed=2, kind=np.float32)
    image = picture(40, 50, low=60, high=200, kind=np.float32)
    step = RandomFourierStyle((RandomFourierStyle.style_of(other),), beta=(0, 0), prob=1)
    found, _ = step(image, np.zeros((40, 50), np.uint8), rng())
    np.testing.assert_allclose(found.mean(axis=(0, 1)), other.mean(axis=(0, 1)), atol=1e-2)
    np.testing.assert_allclose(found - found.mean(axis=(0, 1)), image - image.mean(axis=(0, 1)), atol=1e-2)


def test_the_same_picture_is_its_own_style():
    image = picture(48, 40)
    for kind in KINDS:
        found, _ = kind((kind.style_of(image),), prob=1)(image, np.zeros((48, 40), np.uint8), rng())
        np.testing.assert_array_equal(found, image)


def test_a_style_smaller_than_the_image_gives_the_frequencies_that_it_has():
    small = RandomFourierStyle.style_of(picture(6, 6, low=100, high=140, seed=1))
    assert small.shape == (5, 3, 3)  # up to two cycles along a side
    image = picture(64, 64, low=110, high=130, kind=np.float32)  # so that nothing is clipped
    found, _ = RandomFourierStyle((small,), beta=(0.25, 0.25), prob=1)(
        image, np.zeros((64, 64), np.uint8), rng()
    )
    before, after = (np.abs(np.fft.fft2(array[..., 0])) for array in (image, found))
    np.testing.assert_allclose(after[5:30, 5:30], before[5:30, 5:30], atol=0.1)
    np.testing.assert_allclose(after[:3, :3], small[:3, :, 0] * 64 * 64, rtol=1e-3)


def matched(source: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Histogram matching of one channel as scikit-image computes it."""
    _, where, counts = np.unique(source, return_inverse=True, return_counts=True)
    levels, its_counts = np.unique(other, return_counts=True)
    quantiles, its_quantiles = np.cumsum(counts) / source.size, np.cumsum(its_counts) / other.size
    return np.interp(quantiles, its_quantiles, levels)[where].reshape(source.shape)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_histogram_matching_is_that_of_scikit_image(channels):
    image, other = picture(60, 44, channels), picture(30, 50, channels, low=90, high=170, seed=3)
    step = RandomHistogramMatch((RandomHistogramMatch.style_of(other),), prob=1)
    found, _ = step(image, np.zeros((60, 44), np.uint8), rng())
    for channel in range(channels):
        expected = matched(image[..., channel], other[..., channel])
        np.testing.assert_allclose(found[..., channel], np.rint(expected), atol=1)
        assert (found[..., channel] == np.rint(expected)).mean() > 0.99  # but where a half is rounded


def test_histogram_matching_by_hand():
    image = np.array([[10, 10], [20, 30]], np.uint8)[..., None]
    other = np.array([[100, 100, 200, 250]], np.uint8)[..., None]
    step = RandomHistogramMatch((RandomHistogramMatch.style_of(other),), prob=1)
    found, _ = step(image, np.zeros((2, 2), np.uint8), rng())
    np.testing.assert_array_equal(found[..., 0], [[100, 100], [200, 250]])
    half = RandomHistogramMatch((RandomHistogramMatch.style_of(other),), strength=(0.5, 0.5), prob=1)
    found, _ = half(image, np.zeros((2, 2), np.uint8), rng())
    np.testing.assert_array_equal(found[..., 0], [[55, 55], [110, 140]])


def test_histogram_matching_of_float_lies_between_the_levels():
    image, other = picture(50, 50, 1), picture(50, 50, 1, low=50, high=120, seed=1)
    step = RandomHistogramMatch((RandomHistogramMatch.style_of(other),), prob=1)
    label = np.zeros((50, 50), np.uint8)
    whole, fine = (step(image.astype(kind), label, rng())[0] for kind in (np.uint8, np.float32))
    assert fine.dtype == np.float32
    np.testing.assert_allclose(whole, fine, atol=0.501)
    between, _ = step(image.astype(np.float32) + 0.25, label, rng())
    assert (between >= fine).all()
    assert (between > fine).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), channels=st.integers(1, 5), seed=st.integers(0, 99)
)
def test_inputs_label_and_type_stay_and_levels_keep_their_range(kind, dtype, rows, columns, channels, seed):
    image = rng(seed).integers(0, 256, (rows, columns, channels)).astype(dtype)
    label = rng(seed).integers(0, 3, (rows, columns)).astype(np.uint8)
    image.setflags(write=False)
    label.setflags(write=False)
    others = [rng(n).integers(0, 256, (n + 1, 9, channels)).astype(np.uint8) for n in range(4)]
    step = kind(tuple(kind.style_of(other) for other in others), prob=1)
    first, second = step(image, label, rng(seed)), step(image, label, rng(seed))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[0].dtype == dtype
    assert first[0].shape == image.shape
    assert first[0].min() >= 0
    assert first[0].max() <= 255
    assert first[1] is label


@pytest.mark.parametrize("kind", KINDS)
def test_every_style_is_drawn_and_prob_0_changes_nothing(kind):
    image, label = picture(30, 30), np.zeros((30, 30), np.uint8)
    styles = tuple(kind.style_of(picture(30, 30, low=20 * n, high=20 * n + 60, seed=n)) for n in range(4))
    means = {
        round(float(kind(styles, prob=1)(image, label, rng(seed))[0].mean()) // 10) for seed in range(40)
    }
    assert len(means) >= 4
    assert kind(styles, prob=0)(image, label, rng())[0] is image


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomHistogramMatch(()), "styles"),
        (lambda: RandomFourierStyle(()), "styles"),
        (lambda: RandomHistogramMatch((1,), strength=(0.5, 2)), "strength"),
        (lambda: RandomFourierStyle((1,), beta=(0, 0.5)), "beta"),
        (lambda: RandomFourierStyle((1,), prob=2), "prob"),
    ],
)
def test_wrong_parameters_are_refused(make, words):
    with pytest.raises(RecipeError, match=words):
        make()
