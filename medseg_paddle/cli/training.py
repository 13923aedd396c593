"""`medseg train` and `medseg evaluate`: from a recipe to a measured run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import (
    Config,
    OfCheckpoint,
    OnDevice,
    Overrides,
    Overwrite,
    RunFolders,
    Split,
    Weights,
    set_option,
)


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(train)
    app.command()(evaluate)


def train(
    config: Config,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Run folder; outputs/NAME where absent.", metavar="FOLDER"),
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    overwrite: Overwrite = False,
    device: OnDevice = None,
) -> None:
    """Train the recipe's model with PaddleSeg; write checkpoints, curves and provenance to a run folder."""
    from medseg_paddle.steps.train import train as step

    run = step(
        config,
        output=output,
        overrides=overrides or (),
        resume=resume,
        overwrite=overwrite,
        device=device and device.value,
    )
    out.print(f"run: {run.path}", soft_wrap=True)


def evaluate(
    run: RunFolders,
    split: Annotated[Split, typer.Option(help="Which cases to measure on.")] = Split.TEST,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for tables and pictures; inside the run where absent."),
    ] = None,
    checkpoint: OfCheckpoint = Weights.BEST,
    overlays: Annotated[int, typer.Option(help="How many cases to draw.", min=0)] = 8,
    device: OnDevice = None,
    overrides: Annotated[
        list[str] | None,
        set_option(
            "For this evaluation, replace a value of the recipe: inference.*, test_dataset.*, device, cpu_kernels."
        ),
    ] = None,
) -> None:
    """Measure a run, or an ensemble of runs, on whole cases: Dice, IoU and more, per case and class."""
    from medseg_paddle.cli.tables import score_table
    from medseg_paddle.steps.evaluate import evaluate as step

    report = step(
        run,
        split=split.value,
        checkpoint=checkpoint.value,
        output=output,
        overlays=overlays,
        device=device and device.value,
        overrides=overrides or (),
    )
    out.print(score_table(report))
