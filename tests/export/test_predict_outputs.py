"""The formats that an answer is written in."""

import csv

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import ORIENTATIONS, ct_image, place, save_all
from PIL import Image
from validators import read_by_dcmqi, require_no_error
from volume_models import volume_description

from medseg_paddle.core import Geometry, LabelSet, Volume
from medseg_paddle.core.concepts import concept_of
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.io.dicom import load_series
from medseg_paddle.io.dicom_seg import read_segmentation
from medseg_paddle.preprocess import ForegroundRange, HuWindow, VolumePreprocessing
from medseg_paddle.steps.predict import predict
from medseg_paddle.steps.predict_outputs import in_millilitres
from medseg_paddle.steps.predict_pictures import shown_slices

LABELS = LabelSet.from_names(["background", "bright"])
SHAPE = (4, 20, 24)
VOXEL = 2.5 * 0.7 * 0.5 / 1000


@pytest.fixture
def series(tmp_path):
    """Files of an oblique series whose values are 0 or 255, and which of them the threshold model finds."""
    bright = np.zeros(SHAPE, bool)
    bright[1, 4:9, 5:15] = bright[2, 6:12, 8] = True
    images = [
        ct_image(
            bright[k] * 255,
            position=place(ORIENTATIONS["oblique"], k).tolist(),
            orientation=ORIENTATIONS["oblique"],
            StudyInstanceUID="1.2.1",
            SOPInstanceUID=f"1.2.3.{k + 1}",
            PatientName="Doe^Eva",
        )
        for k in (2, 0, 3, 1)
    ]
    return save_all(tmp_path / "in" / "ct", images), bright


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"summary.json", "summary.csv"}


def test_a_series_is_answered_in_every_format_that_is_asked_for(exported, series, tmp_path):
    paths, bright = series
    out = tmp_path / "out"
    summary = predict(
        exported,
        [tmp_path / "in"],
        out,
        formats=("nifti", "seg", "rtstruct"),
        report=True,
        key_images=True,
        mesh="stl",
    )
    summary.require_complete()
    assert names(out) == {
        *("in_ct_mask.nii.gz", "in_ct_seg.dcm", "in_ct_rtstruct.dcm", "in_ct_report.dcm"),
        *("in_ct_mesh_1_bright.stl", "in_ct_overlay.png", "in_ct_key_01.dcm", "in_ct_key_02.dcm"),
    }
    assert set(summary.results[0].files) == names(out)
    read = load_series(paths)
    assert (read_segmentation(out / "in_ct_seg.dcm", read).array == bright).all()
    mask = nibabel.load(out / "in_ct_mask.nii.gz")
    assert (np.asarray(mask.dataobj).transpose(2, 1, 0) == bright).all()
    seg, report, contours = (
        pydicom.dcmread(out / f"in_ct_{what}.dcm") for what in ("seg", "report", "rtstruct")
    )
    segment = seg.SegmentSequence[0]
    assert (segment.SegmentLabel, segment.SegmentAlgorithmName) == ("bright", "threshold")
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmVersion == summary.bundle_id
    assert str(seg.SOPInstanceUID) in str(report)
    assert float(contours.StructureSetROISequence[0].ROIVolume) == pytest.approx(56 * VOXEL)
    (row,) = csv.DictReader((out / "summary.csv").open())
    assert float(row["millilitres"]) == pytest.approx(56 * VOXEL)
    captures = [pydicom.dcmread(out / f"in_ct_key_0{number}.dcm") for number in (1, 2)]
    assert [one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in captures] == ["1.2.3.2", "1.2.3.3"]
    assert {ds.PatientID for ds in (seg, report, contours, *captures)} == {"P1"}
    series_uids = {ds.SeriesInstanceUID for ds in (seg, report, contours, captures[0])}
    assert len(series_uids - {"1.2.3"}) == 4
    assert "no SNOMED code is known for 'bright'" in str(summary)


def test_others_find_no_error_and_the_same_voxels(exported, series, tmp_path):
    _, bright = series
    out, wish = tmp_path / "out", {"formats": ("seg", "rtstruct"), "report": True, "key_images": True}
    predict(exported, [tmp_path / "in"], out, **wish, overlays=False).require_complete()
    (places,) = read_by_dcmqi(out / "in_ct_seg.dcm", tmp_path / "dcmqi").values()
    indices = load_series(series[0]).volume.geometry.to_index(places)
    assert np.abs(indices - indices.round()).max() < 0.01
    assert sorted(indices.round().astype(int).tolist()) == np.argwhere(bright).tolist()
    for name in names(out):
        require_no_error(out / name)


@pytest.fixture
def bundle_of(write_bundle, threshold_model, description, tmp_path):
    """A bundle whose one class has this name, a liver tumour's codes, and blue."""

    def bundle_of(name):
        labels = LabelSet.from_names(["background", name]).described(
            {name: concept_of("liver tumour")}, {name: (0, 0, 255)}
        )
        return write_bundle(tmp_path / "b", threshold_model(), description(labels=labels)).path

    return bundle_of


def test_a_bundles_codes_and_colours_are_written(bundle_of, series, tmp_path):
    out = tmp_path / "out"
    summary = predict(
        bundle_of("Befund"), [tmp_path / "in"], out, formats=("seg", "rtstruct"), overlays=False
    )
    assert "SNOMED" not in str(summary)
    (segment,) = pydicom.dcmread(out / "in_ct_seg.dcm").SegmentSequence
    assert segment.SegmentLabel == "Befund"
    assert segment.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    (roi,) = pydicom.dcmread(out / "in_ct_rtstruct.dcm").ROIContourSequence
    assert list(roi.ROIDisplayColor) == [0, 0, 255]


def test_a_mesh_of_a_long_name_is_written_under_a_shorter_one(bundle_of, series, tmp_path):
    name = "long " * 40 + "ö" * 60
    predict(bundle_of(name), [tmp_path / "in"], tmp_path / "out", mesh="obj", overlays=False)
    (mesh,) = (one for one in names(tmp_path / "out") if "mesh" in one)
    assert mesh.startswith("in_ct_mesh_1_long_long_")
    assert len(mesh.encode()) < 100
    assert "ö" * 60 in (tmp_path / "out" / mesh).read_text(encoding="utf-8")[:500]


def test_every_file_of_an_input_with_the_longest_name_is_written(bundle_of, series, tmp_path):
    """The same files as of one with a short name; a series is named by all its folders."""
    wishes = {"report": True, "key_images": True, "mesh": "obj", "probabilities": True}
    bundle = bundle_of("ö" * 60)
    short = predict(
        bundle, [tmp_path / "in"], tmp_path / "short", formats=("nifti", "seg", "rtstruct"), **wishes
    )
    folder = tmp_path / ("ö" * 127) / ("f" * 255)
    folder.parent.mkdir()
    (tmp_path / "in" / "ct").rename(folder)
    long = predict(bundle, [folder.parent], tmp_path / "long", formats=("nifti", "seg", "rtstruct"), **wishes)
    (one,), (other,) = short.results, long.results
    assert (short.failures, long.failures) == ((), ())
    assert names(tmp_path / "long") == set(other.files)
    assert {file.removeprefix(one.name) for file in one.files} == {
        file.removeprefix(other.name) for file in other.files
    }
    for file in tmp_path / "short", tmp_path / "long":
        require_no_error(next(file.glob("*_report.dcm")))


def test_only_what_is_asked_for_is_written(exported, series, tmp_path):
    predict(exported, [tmp_path / "in"], tmp_path / "out", formats=["seg"], labelmap=True, overlays=False)
    assert names(tmp_path / "out") == {"in_ct_seg.dcm"}
    assert pydicom.dcmread(tmp_path / "out" / "in_ct_seg.dcm").SegmentationType == "LABELMAP"


def test_nothing_found_is_an_answer_in_every_format(exported, series, tmp_path):
    paths, _ = series
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.PixelData = bytes(len(ds.PixelData))
        ds.save_as(path)
    out = tmp_path / "out"
    summary = predict(
        exported,
        [tmp_path / "in"],
        out,
        formats=["seg", "rtstruct"],
        report=True,
        key_images=True,
        mesh="obj",
    )
    summary.require_complete()
    assert "(nothing found)" in str(summary)
    assert {"in_ct_seg.dcm", "in_ct_rtstruct.dcm", "in_ct_report.dcm"} <= names(out)
    assert not any("mesh" in name for name in names(out))
    assert not pydicom.dcmread(out / "in_ct_seg.dcm").pixel_array.any()
    assert len([name for name in names(out) if "key" in name]) == SHAPE[0]


def test_a_volume_in_a_file_has_key_images_as_pictures_and_no_dicom(exported, tmp_path):
    values = np.zeros((12, 10, 3), np.int16)
    values[3:6, 2:5, 1] = 255
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 1.5, 3, 1])), tmp_path / "v.nii.gz")
    out = tmp_path / "out"
    predict(exported, [tmp_path / "v.nii.gz"], out, key_images=True, mesh="obj", overlays=False)
    assert names(out) == {"v_mask.nii.gz", "v_key_01.png", "v_mesh_1_bright.obj"}
    # Pixels of 0.5 x 1.5 mm are shown square: 12 x 0.5 mm wide, 10 x 1.5 mm high.
    width, height = Image.open(out / "v_key_01.png").size
    assert width < 300
    assert height >= 512


def test_what_cannot_be_answered_so_is_refused_before_anything_is_done(
    exported, series, tmp_path, monkeypatch
):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "v.nii.gz")
    out = tmp_path / "out"
    wish = {"formats": ["seg"], "overlays": False, "overwrite": True}
    both = predict(exported, [tmp_path / "v.nii.gz", tmp_path / "in"], out, **wish)
    assert "no DICOM series" in both.failures[0].message
    assert names(out) == {"in_ct_seg.dcm"}
    monkeypatch.setattr("medseg_paddle.steps.predict.Predictor", None)  # a call would be a TypeError
    alone = predict(exported, [tmp_path / "v.nii.gz"], out, **wish)
    with pytest.raises(DataError, match="1 of 1"):
        alone.require_complete()
    assert names(out) == {"in_ct_seg.dcm"}
    assert "results in" not in str(alone)


def test_results_of_a_run_that_was_stopped_are_removed_by_the_next_one(exported, tmp_path, monkeypatch):
    from medseg_paddle.steps import predict as step

    for name in "ab":
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    write, calls = step.write_answer, iter(range(9))

    def stopped(*args):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return write(*args)

    monkeypatch.setattr(step, "write_answer", stopped)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(exported, [tmp_path / "a.png", tmp_path / "b.png"], out)
    assert names(out) == {"a_mask.png", "a_overlay.png"}
    assert "stopped before all 2 inputs" in (out / "summary.json").read_text()
    predict(exported, [tmp_path / "b.png"], out, overlays=False, overwrite=True)
    assert names(out) == {"b_mask.png"}


@pytest.mark.parametrize(
    ("volume", "text"), [(0, "0 ml"), (0.0321, "0.0321 ml"), (3.456, "3.46 ml"), (1234.56, "1234.6 ml")]
)
def test_a_small_volume_never_reads_as_none(volume, text):
    assert in_millilitres(volume) == text


def test_a_picture_has_no_surface(exported, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    for number, wish in enumerate(({"mesh": "stl"}, {"key_images": True}, {"formats": ["rtstruct"]})):
        (failure,) = predict(exported, [tmp_path / "a.png"], tmp_path / f"out{number}", **wish).failures
        assert "a.png" in failure.message


@pytest.mark.parametrize(
    "wish",
    [
        {"report": True},
        {"labelmap": True, "formats": ["rtstruct"]},
        {"formats": ["dcm"]},
        {"formats": []},
        {"mesh": "ply"},
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_done(tmp_path, wish):
    with pytest.raises(RecipeError) as caught:
        predict(tmp_path / "no bundle", [tmp_path], tmp_path / "out", **wish)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_names_that_dicom_cannot_hold_are_refused_before_anything_is_computed(
    write_bundle, threshold_model, description, series, tmp_path
):
    labels = LabelSet.from_names(["background", "x" * 65])
    bundle = write_bundle(tmp_path / "b", threshold_model(), description(labels=labels)).path
    with pytest.raises(DataError, match="DICOM cannot hold"):
        predict(bundle, [tmp_path / "in"], tmp_path / "out", formats=["seg"])
    predict(bundle, [tmp_path / "in"], tmp_path / "out").require_complete()


def test_an_answer_that_cannot_be_written_whole_leaves_no_part(exported, series, tmp_path, monkeypatch):
    def full(*_, **__):
        raise SetupError("No space left", hint="make room")

    monkeypatch.setattr("medseg_paddle.io.rtstruct_out.write_structures", full)
    with pytest.raises(SetupError):
        predict(exported, [tmp_path / "in"], tmp_path / "out", formats=["nifti", "seg", "rtstruct"])
    assert names(tmp_path / "out") == set()


@pytest.mark.parametrize("way", [HuWindow(40, 400), ForegroundRange(-160, 240, 10, 50)])
def test_a_volume_is_shown_as_a_3d_model_sees_it(way):
    array = np.full((2, 30, 30), 40, np.int16)
    array[:, :9], array[:, 20:] = 3000, -3000
    description = volume_description(preprocessing=VolumePreprocessing(normalization=way))
    found = np.zeros(array.shape, np.uint8)
    one, _ = shown_slices(Volume(array, Geometry(array.shape, np.eye(4))), found, LABELS, description, {})
    assert abs(int(one.picture[256, 256, 0]) - 127) <= 1
