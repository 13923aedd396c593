"""Pictures of a finding as a DICOM Secondary Capture series, which every viewer of an archive shows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medseg_paddle.io.dicom_made import (
    KEY_IMAGES_SERIES,
    LONGEST_TEXT,
    Algorithm,
    drawn_by,
    made_with,
)
from medseg_paddle.io.dicom_reference import Reference, date_in_zone_of, image_headers
from medseg_paddle.io.files import whole_file
from medseg_paddle.io.patient_sides import towards


def write_key_images(
    paths: Sequence[Path],
    pictures: Sequence[NDArray[np.uint8]],
    slices: Sequence[int],
    reference: Reference,
    *,
    algorithm: Algorithm,
) -> None:
    """Write pictures as one series of the study; each file atomic.

    Each refers to the image that it shows. Patient and study are in the header, as in
    :func:`~medseg_paddle.io.dicom_seg_out.write_segmentation`; nothing is added to the pictures. What the series
    says of names that are burned in, and of lossy compression, holds for them, too.

    Parameters
    ----------
    paths : sequence of Path
        One for every picture.
    pictures : sequence of ndarray, shape (H, W, 3), uint8, RGB
        Upright slices, as :class:`~medseg_paddle.preprocess.orientation.Upright` turns them.
    slices : sequence of int
        Index of the slice of `reference` that each shows.
    reference : Reference
    algorithm : Algorithm

    Raises
    ------
    SetupError
        A file cannot be written.
    """
    headers, order = image_headers(reference)
    by_slice = {index: headers[place if len(headers) > 1 else 0] for place, index in enumerate(order)}
    series, by = generate_uid(prefix=None), drawn_by(algorithm)
    rows, columns = towards(reference.geometry)
    for number, (path, picture, shown) in enumerate(zip(paths, pictures, slices, strict=True), start=1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on values that the series' own header has
            made = hd.sc.SCImage.from_ref_dataset(
                by_slice[shown],
                picture,
                "RGB",
                8,
                "PATIENT",
                series_instance_uid=series,
                series_number=KEY_IMAGES_SERIES,
                sop_instance_uid=generate_uid(prefix=None),
                instance_number=number,
                patient_orientation=(columns, rows),
                series_description=f"Key images, {by}"[:LONGEST_TEXT],
                transfer_syntax_uid=ExplicitVRLittleEndian,
                specific_character_set="ISO_IR 192",
                **made_with(),
            )
            made.DerivationDescription = f"contours: {by}"
            made.SourceImageSequence = [_source(reference, shown)]
            _repeat_of_pixels(made, reference.origin)
            date_in_zone_of(made, reference)
            made.Laterality = ""  # type 2C, where nobody says whether the body part is one of a pair
            with whole_file(path) as temporary:
                made.save_as(temporary)


def _repeat_of_pixels(made: Dataset, origin: Mapping[str, str]) -> None:
    """Contours name nobody and lose nothing; the grey values below are the series' own."""
    if origin["BurnedInAnnotation"]:
        made.BurnedInAnnotation = origin["BurnedInAnnotation"]
    if origin["LossyImageCompression"] == "01":
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if origin[keyword]:
                setattr(made, keyword, origin[keyword])


def _source(reference: Reference, index: int) -> Dataset:
    raster, item = reference.slices[index].raster, Dataset()
    item.ReferencedSOPClassUID = reference.origin["SOPClassUID"]
    item.ReferencedSOPInstanceUID = raster.instance
    if raster.frames > 1:
        item.ReferencedFrameNumber = raster.frame + 1
    return item
