"""A cohort of synthetic patients on disk, as a scanner and an annotator would leave it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medseg_paddle.core import LabelMap, Volume
from medseg_paddle.errors import RecipeError
from medseg_paddle.io.files import new_folder
from medseg_paddle.io.images import write_label
from medseg_paddle.phantom.patient import make_patient

_INTERCEPT = -1024
_LEAST_SIZE, _LEAST_SLICES = 32, 9  # fewer slices leave no room for a tumour and slices without


def write_phantom(
    destination: Path,
    *,
    patients: int,
    seed: int,
    size: int = 128,
    slices: int = 20,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Path]:
    """Write a cohort: ``<destination>/<patient>/ct/*.dcm`` and ``<patient>/mask/*.png``.

    A mask is named like the DICOM file of its slice. File names do not follow the order of the slices,
    and every other patient's slices are numbered from the head to the feet, as archives have them.

    Parameters
    ----------
    destination : Path
        Appears complete or not at all.
    patients : int
        How many; a patient is the same in cohorts of any number.
    seed : int
        Same seed, same bytes.
    size, slices : int
        Rows and columns, and slices, of each series.
    progress : callable, optional
        Called with (done, total, name) after each patient.

    Returns
    -------
    list of Path
        The patients' folders.

    Raises
    ------
    RecipeError
        Less than one patient, or too small a volume to hold a chest.
    SetupError
        `destination` cannot be written, or is not empty.
    """
    if patients < 1 or size < _LEAST_SIZE or slices < _LEAST_SLICES or seed < 0:
        raise RecipeError(
            f"phantom of {patients} patients, {size} x {size} x {slices} voxels, seed {seed}",
            hint=f"at least 1 patient, {_LEAST_SIZE} rows and columns, {_LEAST_SLICES} slices, a seed from 0",
        )
    names = [f"PHANTOM-{index + 1:03d}" for index in range(patients)]
    with new_folder(destination) as folder:
        for index, name in enumerate(names):
            volume, truth = make_patient((seed, index), size=size, slices=slices)
            _write_patient(folder / name, name, (seed, index), volume, truth)
            if progress is not None:
                progress(index + 1, patients, name)
    return [destination / name for name in names]


def _write_patient(folder: Path, name: str, seed: tuple[int, int], volume: Volume, truth: LabelMap) -> None:
    (folder / "ct").mkdir(parents=True)
    (folder / "mask").mkdir()
    count = volume.geometry.shape[0]
    # A stream of its own, so that what is drawn for the files does not change the patient.
    numbers = np.random.default_rng((*seed, 1)).permutation(count) + 1
    for index in range(count):
        stem = f"IM{numbers[index]:04d}"
        instance = index + 1 if seed[1] % 2 == 0 else count - index
        image = _image(volume, index, name, seed, instance)
        image.save_as(folder / "ct" / f"{stem}.dcm", enforce_file_format=True)
        write_label(folder / "mask" / f"{stem}.png", truth.array[index])


def _image(volume: Volume, index: int, name: str, seed: tuple[int, int], instance: int) -> Dataset:
    """CT Image Storage of one slice (PS3.3, A.3): all attributes of type 1 and 2."""
    geometry = volume.geometry
    thickness, between_rows, between_columns = (round(step, 4) for step in geometry.spacing)
    position = geometry.to_lps(np.array([index, 0, 0]))

    def uid(*of: object) -> UID:
        return generate_uid(entropy_srcs=["medseg-paddle phantom", *map(str, (*seed, *geometry.shape, *of))])

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = uid("image", index)
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = uid("image", index)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid("series")
    ds.FrameOfReferenceUID = uid("frame")

    ds.PatientName, ds.PatientID = f"Phantom^{name.rsplit('-', 1)[-1]}", name
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20200101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "", ""
    ds.StudyDescription, ds.SeriesDescription = "Synthetic chest CT", "Axial, soft kernel"
    ds.Modality, ds.Manufacturer, ds.BodyPartExamined = "CT", "medseg-paddle phantom", "CHEST"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 2, 1, instance
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    ds.KVP, ds.PatientPosition, ds.PositionReferenceIndicator = 120, "HFS", ""

    ds.ImagePositionPatient = [f"{value:.4f}" for value in position]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [f"{between_rows:.4f}", f"{between_columns:.4f}"]
    ds.SliceThickness = f"{thickness:.4f}"

    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = geometry.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = _INTERCEPT, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = [40, -500], [400, 1500]
    ds.PixelData = (volume.array[index] - _INTERCEPT).astype("<i2").tobytes()
    return ds
