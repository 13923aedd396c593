"""What a search found, as numbers and files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg_paddle.config import Recipe, dump_recipe
from medseg_paddle.config.selection import Selection
from medseg_paddle.io.files import write_text

State = Literal["complete", "pruned", "failed", "unfinished"]

_CHOSEN = (
    "The best trial was chosen by its validation score, which is therefore too good: score best.yml on images that "
    "chose nothing, with `medseg evaluate` on the test set or `medseg crossval`."
)


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes
    ----------
    number : int
    state : {"complete", "pruned", "failed", "unfinished"}
        Unfinished: another process is at it, or it was stopped and goes on with the next call.
    score : float or None
        The best validation score there was; None where it was undefined in every case.
    values : dict
        Key of the recipe to value.
    iteration : int or None
        Of the last validation.
    seconds : float or None
        From its start to its end.
    note : str
        Why it failed, or which trial it repeats.
    """

    number: int
    state: State
    score: float | None
    values: dict[str, Any]
    iteration: int | None
    seconds: float | None
    note: str = ""

    def shown(self, parameter: str) -> str:
        """A value as a table shows it."""
        value = self.values.get(parameter, "")
        return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    path : Path
        Its folder.
    name : str
        Of the study in the database.
    selection : Selection
        What the score is.
    parameters : tuple of str
        Keys of the recipe.
    trials : tuple of TrialResult
        In the order of their numbers.
    importances : dict
        Share of each parameter in what tells good trials from others, see :func:`medseg_paddle.steps.search.search`;
        empty where there are too few trials to say.
    """

    path: Path
    name: str
    selection: Selection
    parameters: tuple[str, ...]
    trials: tuple[TrialResult, ...]
    importances: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> TrialResult | None:
        """The complete trial of the best score, the first of equals; None where none is complete and has one."""
        scored = [one for one in self.trials if one.state == "complete" and one.score is not None]
        return max(scored, key=self._gain, default=None)

    @property
    def best_first(self) -> list[TrialResult]:
        """Complete trials by score, then the others by number."""
        complete = [one for one in self.trials if one.state == "complete"]
        others = [one for one in self.trials if one.state != "complete"]
        return [*sorted(complete, key=self._gain, reverse=True), *others]

    def _gain(self, trial: TrialResult) -> float:
        return self.selection.gain(trial.score)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the figures, in sentences."""
        notes = []
        if self.importances:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.importances.items())
            notes.append(f"What tells the good trials from the others (PED-ANOVA): {shares}.")
        notes += [f"Trial {one.number}: {one.note}" for one in self.trials if one.note]
        waiting = [str(one.number) for one in self.trials if one.state == "unfinished"]
        if waiting:
            notes.append(
                f"Not finished, or another process is at it: {', '.join(waiting)}. Call again to go on."
            )
        if self.selection.smaller_is_better:
            notes.append(f"The score is {self.selection.name}, of which the smallest is the best.")
        return (*notes, _CHOSEN) if self.best is not None else tuple(notes)


def write_results(result: SearchResult, best: Recipe | None) -> None:
    """Write ``trials.csv``, ``search.json`` and ``best.yml`` into the folder of the search.

    Parameters
    ----------
    result : SearchResult
    best : Recipe or None
        That of the best trial.
    """
    write_text(result.path / "trials.csv", _csv(result))
    content = {
        "study": result.name,
        "score": result.selection.name,
        "smaller_is_better": result.selection.smaller_is_better,
        "best": None if result.best is None else result.best.number,
        "importances": result.importances,
        "notes": result.notes,
        "trials": [asdict(one) for one in result.trials],
    }
    write_text(result.path / "search.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    if best is not None:
        write_text(result.path / "best.yml", dump_recipe(best))


def best_recipe(recipe: Recipe, result: SearchResult) -> Recipe:
    """The recipe of the best trial as one of its own: without the search, under another name."""
    if result.best is None:
        raise ValueError("there is no best trial")
    said = f"Trial {result.best.number}, the best of {len(result.trials)} of {result.name}"
    changes: Mapping[str, Any] = {"search": None, "name": f"{recipe.name}_best", "description": said}
    return recipe.model_copy(update=changes)


def _csv(result: SearchResult) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("trial", "state", "score", "iteration", "seconds", *result.parameters, "note"))
    for one in result.trials:
        score = "" if one.score is None else f"{one.score:.6f}"
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        values = (one.values.get(name, "") for name in result.parameters)
        writer.writerow((one.number, one.state, score, one.iteration, seconds, *values, one.note))
    return buffer.getvalue()
