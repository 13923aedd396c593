"""Crops, pads, flips and turns: every voxel stays where it lies in the patient, and the way back is exact."""

from __future__ import annotations

import highdicom
import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg_paddle.core import Box, Geometry, LabelMap, LabelSet, Volume, crop, flip, match, pad, reorient
from medseg_paddle.errors import DataError, RecipeError

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (3, 4, 5)
quick = settings(max_examples=25, deadline=None, derandomize=True)
CODES = st.permutations(["LR", "PA", "SI"]).flatmap(
    lambda axes: st.tuples(*(st.sampled_from(names) for names in axes)).map("".join)
)


@st.composite
def grids(draw, shape=SHAPE, most: float = np.pi) -> Geometry:
    """Oblique, with axes in any order and direction; `most` radians about each patient axis."""
    angles = draw(st.tuples(*[st.floats(-most, most)] * 3))
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()[:, order] * signs * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Geometry(shape, affine, frame_of_reference="1.2.3")


def coded(geometry: Geometry) -> np.ndarray:
    """The patient position of every voxel, (*shape, 3)."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    return geometry.to_lps(index)


def numbered(geometry: Geometry) -> Volume:
    return Volume(np.arange(np.prod(geometry.shape)).reshape(geometry.shape), geometry, "HU")


def where(volume: Volume) -> np.ndarray:
    """Patient positions of a numbered volume's voxels in the order of their numbers."""
    return coded(volume.geometry).reshape(-1, 3)[np.argsort(volume.array, axis=None)]


@quick
@given(grids(), st.sets(st.integers(0, 2)), CODES)
def test_flips_and_turns_move_no_voxel_and_come_back_exactly(geometry, axes, codes):
    volume = numbered(geometry)
    for moved in (flip(volume, axes), reorient(volume, codes), reorient(flip(volume, axes), codes)):
        assert where(moved) == pytest.approx(where(volume), abs=1e-9)
        assert (moved.units, moved.geometry.frame_of_reference) == ("HU", "1.2.3")
        back = match(moved, geometry)
        assert np.array_equal(back.array, volume.array)
        assert np.array_equal(back.geometry.affine, geometry.affine)


@quick
@given(grids(), st.data())
def test_crops_and_pads_come_back_exactly(geometry, data):
    volume = numbered(geometry)
    before = data.draw(st.tuples(*[st.integers(0, 3)] * 3))
    after = data.draw(st.tuples(*[st.integers(0, 3)] * 3))
    padded = pad(volume, before, after, fill=-1)
    positions = coded(padded.geometry)
    for number, place in enumerate(where(volume)):
        assert positions[padded.array == number][0] == pytest.approx(place, abs=1e-9)
    back = match(padded, geometry)
    assert np.array_equal(back.array, volume.array)
    assert np.array_equal(back.geometry.affine, geometry.affine)

    spans = [sorted(data.draw(st.sets(st.integers(0, side), min_size=2, max_size=2))) for side in SHAPE]
    box = Box(*zip(*spans, strict=True))
    part = crop(volume, box)
    assert np.array_equal(part.array, volume.array[box.slices])
    assert coded(part.geometry) == pytest.approx(coded(geometry)[box.slices], abs=1e-9)
    turned = reorient(part, "RIA")
    whole = match(turned, geometry, fill=-1)
    held = np.zeros(SHAPE, bool)
    held[box.slices] = True
    assert np.array_equal(whole.array, np.where(held, volume.array, -1))


@quick
@given(grids(most=0.4), CODES)
def test_directions_are_those_of_nibabel(geometry, codes):
    assert "".join(nibabel.aff2axcodes(RAS @ geometry.affine)) == geometry.axis_codes
    turned = reorient(numbered(geometry), codes)
    assert turned.geometry.axis_codes == codes
    image = nibabel.Nifti1Image(numbered(geometry).array.astype(np.int32), RAS @ geometry.affine)
    ornt = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    theirs = image.as_reoriented(ornt)
    assert np.array_equal(np.asarray(theirs.dataobj), turned.array)
    assert RAS @ theirs.affine == pytest.approx(turned.geometry.affine, abs=1e-9)


# highdicom 0.28 crops nothing where a part begins at index 0 along all axes, unless an axis is flipped.
@quick
@given(grids(), st.permutations(range(3)), st.sets(st.integers(0, 2), min_size=1), st.data())
def test_voxels_are_matched_as_highdicom_does(geometry, order, axes, data):
    start = data.draw(st.tuples(*[st.integers(-3, 2)] * 3))
    stop = tuple(max(first, 0) + data.draw(st.integers(1, 4)) for first in start)
    target = geometry.boxed(Box(start, stop)).flipped(axes).transposed(tuple(order))
    ours = match(numbered(geometry), target, fill=-5)

    def theirs(grid: Geometry, array: np.ndarray) -> highdicom.Volume:
        return highdicom.Volume(
            array, grid.affine, coordinate_system="PATIENT", frame_of_reference_uid="1.2.3"
        )

    wanted = theirs(target, np.zeros(target.shape, np.int64))
    found = theirs(geometry, numbered(geometry).array).match_geometry(wanted, constant_value=-5)
    assert np.array_equal(ours.array, found.array)
    assert found.affine == pytest.approx(ours.geometry.affine, abs=1e-9)


@quick
@given(grids(), grids())
def test_index_and_position_are_each_others_inverse(geometry, other):
    points = coded(other).reshape(-1, 3)
    assert geometry.to_lps(geometry.to_index(points)) == pytest.approx(points, abs=1e-8)


@quick
@given(grids(), st.tuples(*[st.floats(0.5, 8)] * 3))
def test_another_spacing_keeps_the_edges(geometry, spacing):
    other = geometry.respaced(spacing)
    for corner in np.ndindex(2, 2, 2):
        ends = [np.where(corner, grid.shape, 0) - 0.5 for grid in (geometry, other)]
        assert other.to_lps(ends[1]) == pytest.approx(geometry.to_lps(ends[0]), abs=1e-9)
    for axis, wanted in enumerate(spacing):
        extent = geometry.shape[axis] * geometry.spacing[axis]
        assert other.shape[axis] == max(1, round(extent / wanted))
        assert other.spacing[axis] == pytest.approx(extent / other.shape[axis])


def test_another_spacing_by_hand():
    geometry = Geometry((4, 3, 2), np.diag([3.0, 1.0, 1.0, 1.0]), "9.8")
    other = geometry.respaced((2, None, 0.5))
    assert (other.shape, other.spacing, other.frame_of_reference) == ((6, 3, 4), (2, 1, 0.5), "9.8")
    # Edges at -1.5 and 10.5 mm: six voxels of 2 mm, the first centre at -0.5 mm.
    assert other.affine[:3, 3].tolist() == [-0.5, 0, -0.25]


LABELS = LabelSet.from_names(["background", "organ"])


def test_labels_are_continued_as_background_and_volumes_only_as_told():
    geometry = Geometry((1, 2, 2), np.eye(4))
    labels = LabelMap(np.ones((1, 2, 2), np.uint8), geometry, LABELS)
    assert pad(labels, (0, 0, 1), (1, 0, 0)).array.tolist() == [[[0, 1, 1]] * 2, [[0, 0, 0]] * 2]
    assert pad(labels, (0, 0, 1), (1, 0, 0)).labels is LABELS
    volume = Volume(np.ones((1, 2, 2), np.int16), geometry)
    with pytest.raises(DataError, match="nobody said with what") as caught:
        pad(volume, (0, 0, 1), (0, 0, 0))
    assert "-1024" in caught.value.hint
    with pytest.raises(DataError, match="no value of int16"):
        pad(volume, (0, 0, 1), (0, 0, 0), fill=0.5)
    with pytest.raises(DataError, match="no value of uint8"):
        pad(labels, (0, 0, 1), (0, 0, 0), fill=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda affine: affine @ np.diag([1, 1, 1.01, 1]), "do not share their voxels"),
        (lambda affine: affine + np.array([[0, 0, 0, 0.01]] * 4) * [[1], [1], [1], [0]], "do not share"),
        (lambda affine: affine + np.array([[0, 0, 0, 7]] + [[0] * 4] * 3), "no voxel in common"),
    ],
)
def test_other_voxels_are_not_matched(change, message):
    volume = numbered(Geometry((3, 4, 5), np.eye(4)))
    other = Geometry((3, 4, 5), change(np.eye(4)))
    with pytest.raises(DataError, match=message):
        match(volume, other, fill=0)


def test_a_header_in_single_precision_is_the_same_grid():
    turn = Rotation.from_euler("xyz", (0.3, -0.2, 0.1)).as_matrix() * (5, 0.7, 0.7)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, (-350.1, -401.7, 1203.3)
    geometry = Geometry((50, 512, 512), affine)
    volume = Volume(np.zeros((50, 512, 512), np.uint8), geometry)
    single = Geometry((50, 512, 512), affine.astype(np.float32))
    assert match(volume, single).geometry is single


def test_frames_of_reference_are_not_mixed():
    volume = numbered(Geometry((3, 4, 5), np.eye(4), "1.2.3"))
    assert match(volume, Geometry((3, 4, 5), np.eye(4))).geometry.frame_of_reference == ""
    with pytest.raises(DataError, match=r"two frames of reference, 1\.2\.3 and 1\.2\.4"):
        match(volume, Geometry((3, 4, 5), np.eye(4), "1.2.4"))


@pytest.mark.parametrize("codes", ["", "SP", "SPLL", "SPA", "SPX", "spl", "SSL"])
def test_directions_that_are_none_are_refused(codes):
    with pytest.raises(RecipeError, match="does not name the directions") as caught:
        reorient(numbered(Geometry((3, 4, 5), np.eye(4))), codes)
    assert "SPL" in caught.value.hint


def test_parts_that_are_none_are_refused():
    volume = numbered(Geometry((3, 4, 5), np.eye(4)))
    with pytest.raises(DataError, match="reaches beyond"):
        crop(volume, Box((0, 0, 0), (3, 4, 6)))
    with pytest.raises(DataError, match="is empty"):
        Box((0, 2, 0), (3, 2, 5))
    with pytest.raises(DataError, match="no voxel to crop to"):
        Box.around(np.zeros((3, 4, 5)))
    with pytest.raises(DataError, match="0 x 4 x 5"):
        Geometry((0, 4, 5), np.eye(4))
    with pytest.raises(RecipeError, match="spacing of 0 mm"):
        volume.geometry.respaced((0, 1, 1))
    mask = np.zeros((3, 4, 5))
    mask[1, 2, 3:] = 1
    assert Box.around(mask, (0, 1, 2)) == Box((1, 1, 1), (2, 4, 5))
