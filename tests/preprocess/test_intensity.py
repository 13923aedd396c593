"""Intensities on a network's scale, against figures worked out by numpy over masks made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_paddle.core import Geometry, LabelMap, LabelSet, Volume
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.preprocess import ForegroundRange, HuWindow, ZScore, foreground_values

GRID = Geometry((4, 12, 10), np.diag([3.0, 1, 1, 1]))
RNG = np.random.default_rng(3)


def volume(array, units="arbitrary") -> Volume:
    return Volume(array, GRID, units)


def test_a_window_is_0_to_1():
    array = np.zeros(GRID.shape, np.int16)
    array[0, 0, :5] = (-2000, -1350, -600, 150, 3000)
    ramp = HuWindow(-600, 1500).fit(volume(array, "HU"))
    assert ramp(array)[0, 0, :5].tolist() == [0, 0, 0.5, 1, 1]
    assert ramp(array).dtype == np.float32
    assert array[0, 0, 0] == -2000


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_z_scores_of_all_voxels(dtype):
    array = RNG.integers(1, 200, GRID.shape).astype(dtype)
    scores = ZScore().fit(volume(array))(array)
    assert scores == pytest.approx((array - array.mean(dtype=float)) / array.std(dtype=float), abs=1e-5)


def test_z_scores_of_what_is_not_0_leave_0_as_it_is():
    array = RNG.normal(500, 50, GRID.shape).astype(np.float32)
    array[:, :4] = 0
    brain = array[array != 0].astype(float)
    scores = ZScore("nonzero").fit(volume(array))(array)
    assert scores == pytest.approx(np.where(array == 0, 0, (array - brain.mean()) / brain.std()), abs=1e-5)


def test_percentiles_clip_before_mean_and_deviation_are_taken():
    array = RNG.normal(500, 50, GRID.shape)
    array[0, 0, 0] = 1e6
    scores = ZScore(percentiles=(5, 95)).fit(volume(array))(array)
    low, high = np.percentile(array, (5, 95))
    clipped = np.clip(array, low, high)
    assert scores == pytest.approx((clipped - clipped.mean()) / clipped.std(), abs=1e-5)


def test_z_scores_of_the_body():
    array = np.full(GRID.shape, -1000.0)
    array[:, 2:9, 3:8] = RNG.normal(40, 20, (4, 7, 5))
    body = array[:, 2:9, 3:8]
    scores = ZScore("body").fit(volume(array, "HU"))(array)
    assert scores == pytest.approx((array - body.mean()) / body.std(), rel=1e-5, abs=1e-5)


def test_the_range_of_the_foreground_is_nnunets():
    cases = [RNG.normal(40, 20, GRID.shape), RNG.normal(60, 10, GRID.shape)]
    masks = [np.zeros(GRID.shape, np.uint8), np.ones(GRID.shape, np.uint8)]
    masks[0][0, :2] = 1
    labels = LabelSet.from_names(["background", "organ"])
    drawn = [
        foreground_values(volume(case, "HU"), LabelMap(mask, GRID, labels), 500, np.random.default_rng(0))
        for case, mask in zip(cases, masks, strict=True)
    ]
    assert [len(one) for one in drawn] == [500, 500]
    assert set(drawn[0]) <= set(cases[0][masks[0] == 1])
    both = np.concatenate(drawn)
    way = ForegroundRange.of(drawn)
    assert (way.low, way.high) == pytest.approx(tuple(np.percentile(both, (0.5, 99.5))))
    assert (way.mean, way.std) == pytest.approx((both.mean(), both.std()))
    wide = np.linspace(-1000, 1000, 480).reshape(GRID.shape)
    assert way.fit(volume(wide, "HU"))(wide) == pytest.approx(
        (np.clip(wide, way.low, way.high) - way.mean) / way.std, abs=1e-4
    )
    nothing = LabelMap(np.zeros(GRID.shape, np.uint8), GRID, labels)
    assert len(foreground_values(volume(cases[0]), nothing, 500, np.random.default_rng(0))) == 0
    with pytest.raises(DataError, match="no training case has foreground"):
        ForegroundRange.of([np.empty(0)])


def test_hounsfield_units_are_asked_for():
    array = np.zeros(GRID.shape)
    for way in (HuWindow(40, 400), ForegroundRange(0, 100, 50, 20), ZScore("body")):
        with pytest.raises(DataError, match="the volume's are unknown"):
            way.fit(volume(array, "unknown"))


def test_blank_images_are_refused():
    with pytest.raises(DataError, match="is 7 throughout"):
        ZScore().fit(volume(np.full(GRID.shape, 7)))
    with pytest.raises(DataError, match="no voxel of the region nonzero"):
        ZScore("nonzero").fit(volume(np.zeros(GRID.shape)))
    with pytest.raises(DataError, match="no voxel is above -500 HU"):
        ZScore("body").fit(volume(np.full(GRID.shape, -1000), "HU"))
    array = RNG.normal(size=GRID.shape)
    array[1, 1, 1] = np.nan
    for way in (ZScore(), ZScore(percentiles=(1, 99))):
        with pytest.raises(DataError, match="not finite"):
            way.fit(volume(array))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HuWindow(40, 0), r"HuWindow\.width must be above 0"),
        (lambda: HuWindow(float("nan"), 400), r"HuWindow\.level"),
        (lambda: ZScore("brain"), r"ZScore\.region 'brain' is unknown"),
        (lambda: ZScore(percentiles=(99, 1)), r"ZScore\.percentiles"),
        (lambda: ZScore(percentiles=(1, 101)), r"ZScore\.percentiles"),
        (lambda: ForegroundRange(0, 0, 0, 1), "low and high"),
        (lambda: ForegroundRange(0, 1, 0, 0), r"ForegroundRange\.std"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
