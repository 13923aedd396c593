"""`medseg crossval` and `medseg search`: many trainings of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_paddle.cli.console import out
from medseg_paddle.cli.options import Config, OnDevice, Overrides, Weights


def register(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    app.command()(crossval)
    app.command()(search)


def crossval(
    config: Config,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the folds; outputs/NAME_crossval where absent.",
            metavar="FOLDER",
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(help="Folds to train and to sum up, such as 0,1; all where absent.", metavar="NUMBERS"),
    ] = None,
    checkpoint: Annotated[
        Weights,
        typer.Option(
            help="Weights that are scored: the last, or the best by validation on the fold that scores them, which "
            "is too good."
        ),
    ] = Weights.LAST,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is there; finished folds are kept.")
    ] = False,
    export: Annotated[
        bool, typer.Option("--export", help="Also export the folds' models as one bundle, an ensemble.")
    ] = False,
    overrides: Overrides = None,
    device: OnDevice = None,
) -> None:
    """Train and score the recipe on every fold of its data set; mean, SD and confidence interval over patients."""
    from medseg_paddle.cli.experiment_tables import fold_table
    from medseg_paddle.steps.crossval import crossval as step
    from medseg_paddle.steps.crossval import export_folds

    result = step(
        config,
        output=output,
        overrides=overrides or (),
        folds=_numbers(folds),
        checkpoint=checkpoint.value,
        resume=resume,
        device=device and device.value,
    )
    out.print(fold_table(result))
    for note in result.notes:
        out.print(note)
    out.print(f"cross-validation: {result.path}", soft_wrap=True)
    if export:
        bundle = export_folds(result, device=device and device.value)
        out.print(f"bundle: {bundle.path} (id {bundle.id})", soft_wrap=True)


def search(
    config: Config,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the trials; outputs/NAME_search where absent.", metavar="FOLDER"
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="What workers on several machines share: journal:///path/file.log, redis://host, or a database's URL; "
            "search.db in the folder where absent.",
            metavar="URL",
        ),
    ] = None,
    overrides: Overrides = None,
    device: OnDevice = None,
) -> None:
    """Look for the recipe's best values as its `search` section says; call it again to go on, or more than once."""
    from medseg_paddle.cli.experiment_tables import trial_table
    from medseg_paddle.steps.search import search as step

    result = step(
        config, output=output, storage=storage, overrides=overrides or (), device=device and device.value
    )
    out.print(trial_table(result))
    for note in result.notes:
        out.print(note)
    out.print(f"search: {result.path}", soft_wrap=True)


def _numbers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter("write numbers, with commas between them", param_hint="'--folds'")
    return tuple(int(part) for part in parts)
