"""Volumes to a network's grid and back: what is predicted lies where the patient has it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg_paddle.core import Geometry, LabelMap, LabelSet, Volume
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.preprocess import (
    ForegroundRange,
    HuWindow,
    Interpolation,
    PreparedVolume,
    VolumePreprocessing,
    ZScore,
    body_mask,
    roi_box,
)
from medseg_paddle.preprocess.restoring import restored_slabs

LABELS = LabelSet.from_names(["background", "organ"])
SHAPE = (14, 16, 18)
quick = settings(max_examples=15, deadline=None, derandomize=True)


@st.composite
def grids(draw) -> Geometry:
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-3, 3)] * 3))).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn * draw(st.tuples(*[st.floats(0.6, 2.5)] * 3)) * draw(st.sampled_from([-1, 1]))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Geometry(SHAPE, affine, "1.2.3")


def positions(geometry: Geometry) -> np.ndarray:
    return geometry.to_lps(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1))


def edges(geometry: Geometry) -> list[np.ndarray]:
    """Both ends of the diagonal, from edge to edge, and the other corners."""
    return [geometry.to_lps(np.where(corner, geometry.shape, 0) - 0.5) for corner in np.ndindex(2, 2, 2)]


axes = st.permutations(["LR", "PA", "SI"]).flatmap(
    lambda names: st.tuples(*(st.sampled_from(name) for name in names)).map("".join)
)
spacings = st.one_of(st.none(), st.tuples(*[st.one_of(st.none(), st.floats(0.6, 2.5))] * 3))


@quick
@given(
    grids(), axes, spacings, st.sampled_from(["none", "nonzero", "body"]), st.floats(0, 5), st.integers(0, 2)
)
def test_a_volume_that_knows_its_positions_keeps_them_there_and_back(
    geometry, codes, spacing, region, margin, axis
):
    """The intensity is the patient coordinate along one axis, which linear interpolation must not move."""
    place = positions(geometry)[..., axis] + 2000  # no voxel is 0
    inner = np.zeros(SHAPE, bool)
    inner[3:-3, 2:-4, 4:-2] = True
    place[~inner] = -1000 if region == "body" else 0 if region == "nonzero" else place[~inner]
    way = VolumePreprocessing(
        axes=codes, spacing=spacing, crop=region, margin_mm=margin if region != "none" else 0.0,
        interpolation=Interpolation("linear", antialias=False),
    )  # fmt: skip
    made = way.forward(Volume(place, geometry, "HU"))
    assert made.geometry.axis_codes == codes or spacing is not None
    assert made.geometry.frame_of_reference == "1.2.3"
    # On the network's grid, away from the edge of what was coded:
    deep = _within(geometry, inner, positions(made.geometry))
    coded = positions(made.geometry)[..., axis] + 2000
    assert made.array[0][deep] == pytest.approx(coded[deep], abs=2e-3)
    # And back: probabilities that hold the position, as a network would that knows where it is.
    back = 8000 * returned(made, coded[None] / 8000)[0]
    # Where the source is coarser they are smoothed, which bends a line towards the ends that it repeats.
    coarse = geometry.transposed(geometry.turn_to(codes)[0]).spacing
    reach = [7 if ours < theirs else 0 for ours, theirs in zip(made.geometry.spacing, coarse, strict=True)]
    middle = np.zeros(made.geometry.shape, bool)
    middle[tuple(slice(less, side - less) for less, side in zip(reach, middle.shape, strict=True))] = True
    clamped = _within(made.geometry, middle, positions(geometry))
    assert back[clamped] == pytest.approx((positions(geometry)[..., axis] + 2000)[clamped], abs=2e-3)
    assert back.shape == SHAPE


def returned(made: PreparedVolume, probabilities: np.ndarray) -> np.ndarray:
    """On the grid that the volume came on."""
    back = np.full((len(probabilities), *made.source.shape), np.nan, np.float32)
    arriving = [probabilities.astype(np.float32)]
    for part, values in restored_slabs(arriving, made.geometry, made.source, len(back)):
        back[(slice(None), *part)] = values
    return back


def _within(geometry: Geometry, inner: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points have only voxels of `inner` around them."""
    index = geometry.to_index(points)
    if not inner.any():
        return np.zeros(points.shape[:-1], bool)
    low = np.argwhere(inner).min(axis=0)
    high = np.argwhere(inner).max(axis=0)
    return ((index >= low) & (index <= high)).all(axis=-1)


@quick
@given(grids(), axes, st.sampled_from(["none", "nonzero"]))
def test_without_another_spacing_labels_come_back_as_they_were(geometry, codes, region):
    rng = np.random.default_rng(0)
    array = rng.integers(1, 200, SHAPE)
    array[:3] = 0
    labels = LabelMap((rng.random(SHAPE) < 0.3).astype(np.uint8), geometry, LABELS)
    labels.array[:3] = 0
    made = VolumePreprocessing(axes=codes, crop=region).forward(Volume(array, geometry))
    there = made.labels(labels)
    assert there.array.shape == made.geometry.shape
    one_hot = np.stack([there.array == 0, there.array == 1])
    np.testing.assert_array_equal(returned(made, one_hot).argmax(axis=0), labels.array)


@quick
@given(grids(), st.tuples(*[st.floats(0.6, 2.5)] * 3))
def test_the_networks_grid_covers_the_same_ground(geometry, spacing):
    volume = Volume(np.ones(SHAPE), geometry)
    made = VolumePreprocessing(axes=geometry.axis_codes, spacing=spacing).forward(volume)
    for ours, corner in zip(edges(made.geometry), edges(geometry), strict=True):
        assert ours == pytest.approx(corner, abs=1e-8)


def test_a_ball_comes_back_with_its_volume_and_centre():
    affine = np.array([[0, 0, 0.8, 5], [0, 0.8, 0, 6], [2.5, 0, 0, 7], [0, 0, 0, 1.0]])
    geometry = Geometry((24, 60, 62), affine)
    centre = np.array([29.0, 30.0, 37.0])
    inside = np.linalg.norm(positions(geometry) - centre, axis=-1) < 15
    made = VolumePreprocessing(axes="IPR", spacing=(2, 1.1, 1.1)).forward(Volume(inside, geometry))
    near = np.clip((15.5 - np.linalg.norm(positions(made.geometry) - centre, axis=-1)), 0, 1)
    found = positions(geometry)[returned(made, np.stack([1 - near, near])).argmax(axis=0) == 1]
    assert found.mean(axis=0) == pytest.approx(centre, abs=0.1)
    assert len(found) * 0.8 * 0.8 * 2.5 == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.02)


def test_intensities_are_clipped_before_they_are_interpolated():
    geometry = Geometry((3, 20, 20), np.eye(4))
    array = np.full((3, 20, 20), 40, np.int16)
    array[:, 10, 10] = 30000  # a clip of metal: a spline through it would ring by thousands of HU
    way = VolumePreprocessing(axes="LPS", spacing=(1, 0.5, 0.5), normalization=HuWindow(40, 400))
    made = way.forward(Volume(array, geometry, "HU"))
    assert (made.array.min(), made.array.max()) == pytest.approx((0.5, 1), abs=0.15)
    assert array.max() == 30000


def test_the_body_of_a_ct():
    array = np.full((3, 20, 30), -1000, np.int16)
    array[:, 4:14, 5:20] = 40
    array[:, 6:9, 8:12] = -850  # a lung, enclosed
    array[:, 6:9, 19] = -1000  # a dent, open to the outside
    array[:, 17, 2:28] = 100  # a couch
    array[0, 5, 22] = 500  # a tube
    geometry = Geometry((3, 20, 30), np.array([[0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]]))
    expected = np.zeros(array.shape, bool)
    expected[:, 4:14, 5:20] = True
    expected[:, 6:9, 19] = False
    volume = Volume(array, geometry, "HU")
    assert np.array_equal(body_mask(volume), expected)
    sagittal = volume.transposed((2, 0, 1))  # the same body, stored otherwise
    assert np.array_equal(body_mask(sagittal), expected.transpose(2, 0, 1))
    made = VolumePreprocessing(crop="body", margin_mm=3).forward(volume)
    assert made.array.shape == (1, 3, 16, 21)
    with pytest.raises(DataError, match="Hounsfield units"):
        body_mask(Volume(array, geometry))


def test_both_legs_are_body():
    array = np.full((2, 12, 30), -1000, np.int16)
    array[:, 3:9, 2:12] = 40
    array[:, 3:9, 18:27] = 40
    mask = body_mask(Volume(array, Geometry(array.shape, np.eye(4)), "HU"))
    assert np.array_equal(mask, array == 40)


def test_a_part_around_a_structure():
    array = np.zeros((10, 20, 30), np.uint8)
    array[4:6, 8:10, 12:14], array[0, 0, 0] = 2, 1
    labels = LabelMap(array, Geometry(array.shape, np.diag([4.0, 1, 0.5, 1])), LABELS)
    box = roi_box(labels, [2], margin_mm=2)
    assert (box.start, box.stop) == ((3, 6, 8), (7, 12, 18))
    with pytest.raises(DataError, match="no voxel to crop to"):
        roi_box(labels, [3], margin_mm=2)


@pytest.mark.parametrize(
    "way",
    [
        VolumePreprocessing(),
        VolumePreprocessing("LPI", (1.5, None, 2), "body", 10.0, HuWindow(40, 400)),
        VolumePreprocessing(normalization=ZScore("nonzero", (0.5, 99.5))),
        VolumePreprocessing(
            normalization=ForegroundRange(-100, 300, 80, 60), interpolation=Interpolation("linear")
        ),
    ],
)
def test_a_description_in_json_makes_the_same(way):
    assert VolumePreprocessing.from_spec(json.loads(json.dumps(way.spec))) == way


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"axes": "SPX"}, "does not name the directions"),
        ({"axis": "SPL"}, "has no parameter 'axis'"),
        ({"spacing": [1, 1]}, "spacing must be three numbers"),
        ({"spacing": [1, 1, 0]}, "spacing must be a number"),
        ({"crop": "head"}, "crop 'head' is unknown"),
        ({"margin_mm": 5}, "crop is none"),
        ({"margin_mm": -5, "crop": "body"}, "margin_mm"),
        ({"normalization": {"type": "Window"}}, "'Window' is not supported"),
        ({"interpolation": {"order": 3}}, "Interpolation has no parameter 'order'"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(spec, message):
    with pytest.raises(RecipeError, match=message):
        VolumePreprocessing.from_spec(spec)


def test_channels_are_cropped_together_and_normalised_each_by_itself():
    geometry = Geometry((6, 7, 8), np.eye(4))
    rng = np.random.default_rng(3)
    first, second = np.zeros((6, 7, 8)), np.zeros((6, 7, 8))
    first[1:3, 2:4, 3:5] = rng.uniform(5, 9, (2, 2, 2))
    second[2:5, 3:6, 1:4] = rng.uniform(100, 900, (3, 3, 3))
    volumes = [Volume(one, geometry) for one in (first, second)]
    made = VolumePreprocessing("LPS", crop="nonzero", normalization=ZScore()).forward(volumes)
    assert made.array.shape == (2, 4, 4, 4)
    assert made.geometry.to_lps(np.zeros(3)) == pytest.approx(geometry.to_lps(np.array([1, 2, 1])))
    for channel, stored in zip(made.array, (first, second), strict=True):
        part = stored[1:5, 2:6, 1:5]
        assert channel == pytest.approx((part - part.mean()) / part.std(), abs=1e-5)
    alone = VolumePreprocessing("LPS", crop="nonzero", normalization=ZScore()).forward(volumes[0])
    assert alone.array.shape == (1, 2, 2, 2)


@pytest.mark.parametrize(
    "other",
    [Geometry((6, 7, 9), np.eye(4)), Geometry((6, 7, 8), np.diag([1, 1, -1, 1.0]))],
    ids=["size", "direction"],
)
def test_channels_that_lie_elsewhere_are_refused(other):
    volumes = [Volume(np.ones(grid.shape), grid) for grid in (Geometry((6, 7, 8), np.eye(4)), other)]
    with pytest.raises(DataError, match="channel 2 of an image does not lie where channel 1 lies"):
        VolumePreprocessing().forward(volumes)
    with pytest.raises(DataError, match="without a channel"):
        VolumePreprocessing().forward([])


@quick
@given(
    grids(), axes, spacings, st.sampled_from(["none", "nonzero"]), st.sampled_from(["linear", "cubic"]),
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5), st.booleans(),
)  # fmt: skip
def test_slices_that_are_made_when_they_are_needed_are_those_of_the_whole(
    geometry, codes, spacing, region, kind, steps, normal
):
    rng = np.random.default_rng(4)
    volumes = [
        Volume(rng.integers(-9, 99, SHAPE).astype(dtype), geometry) for dtype in (np.int16, np.float32)
    ]
    for volume in volumes:
        volume.array[:4] = 0
    way = VolumePreprocessing(
        codes, spacing, crop=region, normalization=ZScore() if normal else None,
        interpolation=Interpolation(kind),
    )  # fmt: skip
    whole = way.forward(volumes)
    with way.streamed(volumes) as made:
        assert made.geometry.is_at(whole.geometry)
        assert made.source is geometry
        assert made.array.shape == whole.array.shape
        first = 0
        for further, length in steps:
            first += further
            part = made.array[:, first : first + length]
            np.testing.assert_array_equal(part, whole.array[:, first : first + length])
        with pytest.raises(IndexError):
            made.array[:, : first - 1] if first > 0 else made.array[1:, :1]


def test_a_crop_to_nothing_is_refused():
    geometry = Geometry(SHAPE, np.eye(4))
    with pytest.raises(DataError, match="no voxel to crop to"):
        VolumePreprocessing(crop="nonzero").forward(Volume(np.zeros(SHAPE), geometry))
