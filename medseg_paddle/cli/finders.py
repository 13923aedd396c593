"""`medseg lr-find` and `medseg batch-find`: two numbers of a recipe, measured before a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import Config, OnDevice, Overrides


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(lr_find)
    app.command()(batch_find)


def lr_find(
    config: Config,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The plot, a PNG, with a table beside it; outputs/NAME-lr.png where absent.",
            metavar="FILE",
        ),
    ] = None,
    iterations: Annotated[int, typer.Option(help="Iterations, each with a higher learning rate.")] = 100,
    lowest: Annotated[float, typer.Option("--from", help="First learning rate.")] = 1e-7,
    highest: Annotated[float, typer.Option("--to", help="Last learning rate.")] = 1.0,
    overrides: Overrides = None,
    device: OnDevice = None,
) -> None:
    """Find a learning rate: train a little while it grows, plot the loss, suggest a value."""
    from medseg_paddle.cli.tables import rates_table
    from medseg_paddle.steps.lr_find import lr_find as step

    result = step(
        config,
        output=output,
        overrides=overrides or (),
        iterations=iterations,
        lowest=lowest,
        highest=highest,
        device=device and device.value,
    )
    out.print(rates_table(result))
    if result.remark:
        out.print(f"note: {result.remark}", soft_wrap=True)
    if result.suggestion is None:
        out.print("no suggestion")
    else:
        falling = result.least_at == result.rates[-1]
        where = (
            "the last, where it was still falling" if falling else "where the loss is least before it rises"
        )
        out.print(
            f"suggestion: {result.key}: {result.suggestion:g}  "
            f"(a tenth of {result.least_at:.2g}, {where}; "
            f"it falls most at {result.steepest_at:.2g})",
            soft_wrap=True,
        )
    out.print(f"plot: {result.plot}", soft_wrap=True)


def batch_find(
    config: Config,
    memory_mb: Annotated[
        int | None,
        typer.Option(
            "--memory-mb",
            help="Most memory a training may take, in MB; nine tenths of what is free where absent.",
            min=1,
            metavar="MB",
        ),
    ] = None,
    at_most: Annotated[int, typer.Option(help="Largest batch size to try.", min=1)] = 64,
    overrides: Overrides = None,
    device: OnDevice = None,
) -> None:
    """Find the largest batch_size that fits the free memory, by training steps in processes of their own."""
    from medseg_paddle.cli.tables import batches_table
    from medseg_paddle.steps.batch_find import Probe
    from medseg_paddle.steps.batch_find import batch_find as step

    with out.status("trying batch sizes") as status:

        def tell(probe: Probe) -> None:
            status.update(f"tried batch_size {probe.batch_size}: {'fits' if probe.fits else 'too large'}")

        found = step(
            config,
            overrides=overrides or (),
            memory_mb=memory_mb,
            at_most=at_most,
            device=device and device.value,
            told=tell,
        )
    out.print(batches_table(found))
    where = "memory" if found.device == "cpu" else f"memory of {found.device}"
    why = "the largest tried" if found.batch_size == found.at_most else "the largest that fits"
    out.print(f"{why} in {found.limit / 1e6:,.0f} MB of {where}:")
    out.print(f"batch_size: {found.batch_size}")
