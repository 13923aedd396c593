"""`medseg convert LABELS OUTPUT.dcm`: a label volume as a SEG of the series that it was drawn on."""

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
from dicom_files import sagittal_ct

from medseg_paddle.io.dicom import read_series
from medseg_paddle.io.volumes import read_label_volume


@pytest.fixture
def series(tmp_path):
    """A sagittal CT of four slices."""
    return sagittal_ct(tmp_path / "study")


@pytest.fixture
def labels(series, tmp_path):
    """Labels 2 and 7 on the series' voxels, in the order of axes that nibabel calls canonical."""
    geometry = read_series(series).geometry
    array = np.zeros(geometry.shape, np.uint8)
    array[1, 2:4, 1:5], array[3, 0, 0] = 2, 7
    ras = np.diag([-1, -1, 1, 1]) @ geometry.affine
    nib.save(nib.as_closest_canonical(nib.Nifti1Image(array, ras)), tmp_path / "labels.nii.gz")
    return tmp_path / "labels.nii.gz"


@pytest.mark.parametrize("options", [[], ["--labelmap"]])
def test_a_label_volume_becomes_a_segmentation_and_comes_back(series, labels, tmp_path, run, options):
    target, back = tmp_path / "seg.dcm", tmp_path / "back.nrrd"
    code, said = run(
        *(labels, target, "--reference", series, "--drawn-by", "Some Net 2.5"),
        *("--name", "2=liver", "--name", "9=liver cyst", *options),
    )
    assert code == 0, said
    assert "label 2 is segment 1 ('liver')" in said
    assert "label 7 is segment 2 ('label 7')" in said
    assert "4 x 5 x 6 voxels of 2 x 0.7 x 0.5 mm, 3 segments" in said
    ds = pydicom.dcmread(target)
    assert [one.SegmentLabel for one in ds.SegmentSequence if one.SegmentNumber] == [
        "liver",
        "label 7",
        "liver cyst",
    ]
    assert ds.SegmentSequence[-1].SegmentAlgorithmName == "Some Net"
    assert ds.SegmentSequence[-1].SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "2.5"
    assert (ds.PatientID, ds.SegmentationType) == ("H4711", "LABELMAP" if options else "BINARY")
    assert run(target, back, "--reference", series)[0] == 0
    # Both files say themselves where their voxels lie.
    once, again = read_label_volume(labels), read_label_volume(back)
    for value, number in ((2, 1), (7, 2)):
        wanted = once.geometry.to_lps(np.argwhere(once.array == value))
        found = again.geometry.to_lps(np.argwhere(again.array == number))
        assert sorted(found.round(3).tolist()) == sorted(wanted.round(3).tolist())
    assert again.array.max() == 2


def test_names_in_a_nrrd_are_the_segments(series, tmp_path, run):
    geometry = read_series(series).geometry
    header = {
        "space": "left-posterior-superior",
        "space directions": geometry.affine[:3, 2::-1].T.tolist(),
        "space origin": geometry.affine[:3, 3].tolist(),
        "Segment0_ID": "one",
        "Segment0_Name": "spleen",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
    }
    array = np.zeros(geometry.shape[::-1], np.uint8)
    array[0, 0, 0] = 1
    nrrd.write(str(tmp_path / "a.nrrd"), array, header)
    code, said = run(tmp_path / "a.nrrd", tmp_path / "a.dcm", "--reference", series, "--drawn-by", "manual")
    assert code == 0, said
    (segment,) = pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("spleen", "MANUAL")


def test_nothing_found_is_written_and_said(series, labels, tmp_path, run):
    image = nib.load(labels)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), tmp_path / "none.nii")
    rest = ("--reference", series, "--drawn-by", "manual")
    code, said = run(tmp_path / "none.nii", tmp_path / "a.dcm", *rest)
    assert code == 3
    assert "what was looked for is unknown" in said
    code, said = run(tmp_path / "none.nii", tmp_path / "a.dcm", *rest, "--name", "1=tumour")
    assert code == 0
    assert "no voxel is labelled" in said
    assert not pydicom.dcmread(tmp_path / "a.dcm").pixel_array.any()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda a: [a for a in a if a not in ("--drawn-by", "manual")], 2, "nobody is named"),
        (lambda a: [*a[:-1], "net"], 2, "names no model and its version"),
        (lambda a: [*a[:2], *a[4:]], 2, "none is named"),
        (lambda a: [*a, "--name", "liver"], 2, "--name liver"),
        (lambda a: [*a, "--name", "0=air"], 2, "1 to 65535"),
        (lambda a: [*a, "--name", "2=a", "--name", "7=a"], 2, "same name"),
        (lambda a: [*a, "--fill-gaps"], 2, "not for writing"),
        (lambda a: [*a, "--segment", "1"], 2, "not for writing"),
        (lambda a: [*a, "--series", "1.2.9"], 3, "no series 1.2.9"),
        (lambda a: [a[3], *a[1:]], 3, "holds no mask"),
        (lambda a: [f"{a[3]}/image0.dcm", *a[1:]], 2, "no label volume"),
        (lambda a: [a[0], f"{a[1]}.nii", *a[2:]], 2, "is no SEG"),
    ],
)
def test_what_is_in_doubt_is_refused_and_nothing_written(series, labels, tmp_path, run, change, code, words):
    arguments = [str(labels), str(tmp_path / "a.dcm"), "--reference", str(series), "--drawn-by", "manual"]
    before = sorted(tmp_path.rglob("*"))
    left, said = run(*change(arguments))
    assert (left, words in said) == (code, True), said
    assert "hint:" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_there_stays_unless_told(series, labels, tmp_path, run):
    target = tmp_path / "a.dcm"
    target.write_text("mine")
    arguments = (labels, target, "--reference", series, "--drawn-by", "manual")
    assert run(*arguments)[0] == 5
    assert target.read_text() == "mine"
    assert run(*arguments, "--overwrite")[0] == 0
    assert pydicom.dcmread(target).Modality == "SEG"
