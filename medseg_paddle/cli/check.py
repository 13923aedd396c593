"""`medseg check`: what is wrong with a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import Overrides


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(check)


def check(
    data: Annotated[
        Path,
        typer.Argument(
            help="A prepared data set, a folder with PaddleSeg's lists, or with --config a source folder.",
            metavar="DATA",
        ),
    ],
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Recipe (YAML) that says how a source folder is read, or which classes lists hold.",
            metavar="FILE",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Page to write, with pictures of the suspects; outputs/check-NAME.html where absent.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        Path | None,
        typer.Option("--json", help="File to write the findings to as JSON; - prints them.", metavar="FILE"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    overrides: Overrides = None,
) -> None:
    """Look for what is wrong with a data set: files, labels, splits, twins, masks beside their images."""
    from medseg_paddle.cli.check_table import check_table
    from medseg_paddle.errors import DataError
    from medseg_paddle.io.files import write_text
    from medseg_paddle.steps.check import check as step
    from medseg_paddle.steps.progress import ProgressBar

    printed = as_json == Path("-")
    written = page or Path("outputs") / f"check-{data.resolve().name}.html"
    if printed:
        result = step(data, config, overrides=overrides or (), page=written)
        typer.echo(result.to_json())
    else:
        with ProgressBar("checking", 1) as bar:
            result = step(data, config, overrides=overrides or (), page=written, progress=bar.advance)
        out.print(check_table(result))
        out.print(f"pictures of the suspects: {written}", soft_wrap=True)
        if as_json is not None:
            write_text(as_json, result.to_json() + "\n")
    if not result.is_fit(strict=strict):
        raise typer.Exit(DataError.exit_code)
