"""Runs that answer together: an ensemble, whose probabilities are the mean of its members'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg_paddle.errors import ModelError, RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps.checks import class_names

Runs = Path | str | Run | Sequence[Path | str | Run]
"""One run, or several that answer together; each as its folder, or opened."""

# What a picture goes through before and after the networks is done once, so it must be the same for all.
_SHARED: dict[str, Callable[[Run], Any]] = {
    "classes": lambda run: list(class_names(run.recipe).names),
    "channels": lambda run: run.recipe.in_channels,
    "neighbours": lambda run: run.recipe.neighbours,
    "preprocessing": lambda run: run.recipe.preprocessing_specs,
    "inference": lambda run: run.recipe.inference.model_dump(mode="json"),
    "postprocessing": lambda run: run.recipe.postprocessing_specs,
    "ignore_index": lambda run: run.recipe.ignore_index,
}


def open_members(runs: Runs) -> tuple[Run, ...]:
    """Open the runs.

    Raises
    ------
    RecipeError
        No run is given, or one is given twice.
    ModelError
        One is no run.
    """
    given = [runs] if isinstance(runs, (Path, str, Run)) else list(runs)
    members = tuple(one if isinstance(one, Run) else Run.open(one) for one in given)
    if not members:
        raise RecipeError("no run is given", hint="name at least one run folder")
    folders = [member.path.resolve() for member in members]
    if len(set(folders)) < len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        raise RecipeError(f"{twice} is given twice", hint="name each run of an ensemble once")
    return members


def require_one_task(members: Sequence[Run], **further: Callable[[Run], Any]) -> None:
    """See that members can answer together: what they take and give is the same.

    Parameters
    ----------
    members : sequence of Run
    **further
        What must be the same besides, by its name in a message.

    Raises
    ------
    ModelError
        They do not; says what differs.
    """
    first, *others = members
    for name, fact in {**_SHARED, **further}.items():
        wanted = fact(first)
        for other in others:
            found = fact(other)
            if found != wanted:
                raise ModelError(
                    f"{first.path} and {other.path} cannot answer together: they differ in {name}"
                    f" ({_short(wanted)}; {_short(found)})",
                    hint="give runs of one task: the same classes, channels, preprocessing and inference",
                )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
