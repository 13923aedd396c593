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
from medseg_paddle.errors import RecipeError


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
    *,
    max_time: Annotated[
        str | None,
        typer.Option(
            "--max-time",
            help="After this time (45m, 1h30m, 90s, or seconds), save a checkpoint and end; --resume goes on.",
            metavar="TIME",
        ),
    ] = None,
    nproc: Annotated[
        int | None,
        typer.Option(
            "--nproc", help="Train by so many processes on the CPU, each with its share of every batch."
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option("--devices", help="Train by a process on each of these GPUs: 0,1.", metavar="GPUS"),
    ] = None,
    verify_determinism: Annotated[
        bool,
        typer.Option(
            "--verify-determinism",
            help="Write nothing; train the first iterations twice, each in a fresh process, and compare every bit. "
            "Exit code 1 where they differ.",
        ),
    ] = False,
    verify_iters: Annotated[
        int, typer.Option(help="With --verify-determinism: how many iterations.", min=1)
    ] = 20,
    verify_workers: Annotated[
        int | None,
        typer.Option(
            help="With --verify-determinism: num_workers of the second training; as the recipe says where absent.",
            min=0,
        ),
    ] = None,
) -> None:
    """Train the recipe's model with PaddleSeg; write checkpoints, curves and provenance to a run folder."""
    if verify_determinism:
        from medseg_paddle.cli.trust import verify

        verify(
            config,
            overrides or (),
            verify_iters,
            verify_workers,
            device,
            kept=output is not None or resume or overwrite,
            together=nproc is not None or devices is not None,
        )
        return
    from medseg_paddle.steps.train import train as step

    run = step(
        config,
        output=output,
        overrides=overrides or (),
        resume=resume,
        overwrite=overwrite,
        device=device and device.value,
        max_time=max_time,
        nproc=nproc,
        devices=None if devices is None else _numbers(devices),
    )
    out.print(f"run: {run.path}", soft_wrap=True)


def _numbers(devices: str) -> list[int]:
    parts = [part.strip() for part in devices.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise RecipeError(
            f"--devices {devices} is no list of GPUs",
            hint="write their numbers, as `medseg doctor` shows them: --devices 0,1",
        )
    return [int(part) for part in parts]


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
            "For this evaluation, replace a value of the recipe: inference.*, postprocessing, test_dataset.*, device, "
            "cpu_kernels."
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
    if report.distances is not None:
        out.print(str(report.distances))
