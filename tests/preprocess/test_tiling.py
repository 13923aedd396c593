from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import InferencePlan, Preprocessing, predict_tiled, segment, tiling

overlaps = st.floats(0, 0.9)
sides = st.integers(1, 40)
quick = settings(max_examples=60, deadline=None)


def picture(rows: int, columns: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(rows + 1000 * columns).random((channels, rows, columns)).astype(np.float32)


def pointwise(batch: np.ndarray) -> np.ndarray:
    """Probabilities that depend on nothing but the pixel."""
    first = 1 / (1 + np.exp(-3 * (batch.mean(axis=1, keepdims=True) - 0.5)))
    return np.concatenate([first, 1 - first], axis=1).astype(np.float32)


@quick
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 50), st.integers(1, 50), overlaps)
def test_tiles_cover_every_pixel_and_end_at_the_border(rows, columns, height, width, overlap):
    rows, columns = max(rows, height), max(columns, width)
    covered = np.zeros((rows, columns), int)
    origins = tiling.tile_origins((rows, columns), (height, width), overlap)
    for row, column in origins:
        assert 0 <= row <= rows - height
        assert 0 <= column <= columns - width
        covered[row : row + height, column : column + width] += 1
    assert covered.min() >= 1
    assert len(set(origins)) == len(origins)
    assert max(origins) == (rows - height, columns - width)


@quick
@given(st.integers(20, 200), st.integers(2, 20), overlaps)
def test_neighbours_overlap_at_least_as_asked(length, side, overlap):
    starts = sorted({row for row, _ in tiling.tile_origins((length, side), (side, side), overlap)})
    for left, right in pairwise(starts):
        assert left + side - right >= min(side - 1, side * overlap - 1e-9)


def test_origins_by_hand():
    assert tiling.tile_origins((10, 4), (4, 4), 0.5) == [(0, 0), (2, 0), (4, 0), (6, 0)]
    assert tiling.tile_origins((7, 9), (4, 4), 0.0) == [(0, 0), (0, 2), (0, 5), (3, 0), (3, 2), (3, 5)]


@quick
@given(st.integers(1, 300), st.integers(1, 300))
def test_the_window_is_nowhere_zero_symmetric_and_highest_in_the_centre(rows, columns):
    window = tiling.gaussian_window((rows, columns))
    assert window.shape == (rows, columns)
    assert window.dtype == np.float32
    assert window.min() > 0
    assert window.max() == window[rows // 2, columns // 2]
    np.testing.assert_allclose(window, window[::-1, ::-1], rtol=1e-5)


def test_the_window_falls_smoothly_to_the_border():
    profile = tiling.gaussian_window((64, 64))[32]
    assert (np.diff(profile[:32]) > 0).all()
    assert profile[0] < 0.001 * profile[32]


@quick
@given(sides, sides, sides, sides, overlaps)
def test_a_constant_answer_stays_constant(rows, columns, height, width, overlap):
    def constant(batch: np.ndarray) -> np.ndarray:
        return np.broadcast_to(
            np.array([0.25, 0.7, 0.05], np.float32)[None, :, None, None], (len(batch), 3, *batch.shape[2:])
        )

    answer = predict_tiled(constant, picture(rows, columns), InferencePlan("tiles", (height, width), overlap))
    assert answer.dtype == np.float32
    assert answer.shape == (3, rows, columns)
    np.testing.assert_allclose(
        answer, np.broadcast_to([[[0.25]], [[0.7]], [[0.05]]], answer.shape), rtol=1e-5
    )


@quick
@given(sides, sides, sides, sides, overlaps)
def test_the_identity_gives_the_input_back(rows, columns, height, width, overlap):
    image = picture(rows, columns)
    answer = predict_tiled(lambda batch: batch, image, InferencePlan("tiles", (height, width), overlap))
    np.testing.assert_allclose(answer, image, rtol=1e-5)


@quick
@given(sides, sides, st.integers(1, 16), overlaps, st.integers(1, 5))
def test_whole_and_tiles_agree_where_the_network_looks_at_one_pixel(rows, columns, side, overlap, divisor):
    image = picture(rows, columns)
    whole = predict_tiled(pointwise, image, InferencePlan("whole", divisor=divisor))
    tiles = predict_tiled(
        pointwise, image, InferencePlan("tiles", (side * divisor, side * divisor), overlap, divisor)
    )
    np.testing.assert_allclose(tiles, whole, atol=1e-6)


def test_the_order_of_the_tiles_changes_nothing(monkeypatch):
    def position(batch: np.ndarray) -> np.ndarray:
        """An answer that differs from tile to tile, so that blending matters."""
        return (batch - batch.mean(axis=(2, 3), keepdims=True)).astype(np.float32)

    image, plan = picture(50, 41), InferencePlan("tiles", (16, 12), 0.5)
    forth = predict_tiled(position, image, plan)
    ordered = tiling.tile_origins
    monkeypatch.setattr(tiling, "tile_origins", lambda *arguments: ordered(*arguments)[::-1])
    np.testing.assert_allclose(predict_tiled(position, image, plan), forth, atol=1e-6)


def test_a_pixel_in_the_centre_of_a_tile_counts_for_more_than_one_at_its_border():
    """Two tiles side by side, one says 0, the other 1: the seam is a smooth rise, 0.5 in the middle."""
    image = np.concatenate([np.zeros((1, 8, 8)), np.ones((1, 8, 4))], axis=2).astype(np.float32)

    def says_last_pixel(batch: np.ndarray) -> np.ndarray:
        return np.broadcast_to(batch[:, :, :1, -1:], batch.shape)

    row = predict_tiled(says_last_pixel, image, InferencePlan("tiles", (8, 8), 0.5))[0, 0]
    np.testing.assert_allclose(row[:4], 0, atol=1e-6)
    np.testing.assert_allclose(row[8:], 1, atol=1e-6)
    assert (np.diff(row[3:9]) > 0).all()
    np.testing.assert_allclose(row[5] + row[6], 1, atol=1e-6)
    assert row[4] < 0.1  # deep in the first tile, at the border of the second


def test_whole_mode_shows_the_network_a_reflected_multiple_of_the_divisor():
    seen = []

    def remember(batch: np.ndarray) -> np.ndarray:
        seen.append(batch)
        return batch

    image = np.arange(15, dtype=np.float32).reshape(1, 3, 5)
    answer = predict_tiled(remember, image, InferencePlan("whole", divisor=4))
    assert [batch.shape for batch in seen] == [(1, 1, 4, 8)]
    assert seen[0][0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert seen[0][0, 0, :, 0].tolist() == [0, 5, 10, 5]
    np.testing.assert_array_equal(answer, image)


@pytest.mark.parametrize("mode", ["whole", "tiles"])
def test_one_pixel_is_repeated_where_it_cannot_be_reflected(mode):
    answer = []

    def remember(batch: np.ndarray) -> np.ndarray:
        answer.append(batch)
        return batch

    predict_tiled(remember, np.full((1, 1, 2), 7, np.float32), InferencePlan(mode, (8, 8), 0.5, 8))
    np.testing.assert_array_equal(answer[0], np.full((1, 1, 8, 8), 7))


def test_tiles_all_have_the_plans_size():
    shapes = []

    def remember(batch: np.ndarray) -> np.ndarray:
        shapes.append(batch.shape)
        return batch

    predict_tiled(remember, picture(300, 211), InferencePlan("tiles", (96, 64), 0.25, 32))
    assert {shape[1:] for shape in shapes} == {(2, 96, 64)}


@pytest.mark.parametrize(("beyond", "sizes"), [(0, {(1536, 1536)}), (1, {(96, 64)})])
def test_an_image_too_large_for_memory_goes_in_tiles_that_suit_the_network(beyond, sizes):
    """In mode `whole` the recipe's tile need not be a multiple of the divisor: 90 x 50 becomes 96 x 64."""
    seen = set()

    def remember(batch: np.ndarray) -> np.ndarray:
        seen.add(batch.shape[2:])
        return batch

    image = np.zeros((1, 1536, 1536 + beyond), np.float32)
    image[0, 700, 700] = 1
    answer = predict_tiled(remember, image, InferencePlan("whole", (90, 50), 0.0, 32))
    assert seen == sizes
    np.testing.assert_allclose(answer, image, atol=1e-6)


def test_the_size_after_preprocessing_is_what_counts():
    seen = set()

    def remember(batch: np.ndarray) -> np.ndarray:
        seen.add(batch.shape[2:])
        return batch

    smaller = Preprocessing.from_specs([{"type": "ResizeByLong", "long_size": 64}])
    segment(remember, np.zeros((1600, 1600, 1), np.float32), smaller, InferencePlan())
    assert seen == {(64, 64)}


def test_a_network_that_changes_the_size_is_a_defect():
    with pytest.raises(ValueError, match="must stay"):
        predict_tiled(lambda batch: batch[:, :, ::2], picture(20, 20), InferencePlan())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mode": "tile"}, "mode"),
        ({"mode": "tiles", "tile": (0, 8)}, "tile"),
        ({"mode": "tiles", "overlap": 1.0}, "overlap"),
        ({"mode": "tiles", "overlap": -0.1}, "overlap"),
        ({"divisor": 0}, "divisor"),
        ({"mode": "tiles", "tile": (96, 100), "divisor": 16}, "multiple"),
    ],
)
def test_a_plan_that_cannot_work_is_a_recipe_error(arguments, words):
    with pytest.raises(RecipeError, match=words):
        InferencePlan(**arguments)


def test_the_hint_for_a_tile_that_does_not_fit_names_one_that_does():
    with pytest.raises(RecipeError) as caught:
        InferencePlan("tiles", (96, 100), 0.5, 16)
    assert "[96, 112]" in caught.value.hint


def test_segment_answers_on_the_pictures_own_pixels():
    prep = Preprocessing.from_specs(
        [
            {"type": "ResizeByLong", "long_size": 60},
            {"type": "Padding", "target_size": [64, 64]},
            {"type": "Normalize", "mean": [0.0], "std": [1.0]},
        ]
    )
    image = np.zeros((120, 90, 1), np.float32)
    image[40:80, 20:60] = 255

    def brightness(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([1 - batch, batch], axis=1)

    for plan in (InferencePlan("whole", divisor=16), InferencePlan("tiles", (32, 32), 0.5, 16)):
        answer = segment(brightness, image, prep, plan)
        assert answer.shape == (2, 120, 90)
        np.testing.assert_array_equal(answer.argmax(0) == 1, image[..., 0] > 0)


def test_mirror_images_and_turns_are_averaged_each_once():
    """Eight ways to lay a picture: four turns, and their mirror images."""
    seen = []

    def uneven(batch: np.ndarray) -> np.ndarray:
        seen.append(batch[0])
        place = np.arange(batch[0, 0].size, dtype=np.float32).reshape(batch.shape[2:])
        return np.concatenate([batch * place, batch], axis=1)

    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    plan = InferencePlan(mirror=(0, 1), rotate90=True)
    found = predict_tiled(uneven, image, plan)
    ways = [np.rot90(np.flip(image[0], axes), turns) for turns in range(4) for axes in ((), (0,))]
    assert len(seen) == 8
    assert {one[0].tobytes() for one in seen} == {np.ascontiguousarray(way).tobytes() for way in ways}
    np.testing.assert_allclose(found[1], image[0])  # each answer is laid back
    # The mean of a place's number over all ways is that of the centre, the same everywhere.
    np.testing.assert_allclose(found[0], image[0] * 7.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("plan", "ways"),
    [
        (InferencePlan(mirror=(0,)), 2),
        (InferencePlan(mirror=(0, 1)), 4),
        (InferencePlan(rotate90=True), 4),
        (InferencePlan(mirror=(1,), rotate90=True), 8),
        (InferencePlan("tiles", (4, 8), 0, mirror=(1,)), 2),
    ],
)
def test_a_copying_network_gives_the_picture_back_whatever_is_averaged(plan, ways):
    calls = []

    def copying(batch: np.ndarray) -> np.ndarray:
        calls.append(batch.shape)
        return batch

    image = picture(4, 8)
    np.testing.assert_allclose(predict_tiled(copying, image, plan), image, rtol=1e-6)
    assert len(calls) == ways


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mirror": (2,)}, "mirror"),
        ({"mirror": (0, 0)}, "mirror"),
        ({"tile": (8, 8, 8), "rotate90": True}, "rotate90"),
        ({"skip_below": 0.1}, "skip_below"),
        ({"tile": (8,)}, "two or three"),
        ({"divisor": (8, 8, 8)}, "does not fit"),
        ({"mode": "tiles", "tile": (12, 16, 16), "divisor": (8, 16, 16)}, r"use \[16, 16, 16\]"),
    ],
)
def test_a_plan_that_fits_no_network_is_refused(arguments, says):
    with pytest.raises(RecipeError) as refused:
        InferencePlan(**arguments)
    assert re.search(says, f"{refused.value.message} {refused.value.hint}")
