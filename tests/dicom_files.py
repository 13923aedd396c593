"""DICOM images for tests: small, complete, and with whatever a test changes in them."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

AXIAL = (1, 0, 0, 0, 1, 0)
# Axes of columns and rows; the slices are stacked along or against their cross product.
ORIENTATIONS = {
    "axial": AXIAL,
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "feet up": (1, 0, 0, 0, -1, 0),
    "oblique": (0.8, 0.6, 0, 0.36, -0.48, 0.8),
}
PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Müller^Eva", "PatientID": "H47", "PatientBirthDate": "19700102", "PatientSex": "F",
    "StudyDate": "20250304", "StudyTime": "0912", "StudyID": "S1", "AccessionNumber": "A5",
    "StudyDescription": "Abdomen", "InstitutionName": "Hospital", "PatientAddress": "Main Street",
}  # fmt: skip

# What a segmentation repeats of its images, where the images say nothing.
NOBODY = dict.fromkeys(
    (
        "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber",
        "ReferringPhysicianName", "PositionReferenceIndicator",
    ),
    "",
) | {"StudyInstanceUID": "1.2.1", "SeriesNumber": 1, "InstanceNumber": 1}  # fmt: skip


def ct_image(
    values, *, position=(0, 0, 0), orientation=AXIAL, kind=CTImageStorage, signed=True, **changes
) -> Dataset:
    """An image of the series 1.2.3; `changes` are attributes to set, or to leave out where None."""
    values = np.asarray(values, np.int16 if signed else np.uint16)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = kind
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = changes.pop(
        "SOPInstanceUID", generate_uid()
    )
    ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.PatientID = "1.2.3", "1.2.4", "P1"
    ds.Modality = "MR" if kind == MRImageStorage else "CT"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = list(position), list(orientation)
    ds.PixelSpacing, ds.SliceThickness = [0.7, 0.5], 2
    (ds.Rows, ds.Columns), ds.SamplesPerPixel = values.shape, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(signed)
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.PixelData = values.tobytes()
    return _changed(ds, changes)


def sagittal_ct(folder: Path) -> Path:
    """Write a CT of four sagittal slices, of Jane Doe."""
    save_all(
        folder,
        [
            ct_image(
                np.zeros((5, 6)),
                position=(3 - 2 * k, -20, 30),
                orientation=(0, 1, 0, 0, 0, -1),
                StudyInstanceUID="1.2.1",
                PatientName="Doe^Jane",
                PatientID="H4711",
                RescaleIntercept=-1024,
            )
            for k in range(4)
        ],
    )
    return folder


def x_ray(values, **changes) -> Dataset:
    """An X-ray of 12 bits: no place in the patient, no rescale. `changes` as for :func:`ct_image`."""
    values = np.asarray(values, np.uint16)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = changes.pop("SOPInstanceUID", "1.2.3.4")
    ds.SeriesInstanceUID, ds.PatientID, ds.Modality = "1.2.3", "P1", "DX"
    (ds.Rows, ds.Columns), ds.SamplesPerPixel = values.shape, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = values.tobytes()
    return _changed(ds, changes)


def _changed(ds: Dataset, changes) -> Dataset:
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def described(number: int, label: str):
    """A segment that people drew."""
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription

    return SegmentDescription(
        number, label, codes.SCT.Organ, codes.SCT.Liver, SegmentAlgorithmTypeValues.MANUAL
    )


def save_seg(path: Path, images, array, names, *, kind="BINARY", change=None, **options) -> Path:
    """Write a SEG of `array` (image, row, column[, segment]), as highdicom does.

    Parameters
    ----------
    path : Path
    images : list of Dataset
        In the order of `array`.
    array : ndarray
    names : list of str
        Of segments 1, 2, ...
    kind : str
    change : callable, optional
        Is given the object before it is written.
    options
        Of highdicom's `Segmentation`.
    """
    from highdicom.seg import Segmentation

    made = Segmentation(
        images,
        array,
        kind,
        [described(number, name) for number, name in enumerate(names, start=1)],
        generate_uid(),
        2,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "serial",
        **options,
    )
    if change is not None:
        change(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path


def place(orientation, k: float, spacing=2.5) -> np.ndarray:
    """Where slice `k` of a series lies whose slices are stacked along their normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return (np.array([-10.1, 20.2, -30.3]) + spacing * k * normal).round(4)


def study(shape, orientation=AXIAL, order=None, **changes) -> list[Dataset]:
    """A series with a patient and a study, its images in `order`; instance 1.2.3.1 is the first along the normal."""
    slices, rows, columns = shape
    return [
        ct_image(
            np.zeros((rows, columns)),
            position=place(orientation, k).tolist(),
            orientation=orientation,
            **(
                {"StudyInstanceUID": "1.2.1", "SOPInstanceUID": f"1.2.3.{k + 1}", "SliceThickness": 3}
                | PATIENT
                | changes
            ),
        )
        for k in order or range(slices)
    ]


def save_all(folder: Path, datasets) -> list[Path]:
    """Write each as a file of its own; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"image{number}.dcm" for number in range(len(datasets))]
    for path, ds in zip(paths, datasets, strict=True):
        ds.save_as(path, enforce_file_format=True)
    return paths
