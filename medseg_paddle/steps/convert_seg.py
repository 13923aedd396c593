"""A label volume from a file as a DICOM segmentation (SEG) of the series that it was drawn on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medseg_paddle.core import LabelMap, LabelSet, Volume
from medseg_paddle.core.concepts import uncoded
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.dicom_made import Algorithm
from medseg_paddle.io.dicom_reference import read_reference
from medseg_paddle.io.dicom_seg_out import Kind, write_segmentation
from medseg_paddle.io.volumes import is_volume, label_names, read_label_volume
from medseg_paddle.steps.convert import Conversion, Wishes, files_of_series, require_free

_BY_HAND = "manual"
_MOST_SEGMENTS = 255  # a grey volume taken for labels has more


@dataclass(frozen=True)
class Drawing:
    """What a label volume does not say of itself.

    Attributes
    ----------
    drawn_by : str
        ``"manual"``, or the model: its name, and after the last space its version.
    names : mapping
        Of label values; a NRRD file's own stand for those that are missing, then ``"label 3"``.
    kind : {"BINARY", "LABELMAP"}
    """

    drawn_by: str
    names: Mapping[int, str] = field(default_factory=dict)
    kind: Kind = "BINARY"

    @property
    def algorithm(self) -> Algorithm | None:
        """Whose work it is; None where people's.

        Raises
        ------
        RecipeError
            A name without a version, or that DICOM cannot hold.
        """
        if self.drawn_by == _BY_HAND:
            return None
        name, _, version = self.drawn_by.strip().rpartition(" ")
        if not name:
            raise RecipeError(
                f"'{self.drawn_by}' names no model and its version",
                hint=f"write both, for example 'nnU-Net 2.5', or '{_BY_HAND}' where people drew the labels",
            )
        return Algorithm(name.strip(), version)


def convert_to_segmentation(
    source: Path, output: Path, drawing: Drawing, *, wishes: Wishes, overwrite: bool = False
) -> Conversion:
    """Write a label volume as a DICOM segmentation of a series.

    Segments are numbered 1, 2, ... in the order of the label values that occur or are named; the notes tell where
    that changes a number.

    Parameters
    ----------
    source : Path
        NIfTI, NRRD or MetaImage, on the voxels of the series.
    output : Path
        Ends in ``.dcm``.
    drawing : Drawing
    wishes : Wishes
        Of its fields ``reference``, the folder of the series, is needed; ``series`` and of ``allowed`` ``part`` and
        ``drop_copies`` choose in it.
    overwrite : bool
        Replace `output` if it is there.

    Raises
    ------
    RecipeError
        No reference; a wish that does not fit; a name for the background.
    DataError
        As for :func:`~medseg_paddle.io.volumes.read_label_volume`,
        :func:`~medseg_paddle.io.dicom_reference.read_reference` and
        :func:`~medseg_paddle.io.dicom_seg_out.write_segmentation`; more than 255 label values.
    SetupError
        `output` is there, or cannot be written.
    """
    algorithm, folder = drawing.algorithm, _checked(source, drawing, wishes)
    require_free(output, overwrite=overwrite)
    volume = read_label_volume(source)
    reference = read_reference(files_of_series(folder, wishes), wishes.allowed)
    names = {**label_names(source), **drawing.names}
    values = sorted({*np.unique(volume.array).tolist(), *names} - {0})
    if not values:
        raise DataError(
            f"{source} holds no label and names none, so what was looked for is unknown",
            hint="name the segment that is empty (`medseg convert --name 1=liver`)",
        )
    if len(values) > _MOST_SEGMENTS:
        raise DataError(
            f"{source} holds {len(values)} label values, more than {_MOST_SEGMENTS}; it may be no label volume",
            hint="name a file of labels",
        )
    label_map = _numbered(volume, values, names)
    is_found = write_segmentation(output, label_map, reference, algorithm=algorithm, kind=drawing.kind)
    notes = [*reference.notes]
    notes += [
        f"label {value} is segment {number} ('{label_map.labels.names[number]}')"
        for number, value in enumerate(values, start=1)
        if value != number
    ]
    unknown = uncoded(label_map.labels.names[1:])
    if unknown:
        listed = ", ".join(f"'{name}'" for name in unknown)
        notes.append(f"no SNOMED code is known for {listed}: written as 'Tissue', with the name beside it")
    if not is_found:
        notes.append("no voxel is labelled: the segments are written with one empty frame")
    geometry = reference.geometry
    return Conversion(
        output, geometry.shape, geometry.spacing, f"{len(values)} segments", "unknown", tuple(notes)
    )


def _checked(source: Path, drawing: Drawing, wishes: Wishes) -> Path:
    if not is_volume(source):
        raise RecipeError(
            f"{source} is no label volume in a file, which a SEG is written from",
            hint="name a NIfTI, NRRD or MetaImage file of labels",
        )
    if wishes.reference is None:
        raise RecipeError(
            "a SEG refers to the series that it was drawn on, and none is named",
            hint="name the folder of its images as --reference",
        )
    allowed = wishes.allowed
    if wishes.segments or wishes.threshold is not None or allowed.untilt or allowed.fill_gaps:
        raise RecipeError(
            "segments, a threshold and resampled slices are for reading DICOM, not for writing a SEG",
            hint="leave these options out",
        )
    if any(not 0 < value <= np.iinfo(np.uint16).max for value in drawing.names):
        raise RecipeError(
            "labels that can be named are 1 to 65535", hint="leave the background, 0, without a name"
        )
    return wishes.reference


def _numbered(volume: Volume, values: list[int], names: Mapping[int, str]) -> LabelMap:
    """Labels without a gap."""
    numbers = np.zeros(max(values) + 1, np.uint8)
    numbers[values] = np.arange(1, len(values) + 1)
    labels = LabelSet.from_names(["background", *(names.get(value) or f"label {value}" for value in values)])
    return LabelMap(numbers[volume.array], volume.geometry, labels)
