import contextlib
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_files import x_ray
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
)

from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.dicom import find_series, load_series
from medseg_paddle.io.dicom_pictures import dicom_pictures

VALUES = np.array([[0, 1, 2000], [4095, 100, 3000]], np.uint16)


@pytest.fixture
def save(tmp_path):
    def save(name: str, ds: Dataset) -> Path:
        ds.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return save


def only(path: Path, **options):
    (picture,) = dicom_pictures([path], **options)
    return picture


def test_full_depth_is_what_the_stored_bits_can_hold(save):
    picture = only(save("a.dcm", x_ray(VALUES)))
    assert picture.array.dtype == np.uint16
    # 4095 becomes 65535: a factor of 16.0037
    assert (picture.array == np.rint(VALUES * (65535 / 4095))).all()
    assert (picture.range, picture.units, picture.inverted) == ((0, 4095), "arbitrary", False)
    assert (picture.uid, picture.patient_id) == ("1.2.3", "P1")
    assert (only(save("a.dcm", x_ray(VALUES)), bits=8).array == np.rint(VALUES * (255 / 4095))).all()


def test_monochrome1_is_inverted_so_that_the_picture_looks_as_meant(save):
    plain = only(save("a.dcm", x_ray(VALUES)))
    inverted = only(
        save("b.dcm", x_ray(VALUES, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"))
    )
    assert (inverted.array == 65535 - plain.array).all()
    assert inverted.inverted
    windowed = only(inverted.path, window=(100, 3000), bits=8)
    assert windowed.array.tolist() == [[255, 255, 88], [0, 255, 0]]  # 2000: 255 - 1900 / 2900 * 255 = 87.9


def test_a_window_is_in_rescaled_values(save):
    path = save("a.dcm", x_ray(VALUES, RescaleSlope=2, RescaleIntercept=-1000, RescaleType="US"))
    picture = only(path, window=(-1000, 3000))
    # 0 -> -1000, 1 -> -998, 2000 -> 3000, 4095 -> 7190, 100 -> -800, 3000 -> 5000
    assert picture.array.tolist() == [[0, 33, 65535], [65535, 3277, 65535]]
    assert only(path).range == (-1000, 2 * 4095 - 1000)


def test_a_negative_slope_still_has_its_small_values_dark(save):
    picture = only(save("a.dcm", x_ray(VALUES, RescaleSlope=-1, RescaleIntercept=4095)))
    assert picture.range == (0, 4095)
    assert picture.array[1, 0] == 0
    assert picture.array[0, 0] == 65535


def hounsfield(**changes) -> Dataset:
    values = np.array([[-1024, 0, 40], [1000, 3071, -32768]], np.int16)
    return x_ray(
        values, PixelRepresentation=1, BitsStored=16, HighBit=15, Modality="CT", SOPClassUID=CTImageStorage,
        RescaleSlope=1, RescaleIntercept=0, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_hounsfield_units_mean_the_same_however_they_are_shown(save, photometric):
    placed = {
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
        "SliceThickness": 1,
    }
    path = save("a.dcm", hounsfield(PhotometricInterpretation=photometric, **placed))
    picture = only(path, window=(-1024, 3071))
    assert picture.array.tolist() == [
        [0, round(1024 * 65535 / 4095), round(1064 * 65535 / 4095)],
        [round(2024 * 65535 / 4095), 65535, 0],
    ]
    assert not picture.inverted
    series = load_series([path])
    assert series.volume.array[0].tolist() == [[-1024, 0, 40], [1000, 3071, -32768]]
    assert series.volume.units == "HU"


def test_a_series_on_a_scale_of_its_own_is_not_read_as_monochrome1(save):
    path = save("a.dcm", hounsfield(RescaleType="US", PhotometricInterpretation="MONOCHROME1"))
    with pytest.raises(DataError, match="MONOCHROME1"):
        load_series([path])


def test_sixteen_signed_bits_are_kept_one_to_one(save):
    picture = only(save("a.dcm", hounsfield()))
    assert (picture.array.astype(int) - 32768).tolist() == [[-1024, 0, 40], [1000, 3071, -32768]]


def test_one_range_for_the_whole_series(save):
    paths = [save(f"{slope}.dcm", x_ray(VALUES, RescaleSlope=slope, RescaleIntercept=0)) for slope in (1, 2)]
    one, two = dicom_pictures(paths)
    assert one.range == two.range == (0, 2 * 4095)
    assert two.array[1, 0] == 65535
    assert one.array[1, 0] == round(65535 / 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "RGB"),
        ({"NumberOfFrames": 2}, "multi-frame"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope 0"),
        ({"PresentationLUTShape": "INVERSE"}, "says twice and differently"),
        ({"PixelData": bytes(8)}, "damaged, truncated"),
        ({"Rows": 65535, "Columns": 65535}, "damaged, truncated"),
        ({"BitsStored": 0}, "0 bits stored"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "more than 16 bits"),
    ],
)
def test_what_is_in_doubt_is_refused(save, changes, words):
    with pytest.raises(DataError, match=words) as caught:
        only(save("a.dcm", x_ray(VALUES, **changes)))
    assert caught.value.hint


def test_series_and_windows_are_checked(save):
    paths = [save("a.dcm", x_ray(VALUES)), save("b.dcm", x_ray(VALUES, SeriesInstanceUID="1.2.4"))]
    with pytest.raises(DataError, match="series are mixed"):
        list(dicom_pictures(paths))
    for window in ((1, 1), (2, 1), (0, np.inf)):
        with pytest.raises(RecipeError, match="window"):
            only(paths[0], window=window)
    assert list(dicom_pictures([])) == []


def test_a_deflated_file_that_would_take_gigabytes_is_refused(save, tmp_path):
    zeros = np.zeros((2, 3), np.uint16)
    ds = x_ray(zeros)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save("a.dcm", ds)
    assert only(path).array.tolist() == zeros.tolist()
    assert list(find_series(tmp_path)) == ["1.2.3"]
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = deflate.compress(bytes(16 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)  # may be repeated
    start = 144 + read_file_meta_info(path).FileMetaInformationGroupLength
    path.write_bytes(path.read_bytes()[:start] + 21 * block)
    with pytest.raises(DataError, match="inflates to more than 335,544,320 bytes"):
        only(path)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_file_with_damaged_bytes_is_read_or_refused_and_nothing_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.dcm"
    x_ray(VALUES).save_as(path, enforce_file_format=True)
    whole = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(132, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    with contextlib.suppress(DataError):
        only(path)


def test_a_length_that_fits_no_number_is_refused(save):
    path = save("a.dcm", x_ray(VALUES))
    stored = b"\x28\x00\x01\x01US"  # (0028,0101): 12, in two bytes
    whole = path.read_bytes()
    assert stored + b"\x02\x00\x0c\x00" in whole
    path.write_bytes(whole.replace(stored + b"\x02\x00\x0c\x00", stored + b"\x01\x00\x0c"))
    with pytest.raises(DataError, match="damaged"):
        only(path)


def test_real_encodings_of_one_image_are_the_same_picture(real_data):
    folder = real_data / "dicom_transfer_syntaxes"
    truth = only(folder / "CTImage.dcm")
    assert (truth.units, truth.array.dtype) == ("HU", np.uint16)
    stored = truth.array.astype(float) / 65535 * (truth.range[1] - truth.range[0]) + truth.range[0]
    assert (stored.min(), stored.max()) == pytest.approx((-2000 - 1024, 2402 - 1024), abs=1e-6)
    for name in (
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.5",
    ):
        (path,) = folder.glob(f"*_{name}.dcm")
        assert (only(path).array == truth.array).all()


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"])
def test_real_retired_compressions_are_refused_by_name(real_data, syntax):
    (path,) = (real_data / "dicom_transfer_syntaxes").glob(f"*_{syntax}.dcm")
    with pytest.raises(DataError, match=syntax.replace(".", r"\.")):
        only(path)
