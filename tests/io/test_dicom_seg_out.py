"""Label maps written as DICOM SEG, as highdicom, pydicom and our own reader find them."""

import cv2
import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import ORIENTATIONS, PATIENT, ct_image, place
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    MRImageStorage,
)
from validators import read_by_dcmqi, require_no_error

from medseg_paddle.core import LabelMap, LabelSet, flip, reorient
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.io.dicom import load_series
from medseg_paddle.io.dicom_made import Algorithm
from medseg_paddle.io.dicom_reference import read_reference
from medseg_paddle.io.dicom_seg import read_segmentation, segment_names
from medseg_paddle.io.dicom_seg_out import write_segmentation, write_segments
from medseg_paddle.io.dicom_stack import Allowed

SLICES, ROWS, COLUMNS = 5, 6, 7
LABELS = LabelSet.from_names(["background", "left kidney", "liver tumour", "structure ö"])
MODEL = Algorithm("net", "1.2 of 3")


def image(orientation, k: int, kind=CTImageStorage, **changes) -> Dataset:
    """Slice k of a series, 2.5 mm apart."""
    own = {"StudyInstanceUID": "1.2.1", "SOPInstanceUID": f"1.2.3.{k + 1}", "SliceThickness": 3}
    return ct_image(
        np.zeros((ROWS, COLUMNS)),
        position=place(orientation, k).tolist(),
        orientation=orientation,
        kind=kind,
        **(own | PATIENT | changes),
    )


@pytest.fixture
def save(tmp_path):
    def save(datasets):
        paths = []
        for number, ds in enumerate(datasets):
            paths.append(tmp_path / f"image{number}.dcm")
            ds.save_as(paths[-1], enforce_file_format=True)
        return paths

    return save


@pytest.fixture
def paths(save):
    """An oblique series, its files in no order."""
    return save([image(ORIENTATIONS["oblique"], k) for k in (3, 0, 4, 1, 2)])


def drawn(geometry) -> LabelMap:
    """Labels 1 and 2 in several slices, none in two of them, 3 nowhere."""
    array = np.random.default_rng(5).integers(0, 3, geometry.shape).astype(np.uint8)
    array[[1, 3]] = 0
    return LabelMap(array, geometry, LABELS)


def places(path) -> dict[tuple, set]:
    """Each segment's voxels by their place in the patient in 1/100 mm, from the frames alone."""
    ds = pydicom.dcmread(path)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    rows, columns = (float(value) for value in shared.PixelMeasuresSequence[0].PixelSpacing)
    found: dict = {}
    for frame, groups in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for r, c in np.argwhere(frame):
            number = (
                int(frame[r, c])
                if ds.SegmentationType == "LABELMAP"
                else int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            )
            place = origin + orientation[3:] * rows * r + orientation[:3] * columns * c
            found.setdefault(number, set()).add(tuple((place * 100).round().astype(int).tolist()))
    return found


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_voxel_lies_where_its_image_says(save, tmp_path, orientation, kind):
    cosines = ORIENTATIONS[orientation]
    paths = save([image(cosines, k) for k in (3, 0, 4, 1, 2)])
    reference = read_reference(paths)
    label_map = drawn(reference.geometry)
    path = tmp_path / "seg.dcm"
    assert write_segmentation(path, label_map, reference, algorithm=MODEL, kind=kind)
    across, down = np.array(cosines[:3]), np.array(cosines[3:])
    expected: dict = {}
    for k, r, c in np.argwhere(label_map.array):
        place = (
            np.array([-10.1, 20.2, -30.3])
            + 2.5 * k * np.cross(across, down)
            + 0.7 * r * down
            + 0.5 * c * across
        )
        expected.setdefault(int(label_map.array[k, r, c]), set()).add(
            tuple((place * 100).round().astype(int).tolist())
        )
    assert places(path) == expected
    # highdicom's reader, which gives a volume with an affine of its own.
    volume = hd.seg.segread(path).get_volume(combine_segments=True, rescale_fractional=False)
    geometry = reference.geometry
    for index in np.argwhere(np.ones(volume.shape[:3])):
        there = geometry.to_index((volume.affine @ [*index, 1])[:3]).round().astype(int)
        assert volume.array[tuple(index)] == label_map.array[tuple(there)]
    assert np.count_nonzero(volume.array) == np.count_nonzero(label_map.array)
    # And our own.
    assert (read_segmentation(path, load_series(paths)).array == label_map.array).all()
    assert segment_names(path) == {1: "left kidney", 2: "liver tumour", 3: "structure ö"}


def test_labels_counted_in_another_order_end_up_in_the_same_places(paths, tmp_path):
    reference = read_reference(paths)
    label_map = drawn(reference.geometry)
    turned = flip(reorient(label_map, "LPS"), [1])
    assert turned.array.shape != label_map.array.shape
    write_segmentation(tmp_path / "a.dcm", turned, reference, algorithm=None)
    assert (read_segmentation(tmp_path / "a.dcm", load_series(paths)).array == label_map.array).all()


def test_frames_refer_to_the_image_that_they_lie_on_and_empty_ones_are_left_out(paths, tmp_path):
    reference = read_reference(paths)
    write_segmentation(tmp_path / "a.dcm", drawn(reference.geometry), reference, algorithm=MODEL)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    images = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, paths)}
    seen = set()
    for groups in ds.PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        place = images[source.ReferencedSOPInstanceUID].ImagePositionPatient
        assert list(groups.PlanePositionSequence[0].ImagePositionPatient) == list(place)
        seen.add(
            (
                int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber),
                source.ReferencedSOPInstanceUID,
            )
        )
    assert seen == {(number, f"1.2.3.{k}") for number in (1, 2) for k in (1, 3, 5)}
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3"
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == set(images)
    assert ds.FrameOfReferenceUID == "1.2.4"
    assert (ds.SeriesInstanceUID, ds.StudyInstanceUID) != ("1.2.3", "1.2.1")
    assert ds.StudyInstanceUID == "1.2.1"


def test_segments_are_coded_coloured_tracked_and_say_who_drew_them(paths, tmp_path):
    reference = read_reference(paths)
    write_segmentation(tmp_path / "a.dcm", drawn(reference.geometry), reference, algorithm=MODEL)
    kidney, tumour, other = pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence
    (kind,) = kidney.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("64033007", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"
    assert tumour.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert (other.SegmentLabel, other.TrackingID) == ("structure ö", "structure ö")
    assert len({one.TrackingUID for one in (kidney, tumour, other)}) == 3
    for one in (kidney, tumour, other):
        assert (one.SegmentAlgorithmType, one.SegmentAlgorithmName) == ("AUTOMATIC", "net")
        (algorithm,) = one.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmVersion, algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning) == (
            "1.2 of 3",
            "Artificial Intelligence",
        )
    # (230, 159, 0) as OpenCV has it, in DICOM's 16-bit scale (PS3.3, C.10.7.1.1).
    color = cv2.cvtColor(np.array([[[230, 159, 0]]], np.float32) / 255, cv2.COLOR_RGB2Lab)[0, 0]
    lightness, a, b = np.array(kidney.RecommendedDisplayCIELabValue) / 65535
    assert (lightness * 100, a * 255 - 128, b * 255 - 128) == pytest.approx(tuple(color), abs=0.3)
    write_segmentation(tmp_path / "b.dcm", drawn(reference.geometry), reference, algorithm=None)
    by_hand = pydicom.dcmread(tmp_path / "b.dcm").SegmentSequence[0]
    assert by_hand.SegmentAlgorithmType == "MANUAL"
    assert "SegmentAlgorithmName" not in by_hand


def test_of_the_header_patient_and_study_are_repeated_and_nothing_else(paths, tmp_path):
    reference = read_reference(paths)
    write_segmentation(tmp_path / "a.dcm", drawn(reference.geometry), reference, algorithm=MODEL)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    assert (str(ds.PatientName), ds.PatientID, ds.PatientBirthDate, ds.PatientSex) == (
        "Müller^Eva",
        "H47",
        "19700102",
        "F",
    )
    assert (ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber) == ("20250304", "0912", "S1", "A5")
    assert ds.StudyDescription == "Abdomen"
    data = (tmp_path / "a.dcm").read_bytes()
    assert b"Hospital" not in data
    assert b"Main Street" not in data


@pytest.mark.filterwarnings("ignore:Invalid value")  # of pydicom, on what this test writes
def test_values_that_are_none_are_left_empty(save, tmp_path):
    bad = {"PatientBirthDate": "19701332", "PatientSex": "X", "StudyTime": "99"}
    reference = read_reference(save([image(ORIENTATIONS["axial"], k, **bad) for k in range(SLICES)]))
    write_segmentation(tmp_path / "a.dcm", drawn(reference.geometry), reference, algorithm=None)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    assert [ds[keyword].value or "" for keyword in bad] == ["", "", ""]


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_nothing_found_is_a_segmentation_too(paths, tmp_path, kind):
    reference = read_reference(paths)
    nothing = LabelMap(np.zeros(reference.geometry.shape, np.uint8), reference.geometry, LABELS)
    assert not write_segmentation(tmp_path / "a.dcm", nothing, reference, algorithm=MODEL, kind=kind)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    assert ds.NumberOfFrames == (3 if kind == "BINARY" else 1)
    assert not ds.pixel_array.any()
    assert len(ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == SLICES
    assert not read_segmentation(tmp_path / "a.dcm", load_series(paths)).array.any()
    assert segment_names(tmp_path / "a.dcm") == {1: "left kidney", 2: "liver tumour", 3: "structure ö"}


def enhanced(order) -> Dataset:
    """One object of many frames, which hold the slices `order`."""
    ds = image(ORIENTATIONS["oblique"], 0, EnhancedCTImageStorage)
    positions = {k: image(ORIENTATIONS["oblique"], k).ImagePositionPatient for k in order}
    measures, orientation, values = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ds.PixelSpacing, ds.SliceThickness
    orientation.ImageOrientationPatient = ds.ImageOrientationPatient
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, 0, "HU"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del ds[keyword]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [values]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for k in order:
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = positions[k]
        frame.PlanePositionSequence = [place]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    ds.NumberOfFrames = len(order)
    ds.PixelData = np.zeros((len(order), ROWS, COLUMNS), np.int16).tobytes()
    return ds


@pytest.mark.parametrize("is_empty", [False, True])
def test_frames_of_a_multi_frame_object_are_referred_to_by_number(save, tmp_path, is_empty):
    order = [3, 0, 4, 1, 2]
    paths = save([enhanced(order)])
    reference = read_reference(paths)
    label_map = drawn(reference.geometry)
    label_map.array[:] *= not is_empty
    write_segmentation(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL)
    assert (read_segmentation(tmp_path / "a.dcm", load_series(paths)).array == label_map.array).all()
    for groups in pydicom.dcmread(tmp_path / "a.dcm").PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        k = order[source.ReferencedFrameNumber - 1]
        assert list(groups.PlanePositionSequence[0].ImagePositionPatient) == list(
            image(ORIENTATIONS["oblique"], k).ImagePositionPatient
        )


def refused(call, *words):
    with pytest.raises(DataError) as caught:
        call()
    assert all(word in caught.value.message for word in words)
    assert caught.value.hint
    assert "Müller" not in caught.value.message


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"FrameOfReferenceUID": ""}, "no FrameOfReferenceUID"),
        ({"StudyInstanceUID": "../x"}, "no StudyInstanceUID"),
        ({"SOPClassUID": "1.2.3.4.5"}, "cannot be referred to"),
    ],
)
def test_a_series_that_nothing_can_refer_to_is_refused(save, tmp_path, change, words):
    paths = save([image(ORIENTATIONS["axial"], k, **change) for k in range(SLICES)])

    def write():
        reference = read_reference(paths)
        write_segmentation(tmp_path / "a.dcm", drawn(reference.geometry), reference, algorithm=None)

    refused(write, words)
    assert not list(tmp_path.glob("*a.dcm*"))


def test_resampled_slices_and_parts_of_objects_are_refused(save, tmp_path):
    uneven = save([image(ORIENTATIONS["axial"], k) for k in (0, 1, 2, 4)])
    refused(lambda: read_reference(uneven), "gap")
    refused(lambda: read_reference(uneven, Allowed(fill_gaps=True)), "no straight, even grid")
    two = [enhanced([0, 1]), enhanced([2, 3])]
    two[1].file_meta.MediaStorageSOPInstanceUID = two[1].SOPInstanceUID = "1.2.3.77"
    refused(lambda: read_reference(save(two)), "multi-frame")
    studies = [image(ORIENTATIONS["axial"], k, StudyInstanceUID=f"1.2.{k}") for k in range(2)]
    refused(lambda: read_reference(save(studies)), "StudyInstanceUID")
    people = [image(ORIENTATIONS["axial"], k, PatientName=f"Müller^{'AB'[k]}") for k in range(2)]
    refused(lambda: read_reference(save(people)), "PatientName")


def test_labels_that_do_not_fit_are_refused(paths, tmp_path):
    reference = read_reference(paths)
    geometry, target = reference.geometry, tmp_path / "a.dcm"

    def write(array, grid, labels=LABELS):
        return lambda: write_segmentation(target, LabelMap(array, grid, labels), reference, algorithm=None)

    array = drawn(geometry).array
    moved = geometry.affine.copy()
    moved[:3, 3] += moved[:3, 2] / 2
    refused(write(array, type(geometry)(geometry.shape, moved)), "do not share their voxels")
    wider = type(geometry)((SLICES + 1, ROWS, COLUMNS), geometry.affine)
    outside = np.zeros(wider.shape, np.uint8)
    outside[-1, 2, 2:4] = 1
    refused(write(outside, wider), "2 labelled voxels lie beyond")
    refused(write(array + np.uint8(9), geometry), "label 11")
    for name in ("x" * 65, "a\\b"):
        refused(
            write(array, geometry, LabelSet.from_names(["background", "a", "b", name])), "label 3", "name"
        )
    assert not target.exists()


def test_a_number_that_eight_bits_would_change_is_no_label(paths, tmp_path):
    reference = read_reference(paths)
    array = np.zeros(reference.geometry.shape, np.uint16)
    array[1, 1, 1] = 257
    label_map = LabelMap(array, reference.geometry, LABELS)
    refused(
        lambda: write_segmentation(tmp_path / "a.dcm", label_map, reference, algorithm=None),
        "label 257,",
    )


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_more_segments_than_eight_bits_count(paths, tmp_path, kind):
    reference = read_reference(paths)
    labels = LabelSet.from_names(["background", *(f"structure {number}" for number in range(1, 301))])
    array = np.zeros(reference.geometry.shape, np.uint16)
    array.ravel()[5:105] = np.arange(300, 200, -1)
    label_map = LabelMap(array, reference.geometry, labels)
    write_segmentation(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL, kind=kind)
    assert (read_segmentation(tmp_path / "a.dcm", load_series(paths)).array == array).all()


def measures(path) -> Dataset:
    return pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


def test_labels_are_as_thick_as_their_slices_are_apart_where_the_series_does_not_say(save, tmp_path):
    reference = read_reference(
        save([image(ORIENTATIONS["oblique"], k, SliceThickness=None) for k in range(SLICES)])
    )
    write_segmentation(tmp_path / "a.dcm", drawn(reference.geometry), reference, algorithm=MODEL)
    assert measures(tmp_path / "a.dcm").SliceThickness == pytest.approx(2.5)


def test_a_single_slice_is_at_no_distance_from_another(save, tmp_path):
    reference = read_reference(save([image(ORIENTATIONS["oblique"], 0)]))
    label_map = LabelMap(np.ones(reference.geometry.shape, np.uint8), reference.geometry, LABELS)
    write_segmentation(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL)
    assert "SpacingBetweenSlices" not in measures(tmp_path / "a.dcm")
    assert measures(tmp_path / "a.dcm").SliceThickness == 3


@pytest.mark.parametrize(
    ("name", "version"), [("", "1"), ("net", " "), ("a\\b", "1"), ("net", "1\n2"), ("x" * 65, "1")]
)
def test_a_model_that_dicom_cannot_name_is_refused(name, version):
    with pytest.raises(RecipeError):
        Algorithm(name, version)


def test_a_place_that_cannot_be_written_is_said(paths, tmp_path):
    reference = read_reference(paths)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SetupError):
        write_segmentation(tmp_path / "file" / "a.dcm", drawn(reference.geometry), reference, algorithm=None)


@pytest.mark.parametrize("is_empty", [False, True])
@pytest.mark.parametrize("kind", [CTImageStorage, MRImageStorage])
def test_dciodvfy_finds_no_error(save, tmp_path, kind, is_empty):
    """Of BINARY; its version of 2022 does not know the newer class of label maps."""
    changes = {"PatientName": "Doe^Eva", "SpecificCharacterSet": "ISO_IR 100"}
    paths = save([image(ORIENTATIONS["oblique"], k, kind, **changes) for k in range(SLICES)])
    reference = read_reference(paths)
    label_map = drawn(reference.geometry)
    label_map.array[:] *= not is_empty
    write_segmentation(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL)
    require_no_error(tmp_path / "a.dcm")


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_dcmqi_finds_every_voxel_at_its_place(save, tmp_path, orientation, kind):
    cosines = ORIENTATIONS[orientation]
    reference = read_reference(save([image(cosines, k) for k in (3, 0, 4, 1, 2)]))
    label_map = drawn(reference.geometry)
    write_segmentation(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL, kind=kind)
    found = read_by_dcmqi(tmp_path / "a.dcm", tmp_path / "out")
    assert set(found) == {"left kidney", "liver tumour"}
    for number, name in enumerate(LABELS.names[1:3], start=1):
        assert_at(found[name], label_map.array == number, reference.geometry)


def assert_at(places, mask, geometry):
    """The places are those of the mask's voxels, all and no others."""
    indices = geometry.to_index(places)
    assert np.abs(indices - indices.round()).max() < 0.01
    assert {tuple(one) for one in indices.round().astype(int).tolist()} == set(
        map(tuple, np.argwhere(mask).tolist())
    )


def test_segments_that_overlap_are_each_where_they_were_drawn(paths, tmp_path):
    reference = read_reference(paths)
    masks = np.random.default_rng(3).random((*reference.geometry.shape, 3)) < 0.4
    masks[1] = masks[..., 2] = False
    path = tmp_path / "a.dcm"
    assert write_segments(path, masks.astype(np.uint8), LABELS, reference, algorithm=MODEL)
    ds = pydicom.dcmread(path)
    assert (ds.SegmentsOverlap, ds.SegmentationType) == ("YES", "BINARY")
    series = load_series(paths)
    with pytest.raises(DataError, match="segments overlap"):
        read_segmentation(path, series)
    for number in (1, 2, 3):
        found = read_segmentation(path, series, segments=[number]).array
        assert (found == masks[..., number - 1] * number).all()
    volume = hd.seg.segread(path).get_volume(combine_segments=False)
    for number in (1, 2):
        there = np.argwhere(volume.array[..., number - 1])
        assert_at(
            (there @ volume.affine[:3, :3].T) + volume.affine[:3, 3],
            masks[..., number - 1],
            reference.geometry,
        )


def test_others_read_segments_that_overlap(paths, tmp_path):
    reference = read_reference(paths)
    masks = np.random.default_rng(3).random((*reference.geometry.shape, 2)) < 0.4
    labels = LabelSet.from_names(["background", "liver", "tumour"])
    write_segments(tmp_path / "a.dcm", masks.astype(np.uint8), labels, reference, algorithm=MODEL)
    found = read_by_dcmqi(tmp_path / "a.dcm", tmp_path / "out")
    for number, name in enumerate(("liver", "tumour")):
        assert_at(found[name], masks[..., number], reference.geometry)
    require_no_error(tmp_path / "a.dcm")


def test_real_series_get_their_labels_back(real_data, tmp_path):
    paths = sorted((real_data / "ct_liver_seg" / "ct").glob("*.dcm"))
    reference, series = read_reference(paths), load_series(paths)
    assert (reference.geometry.affine == series.volume.geometry.affine).all()
    truth = read_segmentation(real_data / "ct_liver_seg" / "seg" / "liver.dcm", series)
    label_map = LabelMap(truth.array, truth.geometry, LabelSet.from_names(["background", "liver"]))
    write_segmentation(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL)
    assert (read_segmentation(tmp_path / "a.dcm", series).array == truth.array).all()
