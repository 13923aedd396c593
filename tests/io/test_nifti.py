import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.core import Geometry, LabelMap, LabelSet
from medseg_paddle.errors import DataError
from medseg_paddle.io.nifti import read_label_nifti, read_nifti, write_label_nifti

LABELS = LabelSet.from_names(["background", "a", "b"])


def oblique(angles, spacing, origin) -> np.ndarray:
    """An LPS affine with turned axes, unequal steps and an origin."""
    a, b, c = angles
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_y @ about_z @ np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * spacing
    affine[:3, 3] = origin
    return affine


def save(path, array, affine=None, **header):
    image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    for key, value in header.items():
        image.header[key] = value
    path.write_bytes(image.to_bytes())
    return path


angle = st.floats(-3, 3)


@settings(max_examples=25)
@given(
    angles=st.tuples(angle, angle, angle),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    voxel=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)),
)
def test_nibabel_finds_a_written_voxel_at_the_same_place_of_the_patient(
    tmp_path_factory, angles, spacing, origin, voxel
):
    geometry = Geometry((4, 5, 6), oblique(angles, spacing, origin))
    array = np.zeros((4, 5, 6), np.uint8)
    array[voxel] = 2
    path = tmp_path_factory.mktemp("nifti") / "a.nii.gz"
    write_label_nifti(path, LabelMap(array, geometry, LABELS))
    image = nib.load(path)
    (index,) = np.argwhere(np.asarray(image.dataobj) == 2)
    left, back, head = geometry.to_lps(np.array(voxel))
    forms = [image.get_sform(), *([image.get_qform()] if int(image.header["qform_code"]) else [])]
    for affine in forms:
        assert nib.affines.apply_affine(affine, index) == pytest.approx([-left, -back, head], abs=1e-2)
    assert image.get_data_dtype() == np.uint8


def test_a_written_label_map_is_read_on_its_geometry(tmp_path):
    geometry = Geometry((4, 5, 6), oblique((0.3, -0.2, 0.1), (5, 0.7, 0.8), (1, 2, 3)))
    array = np.random.default_rng(0).integers(0, 600, (4, 5, 6)).astype(np.uint16)
    write_label_nifti(tmp_path / "a.nii", LabelMap(array, geometry, LABELS))
    back = read_label_nifti(tmp_path / "a.nii")
    assert (back.array == array).all()
    assert back.geometry.affine == pytest.approx(geometry.affine, abs=1e-4)


def test_writing_is_repeatable_to_the_byte(tmp_path):
    label_map = LabelMap(np.ones((2, 3, 4), np.uint8), Geometry((2, 3, 4), np.eye(4)), LABELS)
    write_label_nifti(tmp_path / "a.nii.gz", label_map)
    write_label_nifti(tmp_path / "b.nii.gz", label_map)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)  # gzip's time stamp (RFC 1952)


def test_a_sheared_grid_is_left_to_the_sform(tmp_path):
    affine = np.eye(4)
    affine[0, 2] = 0.6
    write_label_nifti(
        tmp_path / "a.nii", LabelMap(np.ones((2, 2, 2), np.uint8), Geometry((2, 2, 2), affine), LABELS)
    )
    image = nib.load(tmp_path / "a.nii")
    assert int(image.header["qform_code"]) == 0
    # Our column step (0.6, 0, 1) LPS is NIfTI's i step (-0.6, 0, 1) RAS.
    assert image.get_sform()[:3, 0] == pytest.approx([-0.6, 0, 1])


@pytest.mark.parametrize("tilt", [1e-4, 3e-4, 1e-3, 0.1])
def test_a_turn_that_a_qform_rounds_is_left_to_the_sform_and_read(tmp_path, tilt):
    """DICOM's axes lie half a turn from NIfTI's: a little more or less, and float32 puts a corner 0.3 mm away."""
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    lps = np.eye(4)
    lps[:3, :3] = (turn * [0.9, 0.9, 1.5])[:, ::-1]
    geometry = Geometry((2, 400, 400), lps)
    path = tmp_path / "a.nii"
    write_label_nifti(path, LabelMap(np.ones(geometry.shape, np.uint8), geometry, LABELS))
    image = nib.load(path)
    corner = np.array([399, 399, 1])
    apart = np.linalg.norm(nib.affines.apply_affine(image.get_sform() - image.get_qform(), corner))
    assert apart < 0.011 or int(image.header["qform_code"]) == 0
    # As other programs write it: both in force.
    image.set_qform(image.get_sform(), code=1)
    nib.save(image, tmp_path / "b.nii")
    assert read_label_nifti(tmp_path / "b.nii").geometry.affine == pytest.approx(lps, abs=1e-4)


def test_ras_indices_become_lps_slices_rows_columns(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (10, 20, 30)
    volume = read_nifti(save(tmp_path / "a.nii", array, affine))
    assert volume.array.shape == (4, 3, 2)
    assert volume.array[3, 2, 1] == array[1, 2, 3]
    assert volume.geometry.to_lps(np.array([3, 2, 1])) == pytest.approx([-(10 + 2), -(20 + 6), 30 + 12])
    assert volume.units == "unknown"


def test_scaled_values_are_read_scaled(tmp_path):
    path = save(tmp_path / "a.nii", np.full((2, 2, 2), 5, np.int16))
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([2, -1000], "<f4").tobytes()  # scl_slope and scl_inter, nifti1.h
    path.write_bytes(data)
    assert read_nifti(path).array[0, 0, 0] == 2 * 5 - 1000


@pytest.mark.parametrize(
    ("array", "header", "words"),
    [
        (np.zeros((2, 2, 2, 2), np.uint8), {}, "three dimensions"),
        (np.zeros((2, 2, 2), np.complex64), {}, "complex64"),
        (np.zeros((2, 2, 2), np.uint8), {"xyzt_units": 1}, "meter"),
        (np.full((2, 2, 2), np.nan, np.float32), {}, "not finite"),
    ],
)
def test_what_is_in_doubt_is_refused(tmp_path, array, header, words):
    with pytest.raises(DataError, match=words):
        read_nifti(save(tmp_path / "a.nii", array, **header))


def test_a_volume_that_does_not_say_how_it_lies_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8))
    data = bytearray(path.read_bytes())
    data[252:256] = bytes(4)  # qform_code and sform_code, nifti1.h
    path.write_bytes(data)
    with pytest.raises(DataError, match="how it lies"):
        read_nifti(path)


@pytest.mark.parametrize("value", [0.5, -1, 70000, np.nan])
def test_what_is_no_label_is_refused(tmp_path, value):
    with pytest.raises(DataError, match="label"):
        read_label_nifti(save(tmp_path / "a.nii", np.full((2, 2, 2), value, np.float32)))


def test_truncated_missing_and_foreign_files_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 20)).astype(np.uint8)
    whole = save(tmp_path / "a.nii", noise).read_bytes()
    (tmp_path / "a.nii").write_bytes(whole[:3000])
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole)[:3000])
    (tmp_path / "c.nii").write_text("hello")
    (tmp_path / "d.nii").touch()
    for name in ("a.nii", "b.nii.gz", "c.nii", "d.nii", "e.nii"):
        with pytest.raises(DataError, match=name):
            read_nifti(tmp_path / name)
    with pytest.raises(DataError, match="not a NIfTI name"):
        write_label_nifti(
            tmp_path / "a.png", LabelMap(np.ones((1, 1, 1), np.uint8), Geometry((1, 1, 1), np.eye(4)), LABELS)
        )


def test_a_real_float_mask_is_refused(real_data):
    path = real_data / "lung_ct" / "dirty" / "raw_masks" / "id001-msk-float.nii.gz"
    with pytest.raises(DataError, match="not label values"):
        read_label_nifti(path)


def two_forms(path, change) -> None:
    """A volume whose qform is its sform, changed."""
    sform = np.diag([-0.7, -0.7, 5, 1])
    image = nib.Nifti1Image(np.zeros((40, 40, 8), np.uint8), sform)
    image.set_sform(sform, code="aligned")
    image.set_qform(change @ sform, code="scanner")
    path.write_bytes(image.to_bytes())


def moved(*steps: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = steps
    return affine


@pytest.mark.parametrize(
    ("change", "apart"),
    [
        (moved(0, 0.09, 0), None),
        (moved(0, 0.11, 0), "0.11 mm"),
        (np.diag([-1.0, 1, 1, 1]), "54.6 mm"),  # left and right: 2 * 39 * 0.7
        (np.diag([1.0, 1, 1.02, 1]), "0.7 mm"),  # 7 * 5 * 0.02
    ],
)
def test_a_volume_that_says_twice_and_differently_how_it_lies_is_refused(tmp_path, change, apart):
    two_forms(tmp_path / "a.nii", change)
    if apart is None:
        assert read_nifti(tmp_path / "a.nii").geometry.spacing == pytest.approx((5, 0.7, 0.7))
        return
    for read in (read_nifti, read_label_nifti):
        with pytest.raises(DataError, match=f"sform and its qform, which are {apart} apart") as caught:
            read(tmp_path / "a.nii")
        assert "copy it over the other" in caught.value.hint


def test_one_form_alone_is_trusted(tmp_path):
    two_forms(tmp_path / "a.nii", np.diag([-1.0, 1, 1, 1]))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[252:254] = bytes(2)  # qform_code, nifti1.h
    (tmp_path / "a.nii").write_bytes(data)
    assert read_nifti(tmp_path / "a.nii").geometry.affine[0, 2] == pytest.approx(0.7)
