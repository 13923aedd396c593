"""What all objects have in common that are made for a series: their times, and the codes of their labels."""

from datetime import datetime, timedelta, timezone

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import ORIENTATIONS, save_all, study
from validators import require_no_error

from medseg_paddle.core import LabelMap, LabelSet
from medseg_paddle.core.concepts import Code, Concept
from medseg_paddle.io.dicom_made import Algorithm
from medseg_paddle.io.dicom_reference import read_reference
from medseg_paddle.io.dicom_seg_out import write_segmentation
from medseg_paddle.io.key_images import write_key_images
from medseg_paddle.io.rtstruct_out import write_structures
from medseg_paddle.io.structured_report import write_report

MODEL = Algorithm("net", "1")
KINDS = ("seg", "rtstruct", "report", "key")
ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")
METASTASIS = Concept(
    ABNORMAL,
    Code("14799000", "Neoplasm, Secondary"),
    Code("24028007", "Right"),
    Code("10200004", "Liver"),
    Code("261183002", "Upper"),
)
LOBE = Concept(Code("91723000", "Anatomical Structure"), Code("62413002", "Radius"), Code("7771000", "Left"))
LABELS = LabelSet.from_names(["background", "finding", "bone"]).described(
    {"finding": METASTASIS, "bone": LOBE}, {"finding": (10, 20, 200)}
)


@pytest.fixture
def written(tmp_path):
    """One object of each kind, of a series with these attributes."""

    def written(labels=LABELS, **changes) -> dict[str, pydicom.Dataset]:
        reference = read_reference(
            save_all(tmp_path / "ct", study((3, 4, 5), ORIENTATIONS["oblique"], **changes))
        )
        array = np.zeros(reference.geometry.shape, np.uint8)
        array[1, 1, 1:3] = 1, 2
        label_map = LabelMap(array, reference.geometry, labels)
        paths = {kind: tmp_path / f"{kind}.dcm" for kind in KINDS}
        write_segmentation(paths["seg"], label_map, reference, algorithm=MODEL)
        write_structures(paths["rtstruct"], label_map, reference, algorithm=MODEL)
        write_report(paths["report"], paths["seg"], reference, {1: 1.0, 2: 2.0}, algorithm=MODEL)
        picture = np.zeros((9, 8, 3), np.uint8)
        write_key_images([paths["key"]], [picture], [1], reference, algorithm=MODEL)
        return {kind: pydicom.dcmread(path) for kind, path in paths.items()}

    return written


DATED = (
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("ContentDate", "ContentTime"),
    ("StructureSetDate", "StructureSetTime"),
    ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)


@pytest.mark.parametrize("offset", ["+0545", "-0930", "+1400"])
def test_times_are_those_of_the_zone_that_the_series_names(written, offset):
    """One zone holds for all times of an object (PS3.3, C.12.1), the study's as well."""
    zone = datetime.strptime(offset, "%z").tzinfo
    before = datetime.now(timezone.utc).replace(microsecond=0)
    for kind, ds in written(TimezoneOffsetFromUTC=offset).items():
        assert (ds.TimezoneOffsetFromUTC, ds.StudyTime) == (offset, "0912"), kind
        pairs = [(ds[date].value, ds[time].value) for date, time in DATED if date in ds]
        assert len(pairs) >= 2
        for date, time in pairs:
            made = datetime.strptime(date + time, "%Y%m%d%H%M%S").replace(tzinfo=zone)
            assert before <= made <= before + timedelta(minutes=5)
        times = {
            element.keyword: element.value for element in ds.iterall() if element.VR in ("DA", "TM", "DT")
        }
        assert times.pop("ContributionDateTime", offset).endswith(offset)
        known = {name for pair in DATED for name in pair}
        assert set(times) - known <= {"StudyDate", "StudyTime", "PatientBirthDate"}, kind


@pytest.mark.parametrize("offset", [None, "", "CET", "+9900", "0100"])
def test_without_a_zone_times_are_those_of_this_machine(written, offset):
    changes = {} if offset is None else {"TimezoneOffsetFromUTC": offset}
    before = datetime.now().replace(microsecond=0)  # noqa: DTZ005  (naive, as DICOM's are)
    for kind, ds in written(**changes).items():
        assert "TimezoneOffsetFromUTC" not in ds, kind
        made = datetime.strptime(ds.InstanceCreationDate + ds.InstanceCreationTime, "%Y%m%d%H%M%S")  # noqa: DTZ007
        assert before <= made <= before + timedelta(minutes=5)


def test_codes_that_somebody_gave_stand_in_every_object(written):
    made = written()
    finding, bone = made["seg"].SegmentSequence
    (kind,) = finding.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == (
        "14799000",
        "Right",
    )
    assert finding.SegmentedPropertyCategoryCodeSequence[0].CodeValue == ABNORMAL.value
    (region,) = finding.AnatomicRegionSequence
    assert (region.CodeValue, region.AnatomicRegionModifierSequence[0].CodeValue) == ("10200004", "261183002")
    assert "AnatomicRegionSequence" not in bone
    observed = [
        item.RTROIIdentificationCodeSequence[0] for item in made["rtstruct"].RTROIObservationsSequence
    ]
    assert [one.CodeValue for one in observed] == ["14799000", "62413002"]
    assert observed[1].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert list(made["rtstruct"].ROIContourSequence[0].ROIDisplayColor) == [10, 20, 200]
    report = hd.sr.ComprehensiveSR.from_dataset(made["report"])
    first, second = report.content.get_volumetric_roi_measurement_groups()
    assert (first.finding_type.value, first.finding_category.value) == ("14799000", ABNORMAL.value)
    (site,) = first.finding_sites
    assert (site.value.value, site.topographical_modifier.value, site.laterality) == (
        "10200004",
        "261183002",
        None,
    )
    (site,) = second.finding_sites
    assert (site.value.value, site.laterality.value) == ("62413002", "7771000")


def test_codes_of_more_than_16_characters_stand_in_every_object(written, tmp_path):
    long = Concept(
        Code("morphologically-abnormal", "Abnormal", "99HOUSE"),
        Code("999000041000000102", "Something of 18 digits"),
        region=Code("urn:oid:1.2.3", "Place", "99HOUSE"),
        region_modifier=Code("https://example.org/codes#upper", "Upper part", "99HOUSE"),
    )
    sided = Concept(
        Code("91723000", "Anatomical Structure"),
        Code("a bone's long name", "Bone", "99HOUSE"),
        Code("7771000", "Left"),
    )
    made = written(LABELS.described({"finding": long, "bone": sided}, {}))

    def said(item) -> dict[str, str]:
        keywords = ("CodeValue", "LongCodeValue", "URNCodeValue")
        return {keyword: item[keyword].value for keyword in keywords if keyword in item}

    finding, _ = made["seg"].SegmentSequence
    (category,), (kind,) = (
        finding.SegmentedPropertyCategoryCodeSequence,
        finding.SegmentedPropertyTypeCodeSequence,
    )
    (region,) = finding.AnatomicRegionSequence
    assert said(category) == {"LongCodeValue": "morphologically-abnormal"}
    assert said(kind) == {"LongCodeValue": "999000041000000102"}
    assert said(region) == {"URNCodeValue": "urn:oid:1.2.3"}
    (part,) = region.AnatomicRegionModifierSequence
    assert said(part) == {"URNCodeValue": "https://example.org/codes#upper"}
    first, second = (
        one.RTROIIdentificationCodeSequence[0] for one in made["rtstruct"].RTROIObservationsSequence
    )
    assert said(first) == {"LongCodeValue": "999000041000000102"}
    assert said(second) == {"LongCodeValue": "a bone's long name"}
    report = hd.sr.ComprehensiveSR.from_dataset(made["report"])
    of_finding, of_bone = report.content.get_volumetric_roi_measurement_groups()
    assert said(of_finding.finding_type) == {"LongCodeValue": "999000041000000102"}
    assert said(of_finding.finding_category) == {"LongCodeValue": "morphologically-abnormal"}
    (site,) = of_finding.finding_sites
    assert said(site.value) == {"URNCodeValue": "urn:oid:1.2.3"}
    assert said(site.topographical_modifier) == {"URNCodeValue": "https://example.org/codes#upper"}
    (site,) = of_bone.finding_sites
    assert said(site.value) == {"LongCodeValue": "a bone's long name"}
    assert site.laterality.value == "7771000"
    segments = hd.seg.segread(tmp_path / "seg.dcm")
    assert segments.get_segment_description(1).segmented_property_type.value == "999000041000000102"
    for name in KINDS:
        require_no_error(tmp_path / f"{name}.dcm")


def test_dciodvfy_finds_no_error_in_them(written, tmp_path):
    written(TimezoneOffsetFromUTC="+0545")
    for kind in KINDS:
        require_no_error(tmp_path / f"{kind}.dcm")
