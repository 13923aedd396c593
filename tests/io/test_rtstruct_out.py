"""Label maps written as RT structure sets, read back by pydicom and matplotlib alone."""

import numpy as np
import pydicom
import pytest
from dicom_files import ORIENTATIONS, PATIENT, place, save_all, study
from matplotlib.path import Path as Polygon
from pydicom.uid import ImplicitVRLittleEndian
from validators import require_no_error

from medseg_paddle.core import LabelMap, LabelSet, flip, reorient
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_made import Algorithm
from medseg_paddle.io.dicom_reference import read_reference
from medseg_paddle.io.rtstruct_out import write_structures

SHAPE = (5, 9, 11)
LABELS = LabelSet.from_names(["background", "left kidney", "liver tumour", "structure ö"])
MODEL = Algorithm("net", "1.2 of 3")


def drawn(geometry, share=0.6) -> LabelMap:
    """Labels 1 and 2 with holes and islands in all slices but one, 3 nowhere."""
    rng = np.random.default_rng(7)
    array = (rng.random(geometry.shape) < share) * rng.choice([1, 1, 1, 2], geometry.shape)
    array[1] = 0
    array[2, 2:7, 3:8] = 1
    array[2, 4, 5] = 0  # a hole for certain
    return LabelMap(array.astype(np.uint8), geometry, LABELS)


def rasterised(path, images, shape) -> np.ndarray:
    """Labels of pixels by what the file's contours hold, `images` in the order of the slices.

    Every pixel is asked for at its centre and near its four corners; all five must say the same.
    """
    ds = pydicom.dcmread(path)
    by_instance = {image.SOPInstanceUID: k for k, image in enumerate(images)}
    rows, columns = np.indices(shape[1:]).reshape(2, -1)
    labels = np.zeros(shape, int)
    for roi in ds.ROIContourSequence:
        inside = {}
        for contour in roi.get("ContourSequence", []):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            (reference,) = contour.ContourImageSequence
            k = by_instance[reference.ReferencedSOPInstanceUID]
            image = images[k]
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            offset = points - np.array(image.ImagePositionPatient, float)
            orientation = np.array(image.ImageOrientationPatient, float)
            assert np.abs(offset @ np.cross(orientation[:3], orientation[3:])).max() < 1e-3  # in the plane
            # Columns count along the first direction, by the second spacing (PS3.3, C.7.6.2.1.1).
            polygon = Polygon(
                np.stack(
                    [
                        offset @ orientation[:3] / image.PixelSpacing[1],
                        offset @ orientation[3:] / image.PixelSpacing[0],
                    ],
                    axis=1,
                )
            )
            for right, down in ((0, 0), (0.4, 0.4), (0.4, -0.4), (-0.4, 0.4), (-0.4, -0.4)):
                found = polygon.contains_points(np.stack([columns + right, rows + down], axis=1))
                inside.setdefault((right, down), np.zeros(shape, bool))[k] |= found.reshape(shape[1:])
        masks = list(inside.values())
        assert all((mask == masks[0]).all() for mask in masks)
        for mask in masks[:1]:
            assert not labels[mask].any()
            labels[mask] = roi.ReferencedROINumber
    return labels


@pytest.fixture
def series(tmp_path):
    def series(orientation="oblique", **changes):
        images = study(SHAPE, ORIENTATIONS[orientation], order=(3, 0, 4, 1, 2), **changes)
        paths = save_all(tmp_path / "ct", images)
        return read_reference(paths), sorted(images, key=lambda one: one.SOPInstanceUID)

    return series


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_contours_read_back_are_the_mask(series, tmp_path, orientation):
    reference, images = series(orientation)
    label_map = drawn(reference.geometry)
    assert write_structures(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL)
    assert (rasterised(tmp_path / "a.dcm", images, SHAPE) == label_map.array).all()


def test_labels_counted_in_another_order_end_up_in_the_same_places(series, tmp_path):
    reference, images = series()
    label_map = drawn(reference.geometry)
    turned = flip(reorient(label_map, "LPS"), [1])
    write_structures(tmp_path / "a.dcm", turned, reference, algorithm=None)
    assert (rasterised(tmp_path / "a.dcm", images, SHAPE) == label_map.array).all()


def test_one_pixel_is_a_rectangle_around_its_centre(series, tmp_path):
    reference, _ = series("axial")
    array = np.zeros(SHAPE, np.uint8)
    array[2, 3, 4] = 1
    label_map = LabelMap(array, reference.geometry, LABELS)
    write_structures(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    (contour,) = ds.ROIContourSequence[0].ContourSequence
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    x, y, z = place(ORIENTATIONS["axial"], 2)
    assert {tuple(point) for point in points.round(4).tolist()} == {
        (round(x + 0.5 * c, 4), round(y + 0.7 * r, 4), round(z, 4)) for r in (2.5, 3.5) for c in (3.5, 4.5)
    }
    # One pixel of 0.5 x 0.7 mm, 2.5 mm from slice to slice, in cubic centimetres.
    assert float(ds.StructureSetROISequence[0].ROIVolume) == pytest.approx(0.5 * 0.7 * 2.5 / 1000)


def test_structures_are_named_coloured_coded_and_refer_to_the_series(series, tmp_path):
    reference, images = series()
    write_structures(tmp_path / "a.dcm", drawn(reference.geometry), reference, algorithm=MODEL)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    assert ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert [roi.ROIName for roi in ds.StructureSetROISequence] == list(LABELS.names[1:])
    assert {roi.ROIGenerationAlgorithm for roi in ds.StructureSetROISequence} == {"AUTOMATIC"}
    assert [list(roi.ROIDisplayColor) for roi in ds.ROIContourSequence] == [
        list(label.color) for label in LABELS.foreground
    ]
    kidney, tumour, _ = ds.RTROIObservationsSequence
    (code,) = kidney.RTROIIdentificationCodeSequence
    assert (code.CodeValue, code.CodeMeaning) == ("64033007", "Kidney")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert tumour.RTROIIdentificationCodeSequence[0].CodeMeaning == "Neoplasm"
    (frame,) = ds.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == "1.2.4"
    (study_item,) = frame.RTReferencedStudySequence
    (referenced,) = study_item.RTReferencedSeriesSequence
    assert (study_item.ReferencedSOPInstanceUID, referenced.SeriesInstanceUID) == ("1.2.1", "1.2.3")
    assert {one.ReferencedSOPInstanceUID for one in referenced.ContourImageSequence} == {
        one.SOPInstanceUID for one in images
    }
    assert ds.ApprovalStatus == "UNAPPROVED"
    write_structures(tmp_path / "b.dcm", drawn(reference.geometry), reference, algorithm=None)
    by_hand = pydicom.dcmread(tmp_path / "b.dcm")
    assert by_hand.StructureSetROISequence[0].ROIGenerationAlgorithm == "MANUAL"
    assert by_hand.SOPInstanceUID != ds.SOPInstanceUID
    assert by_hand.SeriesInstanceUID not in (ds.SeriesInstanceUID, "1.2.3")


def test_of_the_header_patient_and_study_are_repeated_and_nothing_else(series, tmp_path):
    reference, _ = series()
    write_structures(tmp_path / "a.dcm", drawn(reference.geometry), reference, algorithm=MODEL)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    kept = PATIENT.keys() - {"SpecificCharacterSet", "InstitutionName", "PatientAddress"}
    assert {keyword: str(ds[keyword].value) for keyword in kept} == {key: PATIENT[key] for key in kept}
    data = (tmp_path / "a.dcm").read_bytes()
    assert b"Hospital" not in data
    assert b"Main Street" not in data


def test_nothing_found_is_a_structure_set_too(series, tmp_path):
    reference, images = series()
    nothing = LabelMap(np.zeros(SHAPE, np.uint8), reference.geometry, LABELS)
    assert not write_structures(tmp_path / "a.dcm", nothing, reference, algorithm=MODEL)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    assert [roi.ROIName for roi in ds.StructureSetROISequence] == list(LABELS.names[1:])
    assert not any("ContourSequence" in roi for roi in ds.ROIContourSequence)
    assert not rasterised(tmp_path / "a.dcm", images, SHAPE).any()


def test_a_contour_longer_than_explicit_vr_has_room_for_is_read_back(tmp_path):
    shape = (1, 150, 150)
    images = study(shape)
    reference = read_reference(save_all(tmp_path / "ct", images))
    array = (np.random.default_rng(1).random(shape) < 0.75).astype(np.uint8)
    label_map = LabelMap(array, reference.geometry, LABELS)
    write_structures(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL)
    contours = pydicom.dcmread(tmp_path / "a.dcm").ROIContourSequence[0].ContourSequence
    assert max(len("\\".join(map(str, contour.ContourData))) for contour in contours) > 65534
    area = 0.0  # by the shoelace formula
    for contour in contours:
        x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
        area += float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert area == pytest.approx(array.sum() * 0.5 * 0.7, abs=0.01)


def test_what_does_not_fit_is_refused_and_nothing_written(series, tmp_path):
    reference, _ = series()
    array = drawn(reference.geometry).array
    for labels, values in (
        (LabelSet.from_names(["background", "a\\b"]), np.minimum(array, 1)),
        (LABELS, array.astype(np.uint16) + 256),
    ):
        with pytest.raises(DataError):
            write_structures(
                tmp_path / "a.dcm",
                LabelMap(values, reference.geometry, labels),
                reference,
                algorithm=None,
            )
    assert not (tmp_path / "a.dcm").exists()


@pytest.mark.parametrize("is_empty", [False, True])
def test_dciodvfy_finds_no_error(series, tmp_path, is_empty):
    reference, _ = series(PatientName="Doe^Eva")
    label_map = drawn(reference.geometry)
    label_map.array[:] *= not is_empty
    write_structures(tmp_path / "a.dcm", label_map, reference, algorithm=MODEL)
    require_no_error(tmp_path / "a.dcm")
