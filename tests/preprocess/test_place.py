"""Image and label agree to the pixel: images whose channels say which row and column a pixel came from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medseg_paddle.preprocess.augment import (
    TRAIN_TRANSFORMS,
    ElasticDeformation,
    RandomAffinePatch,
    RandomCutout,
)

SIDES = st.integers(5, 70)
COLUMN_STEP = 256  # label = row * 256 + column, below 2**16
# Places are exact in OpenCV 5; 1/32 pixel, and float32's rounding of 1/1024, are allowed before it.
TOLERANCE = 0.5 + 1 / 32 + 1 / 256


def coded(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Image of row and column, label of both."""
    row, column = np.mgrid[:rows, :columns]
    return np.stack([row, column], axis=-1).astype(np.float32), (row * COLUMN_STEP + column).astype(np.uint16)


def errors(image: np.ndarray, label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Distance along each axis between the place that the image shows and the pixel that the label is of.

    Left out is what lies in the outermost two pixels of the source, where a reflection folds: there an
    interpolated coordinate is no longer that of a place.
    """
    rows, columns = np.divmod(label.astype(int), COLUMN_STEP)
    inner = (rows > 1) & (rows < size[0] - 2) & (columns > 1) & (columns < size[1] - 2)
    away = np.maximum(np.abs(image[..., 0] - rows), np.abs(image[..., 1] - columns))
    return away[inner]


patches = st.builds(
    RandomAffinePatch,
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    rotation=st.sampled_from([0, 7.5, 45, 180]),
    scale=st.sampled_from([(1, 1), (0.4, 0.9), (0.7, 1.5), (2, 3)]),
    flip_horizontal=st.sampled_from([0, 0.5, 1]),
    flip_vertical=st.sampled_from([0, 0.5, 1]),
    rotate90=st.sampled_from([0, 0.5, 1]),
    foreground=st.sampled_from([0, 0.5, 1]),
    border=st.sampled_from(["reflect", "ignore"]),
    shift=st.integers(0, 20),
    rotation_prob=st.sampled_from([0.5, 1]),
    scale_prob=st.sampled_from([0.5, 1]),
    shift_prob=st.sampled_from([0.5, 1]),
)
elastic = st.builds(
    ElasticDeformation, alpha=st.floats(0, 4), sigma=st.floats(3, 12), prob=st.sampled_from([0.5, 1])
)
gentle = st.builds(ElasticDeformation, alpha=st.floats(0, 1), sigma=st.floats(5, 12), prob=st.just(1))
KEEPING_PLACE = [name for name in TRAIN_TRANSFORMS if name not in ("RandomAffinePatch", "ElasticDeformation")]


@settings(max_examples=150, deadline=None)
@example(patch=RandomAffinePatch(size=(1, 1), rotate90=1), rows=5, columns=5, channels=5, seed=1)
@given(patch=patches, rows=SIDES, columns=SIDES, channels=st.integers(2, 5), seed=st.integers(0, 2**16))
def test_a_patch_shows_the_place_that_its_label_names(patch, rows, columns, channels, seed):
    image, label = coded(rows, columns)
    image = np.concatenate([image] * 3, axis=-1)[..., :channels]
    seen, named = patch(image, label.astype(np.int32) + 1000, np.random.default_rng(seed))
    ignored = named == 255
    named = np.where(ignored, 0, named - 1000)
    if patch.border == "reflect":
        assert not ignored.any()
    assert (errors(seen, named, (rows, columns)) <= TOLERANCE).all()


@settings(max_examples=80, deadline=None)
@given(rows=SIDES, columns=SIDES, seed=st.integers(0, 2**16), data=st.data())
def test_crops_flips_and_quarter_turns_are_exact_up_to_the_outermost_pixel(rows, columns, seed, data):
    size = data.draw(st.tuples(st.integers(1, min(rows, columns)), st.integers(1, min(rows, columns))))
    patch = RandomAffinePatch(size, flip_horizontal=0.5, flip_vertical=0.5, rotate90=0.75)
    for kind in (np.float32, np.uint8):
        image, label = coded(rows, columns)
        seen, named = patch(image.astype(kind), label, np.random.default_rng(seed))
        np.testing.assert_array_equal(seen[..., 0], named // COLUMN_STEP)
        np.testing.assert_array_equal(seen[..., 1], named % COLUMN_STEP)


@settings(max_examples=60, deadline=None)
@given(rows=SIDES, columns=SIDES, seed=st.integers(0, 2**16), data=st.data())
def test_a_plain_copy_is_what_interpolation_gives(rows, columns, seed, data):
    """A patch that is only cut, flipped and turned skips interpolation where it lies inside the image."""
    size = data.draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    arguments = {"flip_horizontal": 0.5, "flip_vertical": 0.5, "rotate90": 0.75, "border": "ignore"}
    image = np.random.default_rng(0).uniform(0, 255, (rows, columns, 3)).astype(np.float32)
    label = coded(rows, columns)[1].astype(np.int32) + 1000
    plain = RandomAffinePatch(size, **arguments)(image, label, np.random.default_rng(seed))
    # so small an angle that no place moves by 1/10000 pixel, but no plain copy is made
    turned = RandomAffinePatch(size, rotation=1e-6, **arguments)(image, label, np.random.default_rng(seed))
    np.testing.assert_array_equal(plain[1], turned[1])
    np.testing.assert_allclose(plain[0][plain[1] != 255], turned[0][plain[1] != 255], atol=0.1)


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(patches | gentle, min_size=2, max_size=3),
    rows=st.integers(20, 70),
    columns=st.integers(20, 70),
    seed=st.integers(0, 999),
)
def test_a_chain_drifts_by_half_a_pixel_of_each_step_at_most(steps, rows, columns, seed):
    """A third channel is 1 inside the image; where it stays 1, no border was mixed in."""
    image, label = coded(rows, columns)
    inside = np.zeros((rows, columns, 1), np.float32)
    inside[5:-5, 5:-5] = 1
    image, label = np.concatenate([image, inside], axis=-1), label.astype(np.int32) + 1000
    rng, scale, allowed = np.random.default_rng(seed), 1.0, 0.0
    for step in steps:
        image, label = step(image, label, rng)
        # The nearest pixel is half a diagonal away; between two pixels a fold of the one before is cut short.
        allowed += (TOLERANCE * np.sqrt(2) + 0.5) / scale
        scale *= min(1, step.scale[0]) if isinstance(step, RandomAffinePatch) else 0.6
    known = (image[..., 2] > 0.9999) & (label != 255)
    row, column = np.divmod(label - 1000, COLUMN_STEP)
    away = np.maximum(np.abs(image[..., 0] - row), np.abs(image[..., 1] - column))[known]
    assert away.max(initial=0) <= allowed


@settings(max_examples=60, deadline=None)
@given(warp=elastic, rows=SIDES, columns=SIDES, channels=st.integers(2, 5), seed=st.integers(0, 2**16))
def test_elastic_deformation_shows_the_place_that_its_label_names(warp, rows, columns, channels, seed):
    image, label = coded(rows, columns)
    image = np.concatenate([image] * 3, axis=-1)[..., :channels]
    seen, named = warp(image, label, np.random.default_rng(seed))
    assert (errors(seen, named, (rows, columns)) <= TOLERANCE).all()


@pytest.mark.parametrize("name", KEEPING_PLACE)
@given(rows=SIDES, columns=SIDES, seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_what_changes_intensities_moves_no_label(name, rows, columns, seed):
    image, label = coded(rows, columns)
    settings = {} if name in ("RandomIntensity", "StandardizeImage") else {"prob": 1.0}
    if "Style" in name or "Histogram" in name:
        settings["styles"] = (TRAIN_TRANSFORMS[name].style_of(image[::-1] / 2),)
    _, named = TRAIN_TRANSFORMS[name](**settings)(image, label, np.random.default_rng(seed))
    np.testing.assert_array_equal(named, label)


@given(rows=SIDES, columns=SIDES, seed=st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_a_cutout_ignores_what_it_blanks_and_nothing_else(rows, columns, seed):
    image, label = coded(rows, columns)
    image, label = image + 1, label.astype(np.int32) + 1000
    cut, named = RandomCutout(holes=(1, 4), fill="zero", label="ignore", prob=1)(
        image, label, np.random.default_rng(seed)
    )
    np.testing.assert_array_equal((cut == 0).all(axis=-1), named == 255)
    np.testing.assert_array_equal(cut[named != 255], image[named != 255])
