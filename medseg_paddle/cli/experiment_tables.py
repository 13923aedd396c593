"""Cross-validations and searches as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from medseg_paddle.core.text import visible
from medseg_paddle.steps.crossval_summary import POOLED, CrossValidation, number, span
from medseg_paddle.steps.search_results import SearchResult


def fold_table(result: CrossValidation) -> Table:
    """Lay out the Dice of each fold and of all cases: a section per class, the average over several classes first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", style="bold")
    table.add_column("fold", no_wrap=True)
    for title in ("cases", "patients", "Dice", "SD", "95 % CI"):
        table.add_column(title, justify="right", no_wrap=True)
    name = None
    for line in result.lines(("dice",)):
        if name not in (None, line.name):
            table.add_section()
        table.add_row(
            "" if name == line.name else visible(line.name),
            line.fold,
            str(line.cases),
            str(line.patients),
            number(line.mean),
            number(line.sd),
            span(line),
            style="bold" if line.fold == POOLED else None,
        )
        name = line.name
    return table


def trial_table(result: SearchResult) -> Table:
    """Lay out the trials, the best first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", justify="right", style="bold", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column(visible(result.selection.name), justify="right", overflow="fold")
    for name in _brief(result.parameters):
        table.add_column(visible(name), justify="right", overflow="fold")
    for trial in result.best_first:
        table.add_row(
            str(trial.number),
            trial.state,
            "-" if trial.score is None else f"{trial.score:.4f}",
            *(visible(trial.shown(name)) for name in result.parameters),
        )
    return table


def _brief(keys: Sequence[str]) -> list[str]:
    """The ends of keys, as short as they still differ; no end begins with the number of a list's item."""
    found = []
    for key in keys:
        parts = key.split(".")
        ends = [
            ".".join(parts[start:]) for start in reversed(range(len(parts))) if not parts[start].isdigit()
        ]
        alone = (
            end for end in ends if not any(f".{other}".endswith(f".{end}") for other in keys if other != key)
        )
        found.append(next(alone, key))
    return found
