"""What `medseg predict` writes for one answer, and in which formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import LabelMap, Volume
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.dicom_made import Algorithm, drawn_by, require_name, without_codes
from medseg_paddle.io.files import part_of_name, whole_file
from medseg_paddle.io.images import write_image, write_label
from medseg_paddle.io.mesh import MESH_FORMATS, MeshFormat, surface, write_mesh
from medseg_paddle.io.nifti import write_label_nifti
from medseg_paddle.io.overlay import draw_overlay
from medseg_paddle.predictor import Segmentation
from medseg_paddle.steps.predict_inputs import Input
from medseg_paddle.steps.predict_pictures import ShownSlice, sheet, shown_slices, titled

if TYPE_CHECKING:
    from medseg_paddle.io.dicom_reference import Reference

Format = Literal["nifti", "seg", "rtstruct"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Outputs:
    """What to write for each input.

    Attributes
    ----------
    formats : tuple of {"nifti", "seg", "rtstruct"}
        Of a volume's answer; ``"seg"`` and ``"rtstruct"`` for DICOM series alone. A picture's is a PNG.
    labelmap : bool
        The SEG of the type LABELMAP.
    report : bool
        Volumes as a DICOM structured report, which refers to the SEG.
    key_images : bool
        Slices with contours: a DICOM series for a DICOM series, PNG files for another volume.
    mesh : {"stl", "obj"}, optional
        A surface for each structure.
    probabilities, overlays : bool

    Raises
    ------
    RecipeError
        An unknown format or none, or one that lacks what it refers to.
    """

    formats: tuple[Format, ...] = ("nifti",)
    labelmap: bool = False
    report: bool = False
    key_images: bool = False
    mesh: MeshFormat | None = None
    probabilities: bool = False
    overlays: bool = True

    def __post_init__(self) -> None:
        unknown = set(self.formats) - set(FORMATS) or ({self.mesh} - {None, *MESH_FORMATS})
        if unknown or not self.formats:
            raise RecipeError(
                f"no format to write, or an unknown one: {', '.join(map(str, unknown)) or 'none is named'}",
                hint=f"name some of {', '.join(FORMATS)}; for meshes {' or '.join(MESH_FORMATS)}",
            )
        if (self.labelmap or self.report) and "seg" not in self.formats:
            raise RecipeError(
                f"{'a report refers to a SEG' if self.report else 'LABELMAP is a type of SEG'}, and none is written",
                hint="add --format seg",
            )

    @property
    def is_dicom(self) -> bool:
        """Whether the answer refers to the images of a DICOM series."""
        return "seg" in self.formats or "rtstruct" in self.formats

    def require_fit(self, one: Input) -> None:
        """Refuse an input that cannot be answered so.

        Raises
        ------
        DataError
        """
        if self.is_dicom and not one.files:
            raise DataError(
                f"{one.source} is no DICOM series, whose images a SEG or a structure set refers to",
                hint="predict it as NIfTI (`--format nifti`); `medseg convert --reference` makes a SEG of that",
            )
        if not one.is_volume and (self.mesh is not None or self.key_images):
            raise DataError(
                f"{one.source} is a picture, and key images and meshes are of volumes",
                hint="leave out --key-images and --mesh for pictures",
            )

    def require_labels(self, bundle: Bundle) -> Algorithm | None:
        """The bundle as DICOM names it, where it is needed; see that DICOM can hold it and its labels.

        Raises
        ------
        RecipeError, DataError
        """
        if not (self.is_dicom or self.key_images):
            return None
        for label in bundle.labels.foreground:
            require_name(label)
        return Algorithm(bundle.description.name, bundle.id)

    def notes(self, bundle: Bundle) -> tuple[str, ...]:
        """What to know of all answers, for people."""
        return without_codes(bundle.labels) if self.is_dicom else ()


@dataclass(frozen=True, eq=False)
class Pictures:
    """What was found, drawn over the image.

    Attributes
    ----------
    overlay : ndarray or None
    slices : tuple of ShownSlice
        Of a volume.
    """

    overlay: NDArray[np.uint8] | None
    slices: tuple[ShownSlice, ...] = ()


@dataclass(frozen=True, eq=False)
class Answered:
    """An input with all that was made of it.

    Attributes
    ----------
    one : Input
    pictures : Pictures
        Drawn already, so that what was read need not be held while the rest is written.
    answer : Segmentation
    reference : Reference or None
        Of a DICOM series, where one is needed.
    millilitres : mapping
        Of each label that is not the background; empty for a picture.
    """

    one: Input
    pictures: Pictures
    answer: Segmentation
    reference: Reference | None
    millilitres: Mapping[int, float]


def in_millilitres(volume: float) -> str:
    """For people: three digits of a small volume, so that it never reads as none."""
    return f"{volume:.1f} ml" if volume >= 10 else f"{volume:.3g} ml"


def draw(
    source: tuple[Volume, ...] | NDArray[np.float32],
    answer: Segmentation,
    millilitres: Mapping[int, float],
    bundle: Bundle,
    outputs: Outputs,
) -> Pictures:
    """Draw what was found over a volume's first channel, or a picture on the 0..255 scale, where that is wanted."""
    labels = bundle.labels
    if not (outputs.overlays or outputs.key_images):
        return Pictures(None)
    if not isinstance(source, tuple):
        return Pictures(draw_overlay(np.rint(source).astype(np.uint8), answer.array, labels))
    amounts = {label.name: in_millilitres(millilitres[label.index]) for label in labels.foreground}
    slices = shown_slices(source[0], answer.array, labels, bundle.description, amounts)
    return Pictures(sheet(slices) if outputs.overlays else None, tuple(slices))


def reference_of(one: Input, outputs: Outputs) -> Reference | None:
    """The images that an answer refers to, before it is computed.

    Raises
    ------
    DataError
        As for :func:`~medseg_paddle.io.dicom_reference.read_reference`.
    """
    if not one.files or not (outputs.is_dicom or outputs.key_images):
        return None
    from medseg_paddle.io.dicom_reference import read_reference

    return read_reference(one.files)


def write_answer(
    answered: Answered, bundle: Bundle, outputs: Outputs, algorithm: Algorithm | None, folder: Path
) -> tuple[str, ...]:
    """Write all files of one answer; if one cannot be written, none is left.

    Returns
    -------
    tuple of str
        Their names in `folder`.

    Raises
    ------
    DataError
        DICOM cannot hold the answer.
    SetupError
        A file cannot be written.
    """
    writer = _Writer(folder, answered.one.name)
    try:
        _write_all(answered, bundle, outputs, algorithm, writer)
    except BaseException:
        for name in writer.names:
            (folder / name).unlink(missing_ok=True)
        raise
    return tuple(writer.names)


class _Writer:
    """Names files, and remembers them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.names: list[str] = []
        self._folder, self._name = folder, name

    def target(self, ending: str) -> Path:
        self.names.append(f"{self._name}_{ending}")
        return self._folder / self.names[-1]


def _write_all(
    answered: Answered, bundle: Bundle, outputs: Outputs, algorithm: Algorithm | None, writer: _Writer
) -> None:
    answer, labels, pictures = answered.answer, bundle.labels, answered.pictures
    if pictures.overlay is not None:
        write_image(writer.target("overlay.png"), pictures.overlay)
    if answer.probabilities is not None:
        with whole_file(writer.target("probabilities.npz")) as temporary, temporary.open("xb") as stream:
            np.savez_compressed(stream, probabilities=answer.probabilities)
    if not isinstance(answer.labels, LabelMap):
        write_label(writer.target("mask.png"), answer.labels)
        return
    if "nifti" in outputs.formats:
        write_label_nifti(writer.target("mask.nii.gz"), answer.labels)
    if answered.reference is not None and algorithm is not None:
        _write_dicom(answered, answer.labels, outputs, algorithm, writer)
    if outputs.key_images:
        _write_key_images(answered.reference, pictures.slices, algorithm, writer)
    if outputs.mesh is not None:
        for label in labels.foreground:
            mask = answer.array == label.index
            if mask.any():
                path = writer.target(f"mesh_{label.index}_{part_of_name(label.name)}.{outputs.mesh}")
                write_mesh(path, surface(mask, answer.labels.geometry), label.name)


def _write_dicom(
    answered: Answered, label_map: LabelMap, outputs: Outputs, algorithm: Algorithm, writer: _Writer
) -> None:
    # highdicom, which takes its time to load, is not needed for pictures and NIfTI.
    from medseg_paddle.io.dicom_seg_out import write_segmentation
    from medseg_paddle.io.rtstruct_out import write_structures
    from medseg_paddle.io.structured_report import write_report

    reference = answered.reference
    if reference is None:
        raise ValueError("no series to refer to")
    if "seg" in outputs.formats:
        path = writer.target("seg.dcm")
        kind: Literal["BINARY", "LABELMAP"] = "LABELMAP" if outputs.labelmap else "BINARY"
        write_segmentation(path, label_map, reference, algorithm=algorithm, kind=kind)
        if outputs.report:
            report = writer.target("report.dcm")
            write_report(report, path, reference, answered.millilitres, algorithm=algorithm)
    if "rtstruct" in outputs.formats:
        write_structures(writer.target("rtstruct.dcm"), label_map, reference, algorithm=algorithm)


def _write_key_images(
    reference: Reference | None, slices: Sequence[ShownSlice], algorithm: Algorithm | None, writer: _Writer
) -> None:
    pictures = [titled(one, drawn_by(algorithm)) for one in slices]
    ending = "png" if reference is None else "dcm"
    paths = [writer.target(f"key_{number:02d}.{ending}") for number in range(1, len(slices) + 1)]
    if reference is None or algorithm is None:
        for path, picture in zip(paths, pictures, strict=True):
            write_image(path, picture)
        return
    from medseg_paddle.io.key_images import write_key_images

    write_key_images(paths, pictures, [one.index for one in slices], reference, algorithm=algorithm)
