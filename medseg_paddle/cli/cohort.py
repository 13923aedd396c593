"""`medseg phantom` and `medseg prepare`: images to work on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import Config, Overrides, Overwrite


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(prepare)
    app.command()(phantom)


def prepare(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Folder that holds the images and their annotations; the recipe's synthetic patients where "
            "absent.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    *,
    config: Config,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Data set to write; the recipe's dataset_root where absent.",
            metavar="FOLDER",
        ),
    ] = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Leave a data set as it is that was made from the same files in the same way."
        ),
    ] = False,
) -> None:
    """Turn a folder of annotated images into a data set: PNGs, lists by split, a manifest."""
    from medseg_paddle.steps.prepare import prepare as step
    from medseg_paddle.steps.prepare import summary

    manifest = step(config, source, output=output, overrides=overrides or (), overwrite=overwrite, keep=keep)
    for line in summary(manifest):
        out.print(line, soft_wrap=True)
    out.print(f"data set: {manifest.root}", soft_wrap=True)


def phantom(
    output: Annotated[Path, typer.Argument(help="Folder to write the patients to, one folder each.")],
    patients: Annotated[int, typer.Option(help="How many patients.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="The same seed gives the same patients.", min=0)] = 42,
    overwrite: Overwrite = False,
) -> None:
    """Write synthetic chest-CT patients with tumours, as DICOM series with masks."""
    from medseg_paddle.steps.phantom import phantom as step

    step(output, patients=patients, seed=seed, overwrite=overwrite)
    out.print(f"{patients} patients: {output}", soft_wrap=True)
