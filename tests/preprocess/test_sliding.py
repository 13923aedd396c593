"""Volumes in tiles: the stream is the plain sum, and answers lie where the volume does."""

from __future__ import annotations

import itertools
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg_paddle.core import Geometry, LabelSet, Volume
from medseg_paddle.errors import ModelError
from medseg_paddle.preprocess import (
    InferencePlan,
    Interpolation,
    PreparedVolume,
    VolumePreprocessing,
    ZScore,
    forecast,
    resample,
    segment_volume,
    tiling,
)
from medseg_paddle.preprocess.augment.volume_augmentation import VolumeAugmentation
from medseg_paddle.preprocess.augment.volume_foreground import ForegroundVoxels
from medseg_paddle.preprocess.sliding import predicted_slabs

LABELS = LabelSet.from_names(["background", "liver", "tumour"])
LINEAR = Interpolation("linear", "linear")
quick = settings(max_examples=25, deadline=None)
sides = st.integers(1, 20)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


def neighbours(batch: np.ndarray) -> np.ndarray:
    """A network that looks about and knows where in its tile it is, of three classes."""
    mixed = batch.mean(axis=1, keepdims=True)
    for axis in (2, 3, 4):
        mixed = mixed + 0.5 * np.roll(mixed, 1, axis)
    place = np.linspace(0, 1, batch.shape[4], dtype=np.float32)
    scores = np.exp(np.concatenate([mixed, 1 - mixed, mixed * place], axis=1))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def whole(forward, image: np.ndarray, plan: InferencePlan) -> np.ndarray:
    """Probabilities by the book: sums and weights of the whole volume, tile after tile."""
    size = image.shape[1:]
    wider = [(0, 0)] + [(0, max(0, side - length)) for side, length in zip(plan.tile, size, strict=True)]
    image = np.pad(image, wider)
    window = tiling.gaussian_window(plan.tile)
    total, weight = 0, np.zeros(image.shape[1:])
    for origin in tiling.tile_origins(image.shape[1:], plan.tile, plan.overlap):
        part = tuple(slice(start, start + side) for start, side in zip(origin, plan.tile, strict=True))
        answers = []
        for n in range(len(plan.mirror) + 1):
            for axes in itertools.combinations(plan.mirror, n):
                there = [axis + 2 for axis in axes]
                answers.append(np.flip(forward(np.flip(image[(None, slice(None), *part)], there)), there)[0])
        answer = np.mean(answers, axis=0)
        if np.isscalar(total):
            total = np.zeros((len(answer), *image.shape[1:]))
        total[(slice(None), *part)] += answer * window
        weight[part] += window
    return (total / weight)[(slice(None), *(slice(0, length) for length in size))]


def streamed(forward, image: np.ndarray, plan: InferencePlan, classes: int = 3) -> np.ndarray:
    return np.concatenate([np.array(slab) for slab in predicted_slabs(forward, image, plan, classes)], axis=1)


@quick
@given(sides, sides, sides, st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.floats(0, 0.8))
def test_the_stream_is_the_plain_sum(d, h, w, depth, height, width, overlap):
    image = noise(2, d, h, w)
    plan = InferencePlan("tiles", (depth, height, width), overlap)
    np.testing.assert_allclose(streamed(neighbours, image, plan), whole(neighbours, image, plan), atol=1e-6)


def test_beyond_a_volume_a_tile_shows_what_a_training_patch_shows_there():
    image, label = noise(2, 5, 9, 7) + 1, np.zeros((5, 9, 7), np.uint8)
    seen: list[np.ndarray] = []

    def looking(batch: np.ndarray) -> np.ndarray:
        seen.extend(batch.copy())
        return neighbours(batch)

    streamed(looking, image, InferencePlan("tiles", (8, 8, 8), 0))
    patches = VolumeAugmentation.from_specs(
        [{"type": "RandomVolumePatch", "size": [8, 8, 8], "rotation_prob": 0, "scale_prob": 0}],
        ignore_index=255,
    )
    drawn = [
        patches.patch(image, label, ForegroundVoxels.of(label, 255), np.random.default_rng(seed))[0]
        for seed in range(200)
    ]
    assert len(seen) == 2
    assert all(any(np.array_equal(tile, patch) for patch in drawn) for tile in seen)


def test_mirror_images_are_averaged_in_all_combinations():
    image = noise(1, 12, 10, 9)
    plan = InferencePlan("tiles", (8, 6, 4), 0.5, mirror=(0, 2))
    found = streamed(neighbours, image, plan)
    np.testing.assert_allclose(found, whole(neighbours, image, plan), atol=1e-6)
    # The axis that is not named is not mirrored.
    assert (
        np.abs(found - streamed(neighbours, image, InferencePlan("tiles", (8, 6, 4), mirror=(0, 1, 2)))).max()
        > 1e-3
    )


@quick
@given(sides, sides, sides, st.floats(0, 0.9))
def test_a_network_that_copies_gives_the_volume_back(d, h, w, overlap):
    image = noise(2, d, h, w)
    plan = InferencePlan("tiles", (6, 8, 4), overlap, mirror=(0, 1, 2))
    np.testing.assert_allclose(streamed(lambda batch: batch, image, plan, 2), image, rtol=1e-5, atol=1e-6)


def test_slices_come_in_order_and_no_more_of_them_than_a_tile_has():
    sizes = [
        slab.shape
        for slab in predicted_slabs(neighbours, noise(1, 30, 8, 8), InferencePlan("tiles", (8, 4, 4)), 3)
    ]
    assert sum(shape[1] for shape in sizes) == 30
    assert max(shape[1] for shape in sizes) <= 8
    assert {(shape[0], *shape[2:]) for shape in sizes} == {(3, 8, 8)}


def test_tiles_of_one_value_are_computed_once():
    image = np.zeros((1, 64, 16, 16), np.float32)
    image[:, 40:48] = noise(1, 8, 16, 16)
    calls = []

    def counting(batch: np.ndarray) -> np.ndarray:
        calls.extend(batch)
        return neighbours(batch)

    plan = InferencePlan("tiles", (16, 16, 16), 0)
    found = streamed(counting, image, plan)
    assert len(calls) == 2  # of four tiles: the noise, and one of the others
    np.testing.assert_allclose(found, whole(neighbours, image, plan), atol=1e-6)


def test_air_is_background_where_that_is_asked_for():
    image = noise(1, 32, 8, 8) * 0.1
    image[:, 16:] += 1
    plan = InferencePlan("tiles", (16, 8, 8), 0, skip_below=0.5)
    found = streamed(neighbours, image, plan)
    np.testing.assert_allclose(found[0, :16], 1, atol=1e-6)
    assert (found[1:, :16] == 0).all()
    np.testing.assert_allclose(found[:, 16:], whole(neighbours, image, plan)[:, 16:], atol=1e-6)


def test_progress_counts_every_tile():
    told = []
    list(
        predicted_slabs(
            neighbours,
            noise(1, 9, 9, 9),
            InferencePlan("tiles", (6, 6, 6)),
            3,
            on_tile=lambda *now: told.append(now),
        )
    )
    assert told == [(number, 8) for number in range(1, 9)]


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda batch: batch, "1 classes, the labels are 3"),
        (lambda batch: neighbours(batch) * np.nan, "not numbers"),
    ],
)
def test_a_network_that_cannot_be_right_is_refused(forward, says):
    with pytest.raises(ModelError, match=says):
        streamed(forward, noise(1, 8, 8, 8), InferencePlan("tiles", (8, 8, 8)))


def grid(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], degrees: float, codes: str
) -> Geometry:
    """A grid turned by some degrees about an odd axis, its index along `codes`."""
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([2, -1, 2]) / 3).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) @ np.diag(spacing)
    affine[:3, 3] = (-40, 25, 310)
    plain = Geometry(shape, affine)
    order, flips = plain.turn_to(codes)
    return plain.transposed(order).flipped(flips)


def brightness(batch: np.ndarray) -> np.ndarray:
    """Three classes by the voxel's value: below 0.4, to 0.8, above."""
    first = batch[:, :1]
    scores = np.concatenate([0.4 - first, np.minimum(first - 0.4, 0.8 - first), first - 0.8], axis=1)
    scores = np.exp(20 * scores)
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("codes", ["SPL", "IAR", "LPS", "ARS", "PLI"])
@pytest.mark.parametrize(
    ("degrees", "spacing"), [(0, (2.5, 0.9, 1.1)), (17, (1.0, 1.0, 3.0)), (8, (0.8, 1.6, 1))]
)
def test_a_blob_comes_back_where_it_lies_in_the_patient(codes, degrees, spacing):
    geometry = grid((28, 26, 26), spacing, degrees, codes)
    places = geometry.to_lps(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1))
    centre = geometry.to_lps(np.array(geometry.shape) / 2) + np.array((2, -1, 1))
    far = np.linalg.norm(places - centre, axis=-1)
    array = np.where(far < 4, 1.0, np.where(far < 8, 0.6, 0.1)).astype(np.float32)
    prepared = VolumePreprocessing(axes="SPL", spacing=(1.2, 1.0, 1.0), crop="nonzero").forward(
        Volume(array, geometry)
    )
    plan = InferencePlan("tiles", (16, 12, 8), 0.5, mirror=(0, 1, 2))
    answer = segment_volume(brightness, prepared, LABELS, plan, threads=1)
    assert answer.geometry is geometry
    assert answer.array.dtype == np.uint8
    # Positions by nibabel, an independent reader of the affine.
    for label, radius in ((1, 8), (2, 4)):
        found = nib.affines.apply_affine(geometry.affine, np.argwhere(answer.array >= label))
        inside = np.linalg.norm(found - centre, axis=1)
        assert inside.max() < radius + 1.5
        np.testing.assert_allclose(found.mean(axis=0), centre, atol=0.35)


@pytest.mark.parametrize("codes", ["SPL", "RIA", "ASL"])
@pytest.mark.parametrize("spacing", [(3.0, 1.5, 1.0), (0.7, 0.8, 0.9), None])
def test_the_stream_to_the_source_is_what_the_whole_gives(codes, spacing):
    geometry = grid((21, 18, 25), (1.2, 0.9, 1.4), 11, codes)
    volume = (
        Volume(np.pad(noise(15, 12, 21), [(2, 4), (5, 1), (3, 1)]), geometry)
        if codes == "SPL"
        else Volume(noise(*geometry.shape), geometry)
    )
    way = VolumePreprocessing(axes="SPL", spacing=spacing, crop="nonzero")
    prepared = way.forward(volume)
    plan = InferencePlan("tiles", (8, 8, 8), 0.5)
    probabilities = np.full((3, *geometry.shape), np.nan, np.float32)

    def keep(index, part):
        probabilities[(slice(None), *index)] = part

    answer = segment_volume(neighbours, prepared, LABELS, plan, on_probabilities=keep, threads=1)
    on_grid = streamed(neighbours, prepared.array, plan)
    for number, one in enumerate(on_grid):
        fill = float(number == 0)  # beyond, there is background
        back = resample(Volume(one, prepared.geometry), geometry, interpolation=LINEAR, fill=fill)
        np.testing.assert_allclose(probabilities[number], back.array, atol=1e-6)
    np.testing.assert_array_equal(answer.array, probabilities.argmax(axis=0))
    with way.streamed(volume, threads=1) as passing:
        np.testing.assert_array_equal(
            segment_volume(neighbours, passing, LABELS, plan, threads=1).array, answer.array
        )


def prepared_volume(*shape: int) -> PreparedVolume:
    geometry = grid((shape[0], shape[1], shape[2]), (1, 1, 1), 0, "SPL")
    return PreparedVolume(noise(1, *shape), geometry, geometry)


def test_memory_does_not_grow_with_the_number_of_slices_but_for_the_answer():
    plan = InferencePlan("tiles", (8, 32, 32), 0)

    def peak(depth: int) -> int:
        prepared = prepared_volume(depth, 64, 64)
        tracemalloc.start()
        segment_volume(brightness, prepared, LABELS, plan, threads=1)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        forecasted = forecast(prepared, plan, LABELS)
        assert used < forecasted.total - forecasted.volume
        return used

    few, many = peak(160), peak(320)
    assert many - few < 1.6 * 160 * 64 * 64  # a byte a voxel


@pytest.mark.parametrize(
    ("spacing", "interpolation"),
    [
        ((0.5, 1, 1), Interpolation("cubic", "cubic")),
        ((2, 1, 1), LINEAR),
        ((1, 2, 2), LINEAR),
        (None, LINEAR),
    ],
)
def test_beside_a_volume_whose_slices_are_made_on_the_way_there_is_a_slab(spacing, interpolation):
    plan = InferencePlan("tiles", (8, 48, 48), 0.5)
    way = VolumePreprocessing("SPL", spacing, normalization=ZScore(), interpolation=interpolation)

    def peak(depth: int) -> int:
        volume = Volume(
            (1000 * noise(depth, 48, 48)).astype(np.int16), grid((depth, 48, 48), (1, 1, 1), 0, "SPL")
        )
        with way.streamed(volume, threads=1) as passing:
            forecasted = forecast(passing, plan, LABELS).total
            tracemalloc.start()
            segment_volume(brightness, passing, LABELS, plan, threads=1)
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert used < forecasted
        return used

    few, many = peak(80), peak(160)
    assert many - few < 1.6 * 80 * 48 * 48  # a byte a voxel
