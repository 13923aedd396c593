from itertools import pairwise

import numpy as np
import pydicom
import pytest
from PIL import Image
from scipy import ndimage

from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.dicom import load_series, read_series
from medseg_paddle.phantom import make_patient, write_phantom

PATIENTS = 4


@pytest.fixture(scope="module")
def patients():
    return [make_patient((42, index)) for index in range(PATIENTS)]


def test_a_small_volume_has_a_tumour_too():
    for index in range(8):
        areas = make_patient((3, index), size=40, slices=9)[1].array.sum(axis=(1, 2))
        assert areas.max() > 0
        assert (areas == 0).sum() >= 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    return write_phantom(folder, patients=3, seed=5, size=48, slices=10)


def best_threshold_dice(hu: np.ndarray, truth: np.ndarray) -> float:
    """Dice of the best of all intervals low <= HU < high, on bins of 8 HU."""
    bins = ((hu + 1024) // 8).astype(int)
    inside = np.concatenate([[0], np.bincount(bins[truth], minlength=513).cumsum()])
    all_ = np.concatenate([[0], np.bincount(bins.ravel(), minlength=513).cumsum()])
    hits = inside[None, :] - inside[:, None]
    chosen = all_[None, :] - all_[:, None]
    return float((2 * hits / np.maximum(chosen + truth.sum(), 1)).max())


def air_inside(hu: np.ndarray) -> np.ndarray:
    """Lungs and airways: air that no path of air links to the picture's sides."""
    air = ndimage.label(hu < -500)[0]
    outside = np.unique(np.concatenate([air[:, :, 0].ravel(), air[:, 0].ravel()]))
    return (air > 0) & ~np.isin(air, outside)


def test_best_threshold_dice_is_one_where_a_threshold_solves_it():
    hu = np.array([-1000.0, 40, 44, 300])
    assert best_threshold_dice(hu, np.array([False, True, True, False])) == 1
    assert best_threshold_dice(hu, np.array([False, True, False, True])) == pytest.approx(2 * 2 / (3 + 2))


def test_no_threshold_segments_the_tumours(patients):
    for volume, truth in patients:
        assert best_threshold_dice(volume.array, truth.array > 0) < 0.5


def test_no_threshold_inside_the_lungs_segments_the_tumours_of_all(patients):
    """As above, given the lungs: what a person would try next."""
    values, truths = [], []
    for volume, truth in patients:
        closed = ndimage.binary_closing(air_inside(volume.array), np.ones((1, 9, 9)))
        lungs = np.stack([ndimage.binary_fill_holes(one) for one in closed])
        values.append(volume.array[lungs])
        truths.append(truth.array[lungs] > 0)
    assert best_threshold_dice(np.concatenate(values), np.concatenate(truths)) < 0.65


def test_every_patient_has_tumours_of_a_size_to_learn_and_slices_without(patients):
    for _, truth in patients:
        areas = (truth.array > 0).sum(axis=(1, 2))
        assert areas.max() >= np.pi * 3**2
        assert (areas == 0).sum() >= 3
        assert truth.array.max() == 1
        assert truth.array.dtype == np.uint8


def test_tumours_are_soft_tissue_mostly(patients):
    values = np.concatenate([volume.array[truth.array > 0] for volume, truth in patients])
    assert -120 < np.median(values) < 80
    assert (values < -250).mean() > 0.02  # faint ones and edges


def test_hounsfield_units_are_whole_numbers_of_a_ct(patients):
    for volume, _ in patients:
        assert volume.units == "HU"
        assert volume.array.dtype == np.float32
        assert (volume.array == np.rint(volume.array)).all()
        assert volume.array.min() >= -1024
        assert 400 < volume.array.max() <= 3071
        assert -900 < np.median(volume.array[air_inside(volume.array)]) < -760


def test_no_two_patients_are_alike(patients):
    assert len({volume.geometry.spacing for volume, _ in patients}) == PATIENTS
    for (one, _), (two, _) in pairwise(patients):
        assert np.abs(one.array - two.array).mean() > 40
        assert np.corrcoef(one.array.ravel(), two.array.ravel())[0, 1] < 0.98


def test_row_0_is_in_front_and_the_heart_on_the_patients_left(patients):
    for volume, _ in patients:
        array, geometry = volume.array, volume.geometry
        step = geometry.affine[:3, :3]
        assert step[:, 2] @ [1, 0, 0] > 0  # columns to the left
        assert step[:, 1] @ [0, 1, 0] > 0  # rows to the back
        assert step[:, 0] @ [0, 0, 1] > 0  # slices to the head
        lungs = np.argwhere(air_inside(array)).mean(axis=0)
        bone = np.argwhere(array > 300)
        assert np.median(bone[:, 1]) > lungs[1] + 10  # most bone lies at the back: the spine
        # In the lowest slices, soft tissue between the lungs lies more to the left: the heart.
        row, column = int(lungs[1]), round(np.median(bone[np.abs(bone[:, 2] - lungs[2]) < 10][:, 2]))
        heart = (array[:4, row - 12 : row + 3] > 0) & (array[:4, row - 12 : row + 3] < 250)
        assert heart[:, :, column + 1 : column + 25].mean() > 1.15 * heart[:, :, column - 24 : column].mean()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, cohort):
    for seed, equal in ((5, True), (6, False)):
        again = write_phantom(tmp_path / str(seed), patients=2, seed=seed, size=48, slices=10)
        for one, two in zip(cohort, again, strict=False):
            files = [path.relative_to(one) for path in sorted(one.rglob("*.*"))]
            assert len(files) == 20
            assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files) == equal


def test_series_are_read_back_as_they_were_made(cohort):
    for index, folder in enumerate(cohort):
        volume, truth = make_patient((5, index), size=48, slices=10)
        series = load_series(sorted((folder / "ct").iterdir()))
        assert (series.volume.array == volume.array).all()
        assert series.volume.geometry.affine == pytest.approx(volume.geometry.affine, abs=1e-6)
        masks = [np.asarray(Image.open(folder / "mask" / f"{path.stem}.png")) for path in series.paths]
        assert (np.stack(masks) == truth.array).all()
        assert series.patient_id == folder.name == f"PHANTOM-{index + 1:03d}"


def test_file_names_and_instance_numbers_do_not_give_the_order_away(cohort):
    directions = set()
    for folder in cohort:
        headers = [pydicom.dcmread(path) for path in sorted((folder / "ct").iterdir())]
        heights = [float(header.ImagePositionPatient[2]) for header in headers]
        assert heights != sorted(heights)
        assert heights != sorted(heights, reverse=True)
        numbers = [int(header.InstanceNumber) for header in headers]
        directions.add(np.sign(np.corrcoef(numbers, heights)[0, 1]))
    assert directions == {-1.0, 1.0}


def test_headers_hold_what_a_ct_must(cohort):
    paths = sorted((cohort[0] / "ct").iterdir())
    headers = [pydicom.dcmread(path) for path in paths]
    first = headers[0]
    assert first.SOPClassUID == pydicom.uid.CTImageStorage
    assert first.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert list(first.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientName"):
        assert len({str(header[keyword].value) for header in headers}) == 1
    other = pydicom.dcmread(next((cohort[1] / "ct").iterdir()))
    assert first.StudyInstanceUID != other.StudyInstanceUID
    assert first.FrameOfReferenceUID != other.FrameOfReferenceUID


def test_a_patient_is_the_same_in_a_smaller_cohort(tmp_path, cohort):
    (alone,) = write_phantom(tmp_path / "one", patients=1, seed=5, size=48, slices=10)
    assert (read_series(alone / "ct").array == read_series(cohort[0] / "ct").array).all()


def test_a_taken_folder_and_an_impossible_cohort_are_refused(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(SetupError):
        write_phantom(tmp_path, patients=1, seed=0, size=48, slices=9)
    for wrong in ({"patients": 0}, {"patients": 1, "size": 8}, {"patients": 1, "slices": 1}):
        with pytest.raises(RecipeError):
            write_phantom(tmp_path / "new", seed=0, **wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
