"""`medseg convert`: a volume from one format into another, for people who train nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import err, out
from medseg_paddle.cli.options import Overwrite


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(convert)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder or zip archive of a DICOM series, DICOM file (multi-frame, SEG), NIfTI, NRRD or MetaImage.",
            metavar="INPUT",
        ),
    ],
    output: Annotated[
        Path, typer.Argument(help="File to write: .nii, .nii.gz, .nrrd or .mha.", metavar="OUTPUT")
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
        typer.Option(help="Put a SEG on the grid of the series in this folder.", metavar="FOLDER"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert one volume between DICOM, NIfTI, NRRD and MetaImage; what is in doubt is refused."""
    from medseg_paddle.io.isolated import begin

    begin()  # first, so that what reads DICOM loads beside what writes volumes
    from medseg_paddle.io.dicom_stack import Allowed
    from medseg_paddle.steps.convert import Wishes
    from medseg_paddle.steps.convert import convert as step

    allowed = Allowed(untilt=untilt, fill_gaps=fill_gaps, drop_copies=drop_copies, part=part)
    wishes = Wishes(series, tuple(segments or ()), threshold, reference, allowed)
    made = step(source, output, wishes=wishes, overwrite=overwrite)
    for note in made.notes:
        err.print(f"note: {note}", soft_wrap=True)
    size = " x ".join(str(length) for length in made.shape)
    spacing = " x ".join(f"{length:.4g}" for length in made.spacing)
    out.print(f"{made.output}: {size} voxels of {spacing} mm, {made.dtype}, {made.units}", soft_wrap=True)
