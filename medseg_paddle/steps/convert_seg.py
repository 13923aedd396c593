"""A label volume, or a folder of masks, as a DICOM segmentation (SEG) of the series that it was drawn on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medseg_paddle.config import LabelFile
from medseg_paddle.config.codes import unknown_class
from medseg_paddle.core import LabelMap, LabelSet
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.dicom_made import Algorithm, without_codes
from medseg_paddle.io.dicom_reference import Reference, read_reference
from medseg_paddle.io.dicom_seg_out import Kind, write_segmentation, write_segments
from medseg_paddle.io.volumes import is_volume, label_names, read_label_volume
from medseg_paddle.steps.convert import Conversion, Wishes, files_of_series, require_free
from medseg_paddle.steps.convert_masks import find_masks, read_masks

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
        Of label values; then `described` has them, a NRRD file's own header, and ``"label 3"`` for those that are
        missing.
    kind : {"BINARY", "LABELMAP"}
    described : LabelFile
        Names, codes and colours.
    """

    drawn_by: str
    names: Mapping[int, str] = field(default_factory=dict)
    kind: Kind = "BINARY"
    described: LabelFile = field(default_factory=LabelFile)

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
    """Write a label volume, or a folder of masks, as a DICOM segmentation of a series.

    Segments are numbered 1, 2, ... in the order of the label values that occur or are named; the notes tell where
    that changes a number. Masks become segments in the order of their names, which the segments get; they may overlap.

    Parameters
    ----------
    source : Path
        NIfTI, NRRD or MetaImage, on the voxels of the series; or a folder of such files, a mask each.
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
        No reference; a wish that does not fit; a name for the background; a code or colour of a label that is not
        there.
    DataError
        As for :func:`~medseg_paddle.io.volumes.read_label_volume`,
        :func:`~medseg_paddle.io.dicom_reference.read_reference` and
        :func:`~medseg_paddle.io.dicom_seg_out.write_segmentation`; more than 255 label values; masks as
        :func:`~medseg_paddle.steps.convert_masks.read_masks` refuses them, or that overlap in a LABELMAP.
    SetupError
        `output` is there, or cannot be written.
    """
    algorithm, folder = drawing.algorithm, _checked(source, drawing, wishes)
    require_free(output, overwrite=overwrite)
    if source.is_dir():
        masks, notes = find_masks(source)
        labels = _described(list(masks), drawing)
        reference = read_reference(files_of_series(folder, wishes), wishes.allowed)
        array = read_masks(list(masks.values()), reference)
        if array.ndim == 4:
            _require_binary(source, drawing)
            notes.append("masks overlap: the segmentation's segments do, too")
        is_found = write_segments(output, array, labels, reference, algorithm=algorithm, kind=drawing.kind)
        return _conversion(output, labels, reference, notes, is_found=is_found)
    label_map, notes = _labelled(source, drawing)
    reference = read_reference(files_of_series(folder, wishes), wishes.allowed)
    is_found = write_segmentation(output, label_map, reference, algorithm=algorithm, kind=drawing.kind)
    return _conversion(output, label_map.labels, reference, notes, is_found=is_found)


def _require_binary(source: Path, drawing: Drawing) -> None:
    if drawing.kind == "LABELMAP":
        raise DataError(
            f"masks in {source} overlap, and a LABELMAP holds one segment for each voxel",
            hint="leave out --labelmap",
        )


def _conversion(
    output: Path, labels: LabelSet, reference: Reference, notes: list[str], *, is_found: bool
) -> Conversion:
    said = [*reference.notes, *notes, *without_codes(labels)]
    if not is_found:
        said.append("no voxel is labelled: the segments are written with one empty frame")
    geometry, segments = reference.geometry, len(labels.foreground)
    what = f"{segments} segment{'s' * (segments > 1)}"
    return Conversion(output, geometry.shape, geometry.spacing, what, "unknown", tuple(said))


def _labelled(source: Path, drawing: Drawing) -> tuple[LabelMap, list[str]]:
    """The labels of a file, without a gap in their numbers, and what to say of them."""
    volume = read_label_volume(source)
    in_order = dict(enumerate(drawing.described.labels or ()))
    names = {**label_names(source), **in_order, **drawing.names}
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
    numbers = np.zeros(max(values) + 1, np.uint8)
    numbers[values] = np.arange(1, len(values) + 1)
    labels = _described([names.get(value) or f"label {value}" for value in values], drawing)
    notes = [
        f"label {value} is segment {number} ('{labels.names[number]}')"
        for number, value in enumerate(values, start=1)
        if value != number
    ]
    return LabelMap(numbers[volume.array], volume.geometry, labels), notes


def _described(names: list[str], drawing: Drawing) -> LabelSet:
    """Labels of these names, with the codes and colours that somebody gave them."""
    codes, colors = drawing.described.codes, drawing.described.colors
    unknown = unknown_class({"codes": codes, "colors": colors}, ["background", *names])
    if unknown is not None:
        key, name, hint = unknown
        raise RecipeError(f"the file of labels has {key} of '{name}', which is not there", hint=hint)
    concepts = {name: said.concept for name, said in codes.items()}
    return LabelSet.from_names(["background", *names]).described(concepts, colors)


def _checked(source: Path, drawing: Drawing, wishes: Wishes) -> Path:
    if not source.is_dir() and not is_volume(source):
        raise RecipeError(
            f"{source} is no label volume in a file, which a SEG is written from",
            hint="name a NIfTI, NRRD or MetaImage file of labels, or a folder of masks",
        )
    if source.is_dir() and (drawing.names or drawing.described.labels):
        raise RecipeError(
            f"{source} is a folder of masks, which are named by their files, and label values are named",
            hint="rename the files, and leave out --name and `labels`",
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
