"""DICOM SEG as highdicom writes it, put on the grid of its series."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import NOBODY, ct_image, described, save_seg
from pydicom.dataset import Dataset
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import RLELossless

from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom import Series, find_series, load_series
from medseg_paddle.io.dicom_seg import is_segmentation, read_segmentation, segment_names
from medseg_paddle.io.volumes import read_label_volume

SLICES, ROWS, COLUMNS = 4, 5, 7


def ct_slice(z: float) -> Dataset:
    """Tilted by asin(0.6) about the patient's left-right axis."""
    return ct_image(
        np.zeros((ROWS, COLUMNS)),
        position=(-10, -20 - 0.6 * z, 0.8 * z),
        orientation=(1, 0, 0, 0, 0.8, 0.6),
        SliceThickness=2.5,
        **NOBODY,
    )


@pytest.fixture(autouse=True)
def _not_by_gdcm():
    # GDCM 3.2.6 aborts the process on some small frames (gdcmRLECodec.cxx:547), and pydicom asks it first.
    if "gdcm" in RLELosslessEncoder.available_plugins:
        RLELosslessEncoder.remove_plugin("gdcm")


@pytest.fixture
def images() -> list[Dataset]:
    """A series of four slices, listed from the head to the feet."""
    return [ct_slice(z) for z in (7.5, 5, 2.5, 0)]


@pytest.fixture
def series(tmp_path, images) -> Series:
    paths = [tmp_path / f"{index}.dcm" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save_as(path, enforce_file_format=True)
    return load_series(paths)


def marks(segments: int = 2) -> np.ndarray:
    """Segment s at the voxels (image i, row s, column i): another place on every image; none on image 1."""
    array = np.zeros((SLICES, ROWS, COLUMNS, segments), np.uint8)
    for image in (0, 2, 3):
        for segment in range(segments):
            array[image, segment, image, segment] = 1
    return array


# The series' slices rise, the images were listed falling: image i is slice 3 - i.
EXPECTED = {(3 - image, segment, image): segment + 1 for image in (0, 2, 3) for segment in range(2)}


def found(volume) -> dict:
    return {tuple(index): int(volume.array[tuple(index)]) for index in np.argwhere(volume.array)}


def refused(path, series, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        read_segmentation(path, series, **options)
    assert path.name in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("omit", [True, False])
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_frames_lie_on_the_slices_of_their_positions(tmp_path, images, series, kind, omit):
    path = save_seg(
        tmp_path / "seg.dcm", images, marks(), ["liver", "spleen"], kind=kind, omit_empty_frames=omit
    )
    volume = read_segmentation(path, series)
    assert found(volume) == EXPECTED
    assert volume.array.dtype == np.uint8
    assert (volume.geometry.affine == series.volume.geometry.affine).all()
    assert segment_names(path) == {1: "liver", 2: "spleen"}
    assert is_segmentation(path)


def reversed_frames(dataset) -> None:
    frames = dataset.pixel_array[::-1]
    dataset.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.PixelData += bytes(len(dataset.PixelData) % 2)
    dataset.PerFrameFunctionalGroupsSequence = list(dataset.PerFrameFunctionalGroupsSequence)[::-1]


def test_the_order_of_frames_says_nothing(tmp_path, images, series):
    path = save_seg(tmp_path / "seg.dcm", images, marks(), ["liver", "spleen"], change=reversed_frames)
    assert found(read_segmentation(path, series)) == EXPECTED


def test_compressed_frames_are_read(tmp_path, images, series):
    path = save_seg(
        tmp_path / "seg.dcm", images, marks(), ["a", "b"], kind="LABELMAP", transfer_syntax_uid=RLELossless
    )
    assert found(read_segmentation(path, series)) == EXPECTED


def background_is_nine(dataset) -> None:
    pixels = dataset.pixel_array
    dataset.PixelData = np.where(pixels == 0, 9, pixels).astype(np.uint8).tobytes()
    dataset.PixelPaddingValue = 9
    outside = described(9, "outside")
    dataset.SegmentSequence = [s for s in dataset.SegmentSequence if s.SegmentNumber != 0] + [outside]


def test_a_label_maps_background_has_the_number_that_its_padding_says(tmp_path, images, series):
    path = save_seg(
        tmp_path / "seg.dcm", images, marks(), ["a", "b"], kind="LABELMAP", change=background_is_nine
    )
    assert found(read_segmentation(path, series)) == EXPECTED
    assert segment_names(path) == {1: "a", 2: "b"}


def test_a_segmentation_is_no_series(tmp_path, images, series):
    save_seg(tmp_path / "seg.dcm", images, marks(), ["a", "b"])
    assert list(find_series(tmp_path)) == ["1.2.3"]
    assert not is_segmentation(series.paths[0])
    (tmp_path / "a.txt").write_text("hello")
    assert not is_segmentation(tmp_path / "a.txt")
    with pytest.raises(DataError, match="no segmentation"):
        segment_names(series.paths[0])
    assert "no segmentation" in refused(series.paths[0], series).message


def test_overlapping_segments_are_refused_by_name_unless_read_by_themselves(tmp_path, images, series):
    array = marks(3)
    array[3, 1:3, 1:4, 0] = 1
    array[3, 2, 2:6, 1] = 1  # shares (2, 2) and (2, 3) of image 3 with the first; third has (2, 3)
    path = save_seg(tmp_path / "seg.dcm", images, array, ["liver", "cyst", "vein"])
    message = refused(path, series).message
    assert "1 ('liver') and 2 ('cyst') in" in message
    assert "3 ('vein')" in message
    alone = read_segmentation(path, series, segments=[2])
    assert found(alone) == {
        (3 - image, row, column): 2 for image, row, column in np.argwhere(array[..., 1]).tolist()
    }
    assert "has no segment 5; it holds 1 ('liver'), 2 ('cyst'), 3 ('vein')" in (
        refused(path, series, segments=[1, 5]).message
    )


def test_fractions_need_a_threshold_that_somebody_named(tmp_path, images, series):
    array = np.zeros((SLICES, ROWS, COLUMNS), np.float32)
    array[1, 0, :4] = 0.2, 0.5, 0.8, 1
    path = save_seg(tmp_path / "seg.dcm", images, array, ["a"], kind="FRACTIONAL", max_fractional_value=200)
    assert "0.5" in refused(path, series).hint
    assert found(read_segmentation(path, series, threshold=0.5)) == {(2, 0, c): 1 for c in (1, 2, 3)}
    for wrong in (0, 1.5, np.nan):
        assert "threshold" in refused(path, series, threshold=wrong).message
    binary = save_seg(tmp_path / "b.dcm", images, marks(), ["a", "b"])
    assert "BINARY, and a threshold" in refused(binary, series, threshold=0.5).message


def moved(column=0.0, head=0.0):
    def change(dataset):
        # Frames of one place share an object.
        places = {id(f.PlanePositionSequence): f for f in dataset.PerFrameFunctionalGroupsSequence}
        for frame in places.values():
            place = frame.PlanePositionSequence[0]
            x, y, z = (float(value) for value in place.ImagePositionPatient)
            place.ImagePositionPatient = [x + column, y - 0.6 * head, z + 0.8 * head]

    return change


def shared(group: str, **values):
    def change(dataset):
        item = dataset.SharedFunctionalGroupsSequence[0][f"{group}Sequence"].value[0]
        for keyword, value in values.items():
            setattr(item, keyword, value)

    return change


def header(**values):
    def change(dataset):
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def other_series(dataset) -> None:
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4"


def undescribed(dataset) -> None:
    dataset.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def doubled(dataset) -> None:
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[1].PlanePositionSequence = frames[0].PlanePositionSequence
    frames[1].SegmentIdentificationSequence = frames[0].SegmentIdentificationSequence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (header(FrameOfReferenceUID="1.2.3"), "of frame of reference '1.2.3'"),
        (header(PatientID="P2"), "of another patient"),
        (other_series, "was drawn on series 1.2.3.4"),
        (moved(column=0.2), "frame 1 is not on the series' grid"),  # 0.4 pixels
        (moved(head=1.2), "frame 1 is not on the series' grid"),  # half a slice
        (moved(head=2.5), "1 slice(s) beyond the series"),
        (moved(head=-25), "beyond the series"),
        (
            shared("PlaneOrientation", ImageOrientationPatient=[0, 0.8, 0.6, 1, 0, 0]),
            "not on the series' grid",
        ),
        (shared("PixelMeasures", PixelSpacing=[0.5, 0.7]), "not on the series' grid"),
        (header(Rows=7, Columns=5), "frames of 7 x 5 pixels"),
        (header(NumberOfFrames=10**9), "declares 1000000000 frames and describes 6"),
        (header(SegmentationType="SURFACE"), "type 'SURFACE'"),
        (header(PixelData=b"\0\0"), "damaged or truncated"),
        (undescribed, "segment 9, which is described nowhere"),
        (doubled, "frame 2 repeats"),
    ],
)
def test_what_does_not_belong_to_the_series_is_refused(tmp_path, images, series, change, words):
    path = save_seg(tmp_path / "seg.dcm", images, marks(), ["liver", "spleen"], change=change)
    assert words in refused(path, series).message


def test_frames_beyond_any_patient_are_refused_with_the_file(tmp_path, images):
    change = shared("PixelMeasures", PixelSpacing=["5e4", "0.5"])
    path = save_seg(tmp_path / "seg.dcm", images, marks(), ["liver", "spleen"], change=change)
    with pytest.raises(DataError, match=r"seg\.dcm.*100 m away"):
        read_segmentation(path, None)


def test_positions_written_with_few_digits_are_still_on_the_grid(tmp_path, images, series):
    path = save_seg(tmp_path / "seg.dcm", images, marks(), ["a", "b"], change=moved(column=0.05, head=0.1))
    assert found(read_segmentation(path, series)) == EXPECTED


def test_a_truncated_file_is_refused(tmp_path, images, series):
    path = save_seg(tmp_path / "seg.dcm", images, marks(), ["a", "b"])
    whole = path.read_bytes()
    for length in (0, 100, 400, 1500, len(whole) - 20):
        path.write_bytes(whole[:length])
        refused(path, series)


@pytest.fixture
def liver(real_data) -> Path:
    return real_data / "ct_liver_seg"


def load(folder: Path) -> Series:
    return load_series(sorted(folder.glob("*.dcm")))


def test_a_real_binary_segmentation_equals_its_nrrd(liver):
    series = load(liver / "ct")
    volume = read_segmentation(liver / "seg" / "liver.dcm", series)
    truth = read_label_volume(liver / "nrrd" / "liver_seg.nrrd")
    assert volume.array.sum(axis=(1, 2)).tolist() == [36233, 35645, 35220]
    assert (volume.array == truth.array).all()
    assert volume.geometry.affine == pytest.approx(truth.geometry.affine, abs=1e-5)


def test_real_segments_that_overlap_are_named(liver):
    series, path = load(liver / "ct"), liver / "seg" / "partial_overlaps.dcm"
    message = refused(path, series).message
    assert "1 ('GREEN') and 2 ('ORANGE') in 3017 voxels" in message
    alone = read_segmentation(path, series, segments=[4, 5])
    assert set(np.unique(alone.array)) == {0, 4, 5}


def test_real_labelmaps_equal_their_nrrd(liver):
    series = load(liver / "nonsquare" / "24x38x3" / "image")
    folder = liver / "nonsquare" / "labelmap_seg"
    for name in ("noppv", "ppv5"):
        path = folder / f"sparse-labelmap-{name}.dcm"
        assert segment_names(path) == {1: "Liver"}
        truth = read_label_volume(folder / f"sparse_labelmap_{name}_seg.nrrd").array
        # The second fills the slice without a frame with its padding value, 5.
        assert (read_segmentation(path, series).array == np.where(truth == 5, 0, truth)).all()


@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])
def test_real_pictures_that_are_not_square_are_not_transposed(liver, size):
    folder = liver / "nonsquare" / size
    volume = read_segmentation(folder / "seg" / "label.seg", load(folder / "image"))
    assert (volume.array == read_label_volume(folder / "nrrd" / "label.nrrd").array).all()
    with pytest.raises(DataError, match="of frame of reference"):
        read_segmentation(liver / "seg" / "liver.dcm", load(folder / "image"))


def test_the_same_real_frames_through_highdicom_itself(liver):
    """`get_volume` sorts frames by position, too."""
    path = liver / "seg" / "liver.dcm"
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    ours = read_segmentation(path, load(liver / "ct"))
    theirs = volume.array if volume.affine[2, 0] > 0 else volume.array[::-1]
    assert (ours.array == theirs).all()
    assert pydicom.dcmread(path, stop_before_pixels=True).NumberOfFrames == len(ours.array)
