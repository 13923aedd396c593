"""`medseg reproduce`, `medseg profile` and `medseg train --verify-determinism`: what a training can be trusted for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import Config, Device, OnDevice, Overrides
from medseg_paddle.errors import RecipeError

if TYPE_CHECKING:
    from medseg_paddle.steps.profile import Profile

_DIFFERENT = 1  # exit code
_OPERATORS_SHOWN = 12
_MIB = 2**20


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(reproduce)
    app.command()(profile)


def verify(
    config: Path,
    overrides: Sequence[str],
    iterations: int,
    other_workers: int | None,
    device: Device | None,
    *,
    kept: bool,
    together: bool,
) -> None:
    """Train a recipe's first iterations twice and say whether they are the same."""
    from medseg_paddle.steps.determinism import verify_determinism

    if kept:
        raise RecipeError(
            "--verify-determinism keeps no run, so it takes no --output, --resume or --overwrite",
            hint="leave them out",
        )
    if together:
        raise RecipeError(
            "--verify-determinism compares two trainings by one process each, so it takes no --nproc or --devices",
            hint="leave them out; that several processes repeat themselves is shown by two short runs with --nproc",
        )
    verdict = verify_determinism(
        config,
        overrides=overrides,
        iterations=iterations,
        other_workers=other_workers,
        device=device and device.value,
    )
    for line in verdict.lines():
        out.print(line, soft_wrap=True)
    if not verdict.same:
        raise typer.Exit(_DIFFERENT)


def reproduce(
    run: Annotated[Path, typer.Argument(help="Run folder, as `medseg train` wrote it.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="New run folder; RUN-reproduced where absent.", metavar="FOLDER"),
    ] = None,
    iters: Annotated[
        int | None,
        typer.Option(help="Only the first so many iterations; as many as the run has where absent.", min=1),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(help="Difference of the best validation score that still counts as reproduced.", min=0),
    ] = 0.01,
    device: OnDevice = None,
) -> None:
    """Train a run again from its own folder, and compare losses, scores and weights; exit code 1 where they differ."""
    from medseg_paddle.steps.reproduce import reproduce as step

    found = step(run, output=output, iterations=iters, tolerance=tolerance, device=device and device.value)
    for line in found.lines():
        out.print(line, soft_wrap=True)
    out.print(f"run: {found.path}", soft_wrap=True)
    if not found.reproduced:
        raise typer.Exit(_DIFFERENT)


def profile(
    config: Config,
    iters: Annotated[int, typer.Option(help="Iterations to time, after five to warm up.", min=1)] = 20,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for profile.json and trace.json; outputs/profile-NAME where absent.",
            metavar="FOLDER",
        ),
    ] = None,
    overrides: Overrides = None,
    device: OnDevice = None,
) -> None:
    """Measure where a training's time and memory go, and say what would make it faster; no run is made."""
    from medseg_paddle.steps.profile import profile as step

    found = step(
        config, overrides=overrides or (), iterations=iters, output=output, device=device and device.value
    )
    _print_profile(found)


def _print_profile(found: Profile) -> None:
    from rich import box
    from rich.table import Table

    of = found.measured
    where = of.device + (f" with {of.cpu_kernels}, {of.threads} threads" if of.cpu_kernels else "")
    out.print(f"{found.recipe}: {found.model}, batches of {of.batch_size}, on {where}", soft_wrap=True)
    out.print(
        f"{found.images_per_second:.1f} images/s, {1000 * of.seconds:.1f} ms an iteration "
        f"({found.iterations} timed), {of.waiting:.0%} of it waiting for images; "
        f"{of.cores_used:.1f} of {of.cores} cores busy",
        soft_wrap=True,
    )
    memory = f"memory: at most {found.memory_peak / _MIB:,.0f} MiB"
    if of.gpu_memory:
        memory += f", on the GPU {of.gpu_memory_peak / _MIB:,.0f} of {of.gpu_memory / _MIB:,.0f} MiB"
    out.print(memory, soft_wrap=True)
    parts = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    parts.add_column("part of an iteration", no_wrap=True)
    parts.add_column("ms", justify="right")
    parts.add_column("share", justify="right")
    steps, rest = found.traced.iterations, found.traced.seconds - sum(found.traced.parts.values())
    for name, seconds in [*found.traced.parts.items(), ("the rest of the loop", rest)]:
        parts.add_row(name, f"{1000 * seconds / steps:.1f}", f"{found.share(seconds):.1%}")
    out.print(parts)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("operator", no_wrap=True)
    for title in ("calls", "ms", "share"):
        table.add_column(title, justify="right")
    for one in found.traced.operators[:_OPERATORS_SHOWN]:
        seconds = one.device_seconds if of.on_gpu else one.seconds
        table.add_row(
            one.name,
            f"{one.calls / steps:.0f}",
            f"{1000 * seconds / steps:.1f}",
            f"{of.shares.get(one.name, 0):.1%}",
        )
    others = found.traced.operators[_OPERATORS_SHOWN:]
    if others:
        table.add_row(
            f"{len(others)} others", "", "", f"{sum(of.shares.get(one.name, 0) for one in others):.1%}"
        )
    out.print(table)
    for advice in found.advice:
        out.print(f"→ {advice.text}", soft_wrap=True)
    if not found.advice:
        out.print("nothing stands out that a setting would change")
    out.print(f"profile: {found.folder} (trace.json opens in chrome://tracing and Perfetto)", soft_wrap=True)
