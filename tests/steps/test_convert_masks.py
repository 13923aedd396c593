"""`medseg convert`: a folder of masks as one SEG, whose segments may overlap, and a SEG as a folder of masks."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import sagittal_ct
from validators import require_no_error

from medseg_paddle.io.dicom import read_series
from medseg_paddle.io.volumes import read_label_volume
from medseg_paddle.steps import convert_masks


@pytest.fixture
def series(tmp_path):
    """A sagittal CT of four slices."""
    return sagittal_ct(tmp_path / "study")


@pytest.fixture
def masks(series, tmp_path):
    """A liver, a cyst in it, and a kidney that is not there; the liver counted along other axes."""
    geometry = read_series(series).geometry
    arrays = {"liver": np.zeros(geometry.shape, np.uint8)}
    arrays["liver"][1:3, 1:4, 1:5] = 1
    arrays["liver_cyst"] = np.zeros(geometry.shape, np.uint8)
    arrays["liver_cyst"][2, 2, 2:4] = 7
    arrays["kidney_left"] = np.zeros(geometry.shape, np.uint8)
    ras = np.diag([-1, -1, 1, 1]) @ geometry.affine
    (tmp_path / "masks").mkdir()
    for name, array in arrays.items():
        image = nib.Nifti1Image(array, ras)
        image = nib.as_closest_canonical(image) if name == "liver" else image
        nib.save(image, tmp_path / "masks" / f"{name}.nii.gz")
    return {name: array != 0 for name, array in arrays.items()}


@pytest.fixture
def write(series, tmp_path, run):
    def write(*more):
        arguments = ("--reference", series, "--drawn-by", "manual", *more)
        return run(tmp_path / "masks", tmp_path / "seg.dcm", *arguments)

    return write


def test_masks_become_segments_that_overlap_and_come_back(series, masks, tmp_path, run, write):
    code, said = write()
    assert code == 0, said
    assert "masks overlap" in said
    assert "3 segments" in said
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert [one.SegmentLabel for one in ds.SegmentSequence] == ["kidney_left", "liver", "liver_cyst"]
    assert ds.SegmentSequence[2].AnatomicRegionSequence[0].CodeMeaning == "Liver"
    assert ds.SegmentsOverlap == "YES"
    code, said = run(tmp_path / "seg.dcm", tmp_path / "all.nii.gz", "--reference", series)
    assert (code, "segments overlap" in said, "--each" in said) == (3, True, True)
    code, said = run(tmp_path / "seg.dcm", tmp_path / "back", "--each", "--reference", series)
    assert code == 0, said
    assert "3 segments" in said
    assert {path.name for path in (tmp_path / "back").iterdir()} == {f"{name}.nii.gz" for name in masks}
    geometry = read_series(series).geometry
    for number, name in enumerate(sorted(masks), start=1):
        back = read_label_volume(tmp_path / "back" / f"{name}.nii.gz")
        assert (back.array == masks[name] * number).all()
        np.testing.assert_allclose(back.geometry.affine, geometry.affine, atol=1e-4)
    (tmp_path / "masks").rename(tmp_path / "first")
    (tmp_path / "back").rename(tmp_path / "masks")
    assert write("--overwrite")[0] == 0
    again = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (again.pixel_array == ds.pixel_array).all()
    require_no_error(tmp_path / "seg.dcm")


def test_masks_that_share_no_voxel_do_not_overlap(masks, tmp_path, write):
    (tmp_path / "masks" / "liver.nii.gz").unlink()
    code, said = write("--labelmap")
    assert code == 0, said
    assert "overlap" not in said
    assert pydicom.dcmread(tmp_path / "seg.dcm").SegmentationType == "LABELMAP"


def test_a_file_of_labels_gives_codes_and_colours(masks, tmp_path, write):
    (tmp_path / "labels.yml").write_text(
        "codes: {kidney_left: {category: [91723000, SCT, Anatomical Structure], type: [62413002, SCT, Radius]}}\n"
        "colors: {liver: [255, 255, 255]}\n"
    )
    code, said = write("--labels", tmp_path / "labels.yml")
    assert code == 0, said
    kidney, liver, _ = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Radius"
    assert kidney.SegmentLabel == "kidney_left"
    lightness, a, b = liver.RecommendedDisplayCIELabValue
    assert lightness == 0xFFFF
    assert a == pytest.approx(0x8080, abs=100)
    assert b == pytest.approx(0x8080, abs=100)


@pytest.mark.parametrize("same", ["Cyst", "cyst"])
def test_segments_of_one_name_get_their_numbers(series, tmp_path, run, same):
    nib.save(nib.Nifti1Image(np.zeros((6, 5, 4), np.uint8), np.eye(4)), tmp_path / "none.nii")
    geometry = read_series(series).geometry
    array = np.zeros(geometry.shape, np.uint8)
    array[0, 0, :3] = 1, 2, 3
    nib.save(nib.Nifti1Image(array, np.diag([-1, -1, 1, 1]) @ geometry.affine), tmp_path / "a.nii")
    names = ("--name", "1=../cyst", "--name", f"2= {same}", "--name", "3=//")
    arguments = ("--reference", series, "--drawn-by", "manual")
    code, said = run(tmp_path / "a.nii", tmp_path / "a.dcm", *arguments, *names)
    assert code == 0, said
    code, said = run(tmp_path / "a.dcm", tmp_path / "out", "--each", "--segment", 2, "--segment", 3)
    assert code == 0, said
    assert "2 segments" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{same}_2.nii.gz", "3.nii.gz"}


def change(folder, what):
    image = nib.load(folder / "liver.nii.gz")
    if what == "two labels":
        array = np.asarray(image.dataobj).copy()
        array[0, 0, 0] = 2
        nib.save(nib.Nifti1Image(array, image.affine), folder / "liver.nii.gz")
    elif what == "moved":
        moved = image.affine.copy()
        moved[0, 3] += 1
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), folder / "liver.nii.gz")
    elif what == "two files":
        nib.save(image, folder / "liver.nii")
    elif what == "none":
        for path in folder.iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("what", "options", "code", "words"),
    [
        ("two labels", [], 3, "liver.nii.gz holds 2 labels"),
        ("moved", [], 3, "liver.nii.gz: the two images do not share their voxels"),
        ("two files", [], 3, "segments of one name"),
        ("none", [], 3, "holds no mask"),
        ("", ["--labelmap"], 3, "LABELMAP holds one segment for each voxel"),
        ("", ["--name", "1=a"], 2, "named by their files"),
        ("", ["--each"], 2, "--each makes a folder"),
    ],
)
def test_what_is_in_doubt_is_refused_and_nothing_written(masks, tmp_path, write, what, options, code, words):
    change(tmp_path / "masks", what)
    before = sorted(tmp_path.rglob("*"))
    left, said = write(*options)
    assert (left, words in said) == (code, True), said
    assert "hint:" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_masks_that_need_more_memory_than_there_is_are_refused(masks, tmp_path, write, monkeypatch):
    monkeypatch.setattr(convert_masks, "free_memory", lambda: 1000)
    code, said = write()
    assert (code, "3 masks that overlap need" in said) == (5, True), said
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--segment", 9], 3, "has no segment 9"),
        (["--threshold", 0.5], 3, "a threshold"),
        (["--overwrite"], 2, "replaces none"),
        (["--drawn-by", "manual"], 2, "is no SEG"),
    ],
)
def test_each_writes_all_or_nothing(masks, tmp_path, run, write, more, code, words):
    write()
    left, said = run(tmp_path / "seg.dcm", tmp_path / "out", "--each", *more)
    assert (left, words in said) == (code, True), said
    assert not (tmp_path / "out").exists()


def test_each_is_for_the_file_of_a_seg_and_a_new_folder(masks, series, tmp_path, run, write):
    write()
    for source in (series, tmp_path / "masks" / "liver.nii.gz", series / "image0.dcm", tmp_path / "nothing"):
        code, said = run(source, tmp_path / "out", "--each")
        assert (code, "is no DICOM segmentation" in said) == (2, True), said
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    code, said = run(tmp_path / "seg.dcm", tmp_path / "out", "--each")
    assert code == 5, said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
