"""The validations of a training, and what follows from them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_paddle.config import Recipe
from medseg_paddle.config.selection import Selection
from medseg_paddle.errors import ModelError
from medseg_paddle.io.files import write_text

Entry = dict[str, Any]
"""``iter``, ``weights`` (``model`` or ``ema``), ``score`` with its ``metric`` and ``label``, None where it is
undefined in every case, and ``dice`` by class."""


def read(path: Path) -> list[Entry]:
    """The entries of a file, oldest first; none where there is no file.

    Raises
    ------
    ModelError
        The file is damaged.
    """
    if not path.is_file():
        return []
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        for entry in entries:
            entry["iter"], entry["weights"], entry["score"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is damaged ({type(error).__name__}): it lists the validations, and which weights are the best",
            hint="bring it back from a copy; without it train again",
        ) from error
    return entries


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Replace a file; it is whole at any time."""
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in entries))


def best_first(entries: Sequence[Entry], selection: Selection) -> list[Entry]:
    """Those entries that have a score, the best first, of equal ones the earlier."""
    scored = [entry for entry in entries if selection.gain(entry["score"]) > -math.inf]
    return sorted(scored, key=lambda entry: selection.gain(entry["score"]), reverse=True)


def patience_spent_at(entries: Sequence[Entry], recipe: Recipe, until: int) -> int | None:
    """The iteration of the evaluation that used up the patience of `early_stopping`; None where it has not.

    Of an iteration at which the moving average of the weights was scored too, the better score counts.

    Parameters
    ----------
    entries : sequence of dict
    recipe : Recipe
    until : int
        Evaluations after this iteration are not looked at.
    """
    if recipe.early_stopping is None:
        return None
    gains: dict[int, float] = {}
    for entry in entries:
        if entry["iter"] <= until:
            gain = recipe.selection.gain(entry["score"])
            gains[entry["iter"]] = max(gain, gains.get(entry["iter"], -math.inf))
    place = recipe.early_stopping.spent_at(list(gains.values()))
    return None if place is None else list(gains)[place]
