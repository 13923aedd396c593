"""Masks beside their images: against displacements that the test itself made."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.preprocess.shift import TURNS, SetFit, fit, shift_of, turn_of

SIZE = 128


def blob(rng, *, size=SIZE, centre=None, noise=12.0, contrast=80.0, blur=1.0):
    """A bright ellipse on a noisy ground, and its mask."""
    rows, columns = np.mgrid[:size, :size]
    row, column = centre or (size * 0.5, size * 0.5)
    mask = ((rows - row) / (size * 0.22)) ** 2 + ((columns - column) / (size * 0.16)) ** 2 < 1
    picture = cv2.GaussianBlur(90 + contrast * mask.astype(np.float32), (0, 0), blur)
    picture += rng.normal(0, noise, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), mask.astype(np.uint8)


def vessels(rng, *, size=SIZE, noise=8.0):
    """Dark lines, two or three pixels wide, and their mask."""
    mask = np.zeros((size, size), np.uint8)
    for _ in range(14):
        start, end = (tuple(int(value) for value in rng.integers(0, size, 2)) for _ in range(2))
        cv2.line(mask, start, end, 1, 2)
    picture = 150 - 60 * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)
    return np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8), mask


def moved(mask, down, right):
    return np.roll(mask, (down, right), (0, 1))


@settings(max_examples=15, deadline=None)
@given(down=st.integers(-9, 9), right=st.integers(-9, 9), seed=st.integers(0, 100), bright=st.booleans())
def test_a_moved_mask_is_found_where_it_was_moved_to(down, right, seed, bright):
    picture, mask = blob(np.random.default_rng(seed))
    found = shift_of(fit(picture if bright else 255 - picture, moved(mask, down, right), [1]))
    assert found.inside
    assert np.hypot(found.down - down, found.right - right) < 0.7
    assert np.hypot(found.down - down, found.right - right) < 4 * max(found.deviation) + 0.1


@settings(max_examples=15, deadline=None)
@given(down=st.integers(-9, 9), right=st.integers(-9, 9), seed=st.integers(0, 100))
def test_thin_structures_tell_as_well(down, right, seed):
    picture, mask = vessels(np.random.default_rng(seed))
    found = shift_of(fit(picture, moved(mask, down, right), [1]))
    # what was rolled in at the rim has no partner in the image: it costs score, not place
    assert np.hypot(found.down - down, found.right - right) < 0.5


@pytest.mark.parametrize("times", [3, 6])
def test_an_enlarged_picture_is_measured_as_the_small_one(times):
    """The same displacement, in pixels of the picture; and no pixel more of uncertainty than the enlargement makes."""
    picture, mask = blob(np.random.default_rng(3), size=480)
    mask = moved(mask, 7, -4)
    small = shift_of(fit(picture, mask, [1]))
    large = shift_of(
        fit(
            cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC),
            cv2.resize(mask, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST_EXACT),
            [1],
        )
    )
    assert (small.scale, large.scale) == (1.0, pytest.approx(480 * times / 600))
    assert large.inside
    assert (large.down, large.right) == pytest.approx((7 * times, -4 * times), abs=0.4 * times)
    assert large.margin < 1.5 * times * max(small.margin, 0.2)


def test_a_large_mirrored_mask_is_found():
    picture, mask = blob(np.random.default_rng(3), size=160, centre=(60, 110))
    picture, mask = (
        cv2.resize(one, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST_EXACT) for one in (picture, mask)
    )
    assert turn_of(picture, mask[:, ::-1], [1]) == "mirrored left to right"


def test_half_a_pixel_is_half_a_pixel():
    rng = np.random.default_rng(1)
    picture, mask = blob(rng, size=256, noise=0)
    fine = picture.astype(np.float32)
    to_the_left = (fine + np.roll(fine, -1, 1)) / 2  # the mean of a pixel and its right neighbour
    found = shift_of(fit(to_the_left, mask, [1]))
    assert found.right == pytest.approx(0.5, abs=0.1)
    assert found.down == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("by", [-3, 3])
def test_a_mask_drawn_too_large_or_too_small_all_around_lies_where_it_belongs(by):
    picture, mask = blob(np.random.default_rng(2), blur=2.0)
    change = cv2.dilate if by > 0 else cv2.erode
    drawn = change(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(by) + 1,) * 2))
    found = shift_of(fit(picture, drawn, [1]))
    assert found.distance < 0.7


def test_two_classes_of_opposite_contrast_do_not_cancel():
    rng = np.random.default_rng(3)
    bright, one = blob(rng, centre=(40, 40))
    dark, two = blob(rng, centre=(85, 85), contrast=-60)
    picture = (bright.astype(int) + dark - 90).clip(0, 255).astype(np.uint8)
    labels = np.where(two > 0, 2, one).astype(np.uint8)
    found = shift_of(fit(picture, moved(labels, 0, 4), [1, 2]))
    assert found.right == pytest.approx(4, abs=0.6)


def test_of_noise_nothing_is_certain():
    rng = np.random.default_rng(4)
    _, mask = blob(rng)
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(120, 20, mask.shape)
        found = shift_of(fit(noise, mask, [1]))
        assert found.score < 0.35
        assert found.margin > 4


def test_without_an_outline_there_is_no_fit():
    picture, mask = blob(np.random.default_rng(5))
    assert fit(picture, np.zeros_like(mask), [1]) is None
    assert fit(picture, np.ones_like(mask), [1]) is None
    assert fit(picture, mask, [2]) is None


def test_many_uncertain_masks_are_certain_together():
    together, alone = SetFit(), []
    for seed in range(25):
        picture, mask = blob(np.random.default_rng(seed), contrast=14, noise=25)
        found = fit(picture, moved(mask, 2, -3), [1])
        together.add(found)
        alone.append(shift_of(found).margin)
    shift = together.shift()
    assert np.hypot(shift.down - 2, shift.right + 3) < 0.8
    assert shift.margin < np.median(alone) / 2


def test_the_same_files_give_the_same_figures():
    picture, mask = vessels(np.random.default_rng(6))
    found, kept = set(), []
    for size in np.random.default_rng(1).integers(1, 5000, 300):
        kept.append(bytearray(int(size)))  # so that arrays lie elsewhere: some functions round by that
        found.add(shift_of(fit(picture, mask, [1])))
    assert len(found) == 1


def test_a_shift_is_said_in_words():
    picture, mask = blob(np.random.default_rng(7), noise=0)
    said = str(shift_of(fit(picture, moved(mask, -3, 5), [1])))
    assert said.startswith("5.0 px right, 3.0 px up (±")
    assert "95 %" in said


@pytest.mark.parametrize("turn", list(TURNS))
def test_a_turned_mask_is_named(turn):
    rng = np.random.default_rng(8)
    picture, mask = blob(rng, centre=(38, 80))
    other, more = blob(rng, centre=(60, 30), size=SIZE)
    picture, mask = np.maximum(picture, other), mask | more
    assert turn_of(picture, np.ascontiguousarray(TURNS[turn](mask)), [1]) == turn


def test_a_mask_that_fits_is_not_called_turned():
    for seed in range(5):
        for make in (blob, vessels):
            picture, mask = make(np.random.default_rng(seed))
            assert turn_of(picture, mask, [1]) is None
            assert turn_of(np.random.default_rng(seed).normal(120, 20, mask.shape), mask, [1]) is None
