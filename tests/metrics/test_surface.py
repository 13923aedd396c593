"""Distances between surfaces: by hand, as others publish them, as others compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (as its manual does)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist

from medseg_paddle.metrics import surface
from medseg_paddle.metrics.surface import SurfaceScores, surface_scores


def scores(
    truth: NDArray[np.generic],
    prediction: NDArray[np.generic],
    *,
    spacing: tuple[float, ...] | None = None,
    tolerance: float = 1,
) -> SurfaceScores:
    """Of one class."""
    one, other = np.asarray(truth).astype(np.uint8), np.asarray(prediction).astype(np.uint8)
    spacing = (1.0,) * one.ndim if spacing is None else spacing
    (found,) = surface_scores(one, other, num_classes=2, spacing=spacing, tolerance=tolerance)
    return found


def mask(shape: tuple[int, ...], *points: tuple[int, ...]) -> NDArray[np.bool_]:
    found = np.zeros(shape, np.bool_)
    for point in points:
        found[point] = True
    return found


# --- by hand ----------------------------------------------------------------------------------------------


def test_two_pixels_are_as_far_apart_as_pythagoras_says() -> None:
    one, other = mask((8, 9), (1, 2)), mask((8, 9), (4, 6))
    assert scores(one, other, tolerance=5) == SurfaceScores(5, 5, 1)
    assert scores(one, other, tolerance=4.999) == SurfaceScores(5, 5, 0)
    assert scores(one, other, spacing=(2, 0.25)).hd95 == math.hypot(6, 1)


def test_the_inside_is_no_surface() -> None:
    # A square of 5 x 5 has 16 border pixels; one of 3 x 3 within it 8, and its centre is not one of them.
    one, other = np.zeros((9, 9)), np.zeros((9, 9))
    one[2:7, 2:7], other[3:6, 3:6] = 1, 1
    found = scores(one, other, tolerance=1)
    # From the outer border: 1 to the inner one, from its corners sqrt 2. From the inner one: 1 always.
    assert found.assd == pytest.approx((12 + 4 * math.sqrt(2) + 8) / 24)
    assert found.hd95 == math.sqrt(2)  # 4 of 16
    assert found.nsd == 20 / 24


def test_the_percentile_is_taken_of_each_direction_and_the_greater_counts() -> None:
    # A row of 40 pixels, and the same with a pixel 10 rows below it: 1 of 41 is too few for the 95th percentile.
    row = np.zeros((20, 40), np.bool_)
    row[2] = True
    spot = row.copy()
    spot[12, 5] = True
    assert scores(row, spot).hd95 == 0
    # With 4 of 44, it is the distance. One percentile of the 84 distances of both directions would be 0.
    spot[12, [8, 11, 14]] = True
    assert scores(row, spot).hd95 == 10
    assert np.percentile([0] * 80 + [10] * 4, 95) == 0
    assert scores(row, spot).assd == pytest.approx(40 / 84)
    assert scores(row, spot).nsd == 80 / 84


def test_between_two_ranks_it_is_interpolated() -> None:
    # Distances 0, 1, ..., 9 one way, 0 the other: the rank of 95 % is 8.55.
    one, other = mask((1, 10), (0, 0)), np.ones((1, 10))
    assert scores(one, other).hd95 == pytest.approx(8.55)


def test_neighbours_across_a_corner_do_not_hide_a_border() -> None:
    # All but a corner pixel of the 3 x 3 around the centre: the centre is inside, for none of its 4 neighbours is out.
    ring = np.zeros((5, 5), np.bool_)
    ring[1:4, 1:4] = True
    ring[1, 1] = False
    centre = mask((5, 5), (2, 2))
    assert scores(centre, ring, tolerance=0).nsd == 0
    ring[1, 2] = False  # now it is border
    assert scores(centre, ring, tolerance=0).nsd > 0


def test_the_edge_of_the_image_is_a_border() -> None:
    full = np.ones((5, 5), np.bool_)
    found = scores(full, mask((5, 5), (2, 2)), tolerance=0)
    assert found.hd95 > 2  # from the corners, not from the centre, which is inside
    assert found.nsd == 0


def test_three_steps_of_a_tenth_are_within_three_tenths() -> None:
    one, other = mask((1, 9), (0, 1)), mask((1, 9), (0, 4))
    assert 3 * 0.1 > 0.3
    assert scores(one, other, spacing=(1, 0.1), tolerance=0.3).nsd == 1
    assert scores(one, other, spacing=(1, 0.1), tolerance=0.2999).nsd == 0


def test_many_points_are_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = blobs(7, (20, 30)), blobs(8, (20, 30))
    whole = scores(one, other)
    monkeypatch.setattr(surface, "_QUERIED_AT_ONCE", 7)
    assert scores(one, other) == whole


def test_every_class_has_its_own_surface() -> None:
    truth, prediction = np.zeros((6, 12), np.uint8), np.zeros((6, 12), np.uint8)
    truth[1, 1], prediction[1, 4] = 1, 1
    truth[3, 1], prediction[3, 1] = 2, 2
    truth[5, 5] = 4
    found = surface_scores(truth, prediction, num_classes=5, spacing=(1, 1), tolerance=2)
    diagonal = math.hypot(6, 12)
    assert found[:2] == (SurfaceScores(3, 3, 0), SurfaceScores(0, 0, 1))
    assert all(math.isnan(value) for value in (found[2].hd95, found[2].assd, found[2].nsd))
    assert found[3] == SurfaceScores(diagonal, diagonal, 0)


def test_a_miss_costs_more_than_any_answer_and_an_absent_class_nothing() -> None:
    # MONAI (issue 9095) leaves a missed case out of the mean of HD95, so that a model is better the more it misses.
    shape, spacing = (7, 8, 9), (3.0, 1.0, 0.5)
    corner, other = mask(shape, (0, 0, 0)), mask(shape, (6, 7, 8))
    nothing = np.zeros(shape)
    farthest = scores(corner, other, spacing=spacing)
    assert farthest.hd95 == math.hypot(18, 7, 4)
    for missed in (scores(corner, nothing, spacing=spacing), scores(nothing, corner, spacing=spacing)):
        assert missed == SurfaceScores(math.hypot(21, 8, 4.5), math.hypot(21, 8, 4.5), 0)
        assert missed.hd95 > farthest.hd95
    assert math.isnan(scores(nothing, nothing).hd95)


def test_what_does_not_fit_is_a_defect() -> None:
    labels = np.zeros((4, 4), np.uint8)
    for spacing in ((1,), (1, 1, 1), (1, 0), (1, -1), (1, math.nan), (1, math.inf)):
        with pytest.raises(ValueError, match="spacing"):
            surface_scores(labels, labels, num_classes=2, spacing=spacing, tolerance=1)
    with pytest.raises(ValueError, match="prediction"):
        surface_scores(labels, labels[:3], num_classes=2, spacing=(1, 1), tolerance=1)


# --- as others publish them -------------------------------------------------------------------------------


def sphere(
    radius: float, centre: tuple[int, int, int], spacing: tuple[float, ...] = (1, 1, 1)
) -> NDArray[np.bool_]:
    axes = np.ogrid[:99, :99, :99]
    return sum((axis * s - c) ** 2 for axis, s, c in zip(axes, spacing, centre, strict=True)) <= radius**2


def test_the_distances_that_monai_s_tests_expect() -> None:
    # test_hausdorff_distance.py (not directed) and test_surface_distance.py (symmetric). Early versions took the
    # mean of the two means for the latter.
    small, large = sphere(20, (20, 33, 22)), sphere(40, (20, 33, 22))
    assert scores(small, large).hd95 == pytest.approx(20.09975124224178, rel=1e-9)
    assert scores(small, large).assd == pytest.approx(15.117741, rel=1e-6)
    found = scores(sphere(33, (19, 33, 22)), sphere(33, (20, 33, 22)))
    assert (found.hd95, found.assd) == (1, pytest.approx(0.350217, rel=1e-5))


def test_the_surface_dice_that_monai_s_tests_expect() -> None:
    # test_surface_dice.py: a half plane and a half space, moved by 10 pixels.
    truth, prediction = np.zeros((480, 640)), np.zeros((480, 640))
    prediction[:, 50:], truth[:, 60:] = 1, 1
    expected = 1 - (478 + 480 + 9 * 2) / (480 * 4 + 588 * 2 + 578 * 2)
    assert scores(truth, prediction, tolerance=0).nsd == pytest.approx(expected, rel=1e-12)
    assert scores(truth, prediction, tolerance=10).nsd == 1
    assert scores(truth, prediction, spacing=(0.85, 1.2), tolerance=11).nsd < 1
    assert scores(truth, prediction, spacing=(0.85, 1.2), tolerance=12).nsd == 1
    one, other = mask((10, 10), (5, 6), (6, 6), (7, 6)), mask((10, 10), (1, 1), (2, 1), (3, 1))
    assert scores(one, other, tolerance=5.5).nsd == pytest.approx(1 - 4 / 6)
    assert scores(one, other, tolerance=6).nsd == pytest.approx(1 - 2 / 6)


def test_the_hausdorff_distance_that_deepmind_s_tests_expect() -> None:
    # surface_distance_test.py. Its surfaces lie between voxels and have areas; where both agree, so does HD95.
    one, other = mask((128,) * 3, (50, 60, 70)), mask((128,) * 3, (50, 60, 72))
    assert scores(one, other, spacing=(3, 2, 1)).hd95 == 2
    one, other = np.zeros((100, 100, 100), np.bool_), np.zeros((100, 100, 100), np.bool_)
    one[:50], other[:51] = True, True
    assert scores(one, other, spacing=(2, 1, 1)).hd95 == 2


# --- as others compute them -------------------------------------------------------------------------------


def blobs(seed: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5) > 0.03


def itk(array: NDArray[np.bool_], spacing: tuple[float, ...]) -> sitk.Image:
    """With a margin, for ITK takes no border at the edge of an image."""
    image = sitk.GetImageFromArray(np.pad(array, 1).astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    return image


@pytest.mark.parametrize(
    ("shape", "spacing"), [((40, 50), (0.7, 1.3)), ((18, 30, 25), (3.0, 0.7, 0.8)), ((9, 30, 31), (1, 1, 1))]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_simpleitk_measures_the_same_distances(
    shape: tuple[int, ...], spacing: tuple[float, ...], seed: int
) -> None:
    one, other = blobs(seed, shape), blobs(seed + 100, shape)
    images = [itk(array, spacing) for array in (one, other)]
    contours = [sitk.LabelContour(image, fullyConnected=False) for image in images]
    maps = [
        sitk.Abs(sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True))
        for contour in contours
    ]
    there, back = (
        sitk.GetArrayFromImage(far)[sitk.GetArrayFromImage(contour) > 0]
        for far, contour in zip(maps[::-1], contours, strict=True)
    )
    assert there.size > 50, "there is something to measure"
    found = scores(one, other, spacing=spacing, tolerance=2)
    both = np.concatenate([there, back])
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert found.assd == pytest.approx(both.mean(), rel=1e-5)
    assert found.nsd == pytest.approx((both <= 2).mean(), abs=1e-3)


def test_simpleitk_s_hausdorff_filter_agrees_where_the_percentile_is_the_maximum() -> None:
    # Plates that do not touch: more than a twentieth of the points have the greatest distance.
    one, other = np.zeros((12, 20, 14), np.bool_), np.zeros((12, 20, 14), np.bool_)
    one[1:4, 3:17, 2:12], other[6:8, 3:17, 2:12] = True, True
    spacing = (2.5, 0.5, 0.8)
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(itk(one, spacing), itk(other, spacing))
    assert scores(one, other, spacing=spacing).hd95 == pytest.approx(measure.GetHausdorffDistance()) == 12.5


def brute(
    one: NDArray[np.bool_], other: NDArray[np.bool_], spacing: tuple[float, ...], tolerance: float
) -> SurfaceScores:
    """Every point with every point; borders by erosion, as in MedPy and MONAI."""
    points = [np.argwhere(array & ~binary_erosion(array)) * np.array(spacing) for array in (one, other)]
    far = cdist(*points)
    there, back = far.min(axis=1), far.min(axis=0)
    both = np.concatenate([there, back])
    return SurfaceScores(
        max(np.percentile(there, 95), np.percentile(back, 95)), both.mean(), (both <= tolerance).mean()
    )


shapes = array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)
pairs = shapes.flatmap(lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape)))
steps = st.lists(st.sampled_from([0.5, 0.8, 1.0, 1.25, 3.0]), min_size=4, max_size=4)


def close(one: SurfaceScores, other: SurfaceScores, scale: float = 1) -> bool:
    found, wanted = [one.hd95, one.assd, one.nsd], [scale * other.hd95, scale * other.assd, other.nsd]
    return np.allclose(found, wanted, rtol=1e-9, atol=1e-12, equal_nan=True)


@settings(deadline=None, max_examples=40)
@given(pairs, steps, st.floats(0.1, 5))
def test_it_is_every_point_with_every_point(
    pair: tuple[NDArray[np.bool_], NDArray[np.bool_]], steps: list[float], tolerance: float
) -> None:
    one, other = pair
    assume(one.any() and other.any())
    spacing = tuple(steps[: one.ndim])
    expected = brute(one, other, spacing, tolerance)
    found = scores(one, other, spacing=spacing, tolerance=tolerance)
    assert close(found, expected)
    assert found.assd <= np.linalg.norm(np.array(one.shape) * spacing)


@settings(deadline=None, max_examples=40)
@given(pairs, steps, st.permutations(range(4)), st.integers(0, 4), st.sampled_from([0.1, 2.0, 7.3]))
def test_who_is_the_truth_where_it_lies_and_how_it_is_stored_change_nothing(
    pair: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    steps: list[float],
    order: list[int],
    moved: int,
    scale: float,
) -> None:
    one, other = pair
    spacing, tolerance = tuple(steps[: one.ndim]), 1.25
    found = scores(one, other, spacing=spacing, tolerance=tolerance)
    assert close(scores(other, one, spacing=spacing, tolerance=tolerance), found)
    axes = [axis for axis in order if axis < one.ndim]
    turned = [np.flip(array.transpose(axes), axis=0) for array in pair]
    assert close(scores(*turned, spacing=tuple(spacing[axis] for axis in axes), tolerance=tolerance), found)
    scaled = scores(*pair, spacing=tuple(scale * step for step in spacing), tolerance=scale * tolerance)
    assert close(scaled, found, scale)
    if one.any() and other.any():  # a larger image costs a miss more
        wider = [np.pad(array, [(moved, 2)] * one.ndim) for array in pair]
        assert scores(*wider, spacing=spacing, tolerance=tolerance) == found
    if one.any():
        assert scores(one, one, spacing=spacing) == SurfaceScores(0, 0, 1)
