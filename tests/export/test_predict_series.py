"""DICOM series in zip archives, and several of them as the channels of one case."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from volume_models import bright, volume_description, write_volume_bundle

from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom import load_series
from medseg_paddle.io.dicom_seg import read_segmentation
from medseg_paddle.preprocess import InferencePlan
from medseg_paddle.steps.predict import predict
from medseg_paddle.steps.predict_inputs import find_inputs

RNG = np.random.default_rng(3)
T1, T2 = "1.2.3.1", "1.2.3.2"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def zipped(folder: Path, path: Path, below: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for one in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(one, below + one.relative_to(folder).as_posix())
    return path


def mask(path: Path) -> np.ndarray:
    """A NIfTI mask ``[slice, row, column]`` of a series, which runs to the left and back."""
    return np.asarray(nibabel.load(path).dataobj).T


# --- archives ---------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, write_series) -> Path:
    write_series(tmp_path / "study" / "b" / "ct", RNG.integers(0, 256, (3, 20, 24)), uid="1.2.3.5")
    write_series(tmp_path / "study" / "a", RNG.integers(0, 256, (2, 16, 16)), uid="1.2.3.6")
    values = RNG.integers(0, 256, (12, 10, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "study" / "v.nii.gz")
    (tmp_path / "study" / "read me.txt").write_text("nothing")
    (tmp_path / "study" / "b" / "mask.png").write_bytes(b"")
    return tmp_path / "study"


@pytest.mark.parametrize("below", ["", "study/", "../../climbs/"])
def test_an_archive_is_answered_like_the_folder_that_is_packed_in_it(exported, study, tmp_path, below):
    archive = zipped(study, tmp_path / "study.zip", below)
    options = {"formats": ["nifti", "seg"], "overlays": False}
    expected = predict(exported, [study], tmp_path / "folder", **options)
    before = names(tmp_path.parent)
    found = predict(exported, [archive], tmp_path / "zip", **options)
    assert names(tmp_path.parent) == before
    assert [one.name for one in found.results] == ["study_a", "study_b_ct"]
    assert names(tmp_path / "zip") == names(tmp_path / "folder")
    for name in ("study_a", "study_b_ct"):
        one, other = (tmp_path / place / f"{name}_mask.nii.gz" for place in ("folder", "zip"))
        assert one.read_bytes() == other.read_bytes()
    # A NIfTI has no SEG, in a folder or not.
    assert [one.source.name for one in (*expected.failures, *found.failures)] == ["v.nii.gz"] * 2
    (packed, foreign) = found.left_out
    assert packed.startswith(f"{archive}/b: 1 file (mask.png), in an archive")
    assert foreign.startswith(f"{archive}: 1 file (read me.txt)")


def test_volumes_of_an_archive_and_what_is_wrong_are_named_as_there(exported, study, tmp_path):
    path = study / "a" / "001.dcm"
    path.write_bytes(path.read_bytes()[:-9])
    archive = zipped(study, tmp_path / "x.zip", "study/")
    summary = predict(exported, [archive], tmp_path / "out", overlays=False)
    assert [one.name for one in summary.results] == ["v", "x_b_ct"]
    (failure,) = summary.failures
    assert f"{archive}: study/a/001.dcm" in failure.message
    assert failure.source == archive / "a"


@pytest.mark.parametrize(
    ("content", "words"), [(b"no archive", "no zip archive"), (None, "nothing to segment")]
)
def test_an_archive_with_nothing_in_it_is_a_failure(tmp_path, content, words):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/mask.png", b"")
    if content is not None:
        path.write_bytes(content)
    (failure,) = find_inputs([path], unpack_to=tmp_path).failures
    assert words in failure.message
    assert "unpack" in failure.hint


# --- channels ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_two(tmp_path_factory) -> Path:
    """A 3-D bundle of two channels, which looks at the second alone."""
    said = volume_description(in_channels=2, plan=InferencePlan("tiles", (4, 8, 8), 0.25))
    return write_volume_bundle(tmp_path_factory.mktemp("two") / "bundle", bright(2), said).path


@pytest.fixture
def patient(tmp_path, write_series) -> tuple[Path, np.ndarray]:
    """A folder with two series on one grid; the second one's values."""
    first, second = RNG.integers(0, 200, (2, 5, 12, 14))
    write_series(tmp_path / "p" / "t1", first, uid=T1)
    write_series(tmp_path / "p" / "t2", second, uid=T2)
    return tmp_path / "p", second


def test_series_are_channels_in_the_order_they_are_named_in(of_two, patient, tmp_path):
    folder, second = patient
    summary = predict(
        of_two, [folder], tmp_path / "out", series=[T1, T2], formats=["nifti", "seg"], overlays=False
    )
    summary.require_complete()
    assert names(tmp_path / "out") >= {"p_t1_mask.nii.gz", "p_t1_seg.dcm"}
    first = load_series(sorted((folder / "t1").iterdir()))
    found = read_segmentation(tmp_path / "out" / "p_t1_seg.dcm", first).array
    np.testing.assert_array_equal(found, second > 100)
    seg = pydicom.dcmread(tmp_path / "out" / "p_t1_seg.dcm")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == T1
    turned = predict(of_two, [folder], tmp_path / "turned", series=[T2, T1], overlays=False)
    assert [one.name for one in turned.results] == ["p_t2"]


def test_a_series_of_a_case_by_itself_is_refused_and_the_others_are_listed(of_two, patient, tmp_path):
    folder, _ = patient
    failures = predict(of_two, [folder], tmp_path / "out").failures
    assert len(failures) == 2
    for failure in failures:
        assert "one series of a case, the model takes 2" in failure.message
        assert "--series UID --series UID" in failure.hint
        assert T1 in failure.hint
        assert T2 in failure.hint
    assert not (tmp_path / "out").exists()


def test_of_several_series_one_is_chosen(exported, patient, tmp_path):
    folder, second = patient
    summary = predict(exported, [folder], tmp_path / "out", series=[T2], overlays=False)
    summary.require_complete()
    np.testing.assert_array_equal(mask(tmp_path / "out" / "p_t2_mask.nii.gz"), second > 127)
    assert [one.name for one in summary.results] == ["p_t2"]
    assert summary.left_out == (f"{folder / 't1'}, which no --series names",)


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (["1.2.3.9", T1], "no input holds a series 1.2.3.9"),
        ([T1], "1 series are named"),
        ([T1, T1], "1 series"),
    ],
)
def test_series_that_make_no_case_are_refused_before_anything_is_done(
    of_two, patient, tmp_path, series, words
):
    with pytest.raises(DataError, match=words):
        predict(of_two, [patient[0]], tmp_path / "out", series=series)
    assert not (tmp_path / "out").exists()


def test_another_grid_is_resampled_only_where_that_is_asked_for(of_two, patient, tmp_path, write_series):
    folder, _ = patient
    # Twice as wide, and two slices longer at both ends: half of the slices' distance was all that was moved.
    blob = np.zeros((9, 12, 28), np.int16)
    blob[3:6, 4:8, 8:14] = 180
    write_series(folder / "t2", blob, uid=T2, origin=(-40.0, -30.0, 96.0))
    for path in (folder / "t2").iterdir():
        header = pydicom.dcmread(path)
        header.ImagePositionPatient[2] = float(header.ImagePositionPatient[2]) + 1
        header.save_as(path)
    wish = {"series": [T1, T2], "overlays": False}
    (failure,) = predict(of_two, [folder], tmp_path / "out", **wish).failures
    assert "channel 2 does not lie on the grid of channel 1" in failure.message
    assert "--resample-channels" in failure.hint
    summary = predict(of_two, [folder], tmp_path / "out", **wish, resample_channels=True, overwrite=True)
    summary.require_complete()
    assert (
        "channel 2 was resampled to the grid of channel 1, -1024 where it does not reach" in summary.notes[0]
    )
    found = mask(tmp_path / "out" / "p_t1_mask.nii.gz")
    # Slices of the second lie halfway between those of the first: 103, 105 and 107 mm beside 102, 104, ...
    assert found.shape == (5, 12, 14)
    assert found[2:4, 4:8, 8:14].all()
    assert not found[0].any()
    assert not found[:, :4].any()
    assert not found[:, 8:].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"FrameOfReferenceUID": "1.2.8"}, "do not lie in one frame of reference"),
        ({"PatientID": "Q"}, "two patients"),
    ],
)
def test_channels_of_two_patients_or_frames_of_reference_are_refused(
    of_two, patient, tmp_path, changes, words
):
    folder, _ = patient
    for path in (folder / "t2").iterdir():
        header = pydicom.dcmread(path)
        for keyword, value in changes.items():
            setattr(header, keyword, value)
        header.save_as(path)
    wish = {"series": [T1, T2], "overlays": False, "resample_channels": True}
    (failure,) = predict(of_two, [folder], tmp_path / "out", **wish).failures
    assert words in failure.message
