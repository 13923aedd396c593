"""`medseg doctor`, `medseg board` and `medseg demo`: this machine, and a first tour of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(doctor)
    app.command()(board)
    app.command()(demo)


def doctor(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder runs shall be written to.", metavar="FOLDER")
    ] = Path("outputs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Examine this machine: versions, device, threads, memory, disk; what is wrong and how to mend it."""
    from medseg_paddle.cli.tables import findings_json, findings_table
    from medseg_paddle.errors import SetupError
    from medseg_paddle.steps.doctor import Status, examine

    with out.status("examining this machine"):
        findings = examine(output)
    if as_json:
        typer.echo(findings_json(findings))
    else:
        out.print(findings_table(findings))
    if any(finding.status is Status.BAD for finding in findings):
        raise typer.Exit(SetupError.exit_code)


def board(
    output: Annotated[Path, typer.Argument(help="A run folder, or a folder of runs to compare.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8040,
    wait: Annotated[
        bool, typer.Option("--wait", help="Start before the first training, and show it when it comes.")
    ] = False,
) -> None:
    """Show the curves of one or more runs in a browser (VisualDL), until Ctrl-C."""
    from medseg_paddle.steps.board import board as step

    def announce(url: str, waiting: bool) -> None:
        what = f"waits for a first training beneath {output}; " if waiting else ""
        out.print(f"dashboard: {url}/app/scalar  ({what}Ctrl-C ends it)", soft_wrap=True)

    step(output, host=host, port=port, wait=wait, announce=announce)


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to work in.", metavar="FOLDER")
    ] = Path("outputs/demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer patients and iterations; the scores mean little.")
    ] = False,
) -> None:
    """Run the whole job on synthetic CT patients, in 2-D and 3-D: prepare, train, evaluate, export, predict."""
    from medseg_paddle.steps.demo import demo as step

    step(output, quick=quick)
