"""`medseg export` and `medseg predict`: a model that leaves the laboratory."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import (
    Device,
    OfCheckpoint,
    OnDevice,
    Overwrite,
    RunFolders,
    Weights,
    set_option,
)


class AnswerFormat(str, Enum):
    """Of a volume's answer."""

    NIFTI = "nifti"
    SEG = "seg"
    RTSTRUCT = "rtstruct"


class MeshEnding(str, Enum):
    """Of the file of a surface."""

    STL = "stl"
    OBJ = "obj"


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(export)
    app.command()(predict)


def export(
    run: RunFolders,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Bundle folder; inside the run where absent.", metavar="FOLDER"),
    ] = None,
    checkpoint: OfCheckpoint = Weights.BEST,
    overwrite: Overwrite = False,
    device: OnDevice = None,
    overrides: Annotated[
        list[str] | None,
        set_option(
            "For this export, replace a value of the run's recipe: inference.*, postprocessing, export.*, device."
        ),
    ] = None,
) -> None:
    """Freeze a run, or an ensemble of runs, into a bundle, and check that it answers as what was trained."""
    from medseg_paddle.steps.export import export as step

    bundle = step(
        run,
        checkpoint=checkpoint.value,
        output=output,
        overwrite=overwrite,
        device=device and device.value,
        overrides=overrides or (),
    )
    out.print(f"bundle: {bundle.path} (id {bundle.id})", soft_wrap=True)


def predict(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder, as `medseg export` wrote it.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Images, volumes, folders of them, DICOM series as folders or zip archives."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the answers.", metavar="FOLDER")],
    *,
    formats: Annotated[
        list[AnswerFormat] | None,
        typer.Option(
            "--format",
            help="Of a volume's answer, as often as needed; nifti where absent, seg and rtstruct for DICOM series.",
            show_default=False,
        ),
    ] = None,
    labelmap: Annotated[
        bool, typer.Option("--labelmap", help="With --format seg: the newer type LABELMAP, compressed.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option("--report", help="With --format seg: volumes as a DICOM structured report, too."),
    ] = False,
    key_images: Annotated[
        bool,
        typer.Option(
            "--key-images",
            help="Also write slices with contours: a DICOM series for a DICOM series, else PNG files.",
        ),
    ] = False,
    mesh: Annotated[
        MeshEnding | None,
        typer.Option("--mesh", help="Also write the surface of each structure.", show_default=False),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write each class's probability.")
    ] = False,
    overlays: Annotated[bool, typer.Option(help="Draw the contours over the images.")] = True,
    series: Annotated[
        list[str] | None,
        typer.Option(
            "--series",
            help="Segment this DICOM series alone; for a model of several channels once for each, in their order.",
            metavar="UID",
            show_default=False,
        ),
    ] = None,
    resample_channels: Annotated[
        bool,
        typer.Option(
            "--resample-channels", help="Bring channels that lie on another grid to that of the first one."
        ),
    ] = False,
    max_memory: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="GIB",
            help="3-D models: pass over a volume that takes more, the network's own memory not counted.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        Device,
        typer.Option(envvar="MEDSEG_DEVICE", help="Where to compute; auto takes a GPU if there is one."),
    ] = Device.AUTO,
    overwrite: Overwrite = False,
) -> None:
    """Segment images of any size; masks come back in the size and geometry of the source."""
    from medseg_paddle.steps.predict import predict as step

    summary = step(
        bundle,
        inputs,
        output,
        formats=[one.value for one in formats or (AnswerFormat.NIFTI,)],
        labelmap=labelmap,
        report=report,
        key_images=key_images,
        mesh=None if mesh is None else mesh.value,
        probabilities=probabilities,
        overlays=overlays,
        series=tuple(series or ()),
        resample_channels=resample_channels,
        max_memory=None if max_memory is None else round(max_memory * 2**30),
        device=device.value,
        overwrite=overwrite,
    )
    out.print(str(summary), soft_wrap=True)
    summary.require_complete()
