"""`medseg convert --modality`: a volume as a series of DICOM images, each voxel with its value at its place."""

import re

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import ct_image, sagittal_ct, save_all
from validators import require_no_error

SHAPE = (7, 6, 5)  # along the axes of a NIfTI file
SPACING = (0.7, 0.8, 2.5)
AXES = {
    "axial": np.diag([-1, -1, 1]),
    "axial, from dcm2niix": np.diag([-1, 1, 1]),
    "feet last": np.diag([-1, 1, -1]),
    "rows and columns changed": np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]]),
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]]),
}


def oblique(seed):
    """A turn, or a turn and a mirror image."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return axes * (-1) ** seed


def ras(axes, spacing=SPACING):
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    affine[:3, 3] = 12.3456789, -234.56789, 1234.56789
    return affine


def grey(shape=SHAPE, dtype=np.int16):
    return np.random.default_rng(1).integers(-1024, 3071, shape).astype(dtype)


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, ras(AXES["axial"]) if affine is None else affine), path)
    return path


def study_of_jane(folder, **changes):
    """A CT of three slices."""
    who = {
        "StudyInstanceUID": "1.2.1",
        "PatientName": "Doe^Jane",
        "PatientID": "H4711",
        "StudyDate": "20200102",
    }
    save_all(
        folder,
        [ct_image(np.full((4, 5), 10 * z), position=(0, 0, z), **{**who, **changes}) for z in range(3)],
    )


def headers(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def require_same_voxels(found, affine, array, wanted):
    """See that every voxel of `array` is in `found`, at the same place to a tenth of a micrometre, and no other."""
    indices = np.indices(array.shape).reshape(3, -1)
    places = wanted[:3, :3] @ indices + wanted[:3, 3:]
    there = np.rint(np.linalg.inv(affine[:3, :3]) @ (places - affine[:3, 3:])).astype(int)
    assert there.min() >= 0
    np.testing.assert_allclose(affine[:3, :3] @ there + affine[:3, 3:], places, rtol=0, atol=1e-4)
    assert found.size == array.size
    assert (found[tuple(there)] == array.ravel()).all()


def by_simpleitk(folder):
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, affine, list(names)


GRIDS = [*AXES, *range(8)]


@pytest.mark.parametrize("grid", GRIDS)
def test_each_voxel_comes_back_and_others_find_it_too(tmp_path, run, grid):
    affine = ras(AXES[grid] if grid in AXES else oblique(grid))
    source = save(tmp_path / "a.nii.gz", grey(), affine)
    affine = nib.load(source).affine  # float32
    code, said = run(source, tmp_path / "out", "--modality", "MR" if grid == "axial" else "CT")
    assert code == 0, said
    assert "note" not in said
    code, said = run(tmp_path / "out", tmp_path / "back.nii.gz")
    assert code == 0, said
    back = nib.load(tmp_path / "back.nii.gz")
    require_same_voxels(np.asarray(back.dataobj), back.affine, grey(), affine)
    found, place, names = by_simpleitk(tmp_path / "out")
    require_same_voxels(found, place, grey(), np.diag([-1, -1, 1, 1]) @ affine)
    # Files are named in the order of their places along the normal, which SimpleITK finds by itself.
    assert names == [str(tmp_path / "out" / f"{number:04d}.dcm") for number in range(1, len(names) + 1)]


@pytest.mark.parametrize(
    ("grid", "wanted"),
    [
        *((grid, (1, 0, 0, 0, 1, 0)) for grid in list(AXES)[:4]),
        ("coronal", (1, 0, 0, 0, 0, -1)),
        ("sagittal", (0, 1, 0, 0, 0, -1)),
    ],
)
def test_planes_are_turned_as_people_look_at_them(tmp_path, run, grid, wanted):
    run(save(tmp_path / "a.nii", grey(), ras(AXES[grid])), tmp_path / "out", "--modality", "CT")
    made = headers(tmp_path / "out")
    normal = np.cross(wanted[:3], wanted[3:])
    heights = [normal @ ds.ImagePositionPatient for ds in made]
    for ds in made:
        assert ds.ImageOrientationPatient == pytest.approx(wanted, abs=1e-7)
    np.testing.assert_allclose(np.diff(heights), 2.5, atol=1e-5)
    assert [ds.InstanceNumber for ds in made] == [1, 2, 3, 4, 5]


def test_places_stay_exact_across_a_large_volume(tmp_path, run):
    """One third of a millimetre has no end in decimals; a thousand times it is still where it was."""
    affine = ras(oblique(3), (1 / 3, 1 / 7, 2 / 3))
    image = nib.Nifti1Image(np.zeros((3, 2, 900), np.uint8), None)
    image.header.set_sform(affine, code=1)
    nib.save(image, tmp_path / "a.nii")
    affine = nib.load(tmp_path / "a.nii").affine
    run(tmp_path / "a.nii", tmp_path / "out", "--modality", "MR")
    made = headers(tmp_path / "out")
    ends = [np.diag([-1, -1, 1]) @ (affine @ [*corner, 1])[:3] for corner in np.ndindex(3, 2, 900)]
    for ds in (made[0], made[-1]):
        text = [str(one) for one in (*ds["ImagePositionPatient"].value, *ds["ImageOrientationPatient"].value)]
        assert max(map(len, text)) <= 16
        far = ds.ImagePositionPatient + np.array(ds.ImageOrientationPatient[:3]) * ds.PixelSpacing[1] * (
            ds.Columns - 1
        )
        assert np.linalg.norm(np.array(ends) - far, axis=1).min() < 1e-6


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("kind", ["whole", "fractions"])
@pytest.mark.parametrize("known", [False, True])
def test_dciodvfy_finds_no_error(tmp_path, run, modality, kind, known):
    array = grey() if kind == "whole" else grey(dtype=np.float32) / 7
    more = ["--reference", sagittal_ct(tmp_path / "study")] if known else []
    code, said = run(save(tmp_path / "a.nii", array), tmp_path / "out", "--modality", modality, *more)
    assert code == 0, said
    for path in (tmp_path / "out").iterdir():
        require_no_error(path)
    ds = headers(tmp_path / "out")[0]
    assert (ds.Modality, ds.SOPClassUID.name) == (modality, f"{modality} Image Storage")
    assert ds.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert ("RescaleType" in ds and ds.RescaleType == "HU") == (modality == "CT")


@pytest.mark.parametrize(
    ("values", "signed", "intercept"),
    [
        ((-32768, 32767), 1, 0),
        ((0, 65535), 0, 0),
        ((-40000, 25535), 0, -40000),
        ((1_000_000, 1_065_535), 0, 1_000_000),
        ((-1000.0, 1000.0), 1, 0),
        ((7.0, 7.0), 1, 0),
    ],
)
def test_whole_numbers_are_kept(tmp_path, run, values, signed, intercept):
    array = np.resize(np.array([*values, values[0] + (values[1] - values[0]) // 3]), SHAPE)
    array = array.astype(np.float64 if isinstance(values[0], float) else np.int32)
    code, said = run(save(tmp_path / "a.nii", array), tmp_path / "out", "--modality", "CT")
    assert (code, "rounded" in said) == (0, False), said
    ds = headers(tmp_path / "out")[0]
    assert (ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept) == (signed, 1, intercept)
    run(tmp_path / "out", tmp_path / "back.nii")
    assert (
        np.sort(np.asarray(nib.load(tmp_path / "back.nii").dataobj).ravel()) == np.sort(array.ravel())
    ).all()


@pytest.mark.parametrize(
    ("array", "most"),
    [
        (np.linspace(-3.3, 1000.7, 210, dtype=np.float32), 0.55 * 1004 / 65535),
        (np.linspace(0, 1e-7, 210), 0.55 * 1e-7 / 65535),
        (np.linspace(1000, 1000.5, 210), 1000 / 2**23),
        (np.linspace(-3e12, -1e12, 210), 0.55 * 2e12 / 65535),
        (np.arange(210, dtype=np.int32) * 1001, 0.55 * 209 * 1001 / 65535),
        (np.full(210, 0.1), 1e-9),
        (np.full(210, -0.1), 1e-7),
        (np.full(210, 1e-38), 1e-37),
    ],
)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_other_numbers_are_rounded_by_no_more_than_is_said(tmp_path, run, array, most, modality):
    array = array.reshape(SHAPE)
    code, said = run(save(tmp_path / "a.nii", array), tmp_path / "out", "--modality", modality)
    assert code == 0, said
    worst = float(re.search(r"the farthest by (\S+)", said)[1])
    assert worst <= most
    code, said = run(tmp_path / "out", tmp_path / "back.nii")
    assert code == 0, said
    image = nib.load(tmp_path / "back.nii")
    back = nib.orientations.apply_orientation(
        np.asarray(image.dataobj, np.float64), nib.io_orientation(image.affine)
    )
    there = nib.orientations.apply_orientation(
        array.astype(np.float64), nib.io_orientation(ras(AXES["axial"]))
    )
    float32 = np.abs(there).max() * 1e-7  # what the NIfTI file rounds
    assert np.abs(back - there).max() <= worst + float32
    # SimpleITK reads the slope, too.
    found = np.sort(by_simpleitk(tmp_path / "out")[0].ravel())
    np.testing.assert_allclose(found, np.sort(array.ravel()), rtol=0, atol=worst + float32)


def test_nobody_is_named_by_default(tmp_path, run):
    study_of_jane(tmp_path / "study", AccessionNumber="A99")
    for source, out in (
        (tmp_path / "study", tmp_path / "from_dicom"),
        (save(tmp_path / "Doe.nii", grey()), tmp_path / "from_nifti"),
    ):
        code, said = run(source, out, "--modality", "CT")
        assert code == 0, said
        made = headers(out)
        for path in out.iterdir():
            assert not re.search(b"Doe|H4711|20200102|A99", path.read_bytes())
        for ds in made:
            assert ds.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
            assert not any((ds.PatientName, ds.PatientID, ds.StudyDate, ds.StudyID, ds.PatientBirthDate))
            assert not [element for element in ds if element.VR in ("DA", "TM", "DT") and element.value]
            assert not {"1.2.1", "1.2.3", "1.2.4"} & {str(element.value) for element in ds}
        for keyword, count in (
            ("SOPInstanceUID", len(made)),
            ("SeriesInstanceUID", 1),
            ("StudyInstanceUID", 1),
            ("FrameOfReferenceUID", 1),
        ):
            assert len({ds[keyword].value for ds in made}) == count
        assert made[0].Manufacturer == "medseg-paddle"


def test_a_reference_lends_patient_study_and_frame_of_reference(tmp_path, run):
    study_of_jane(
        tmp_path / "study",
        PatientName="Müller^Jane",
        SpecificCharacterSet="ISO_IR 100",
        PatientBirthDate="19700101",
        StudyTime="0910",
        SeriesDescription="secret",
        LossyImageCompression="00",
        BurnedInAnnotation="NO",
        TimezoneOffsetFromUTC="+0530",
    )
    source = save(tmp_path / "a.nii", grey())
    code, said = run(source, tmp_path / "out", "--modality", "MR", "--reference", tmp_path / "study")
    assert code == 0, said
    assert "patient, study and frame of reference are those of the reference, series 1.2.3" in said
    assert "Jane" not in said
    for ds in headers(tmp_path / "out"):
        assert (ds.PatientName, ds.PatientID, ds.PatientBirthDate) == ("Müller^Jane", "H4711", "19700101")
        assert (ds.StudyInstanceUID, ds.StudyDate, ds.FrameOfReferenceUID) == ("1.2.1", "20200102", "1.2.4")
        assert (ds.Modality, ds.SeriesDescription) == ("MR", "Converted volume")
        assert ds.SeriesInstanceUID != "1.2.3"
        assert ds.TimezoneOffsetFromUTC == "+0530"
        assert "LossyImageCompression" not in ds
        assert "BurnedInAnnotation" not in ds
    # The series of a reference is chosen as that of a SEG is.
    save_all(
        tmp_path / "study" / "other",
        [ct_image(np.zeros((4, 5)), SeriesInstanceUID="1.2.9", StudyInstanceUID="1.2.1")],
    )
    code, said = run(source, tmp_path / "two", "--modality", "MR", "--reference", tmp_path / "study")
    assert (code, "2 series" in said) == (3, True), said
    code, said = run(
        source, tmp_path / "two", "--modality", "MR", "--reference", tmp_path / "study", "--series", "1.2.3"
    )
    assert code == 0, said


def sheared():
    affine = ras(AXES["axial"])
    affine[0, 2] = 0.3
    return affine


def not_finite():
    array = grey(dtype=np.float32)
    array[1, 2, 3] = np.nan
    return array


@pytest.mark.parametrize(
    ("array", "affine", "output", "options", "code", "words"),
    [
        (grey(), sheared(), "out", ["--modality", "CT"], 3, "not at right angles"),
        (not_finite(), None, "out", ["--modality", "CT"], 3, "not finite"),
        (
            np.array([0, 0.1, 1e37]).repeat(70).reshape(SHAPE),
            None,
            "out",
            ["--modality", "CT"],
            3,
            "no grey values",
        ),
        (grey(), None, "full", ["--modality", "CT"], 5, "not empty"),
        (grey(), None, "full", ["--modality", "CT", "--overwrite"], 2, "replaces none"),
        (grey(), None, "out", ["--modality", "CT", "--overwrite"], 2, "replaces none"),
        (grey(), None, "out", ["--modality", "CT", "--each"], 2, "leave out one"),
        (grey(), None, "out", ["--modality", "CT", "--drawn-by", "manual"], 2, "is no SEG"),
        (grey(), None, "out", ["--modality", "CT", "--untilt"], 2, "is a volume in a file"),
        (grey(), None, "out", ["--modality", "CT", "--series", "1.2.3"], 2, "is a volume in a file"),
        (grey(), None, "out", ["--modality", "PT"], 2, "PT"),
        (grey(), None, "out", [], 2, "--modality CT or MR"),
        (grey(), None, "out.nrrd", ["--modality", "CT"], 2, "ending of a file"),
        (grey(), None, "out.nii.gz", ["--modality", "MR"], 2, "ending of a file"),
        (grey(), None, "out.zip", ["--modality", "MR"], 2, "ending of a file"),
        (grey(), None, "out.dcm", ["--modality", "MR"], 2, "makes a folder"),
    ],
)
def test_what_is_in_doubt_is_refused_and_nothing_written(
    tmp_path, run, array, affine, output, options, code, words
):
    image = nib.Nifti1Image(array, None)
    image.header.set_sform(ras(AXES["axial"]) if affine is None else affine, code=1)
    nib.save(image, tmp_path / "a.nii")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    left, said = run(tmp_path / "a.nii", tmp_path / output, *options)
    assert (left, words in said) == (code, True), said
    assert code == 2 or "hint:" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("modality", "kind", "words"),
    [("MR", "CT", "are in Hounsfield units"), ("CT", "MR", "not Hounsfield units")],
)
def test_a_scale_is_not_renamed(tmp_path, run, modality, kind, words):
    storage = pydicom.uid.CTImageStorage if kind == "CT" else pydicom.uid.MRImageStorage
    save_all(
        tmp_path / "study", [ct_image(np.zeros((4, 5)), position=(0, 0, z), kind=storage) for z in range(3)]
    )
    code, said = run(tmp_path / "study", tmp_path / "out", "--modality", modality)
    assert (code, words in said) == (3, True), said
    assert run(tmp_path / "study", tmp_path / "out", "--modality", kind)[0] == 0


def test_one_slice_has_a_thickness_and_comes_back(tmp_path, run):
    source = save(tmp_path / "a.nii", grey((7, 6, 1)))
    code, said = run(source, tmp_path / "out", "--modality", "CT")
    assert code == 0, said
    (ds,) = headers(tmp_path / "out")
    assert ds.SliceThickness == pytest.approx(2.5)
    assert "SpacingBetweenSlices" not in ds
    run(tmp_path / "out", tmp_path / "back.nii")
    back = nib.load(tmp_path / "back.nii")
    require_same_voxels(np.asarray(back.dataobj), back.affine, grey((7, 6, 1)), nib.load(source).affine)


def test_a_segmentation_is_no_image(tmp_path, run):
    study = sagittal_ct(tmp_path / "study")
    run(study, tmp_path / "a.nii")
    arguments = ("--reference", study, "--drawn-by", "manual", "--name", "1=liver")
    image = nib.load(tmp_path / "a.nii")
    save(tmp_path / "labels.nii", np.ones(image.shape, np.uint8), image.affine)
    assert run(tmp_path / "labels.nii", tmp_path / "seg.dcm", *arguments)[0] == 0
    code, said = run(tmp_path / "seg.dcm", tmp_path / "out", "--modality", "CT")
    assert (code, "is a segmentation" in said) == (2, True), said
    assert not (tmp_path / "out").exists()


def test_tilted_slices_of_one_of_two_series_are_written_straight(tmp_path, run):
    study = tmp_path / "study"
    save_all(
        study,
        [ct_image(np.full((9, 9), z), position=(0, z, 2 * z), StudyInstanceUID="1.2.1") for z in range(4)],
    )
    save_all(tmp_path / "study" / "b", [ct_image(np.zeros((9, 9)), SeriesInstanceUID="1.2.9")])
    arguments = (study, tmp_path / "out", "--modality", "CT")
    assert run(*arguments)[0] == 3
    assert run(*arguments, "--series", "1.2.3")[0] == 3
    code, said = run(*arguments, "--series", "1.2.3", "--untilt")
    assert (code, "was moved within its plane" in said) == (0, True), said
    assert run(tmp_path / "out", tmp_path / "straight.nii")[0] == 0
    run(study, tmp_path / "wanted.nii", "--series", "1.2.3", "--untilt")
    back, wanted = nib.load(tmp_path / "straight.nii"), nib.load(tmp_path / "wanted.nii")
    require_same_voxels(np.asarray(back.dataobj), back.affine, np.asarray(wanted.dataobj), wanted.affine)
