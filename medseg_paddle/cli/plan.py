"""`medseg plan`: a recipe for a data set of volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import Device, Overwrite


def register(app: typer.Typer) -> None:
    """Add this module's command to the program."""
    app.command()(plan)


def plan(
    data: Annotated[
        Path,
        typer.Argument(help="Data set that `medseg prepare` made with `volumes: whole`.", metavar="DATA"),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Recipe to write; outputs/plan-NAME.yml where absent.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            help="What a training may take, such as 8GB; nine tenths of what is free on the device where absent, at "
            "most 8 GB.",
            metavar="SIZE",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Network: UNet3D, ResUNet3D or AttentionUNet3D.", metavar="TYPE")
    ] = "UNet3D",
    hours: Annotated[
        float,
        typer.Option(help="What a training on a CPU may take; on a GPU nnU-Net's iterations are planned."),
    ] = 8.0,
    device: Annotated[
        Device, typer.Option("--device", envvar="MEDSEG_DEVICE", help="What will train.")
    ] = Device.AUTO,
    overwrite: Overwrite = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Processes that read; as many as the work is worth where absent.",
            min=1,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Plan a training on volumes after nnU-Net's rules: a recipe, with the reason beside each value."""
    from medseg_paddle.cli.plan_table import plan_table
    from medseg_paddle.steps.plan import parse_memory
    from medseg_paddle.steps.plan import plan as step

    planned = step(
        data,
        output=output,
        memory=None if memory is None else parse_memory(memory),
        model=model,
        hours=hours,
        device=device.value,
        overwrite=overwrite,
        workers=workers,
    )
    out.print(plan_table(planned))
    for note in planned.plan.notes:
        out.print(f"note: {note}", soft_wrap=True)
    out.print(f"recipe: {planned.path}; the reason of each value stands above it", soft_wrap=True)
