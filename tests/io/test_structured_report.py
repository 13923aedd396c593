"""Measurement reports as highdicom finds them."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import ORIENTATIONS, save_all, study
from pydicom.sr.codedict import codes
from validators import require_no_error

from medseg_paddle.core import LabelMap, LabelSet
from medseg_paddle.io.dicom_made import Algorithm
from medseg_paddle.io.dicom_reference import read_reference
from medseg_paddle.io.dicom_seg_out import Kind, write_segmentation
from medseg_paddle.io.structured_report import write_report

SHAPE = (3, 4, 5)
LABELS = LabelSet.from_names(["background", "left kidney", "cyst of the left kidney", "structure"])
MODEL = Algorithm("net", "1.2 of 3")
MILLILITRES = {1: 1.23456789, 2: 1043.75, 3: 0.0}


@pytest.fixture
def written(tmp_path):
    """The report and the segmentation."""
    reference = read_reference(save_all(tmp_path / "ct", study(SHAPE, ORIENTATIONS["oblique"])))

    def written(kind: Kind = "BINARY"):
        array = np.zeros(SHAPE, np.uint8)
        array[1, 1, 1:3] = 1, 2
        label_map = LabelMap(array, reference.geometry, LABELS)
        seg, report = tmp_path / "seg.dcm", tmp_path / "report.dcm"
        write_segmentation(seg, label_map, reference, algorithm=MODEL, kind=kind)
        write_report(report, seg, reference, MILLILITRES, algorithm=MODEL)
        return report, pydicom.dcmread(seg)

    return written


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_every_segment_has_its_volume(written, kind):
    path, seg = written(kind)
    report = hd.sr.srread(path)
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = report.content.get_volumetric_roi_measurement_groups()
    segments = [one for one in seg.SegmentSequence if one.SegmentNumber]
    assert len(groups) == len(segments) == 3
    for group, segment in zip(groups, segments, strict=True):
        number = segment.SegmentNumber
        assert group.tracking_uid == segment.TrackingUID
        assert group.tracking_identifier == segment.SegmentLabel
        reference = group.referenced_segment
        assert reference.referenced_segment_numbers == [number]
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        (volume,) = group.get_measurements(name=codes.SCT.Volume)
        assert volume.value == pytest.approx(MILLILITRES[number], rel=1e-5)
        assert (volume.unit.value, volume.unit.scheme_designator) == ("ml", "UCUM")


def test_findings_are_coded_with_their_site_and_side(written):
    path, _ = written()
    kidney, cyst, other = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    assert [group.finding_type.meaning for group in (kidney, cyst, other)] == ["Kidney", "Cyst", "Tissue"]
    for group in (kidney, cyst):
        (site,) = group.finding_sites
        assert (site.value.value, site.laterality.meaning) == ("64033007", "Left")
    assert not other.finding_sites


def test_the_report_belongs_to_the_study_and_names_the_model(written):
    path, seg = written()
    ds = pydicom.dcmread(path)
    assert (ds.StudyInstanceUID, ds.PatientID, str(ds.PatientName)) == ("1.2.1", "H47", "Müller^Eva")
    assert ds.SeriesInstanceUID not in ("1.2.3", seg.SeriesInstanceUID)
    assert ds.VerificationFlag == "UNVERIFIED"
    (evidence,) = ds.CurrentRequestedProcedureEvidenceSequence
    (series,) = evidence.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
    texts = [item.TextValue for item in ds.ContentSequence if "TextValue" in item]
    assert {"net", "1.2 of 3"} <= set(texts)
    data = path.read_bytes()
    assert b"Hospital" not in data
    assert b"Main Street" not in data


def test_a_model_has_one_uid():
    assert MODEL.uid == Algorithm("net", "1.2 of 3").uid != Algorithm("net", "1.3").uid


def test_dciodvfy_finds_no_error(written):
    path, _ = written()
    require_no_error(path)
