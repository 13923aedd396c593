"""All series of the public data against two other readers, voxel by voxel at its place in the patient.

What they disagree on is listed, with who is right, in docs/howto/convert.md; these tests hold that list.
"""

import warnings
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg_paddle.core import Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom import find_series, load_series, open_series
from medseg_paddle.io.dicom_stack import Allowed

LIVER, NONSQUARE = "ct_liver_seg/ct", "ct_liver_seg/nonsquare"
PD, TIMES, INVERSIONS = (
    "mr_dicom_series/brain_pd_oblique",
    "mr_dicom_series/multi/time_all",
    "mr_dicom_series/multi/TI",
)
FOLDERS = [
    LIVER,
    f"{NONSQUARE}/23x38x3/image",
    f"{NONSQUARE}/23x38x3/multiframe",
    f"{NONSQUARE}/24x38x3/image",
    f"{NONSQUARE}/24x38x3/multiframe",
    INVERSIONS,
]


def by_simpleitk(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine (slice, row, column to LPS mm)."""
    if len(paths) == 1:
        image = sitk.ReadImage(str(paths[0]))
    else:
        uid = str(pydicom.dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(paths[0].parent), uid)
        image = sitk.ReadImage(names)
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), affine


def by_highdicom(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`by_simpleitk`, its values not shown otherwise than they are (MONOCHROME1, windows)."""
    files = [pydicom.dcmread(path) for path in paths]
    options = {
        "apply_presentation_lut": False,
        "apply_voi_transform": False,
        "apply_modality_transform": "Rescale Slope" in str(files[0]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "PerFrameFunctionalGroupsSequence" in files[0]:
            volume = hd.Image.from_dataset(files[0]).get_volume(apply_real_world_transform=False, **options)
        else:
            volume = hd.get_volume_from_series(files, **options)
    return volume.array, volume.affine


def compared(ours: Volume, array: np.ndarray, affine: np.ndarray) -> tuple[float, float]:
    """Largest distance in mm between voxels of one value's place, and largest difference of values there."""
    index = np.stack(np.meshgrid(*map(np.arange, ours.array.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    theirs = (ours.geometry.to_lps(index) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    nearest = np.rint(theirs).astype(int)
    assert array.shape == ours.array.shape
    assert ((nearest >= 0) & (nearest < array.shape)).all()
    apart = np.linalg.norm((theirs - nearest) @ affine[:3, :3].T, axis=1).max()
    return float(apart), float(np.abs(array[tuple(nearest.T)] - ours.array.ravel()).max())


@pytest.mark.parametrize("folder", FOLDERS)
def test_values_and_places_agree_with_simpleitk(real_data, folder):
    for paths in find_series(real_data / folder).values():
        apart, difference = compared(load_series(paths).volume, *by_simpleitk(paths))
        assert apart < 1e-3
        assert difference == 0


@pytest.mark.parametrize("folder", FOLDERS)
def test_values_and_places_agree_with_highdicom(real_data, folder):
    for paths in find_series(real_data / folder).values():
        apart, difference = compared(load_series(paths).volume, *by_highdicom(paths))
        assert apart < 1e-3
        assert difference == 0


def test_each_slice_of_rounded_positions_lies_where_its_header_says(real_data):
    """By one of them, for SimpleITK takes seconds for the first file, and for the series."""
    series = load_series(sorted((real_data / PD).iterdir()))
    for number, path in enumerate(series.paths):
        said = np.array(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient, float)
        # Whole mm in the header: up to half of one along each axis.
        assert np.abs(series.volume.geometry.to_lps(np.array([number, 0, 0])) - said).max() <= 0.5
        if path.name == "brain_020.dcm":
            array, affine = by_simpleitk([path])
            assert (array[0] == series.volume.array[number]).all()
            assert affine[:3, 1:3] == pytest.approx(series.volume.geometry.affine[:3, 1:3], abs=1e-5)
    with pytest.raises(ValueError, match="not a regularly-spaced volume"):
        by_highdicom(list(series.paths))


def test_a_time_point_agrees_with_highdicom(real_data):
    """SimpleITK stacks all nine pictures 0.75 mm apart, and says nothing."""
    paths = sorted((real_data / TIMES).iterdir())
    array, _ = by_simpleitk(paths)
    assert array.shape[0] == 9
    with pytest.raises(DataError, match="3 volumes"):
        load_series(paths)
    for part in (1, 2, 3):
        with open_series(paths, Allowed(part=part)) as series:
            volume = np.stack([series.slices.read(index) for index in range(3)])
            ours = Volume(volume.astype(np.float32), series.geometry)
            apart, difference = compared(ours, *by_highdicom(list(series.paths)))
        assert apart < 1e-3
        assert difference == 0


def test_a_tilted_series_is_taken_by_simpleitk_alone(real_data):
    """It gives slices 5.63 mm apart and no shear, where they are 1.08, 4 and 7 mm apart and sheared."""
    paths = sorted((real_data / "ct_head_dicom" / "series").iterdir())
    array, _ = by_simpleitk(paths)
    assert array.shape == (28, 512, 512)
    with pytest.raises(ValueError, match="not a regularly-spaced volume"):
        by_highdicom(paths)
    with pytest.raises(DataError, match="sheared"):
        load_series(paths)


@pytest.mark.parametrize(
    "ending", ["2", "2.1", "2.2", "2.1.99", "2.4.57", "2.4.70", "2.4.80", "2.4.90", "2.5"]
)
def test_encodings_agree_with_simpleitk(real_data, ending):
    (path,) = (real_data / "dicom_transfer_syntaxes").glob(f"*_1.2.840.10008.1.{ending}.dcm")
    apart, difference = compared(load_series([path]).volume, *by_simpleitk([path]))
    assert apart < 1e-3
    assert difference == 0
