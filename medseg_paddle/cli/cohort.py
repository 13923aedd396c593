"""`medseg phantom` and `medseg prepare`: images to work on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import Overrides, Overwrite
from medseg_paddle.errors import RecipeError


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
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Recipe (YAML); may be absent with --dry-run.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
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
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing; say what is found, paired, left out and wrong. Without --config: which layout the "
            "folder has, and the lines of a recipe that read it.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Processes that read and write; as many as the machine has cores where absent and worth it.",
            min=1,
        ),
    ] = None,
) -> None:
    """Turn a folder of annotated images into a data set: pictures, lists by split, a manifest."""
    from medseg_paddle.steps.prepare import prepare as step
    from medseg_paddle.steps.prepare import summary

    if dry_run:
        from medseg_paddle.steps.prepare import preview, proposal

        folder = _named(source)
        if config is None:
            out.print(proposal(folder), soft_wrap=True)
            return
        found = preview(config, folder, overrides=overrides or (), workers=workers)
        out.print(str(found), soft_wrap=True)
        found.require_sound(folder)
        return
    if config is None:
        raise RecipeError(
            "no recipe is named",
            hint="add --config RECIPE.yml; `medseg prepare FOLDER --dry-run` shows what a recipe for a folder needs",
        )
    manifest = step(
        config,
        source,
        output=output,
        overrides=overrides or (),
        overwrite=overwrite,
        keep=keep,
        workers=workers,
    )
    for line in summary(manifest):
        out.print(line, soft_wrap=True)
    out.print(f"data set: {manifest.root}", soft_wrap=True)


def _named(source: Path | None) -> Path:
    if source is None:
        raise RecipeError(
            "--dry-run needs a folder to look into", hint="name it: medseg prepare FOLDER --dry-run"
        )
    return source


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
