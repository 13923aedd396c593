"""The command line: words in, one call of a step out.

Nothing is decided here. A command imports its step when it is called, so that `medseg --help` and the
recipe commands answer at once, without loading Paddle.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from medseg_paddle.cli import (
    check,
    cohort,
    convert,
    experiments,
    finders,
    machine,
    model,
    plan,
    recipe,
    training,
    trust,
)
from medseg_paddle.cli.console import print_error
from medseg_paddle.engine.interruption import StopSignals
from medseg_paddle.errors import MedsegError, SetupError
from medseg_paddle.io.files import SHORTER_NAME

app = typer.Typer(
    name="medseg",
    help="Medical-image segmentation: one recipe from annotated images to a measured, exported U-Net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (cohort, check, plan, convert, finders, training, trust, experiments, model, machine):
    group.register(app)
app.add_typer(recipe.app, name="recipe")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `medseg` and leave the process with its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the program's name; the process's own where absent.
    """
    _keep_the_current_folder_out()
    try:
        with StopSignals():
            app(args=None if arguments is None else list(arguments), prog_name="medseg")
    except MedsegError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        refused = SetupError(f"{error.filename}: {error.strerror}", hint=SHORTER_NAME)
        print_error(refused)
        sys.exit(refused.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _keep_the_current_folder_out() -> None:
    """Let our processes import nothing from the folder that we are called in, which may hold somebody's data.

    `python -m`, which starts them, would look there first. Python knows the setting since 3.11. Where this process
    itself was told to import from there, as by `python -m medseg_paddle`, so are they.
    """
    with contextlib.suppress(OSError):  # the folder is gone
        if not {"", str(Path.cwd())} & set(sys.path):
            os.environ.setdefault("PYTHONSAFEPATH", "1")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"medseg {version('medseg-paddle')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and leave.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Hold the options that stand before a command."""
