"""What a reader of DICOM meets: encodings, files without preamble, enhanced objects, tilt, gaps, time points."""

import os
import shutil

import numpy as np
import pydicom
import pytest
from dicom_files import ct_image
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medseg_paddle.core import Geometry
from medseg_paddle.core.geometry import require_same_frame
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom import files_below, load_series, open_series
from medseg_paddle.io.dicom_file import glance
from medseg_paddle.io.dicom_stack import Allowed

ROWS, COLUMNS = 12, 10
TILTED = [1, 0, 0, 0, 0.96, -0.28]  # rows down the patient's back, turned about the left-right axis


def make(position, values=None, **changes) -> Dataset:
    values = np.arange(ROWS * COLUMNS) if values is None else np.asarray(values)
    values = values.reshape(ROWS, COLUMNS) if values.ndim == 1 else values
    return ct_image(values, position=position, **changes)


def save(folder, *slices):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.dcm" for number in range(len(slices))]
    for path, ds in zip(paths, slices, strict=True):
        ds.save_as(path, enforce_file_format=True)
    return paths


def opened(paths, **allowed):
    """Array, geometry and notes of a series that is read with allowances."""
    with open_series(paths, Allowed(**allowed)) as series:
        array = np.stack([series.slices.read(index) for index in range(len(series.slices))])
        return array, series.geometry, series.notes


def refused(paths, **allowed) -> str:
    with pytest.raises(DataError) as caught:
        opened(paths, **allowed)
    assert caught.value.hint
    return caught.value.message


# Encodings

ENDINGS = ["1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5", "1.2", "1.2.1", "1.2.2", "1.2.1.99"]
# Largest and mean error in HU that the data's README states.
LOSSY = {"4.81": (1, 1), "4.91": (5, 0.6), "4.51": (36, 3.9), "4.50": (64.3, 19.9)}


@pytest.fixture
def truth(real_data):
    return load_series([real_data / "dicom_transfer_syntaxes" / "CTImage.dcm"]).volume.array


def coded(real_data, ending):
    (path,) = (real_data / "dicom_transfer_syntaxes").glob(f"*_1.2.840.10008.{ending}.dcm")
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_lossless_encoding_gives_the_same_numbers(real_data, truth, ending):
    assert (load_series([coded(real_data, ending)]).volume.array == truth).all()


@pytest.mark.parametrize("ending", LOSSY)
def test_lossy_encodings_are_as_far_off_as_is_known(real_data, truth, ending):
    error = np.abs(load_series([coded(real_data, f"1.2.{ending}")]).volume.array - truth)
    assert error.max() <= LOSSY[ending][0]
    assert error.mean() <= LOSSY[ending][1]


@pytest.mark.parametrize("ending", ["4.53", "4.55"])
def test_retired_encodings_are_named(real_data, ending):
    message = refused([coded(real_data, f"1.2.{ending}")])
    assert "compressed as JPEG" in message
    assert "no decoder" in message


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("with_meta", [True, False])
def test_a_file_without_preamble_is_read(tmp_path, syntax, with_meta):
    ds = make((1, 2, 3))
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.arange(ROWS * COLUMNS, dtype=">i2").tobytes()
    (path,) = save(tmp_path / "x", ds)
    data = path.read_bytes()
    start = (
        132
        if with_meta
        else 144 + pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength
    )
    bare = tmp_path / "bare"  # no ending that would promise DICOM
    bare.write_bytes(data[start:])
    assert glance([bare])[0].uid == "1.2.3"
    volume = load_series([bare]).volume
    assert (volume.array.ravel() == np.arange(ROWS * COLUMNS)).all()
    assert volume.geometry.to_lps(np.zeros(3)) == pytest.approx([1, 2, 3])


@pytest.mark.parametrize(
    "data", [b"", b"\x08\x00hello, world", b"\x02\x00\x00\x00" + bytes(200), b"\0" * 500]
)
def test_what_only_begins_like_a_bare_file_is_no_dicom(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    (found,) = glance([tmp_path / "x"])
    assert not found.uid


def test_a_uid_that_is_a_path_is_refused(tmp_path):
    ds = make((0, 0, 0))
    with pydicom.config.disable_value_validation():
        ds.SeriesInstanceUID = "1.2/../../etc/passwd"
    (path,) = save(tmp_path / "x", ds)
    assert "UID that is none" in glance([path])[0].error.message


# Enhanced multi-frame objects


def enhanced(positions, **changes) -> Dataset:
    """Frames at `positions`; frame i holds 100 * i + its pixels' numbers, stored as half of it less ten."""
    ds = make((0, 0, 0))
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedCTImageStorage
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)
    del ds.RescaleSlope, ds.RescaleIntercept
    shared, measures, plane, scale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.5], 2
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = []
    for number, position in enumerate(positions):
        frame, place, content, scale = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = list(position)
        content.TemporalPositionIndex = 1 + number % changes.get("times", 1)
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1, 1000 * number, "HU"
        frame.PlanePositionSequence, frame.FrameContentSequence = [place], [content]
        frame.PixelValueTransformationSequence = [scale]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    ds.NumberOfFrames = changes.get("frames", len(positions))
    pixels = np.arange(ROWS * COLUMNS) + 100 * np.arange(len(positions))[:, None]
    ds.PixelData = pixels.astype(np.int16).tobytes()
    return ds


def test_frames_of_an_enhanced_object_lie_where_they_say(tmp_path):
    # Frame 0 at the top, 1 at the bottom, 2 between: neither order of the file nor its reverse.
    series = load_series(save(tmp_path / "x", enhanced([(1, 2, 10), (1, 2, 0), (1, 2, 5)])))
    assert series.volume.array[:, 0, 1].tolist() == [1101, 2201, 1]
    assert series.volume.units == "HU"
    assert series.volume.geometry.to_lps(np.array([2, 1, 3])) == pytest.approx([1 + 3 * 0.5, 2 + 0.7, 10])


def test_time_points_of_an_enhanced_object_are_told_and_chosen(tmp_path):
    places = [(0, 0, z) for z in (0, 0, 5, 5)]
    paths = save(tmp_path / "x", enhanced(places, times=2))
    message = refused(paths)
    assert "2 volumes" in message
    assert "2: TemporalPositionIndex 2, 2 slices" in message
    array, _, notes = opened(paths, part=2)
    assert array[:, 0, 0].tolist() == [1100, 3300]
    assert notes == ("part 2 of 2: TemporalPositionIndex 2",)
    assert "part 3 is asked for" in refused(paths, part=3)


def test_a_frame_that_is_a_localizer_is_refused(tmp_path):
    ds = enhanced([(0, 0, 0), (0, 0, 5)])
    kind = Dataset()
    kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    ds.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [kind]
    assert "localizer" in refused(save(tmp_path / "x", ds))


def test_an_enhanced_object_with_a_forged_number_of_frames_is_refused(tmp_path):
    paths = save(tmp_path / "x", enhanced([(0, 0, 0), (0, 0, 5)], frames=4))
    assert "declares 4 frames and describes 2" in refused(paths)


def test_real_multi_frame_objects_equal_their_single_slices(real_data):
    for name in ("23x38x3", "24x38x3"):
        folder = real_data / "ct_liver_seg" / "nonsquare" / name
        many = load_series(sorted((folder / "multiframe").iterdir())).volume
        single = load_series(sorted((folder / "image").iterdir())).volume
        assert (many.array == single.array).all()
        assert many.geometry.affine == pytest.approx(single.geometry.affine, abs=1e-4)


# Tilt, gaps, copies


def linear(points) -> np.ndarray:
    """HU that rise linearly in the patient, so that linear interpolation is exact."""
    return points @ np.array([7.0, -11.0, 5.0]) + 30


def tilted(heights, orientation=TILTED):
    """Slices at table positions `heights` along z whose pixels hold :func:`linear`, in tenths of a HU."""
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    slices = []
    for height in heights:
        place = np.array([3.0, 4.0, height])
        points = place + rows[..., None] * 0.7 * down + columns[..., None] * 0.5 * across
        tenths = np.rint(10 * linear(points))
        changes = {"ImageOrientationPatient": list(orientation), "RescaleSlope": 0.1}
        slices.append(make(place, tenths, **changes))
    return slices


def inside(array, geometry):
    """Values that no fill has touched, and their places in the patient."""
    index = np.stack(np.meshgrid(*map(np.arange, array.shape), indexing="ij"), axis=-1)
    drawn = array > -1000
    return array[drawn], geometry.to_lps(index[drawn])


@pytest.mark.parametrize(("degrees", "noted"), [(0.3, True), (0.1, False)])
def test_a_slight_tilt_is_kept_exactly_and_said(tmp_path, degrees, noted):
    step = 5 * np.array([0, np.tan(np.radians(degrees)), 1])  # 20 steps: 0.5 mm aside, and 0.17 mm
    paths = save(tmp_path / "x", *[make(number * step) for number in range(21)])
    _, geometry, notes = opened(paths)
    assert geometry.affine[:3, 0] == pytest.approx(step, abs=1e-9)
    assert any("sheared by 0.3 degrees, 0.52 mm in all" in note for note in notes) is noted
    if noted:
        _, straight, notes = opened(paths, untilt=True)
        assert straight.affine[:3, 0] == pytest.approx([0, 0, 5], abs=1e-9)
        assert not any("kept so" in note for note in notes)


def test_floating_point_pixels_are_named(tmp_path):
    image = make([0, 0, 0])
    image.FloatPixelData = np.zeros(ROWS * COLUMNS, np.float32).tobytes()
    image.BitsAllocated = 32
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(image, keyword)
    assert "floating point numbers (FloatPixelData)" in refused(save(tmp_path / "x", image))


def test_a_tilted_series_is_straightened_to_its_places(tmp_path):
    paths = save(tmp_path / "x", *tilted(np.arange(6) * 2.0))
    assert "sheared by 16.3 degrees" in refused(paths)
    array, geometry, notes = opened(paths, untilt=True)
    values, places = inside(array, geometry)
    # Each slice keeps all but its rim: nothing is lost by leaning out of the grid.
    assert len(values) >= 6 * (ROWS - 1) * (COLUMNS - 1)
    assert np.abs(values - linear(places)).max() < 0.1
    axes = geometry.affine[:3, :3] / np.array(geometry.spacing)
    assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-6)
    assert geometry.spacing == pytest.approx((2 * 0.96, 0.7, 0.5))
    assert any("sheared by 16.3" in note for note in notes)


def test_a_gap_is_filled_on_request(tmp_path):
    straight = [1, 0, 0, 0, 1, 0]
    paths = save(tmp_path / "x", *tilted([0, 2, 4, 8, 10], straight))
    assert "a gap of 4 mm between slices 3 and 4" in refused(paths)
    array, geometry, notes = opened(paths, fill_gaps=True)
    assert array.shape == (6, ROWS, COLUMNS)
    values, places = inside(array, geometry)
    assert len(values) == array.size
    assert np.abs(values - linear(places)).max() < 0.1
    assert "a gap of 4 mm" in notes[0]


def test_tilt_and_uneven_slices_together(tmp_path):
    paths = save(tmp_path / "x", *tilted([0, 2, 4, 9, 14, 15]))
    assert "sheared" in refused(paths, fill_gaps=True)
    assert "gap" in refused(paths, untilt=True)
    array, geometry, _ = opened(paths, untilt=True, fill_gaps=True)
    values, places = inside(array, geometry)
    # Where a slice ends, its neighbour is blended with what is outside: look within.
    within = np.abs(values - linear(places)) < 0.1
    assert within.mean() > 0.8
    assert geometry.shape[0] == 16  # 15 mm in steps of the finest gap that a tenth of the slices have: 1 mm


def test_real_tilted_head_ct_is_straightened(real_data):
    paths = sorted((real_data / "ct_head_dicom" / "series").iterdir())
    array, geometry, _ = opened(paths, untilt=True, fill_gaps=True)
    # The first slice is itself, moved by whole pixels or between two.
    stored = {float(pydicom.dcmread(p, stop_before_pixels=True).ImagePositionPatient[2]): p for p in paths}
    lowest = pydicom.dcmread(stored[min(stored)])
    place = np.array(lowest.ImagePositionPatient, float)
    index = np.linalg.inv(geometry.affine) @ [*place, 1]
    assert index[0] == pytest.approx(0, abs=1e-6)
    row = round(index[1])
    assert row == pytest.approx(index[1], abs=1e-3)
    assert (array[0, row : row + 512] == lowest.pixel_array).all()


def test_copies_of_a_slice_are_passed_over_on_request(tmp_path):
    paths = save(tmp_path / "x", make((0, 0, 0)), make((0, 0, 2)))
    copy = tmp_path / "x" / "copy.dcm"
    shutil.copy(paths[1], copy)
    assert "one SOPInstanceUID" in refused([*paths, copy])
    array, _, notes = opened([*paths, copy], drop_copies=True)
    assert len(array) == 2
    assert "1 file(s)" in notes[0]
    ds = pydicom.dcmread(copy)
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(copy)
    assert "not the same image" in refused([*paths, copy], drop_copies=True)


def test_real_time_points_are_listed_and_chosen(real_data):
    paths = sorted((real_data / "mr_dicom_series" / "multi" / "time_all").iterdir())
    assert "3: AcquisitionNumber 3, 3 slices" in refused(paths)
    array, _, _ = opened(paths, part=3)
    third = [ds for ds in map(pydicom.dcmread, paths) if ds.AcquisitionNumber == 3]
    third.sort(key=lambda ds: ds.SliceLocation)
    assert sorted(int(one.sum()) for one in array) == sorted(int(ds.pixel_array.sum()) for ds in third)


def test_who_the_patients_are_is_not_told(tmp_path):
    paths = save(tmp_path / "x", make((0, 0, 0), PatientID="SECRET1"), make((0, 0, 2), PatientID="SECRET2"))
    message = refused(paths)
    assert "mixes patients" in message
    assert "SECRET" not in message


@pytest.mark.parametrize(("stored", "meant"), [(63536, -2000), (-2000, -2000)])
def test_padding_is_known_as_it_is_stored(tmp_path, stored, meant):
    with pydicom.config.disable_value_validation():
        ds = make((0, 0, 0), RescaleIntercept=-1024)
        ds.add_new("PixelPaddingValue", "US" if stored > 0 else "SS", stored)
    with open_series(save(tmp_path / "x", ds)) as series:
        assert series.padding == meant - 1024


def test_slices_of_rounded_positions_are_not_blended_when_they_are_straightened(tmp_path):
    heights = np.array([0, 2.05, 4, 6.05, 8, 10])  # 2 mm, by a table that stops where it can
    values = [np.full(ROWS * COLUMNS, value) for value in (0, 1000, 0, 1000, 0, 1000)]
    slices = [make((0, 0.2 * z, z), one) for z, one in zip(heights, values, strict=True)]
    array, geometry, notes = opened(save(tmp_path / "x", *slices), untilt=True)
    assert geometry.spacing[0] == pytest.approx(2)
    assert [np.unique(one[4:8, 4:8]).tolist() for one in array] == [[0], [1000]] * 3
    assert "between neighbours" not in " ".join(notes)


def test_a_straight_series_is_left_as_it_is_though_it_may_be_straightened(tmp_path):
    paths = save(tmp_path / "x", *(make((0, 0, z)) for z in (0, 2, 4)))
    array, _, notes = opened(paths, untilt=True)
    assert array.shape == (3, ROWS, COLUMNS)
    assert notes == ()


def test_a_gap_far_from_the_first_slice_is_filled_to_its_places(tmp_path):
    heights = [*range(150), 152.1, *(153.1 + k for k in range(5))]
    slices = [make((0, 0, z), np.full(ROWS * COLUMNS, round(20 * z))) for z in heights]
    array, geometry, _ = opened(save(tmp_path / "x", *slices), fill_gaps=True)
    places = geometry.to_lps(np.arange(len(array))[:, None] * [1, 0, 0])[:, 2]
    assert np.abs(array[:, 3, 3] / 20 - np.minimum(places, heights[-1])).max() < 0.03


def test_the_last_slice_stays_within_the_grid_of_filled_gaps(tmp_path):
    heights = [0, 1, 2, 3, 4.75]
    slices = [make((0, 0, z), np.full(ROWS * COLUMNS, round(100 * z))) for z in heights]
    array, geometry, _ = opened(save(tmp_path / "x", *slices), fill_gaps=True)
    assert geometry.to_lps(np.array([len(array) - 1, 0, 0]))[2] == pytest.approx(5)
    assert array[-1, 3, 3] == 475


def test_two_scans_beside_each_other_are_not_mixed_by_filling_gaps(tmp_path):
    slices = [make((0, 0, z)) for z in (0, 0.02, 5, 5.02, 10, 10.02, 15, 20)]
    assert "two scans" in refused(save(tmp_path / "x", *slices), fill_gaps=True)


def test_rounded_cosines_do_not_move_a_slice(tmp_path):
    """Far from the frame's origin, a cosine that differs in its fourth digit changes the height by 0.2 mm."""
    tilt = [1, 0, 0, 0, 1, 0.0005]
    slices = [
        make((0, 400, z), ImageOrientationPatient=tilt if number % 2 else [1, 0, 0, 0, 1, 0])
        for number, z in enumerate((0, 1, 2, 3, 4))
    ]
    array, geometry, _ = opened(save(tmp_path / "x", *slices))
    assert len(array) == 5
    assert geometry.spacing[0] == pytest.approx(1)


def test_a_moment_of_zero_is_a_moment(tmp_path):
    """Every diffusion series has pictures of b = 0."""
    slices = [
        make((0, 0, z), np.full(ROWS * COLUMNS, b), DiffusionBValue=float(b))
        for z in (0, 5)
        for b in (0, 800)
    ]
    paths = save(tmp_path / "x", *slices)
    assert "1: DiffusionBValue 0.0, 2 slices" in refused(paths)
    assert (opened(paths, part=1)[0] == 0).all()


def test_copies_are_dropped_before_a_part_is_chosen(tmp_path):
    slices = [make((0, 0, z), EchoTime=echo) for z in (0, 5) for echo in (10, 20)]
    paths = save(tmp_path / "x", *slices)
    copy = tmp_path / "x" / "copy.dcm"
    shutil.copy(paths[1], copy)
    assert len(opened([*paths, copy], part=2, drop_copies=True)[0]) == 2


def test_a_copy_at_another_place_of_the_plane_is_none(tmp_path):
    first, moved = make((0, 0, 0)), make((3, 0, 0))
    moved.SOPInstanceUID = moved.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    paths = save(tmp_path / "x", first, make((0, 0, 2)), moved)
    assert "not the same image" in refused(paths, drop_copies=True)


def test_the_frame_of_reference_goes_with_the_geometry(tmp_path):
    paths = save(tmp_path / "x", *tilted([0, 2, 4]))
    assert opened(paths, untilt=True)[1].frame_of_reference == "1.2.4"
    straight = save(tmp_path / "y", make((0, 0, 0)), make((0, 0, 2)))
    assert load_series(straight).volume.geometry.frame_of_reference == "1.2.4"
    with pytest.raises(DataError, match="two frames of reference"):
        require_same_frame(opened(straight)[1], Geometry((1, 1, 1), np.eye(4), "1.2.5"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_looked_into_may_hold_slices(tmp_path):
    save(tmp_path / "x", make((0, 0, 0)), make((0, 0, 2)))
    closed = tmp_path / "x" / "closed"
    closed.mkdir(mode=0)
    try:
        with pytest.raises(DataError, match="slices may be missing"):
            files_below(tmp_path / "x")
    finally:
        closed.chmod(0o700)
