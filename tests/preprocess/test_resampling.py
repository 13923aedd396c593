"""Resampling agrees with SimpleITK, scipy and nibabel on grids of any direction, and keeps what it must."""

from __future__ import annotations

import nibabel
import nibabel.processing
import numpy as np
import pytest
import scipy.ndimage
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg_paddle.core import Box, Geometry, LabelMap, LabelSet, Volume
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.preprocess import Interpolation, resample, resample_labels

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LABELS = LabelSet.from_names(["background", "one", "two", "three"])
ITK = {
    "linear": SimpleITK.sitkLinear,
    "cubic": SimpleITK.sitkBSpline,
    "nearest": SimpleITK.sitkNearestNeighbor,
}
quick = settings(max_examples=15, deadline=None, derandomize=True)
sides = st.tuples(*[st.integers(1, 12)] * 3)
angles = st.tuples(*[st.floats(-3, 3)] * 3)
spacings = st.tuples(*[st.floats(0.4, 5)] * 3)
kinds = st.sampled_from(["linear", "cubic"])
# SimpleITK 2.5 makes numbers up to 3.4e38 of splines along an axis of two voxels: it mirrors them wrongly.
kinds_of_sides = st.one_of(
    st.tuples(st.just("linear"), sides), st.tuples(st.just("cubic"), st.tuples(*[st.integers(3, 12)] * 3))
)


def grid(shape, spacing, turn, centre=(10.0, -20.0, 300.0)) -> Geometry:
    """Oblique, with its centre in `centre`."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn).as_matrix()[:, ::-1] * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(shape, affine)


def noise(geometry: Geometry, seed: int = 0) -> Volume:
    return Volume(
        np.random.default_rng(seed).normal(0, 100, geometry.shape).astype(np.float32), geometry, "HU"
    )


def points(kind: str) -> Interpolation:
    """Interpolation at points, of one kind along all axes: what SimpleITK does."""
    return Interpolation(kind, kind, antialias=False)


def by_itk(volume: Volume, onto: Geometry, kind: str, fill: float) -> np.ndarray:
    def place(geometry: Geometry):
        axes = geometry.affine[:3, :3][:, ::-1]
        directions = axes / np.linalg.norm(axes, axis=0)
        return geometry.spacing[::-1], directions.ravel().tolist(), geometry.affine[:3, 3].tolist()

    image = SimpleITK.GetImageFromArray(volume.array)
    spacing, direction, origin = place(volume.geometry)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    image.SetOrigin(origin)
    spacing, direction, origin = place(onto)
    made = SimpleITK.Resample(
        image, onto.shape[::-1], SimpleITK.Transform(), ITK[kind], origin, spacing, direction, fill,
        SimpleITK.sitkFloat32,
    )  # fmt: skip
    return SimpleITK.GetArrayFromImage(made)


def edge(source: Geometry, target: Geometry, near: float = 1e-3) -> np.ndarray:
    """Voxels of `target` so near to an outer edge of `source` that rounding says on which side they are."""
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), axis=-1)
    places = source.to_index(target.to_lps(index))
    return np.minimum(np.abs(places + 0.5), np.abs(places - np.array(source.shape) + 0.5)).min(axis=-1) < near


@quick
@given(
    kinds_of_sides, sides, spacings, spacings, angles, st.permutations(range(3)), st.sets(st.integers(0, 2))
)
def test_parallel_grids_as_simpleitk_does(source, wanted, spacing, other, turn, order, flips):
    kind, shape = source
    source = grid(shape, spacing, turn)
    target = grid(wanted, other, turn, centre=(10.3, -20.1, 300.2)).flipped(flips).transposed(tuple(order))
    ours = resample(noise(source), target, interpolation=points(kind), fill=-1000)
    theirs = by_itk(noise(source), target, kind, -1000)
    sure = ~edge(source, target)
    assert ours.array[sure] == pytest.approx(theirs[sure], abs=1e-3, rel=1e-5)
    assert (ours.array.dtype, ours.units, ours.geometry) == (np.float32, "HU", target)


@quick
@given(kinds_of_sides, sides, spacings, spacings, angles, angles)
def test_turned_grids_as_simpleitk_does(source, wanted, spacing, other, turn, turned):
    kind, shape = source
    source, target = grid(shape, spacing, turn), grid(wanted, other, turned)
    ours = resample(noise(source), target, interpolation=points(kind), fill=-1000)
    theirs = by_itk(noise(source), target, kind, -1000)
    sure = ~edge(source, target)
    assert ours.array[sure] == pytest.approx(theirs[sure], abs=1e-3, rel=1e-5)


@quick
@given(sides, spacings, spacings, angles, st.booleans())
def test_labels_as_simpleitk_does(shape, spacing, other, turn, also_turned):
    source = grid(shape, spacing, turn)
    target = source.respaced(other)
    if also_turned:
        target = grid(target.shape, other, (0.1, 0.2, 0.3))
    array = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint16)
    ours = resample_labels(LabelMap(array, source, LABELS), target)
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), axis=-1)
    places = source.to_index(target.to_lps(index))
    halfway = (np.abs(places - np.floor(places) - 0.5) < 1e-3).any(axis=-1)
    theirs = by_itk(Volume(array, source), target, "nearest", 0)
    assert np.array_equal(ours.array[~halfway], theirs[~halfway])
    assert (ours.array.dtype, ours.labels) == (np.uint16, LABELS)


@quick
@given(spacings, angles)
def test_splines_in_the_frame_of_nibabel(spacing, turn):
    source = grid((9, 10, 11), spacing, turn)
    target = grid((5, 4, 6), [0.7 * min(spacing)] * 3, np.array(turn) + 0.2)
    image = nibabel.Nifti1Image(noise(source).array.transpose(2, 1, 0), RAS @ source.affine[:, [2, 1, 0, 3]])
    theirs = nibabel.processing.resample_from_to(
        image, (target.shape[::-1], RAS @ target.affine[:, [2, 1, 0, 3]]), order=3, mode="mirror"
    )
    ours = resample(noise(source), target, interpolation=points("cubic"), fill=0)
    assert ours.array == pytest.approx(theirs.get_fdata().transpose(2, 1, 0), abs=2e-3)


def test_coarser_grids_are_smoothed_to_their_resolution():
    source = grid((30, 21, 16), (1, 1, 2), (0, 0, 0))
    target = source.respaced((2.5, 1, 1))
    assert target.shape == (12, 21, 32)
    ours = resample(noise(source), target, interpolation=Interpolation("linear"))
    # 2.5 voxels become one: a Gaussian of sqrt(2.5**2 - 1) voxels full width at half maximum, along slices alone.
    sigma = np.sqrt(2.5**2 - 1) / np.sqrt(8 * np.log(2))
    smooth = scipy.ndimage.gaussian_filter1d(noise(source).array.astype(float), sigma, axis=0, mode="nearest")
    theirs = by_itk(Volume(smooth.astype(np.float32), source), target, "linear", 0)
    assert ours.array == pytest.approx(theirs, abs=1e-3)
    # A grid that is turned by next to nothing takes the other way.
    turned = grid(
        target.shape, target.spacing, (1e-4, 0, 0), centre=target.to_lps((np.array(target.shape) - 1) / 2)
    )
    other = resample(noise(source), turned, interpolation=Interpolation("linear"), fill=0)
    assert np.abs(other.array - ours.array)[1:-1, 1:-1, 1:-1].max() < 1


def test_thick_slices_have_an_interpolation_of_their_own():
    thick, thin = grid((6, 8, 8), (5, 1, 1), (0, 0, 0)), grid((6, 8, 8), (2, 1, 1), (0, 0, 0))
    rows = Interpolation("cubic", across="nearest", antialias=False)
    for source, across in ((thick, "nearest"), (thin, "cubic")):
        target = source.respaced((1, 0.5, 0.5))
        ours = resample(noise(source), target, interpolation=rows)
        in_plane = by_itk(noise(source), source.respaced((None, 0.5, 0.5)), "cubic", 0)
        theirs = by_itk(Volume(in_plane, source.respaced((None, 0.5, 0.5))), target, across, 0)
        assert ours.array == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize(
    ("spacing", "target", "expected"),
    [
        ((5, 1, 1), (1, 1, 1), ("linear", "cubic", "cubic")),
        ((1, 1, 3.1), (1, 1, 1), ("cubic", "cubic", "linear")),
        ((3, 1, 1), (1, 1, 1), ("cubic", "cubic", "cubic")),
        ((1, 1, 1), (5, 1, 1), ("linear", "cubic", "cubic")),  # the target's slices are thick
        ((1, 4, 4), (1, 1, 1), ("cubic", "cubic", "cubic")),  # no single axis is
        ((4, 1, 1), (1, 5, 1), ("linear", "cubic", "cubic")),  # the image's own come first
    ],
)
def test_which_axis_has_thick_slices_is_nnunets_rule(spacing, target, expected):
    assert Interpolation().kinds(spacing, target) == expected


@quick
@given(sides, spacings, angles, st.permutations(range(3)), st.sets(st.integers(0, 2)), kinds)
def test_a_grid_of_the_same_voxels_gives_them_unchanged(shape, spacing, turn, order, flips, kind):
    source = grid(shape, spacing, turn)
    target = source.flipped(flips).transposed(tuple(order))
    target = target.boxed(Box((-1, 0, 0), target.shape))
    volume = noise(source)
    ours = resample(volume, target, interpolation=Interpolation(kind, kind), fill=7)
    back = resample(ours, source, interpolation=Interpolation(kind, kind))
    assert (ours.array[0] == 7).all()
    assert np.array_equal(back.array, volume.array)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_splines_through_few_values_as_scipy_does(length):
    source = Geometry((length, 1, 1), np.eye(4))
    target = source.respaced((1 / 7, 1, 1))
    volume = noise(source)
    theirs = scipy.ndimage.map_coordinates(
        volume.array[:, 0, 0].astype(float), [(np.arange(7 * length) - 3) / 7], order=3, mode="mirror"
    )
    ours = resample(volume, target, interpolation=points("cubic"))
    assert ours.array[:, 0, 0] == pytest.approx(theirs, abs=1e-4)


@quick
@given(sides, spacings, angles, angles, kinds, st.booleans())
def test_an_even_volume_stays_even(shape, spacing, turn, turned, kind, antialias):
    source = grid(shape, (1, 1.5, 2), turn)
    even = Volume(np.full(shape, -1024, np.int16), source)
    way = Interpolation(kind, kind, antialias=antialias)
    for target in (source.respaced(spacing), grid((3, 4, 5), spacing, turned)):
        assert resample(even, target, interpolation=way, fill=-1024).array == pytest.approx(-1024, abs=2e-3)


@quick
@given(sides, spacings)
def test_labels_by_vote_are_the_greatest_share(shape, spacing):
    source = grid(shape, (1, 1.5, 2), (0.1, 0.2, 0.3))
    array = np.random.default_rng(0).integers(1, 4, shape).astype(np.uint8)
    target = source.respaced(spacing).boxed(Box((-1, 0, 0), source.respaced(spacing).shape))
    ours = resample_labels(LabelMap(array, source, LABELS), target, vote=True)
    shares = [
        resample(
            Volume(array == number, source),
            target,
            interpolation=Interpolation("linear", "linear"),
            fill=float(number == 0),
        ).array
        for number in range(4)
    ]
    assert np.array_equal(ours.array, np.argmax(shares, axis=0))
    assert (ours.array[0] == 0).all()


def test_the_number_of_threads_changes_nothing():
    source = grid((40, 50, 60), (2, 0.8, 0.8), (0, 0, 0))
    for target in (source.respaced((1, 1, 1)), grid((20, 30, 40), (1, 1, 1), (0.1, 0, 0))):
        one, three = (resample(noise(source), target, threads=threads).array for threads in (1, 3))
        assert np.array_equal(one, three)


def test_many_slabs_are_one_volume(monkeypatch):
    monkeypatch.setattr("medseg_paddle.preprocess.slabs._SLAB_BYTES", 1)
    monkeypatch.setattr("medseg_paddle.preprocess.slabs.available_cores", lambda: 1)
    source = grid((30, 12, 13), (2, 0.8, 0.8), (0, 0, 0))
    for spacing in ((1, 1, 1), (5, 0.5, 0.5), (3, 1, 1)):
        for way in (source.respaced(spacing), source.respaced(spacing).flipped([0])):
            ours = resample(noise(source), way, interpolation=points("cubic"))
            assert ours.array == pytest.approx(by_itk(noise(source), way, "cubic", 0), abs=1e-3)


def test_arrays_in_any_order_of_memory_are_read():
    source = grid((20, 21, 22), (1, 1, 1), (0, 0, 0))
    expected = resample(noise(source), source.respaced((0.7, 1.3, 1.1))).array
    array = noise(source).array
    for stored in (
        np.asfortranarray(array),
        np.flip(np.ascontiguousarray(np.flip(array))),
        array.astype(">f4"),
    ):
        assert np.array_equal(
            resample(Volume(stored, source), source.respaced((0.7, 1.3, 1.1))).array, expected
        )


def test_sheared_slices_are_made_straight():
    # A gantry tilted by 20 degrees: each slice lies lower in the rows' direction than the one before.
    affine = np.diag([2.0, 1, 1, 1])[:, [2, 1, 0, 3]]
    affine[:3, 0] = (0, 2 * np.tan(np.radians(20)), 2)
    tilted = Geometry((12, 30, 20), affine)
    y = tilted.to_lps(np.stack(np.meshgrid(*map(np.arange, tilted.shape), indexing="ij"), axis=-1))[..., 1]
    straight = Geometry((8, 16, 16), np.array([[0, 0, 1, 2], [0, 1, 0, 11], [2, 0, 0, 4], [0, 0, 0, 1.0]]))
    made = resample(Volume(y.astype(np.float32), tilted), straight, interpolation=points("linear"))
    assert made.array == pytest.approx(np.broadcast_to(np.arange(11, 27)[:, None], (8, 16, 16)), abs=1e-4)


@pytest.mark.parametrize("turn", [0.0, 0.1])
def test_what_cannot_be_is_refused(turn):
    source = grid((6, 7, 8), (1, 1, 1), (0, 0, 0))
    volume = noise(source)
    with pytest.raises(DataError, match="reaches beyond the image") as caught:
        resample(volume, grid((9, 9, 9), (1, 1, 1), (turn, 0, 0)))
    assert "-1024" in caught.value.hint
    with pytest.raises(DataError, match="nothing in common"):
        resample(volume, grid((6, 7, 8), (1, 1, 1), (turn, 0, 0), centre=(60, 60, 60)), fill=0)
    inner = grid((2, 2, 2), (1.1, 1.1, 1.1), (turn, 0, 0))
    for value in (np.nan, np.inf):
        broken = volume.array.copy()
        broken[2:4, 3, 3:5] = value
        with pytest.raises(DataError, match="not finite"):
            resample(Volume(broken, source), inner)
    framed = Geometry(inner.shape, inner.affine, "1.2")
    with pytest.raises(DataError, match="two frames of reference"):
        resample(Volume(volume.array, Geometry(source.shape, source.affine, "1.3")), framed)


def test_an_interpolation_that_is_none_is_refused():
    with pytest.raises(RecipeError, match=r"interpolation\.kind 'spline' is unknown"):
        Interpolation("spline")
    with pytest.raises(RecipeError, match=r"interpolation\.across 'none' is unknown"):
        Interpolation(across="none")
    with pytest.raises(RecipeError, match="anisotropy"):
        Interpolation(anisotropy=0)
    with pytest.raises(RecipeError, match="true or false"):
        Interpolation(antialias="yes")
