"""`medseg convert`: a volume from one format into another, for people who train nothing."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg_paddle.cli.console import err, out
from medseg_paddle.cli.options import Overwrite
from medseg_paddle.errors import RecipeError

if TYPE_CHECKING:
    from medseg_paddle.steps.convert_seg import Drawing


class Modality(str, Enum):
    """Kinds of DICOM images that are written."""

    CT = "CT"
    MR = "MR"


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(convert)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder or zip archive of a DICOM series, DICOM file (multi-frame, SEG), NIfTI, NRRD or MetaImage; to "
            "write a SEG also a folder of masks.",
            metavar="INPUT",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            help="File to write: .nii, .nii.gz, .nrrd, .mha, or .dcm (labels as a SEG); a new folder with --modality "
            "or --each.",
            metavar="OUTPUT",
        ),
    ],
    *,
    series: Annotated[
        str | None, typer.Option("--series", help="Of several series, the one to read.", metavar="UID")
    ] = None,
    part: Annotated[
        int | None,
        typer.Option("--part", help="Of several time points or echoes of a series, the one to read.", min=1),
    ] = None,
    untilt: Annotated[
        bool, typer.Option("--untilt", help="Put slices sheared by gantry tilt on a straight grid.")
    ] = False,
    fill_gaps: Annotated[
        bool,
        typer.Option("--fill-gaps", help="Put unevenly spaced slices on an even grid, linear between them."),
    ] = False,
    drop_copies: Annotated[
        bool, typer.Option("--drop-copies", help="Pass over files that repeat another one's image.")
    ] = False,
    segments: Annotated[
        list[int] | None,
        typer.Option("--segment", help="Of a SEG, read this segment; as often as needed.", metavar="NUMBER"),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of a SEG of fractions, the fraction from which a voxel belongs to its segment."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the series that a SEG is put on the grid of, or is written for; or whose patient and study "
            "new DICOM images get.",
            metavar="FOLDER",
        ),
    ] = None,
    drawn_by: Annotated[
        str | None,
        typer.Option(
            "--drawn-by",
            help="To write a SEG: who drew it, `manual` or a model's name and version.",
            metavar="WHO",
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name", help="To write a SEG: what a label is; as often as needed.", metavar="NUMBER=NAME"
        ),
    ] = None,
    labelmap: Annotated[
        bool, typer.Option("--labelmap", help="To write a SEG: of the newer type LABELMAP, compressed.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="To write a SEG: YAML file with `labels`, `codes` and `colors` as in a recipe.",
            metavar="FILE",
        ),
    ] = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each", help="Of a SEG, write each segment as a file of its own into the new folder OUTPUT."
        ),
    ] = False,
    modality: Annotated[
        Modality | None,
        typer.Option(
            "--modality",
            help="Write a series of DICOM images of this kind, a file for each slice, into the new folder OUTPUT.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert one volume between DICOM, NIfTI, NRRD and MetaImage, or labels to SEG; what is in doubt is refused."""
    from medseg_paddle.io.isolated import begin

    begin()  # first, so that what reads DICOM loads beside what writes volumes
    from medseg_paddle.io.dicom_stack import Allowed
    from medseg_paddle.steps.convert import Wishes
    from medseg_paddle.steps.convert import convert as step

    allowed = Allowed(untilt=untilt, fill_gaps=fill_gaps, drop_copies=drop_copies, part=part)
    wishes = Wishes(series, tuple(segments or ()), threshold, reference, allowed)
    to_seg = output.suffix.lower() == ".dcm"
    if each and modality:
        raise RecipeError(
            "--each writes segments and --modality a series of images", hint="leave out one of them"
        )
    if (each or modality) and (overwrite or to_seg):
        raise RecipeError(
            f"--{'each' if each else 'modality'} makes a folder, {output}, and replaces none",
            hint="name a new folder" + ", and leave out --overwrite" * overwrite,
        )
    if to_seg:
        from medseg_paddle.steps.convert_seg import convert_to_segmentation

        drawing = _drawing(drawn_by, names or (), labels, labelmap=labelmap)
        made = convert_to_segmentation(source, output, drawing, wishes=wishes, overwrite=overwrite)
    elif drawn_by is not None or names or labels or labelmap:
        raise RecipeError(
            f"{output} is no SEG, and --drawn-by, --name, --labels or --labelmap is given",
            hint="let the output end in .dcm, or leave these options out",
        )
    elif each:
        from medseg_paddle.steps.convert_masks import convert_each

        made = convert_each(source, output, wishes=wishes)
    elif modality:
        from medseg_paddle.steps.convert_series import convert_to_series

        made = convert_to_series(source, output, modality.value, wishes=wishes)
    else:
        made = step(source, output, wishes=wishes, overwrite=overwrite)
    for note in made.notes:
        err.print(f"note: {note}", soft_wrap=True)
    size = " x ".join(str(length) for length in made.shape)
    spacing = " x ".join(f"{length:.4g}" for length in made.spacing)
    what = made.dtype if to_seg or each or modality else f"{made.dtype}, {made.units}"
    out.print(f"{made.output}: {size} voxels of {spacing} mm, {what}", soft_wrap=True)


def _drawing(drawn_by: str | None, names: Sequence[str], labels: Path | None, *, labelmap: bool) -> Drawing:
    from medseg_paddle.config import LabelFile, load_labels
    from medseg_paddle.steps.convert_seg import Drawing

    if drawn_by is None:
        raise RecipeError(
            "a SEG says who drew it, and nobody is named",
            hint="give --drawn-by manual, or the model's name and version: --drawn-by 'nnU-Net 2.5'",
        )
    meant = {}
    for one in names:
        number, _, name = one.partition("=")
        if not (number.strip().isdecimal() and name.strip()) or int(number) in meant:
            raise RecipeError(
                f"--name {one} does not give one label a name",
                hint="write each as NUMBER=NAME, such as 1=liver",
            )
        meant[int(number)] = name.strip()
    described = load_labels(labels) if labels else LabelFile()
    return Drawing(drawn_by, meant, "LABELMAP" if labelmap else "BINARY", described)
