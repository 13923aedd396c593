from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import ct_image
from pydicom.dataset import Dataset
from pydicom.uid import HTJ2KLossless

from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom import find_series, read_series

SERIES = "1.2.826.0.1.3680043.8.498.1"


def make_slice(z: float, value: int = 0, **changes) -> Dataset:
    """A 2 x 3 CT slice at height z whose stored values are value, value + 1, ..."""
    own = {"SeriesInstanceUID": SERIES, "FrameOfReferenceUID": "1.2.3", "SliceThickness": 9}
    return ct_image(
        value + np.arange(6).reshape(2, 3),
        position=(-10, -20, z),
        **(own | {"SeriesDescription": "chest"} | changes),
    )


def save(folder: Path, *slices: Dataset) -> Path:
    folder.mkdir(exist_ok=True)
    for index, ds in enumerate(slices):
        ds.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_series(folder)
    assert caught.value.hint
    return caught.value.message


def test_slices_are_in_order_of_position_whatever_their_names_and_numbers(tmp_path):
    slices = [make_slice(z, int(10 * z), InstanceNumber=n) for n, z in enumerate([7.5, 2.5, 10, 5])]
    volume = read_series(save(tmp_path, *slices))
    assert volume.array[:, 0, 0].tolist() == [25, 50, 75, 100]
    assert volume.array.dtype == np.float32
    assert volume.units == "HU"


def test_geometry_maps_an_index_to_millimetres(tmp_path):
    geometry = read_series(save(tmp_path, make_slice(5), make_slice(2.5))).geometry
    # Slice 1, row 1, column 2: PixelSpacing is between rows first, then between columns.
    assert geometry.to_lps(np.array([1, 1, 2])) == pytest.approx([-10 + 2 * 0.5, -20 + 0.7, 5.0])
    assert geometry.spacing == pytest.approx((2.5, 0.7, 0.5))


def test_coronal_slices_ascend_along_their_normal(tmp_path):
    # Columns to the left, rows to the feet: the normal (1,0,0) x (0,0,-1) = (0,1,0) points to the back.
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    folder = save(
        tmp_path,
        make_slice(0, 7, ImagePositionPatient=[0, 3, 50], **coronal),
        make_slice(0, 5, ImagePositionPatient=[0, -1, 50], **coronal),
    )
    volume = read_series(folder)
    assert volume.array[:, 0, 0].tolist() == [5, 7]
    assert volume.geometry.to_lps(np.array([1, 1, 2])) == pytest.approx([1.0, 3, 50 - 0.7])


def test_every_slice_has_its_own_slope_and_intercept(tmp_path):
    folder = save(tmp_path, make_slice(0, 10), make_slice(1, 10, RescaleSlope=2, RescaleIntercept=-1024))
    assert read_series(folder).array[:, 0, 1].tolist() == [11, 2 * 11 - 1024]


@pytest.mark.parametrize(
    ("signed", "stored", "raw", "value"),
    [
        (0, 16, 0xFFFF, 65535),
        (1, 16, 0xFFFF, -1),
        (1, 12, 0x0FFF, -1),  # sign bit is bit 11
        (0, 12, 0xF123, 0x123),  # an old overlay in the high bits
    ],
)
def test_stored_values_follow_sign_and_bits(tmp_path, signed, stored, raw, value):
    pixels = np.full(6, raw, np.uint16).tobytes()
    one = make_slice(0, PixelRepresentation=signed, BitsStored=stored, HighBit=stored - 1, PixelData=pixels)
    assert read_series(save(tmp_path, one)).array[0, 0, 0] == value


def test_one_slice_is_as_thick_as_it_says(tmp_path):
    assert read_series(save(tmp_path, make_slice(0))).geometry.spacing[0] == pytest.approx(9)
    assert "SliceThickness" in refused(save(tmp_path, make_slice(0, SliceThickness=None)))


def test_an_mr_without_rescale_has_arbitrary_units(tmp_path):
    volume = read_series(
        save(tmp_path, make_slice(0, 5, Modality="MR", RescaleSlope=None, RescaleIntercept=None))
    )
    assert volume.units == "arbitrary"
    assert volume.array[0, 0, 0] == 5


def test_hounsfield_units_are_read_whichever_end_is_shown_white(tmp_path):
    slices = [make_slice(z, 10, PhotometricInterpretation=f"MONOCHROME{z + 1}") for z in (0, 1)]
    volume = read_series(save(tmp_path, *slices))
    assert (volume.array[0] == volume.array[1]).all()
    assert volume.units == "HU"


def test_a_size_that_nobody_has_is_refused_before_memory_is_taken(tmp_path):
    huge = {"Rows": 60000, "Columns": 60000}
    assert "60000 x 60000, more than" in refused(save(tmp_path, *[make_slice(z, **huge) for z in (0, 1)]))


def test_a_gap_is_told_with_its_place_and_size(tmp_path):
    message = refused(save(tmp_path, *[make_slice(z) for z in (0, 2.5, 5, 12.5, 15)]))
    assert message == f"series {SERIES} has a gap of 7.5 mm between slices 3 and 4 (spacing elsewhere 2.5 mm)"


@pytest.mark.parametrize(
    ("step", "jitter", "accepted"), [(8, 0.15, True), (2.5, 0.09, True), (2.5, 0.15, False)]
)
def test_rounded_positions_are_taken_and_uneven_ones_are_not(tmp_path, step, jitter, accepted):
    folder = save(tmp_path, *[make_slice(step * k + jitter * (k == 3)) for k in range(8)])
    if accepted:
        assert read_series(folder).geometry.spacing[0] == pytest.approx(step)
    else:
        assert "spacing elsewhere 2.5 mm" in refused(folder)


@pytest.mark.parametrize(
    ("heights", "words"),
    [
        # Each gap is within rounding of the usual one, and half the slices would lie elsewhere than they do.
        ([*np.arange(10), *(9 + 1.09 * np.arange(1, 11))], "gaps from 1 to 1.09 mm"),
        (np.cumsum(np.linspace(1, 1.15, 20)), "add up to"),
        # A missing slice of a micro-CT is less than a tenth of a millimetre.
        ([0, 0.05, 0.1, 0.2, 0.25], "a gap of 0.1 mm between slices 3 and 4"),
    ],
)
def test_small_differences_that_add_up_are_refused(tmp_path, heights, words):
    assert words in refused(save(tmp_path, *[make_slice(round(float(z), 4)) for z in heights]))


def test_a_link_that_leads_nowhere_may_be_a_slice(tmp_path):
    folder = save(tmp_path, make_slice(0), make_slice(1))
    (folder / "2").symlink_to(tmp_path / "gone")
    assert "leads nowhere" in refused(folder)


def test_doubled_slices_are_refused_with_both_names(tmp_path):
    message = refused(save(tmp_path, *[make_slice(z) for z in (0, 2.5, 2.5, 5)]))
    assert "1.dcm" in message
    assert "2.dcm" in message


def test_gantry_tilt_is_told_in_degrees(tmp_path):
    sheared = [
        make_slice(0, ImagePositionPatient=[0, 5 * k * np.tan(np.radians(15)), 5 * k]) for k in range(3)
    ]
    assert "sheared by 15.0 degrees" in refused(save(tmp_path, *sheared))


def test_one_slice_off_the_line_is_refused(tmp_path):
    assert "slice 2" in refused(
        save(tmp_path, make_slice(0), make_slice(1, ImagePositionPatient=[-6, -20, 1]), make_slice(2))
    )


def test_several_series_are_listed(tmp_path):
    message = refused(
        save(tmp_path, make_slice(0), make_slice(1, SeriesInstanceUID="1.2.9", SeriesDescription="lung"))
    )
    assert "2 series" in message
    assert "1.2.9  CT lung, 1 files" in message
    assert f"{SERIES}  CT chest, 1 files" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PixelSpacing": [0.7, 0.6]}, "mixes pixel spacings"),
        ({"Rows": 3, "Columns": 2}, "mixes sizes"),
        ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, "mixes orientations"),
        ({"FrameOfReferenceUID": "1.2.4"}, "mixes frames of reference"),
        ({"PatientID": "P2"}, "mixes patients"),
    ],
)
def test_mixed_slices_are_refused(tmp_path, changes, words):
    assert words in refused(save(tmp_path, make_slice(0), make_slice(1, **changes)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient is missing"),
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
        ({"PixelSpacing": [0, 0.5]}, "must be above 0"),
        ({"PixelSpacing": ["nan", "0.5"]}, "finite"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.3, 0.9, 0]}, "right angles"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "right angles"),
        ({"RescaleSlope": 0}, "RescaleSlope 0"),
        ({"RescaleSlope": None}, "RescaleSlope is missing"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"PhotometricInterpretation": "MONOCHROME1", "RescaleType": "US"}, "MONOCHROME1"),
        ({"Rows": 60000, "Columns": 60000}, "mixes sizes"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colour"),
        ({"NumberOfFrames": 3}, "multi-frame"),
        ({"PixelData": b"\0" * 8}, "truncated"),
        ({"HighBit": 11}, "high bit"),
        # 64 bits overflow; float32 is infinite, 0, or one number for all.
        ({"RescaleSlope": "1e308"}, "do not tell apart"),
        ({"RescaleSlope": "-1e-300"}, "do not tell apart"),
        ({"RescaleIntercept": "1e30"}, "do not tell apart"),
        ({"ImagePositionPatient": ["1e300", "0", "0"]}, "beyond any patient"),
        ({"PixelSpacing": ["1e30", "1"]}, "beyond any patient"),
        ({"PixelRepresentation": None}, "PixelRepresentation is missing"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing"),
    ],
)
def test_what_is_in_doubt_is_refused_with_the_file_and_the_reason(tmp_path, changes, words):
    message = refused(save(tmp_path, make_slice(0), make_slice(1, **changes)))
    assert words in message
    assert "1.dcm" in message


def test_a_compression_without_a_decoder_is_named(tmp_path):
    one = make_slice(0)
    one.file_meta.TransferSyntaxUID = HTJ2KLossless
    one.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8"])
    one["PixelData"].is_undefined_length = True
    message = refused(save(tmp_path, one))
    assert "High-Throughput JPEG 2000" in message
    assert "no decoder" in message


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_a_truncated_file_is_refused(tmp_path, share):
    save(tmp_path, make_slice(0), make_slice(1))
    data = (tmp_path / "1.dcm").read_bytes()
    (tmp_path / "1.dcm").write_bytes(data[: int(share * len(data))])
    assert refused(tmp_path)


@pytest.mark.parametrize("bytes_left", [132, 144, 158])  # after the mark, after one element, after two
def test_a_file_that_ends_before_it_says_what_it_is_is_refused(tmp_path, bytes_left):
    save(tmp_path, make_slice(0), make_slice(1))
    data = (tmp_path / "1.dcm").read_bytes()
    (tmp_path / "1.dcm").write_bytes(data[:bytes_left])
    assert "1.dcm" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_file_that_only_claims_to_be_dicom_is_refused(tmp_path, content):
    save(tmp_path, make_slice(0))
    (tmp_path / "x.dcm").write_bytes(content)
    assert "x.dcm is not a DICOM file" in refused(tmp_path)


def test_other_files_are_passed_over_and_subfolders_are_read(tmp_path):
    save(tmp_path / "ct", make_slice(0), make_slice(1))
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "ct" / "._0.dcm").write_bytes(b"a Mac was here")
    assert {uid: len(paths) for uid, paths in find_series(tmp_path).items()} == {SERIES: 2}
    assert read_series(tmp_path).array.shape == (2, 2, 3)


def test_a_folder_without_dicom_or_no_folder_is_refused(tmp_path):
    assert "no DICOM image" in refused(tmp_path)
    assert "not a folder" in refused(tmp_path / "none")


def test_real_ct_agrees_with_what_is_known_of_it(real_data):
    volume = read_series(real_data / "ct_liver_seg" / "ct")
    assert volume.array.shape == (3, 512, 512)
    assert volume.geometry.spacing[0] == pytest.approx(1.0, abs=1e-6)
    # z falls from 01 to 03, so the last file is the first slice.
    last = pydicom.dcmread(real_data / "ct_liver_seg" / "ct" / "03.dcm")
    assert (volume.array[0] == last.pixel_array - 1024.0).all()


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("ct_head_dicom/series", "sheared by 18.5 degrees"),
        ("mr_dicom_series/multi/time_all", "6 doubled"),
        ("mr_dicom_series/multi/TI", "5 series"),
    ],
)
def test_real_series_that_are_no_plain_volume_are_refused(real_data, folder, words):
    assert words in refused(real_data / folder)


def test_a_real_oblique_series_with_rounded_positions_is_read(real_data):
    volume = read_series(real_data / "mr_dicom_series" / "brain_pd_oblique")
    assert volume.array.shape == (20, 256, 256)
    # The header's SpacingBetweenSlices says 2, its SliceThickness 5; the positions say 7.
    assert volume.geometry.spacing == pytest.approx((7.0, 0.859, 0.859), abs=0.01)
