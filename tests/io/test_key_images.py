"""Secondary captures of slices, and the sides of the patient on them."""

import numpy as np
import pydicom
import pytest
from dicom_files import ORIENTATIONS, save_all, study
from validators import require_no_error

from medseg_paddle.core import Geometry
from medseg_paddle.io.dicom_made import Algorithm
from medseg_paddle.io.dicom_reference import read_reference
from medseg_paddle.io.key_images import write_key_images
from medseg_paddle.io.patient_sides import mark_sides, side_letters

PICTURES = list(np.random.default_rng(2).integers(0, 256, (2, 30, 40, 3)).astype(np.uint8))


@pytest.fixture
def written(tmp_path):
    def written(orientation="axial", images=None, **changes):
        images = images or study((4, 5, 6), ORIENTATIONS[orientation], order=(2, 0, 3, 1), **changes)
        paths = save_all(tmp_path / "ct", images)
        targets = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
        write_key_images(targets, PICTURES, [1, 3], read_reference(paths), algorithm=Algorithm("net", "1"))
        return targets

    return written


def test_pictures_are_kept_and_refer_to_the_image_that_they_show(written):
    found = [pydicom.dcmread(path) for path in written()]
    for ds, picture, instance in zip(found, PICTURES, ("1.2.3.2", "1.2.3.4"), strict=True):
        assert (ds.pixel_array == picture).all()
        assert ds.PhotometricInterpretation == "RGB"
        assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == instance
    assert [ds.InstanceNumber for ds in found] == [1, 2]
    assert len({ds.SeriesInstanceUID for ds in found} - {"1.2.3"}) == 1
    assert len({ds.SOPInstanceUID for ds in found}) == 2


def test_the_patient_stands_in_the_header_and_nothing_else_of_it(written):
    path, _ = written()
    ds = pydicom.dcmread(path)
    assert (str(ds.PatientName), ds.PatientID, ds.StudyInstanceUID) == ("Müller^Eva", "H47", "1.2.1")
    assert b"Hospital" not in path.read_bytes()
    assert b"Main Street" not in path.read_bytes()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["NO"] * 4, "NO"),
        (["NO", "NO", "YES", "NO"], "YES"),
        (["NO", "", "NO", "NO"], None),
        ([""] * 4, None),
    ],
)
def test_a_name_burned_into_one_image_of_the_series_is_told_of(written, said, expected):
    images = study((4, 5, 6))
    for image, text in zip(images, said, strict=True):
        image.BurnedInAnnotation = text
    for path in written(images=images):
        assert pydicom.dcmread(path).get("BurnedInAnnotation") == expected


def test_what_was_lost_by_compression_stays_lost(written):
    assert "LossyImageCompression" not in pydicom.dcmread(written()[0])
    path, _ = written(LossyImageCompression="01", LossyImageCompressionRatio=8)
    ds = pydicom.dcmread(path)
    assert (ds.LossyImageCompression, float(ds.LossyImageCompressionRatio)) == ("01", 8)


@pytest.mark.parametrize(
    ("orientation", "directions", "letters"),
    [
        ("axial", ["L", "P"], ("A", "R")),
        ("feet up", ["L", "P"], ("A", "R")),
        ("coronal", ["L", "F"], ("H", "R")),
        ("sagittal", ["P", "F"], ("H", "A")),
    ],
)
def test_the_sides_of_the_patient_are_those_of_upright_slices(written, orientation, directions, letters):
    path, _ = written(orientation)
    assert list(pydicom.dcmread(path).PatientOrientation) == directions
    cosines = ORIENTATIONS[orientation]
    affine = np.eye(4)
    affine[:3, :3] = np.stack([np.cross(cosines[:3], cosines[3:]), cosines[3:], cosines[:3]], axis=1)
    assert side_letters(Geometry((2, 2, 2), affine)) == letters


def test_letters_are_written_at_the_upper_and_the_left_edge_alone():
    marked = mark_sides(np.zeros((200, 300, 3), np.uint8), ("A", "R"))
    rows, columns = np.nonzero(marked.any(axis=2))
    at_the_top, at_the_left = rows < 40, columns < 40
    assert at_the_top.any()
    assert at_the_left.any()
    assert (at_the_top | at_the_left).all()
    assert not (at_the_top & at_the_left).any()


def test_dciodvfy_finds_no_error(written):
    require_no_error(written()[0])
