"""What a cross-validation found, as numbers, tables and text."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Case
from medseg_paddle.io.files import write_text
from medseg_paddle.metrics import MEAN, METRICS, Distances, Report
from medseg_paddle.metrics.bootstrap import confidence_interval
from medseg_paddle.run import Checkpoint

PICTURE = "crossval.png"
POOLED = "all"
"""Name of the line over the cases of all folds."""

# What the figures may be taken for.
_SCORED = {
    "last": "Scored are the weights at the end of each training, which no score chose.",
    "steered": "Scored are the weights at the end of each training. Its course followed the scores of the fold that "
    "scores it ({}), so these figures are too good; leave that out of the recipe for figures that are not.",
    "best": "Scored is the best checkpoint of each fold. The fold that scores it has also chosen it, so these figures "
    "are too good; --checkpoint last scores without that choice.",
}
_UNITS = (
    "CI: 95 % bootstrap interval of the mean, patients drawn with replacement, each with all their cases. It says how "
    "the mean would vary with other patients, not with another training."
)


@dataclass(frozen=True)
class FoldScores:
    """Scores of one fold's held-out cases.

    Attributes
    ----------
    fold : int
    report : Report
    patients : dict
        Name of a whole case to its patient; to itself where the data set knows none.
    """

    fold: int
    report: Report
    patients: dict[str, str]

    @classmethod
    def of(cls, fold: int, report: Report, cases: Sequence[Case]) -> FoldScores:
        """Scores with what the data set says of their cases."""
        return cls(fold, report, {case.group: case.patient or case.group for case in cases})


@dataclass(frozen=True)
class Line:
    """One score of one class in one fold, or in all of them.

    Attributes
    ----------
    fold : str
        Number of the fold, or ``"all"``.
    name : str
        The class, or ``"mean"`` for the average over the foreground classes.
    metric : str
    mean, sd : float
        Over the cases, as in :class:`medseg_paddle.metrics.Statistics`.
    low, high : float
        Ends of the 95 % confidence interval of the mean; NaN where fewer than four patients have the score.
    cases, patients : int
        Whole cases, and patients, in the fold.
    """

    fold: str
    name: str
    metric: str
    mean: float
    sd: float
    low: float
    high: float
    cases: int
    patients: int


@dataclass(frozen=True)
class CrossValidation:
    """What a cross-validation found.

    Attributes
    ----------
    path : Path
        Its folder.
    name : str
        Of the recipe.
    every : tuple of int
        Folds of the data set.
    checkpoint : {"last", "best"}
        Which weights were scored.
    folds : tuple of FoldScores
        Those that were scored.
    steered_by : tuple of str
        Keys of the recipe by which the held-out scores changed the course of the trainings.
    """

    path: Path
    name: str
    every: tuple[int, ...]
    checkpoint: Checkpoint
    folds: tuple[FoldScores, ...]
    steered_by: tuple[str, ...] = ()

    @property
    def distances(self) -> Distances | None:
        """What the distances between surfaces are; None where they are not the same in all folds."""
        found = {fold.report.distances for fold in self.folds}
        return found.pop() if len(found) == 1 else None

    @property
    def pooled(self) -> Report:
        """Scores of all cases, each by the model that had not seen it; of surfaces only where folds agree."""
        rows = [row for fold in self.folds for row in fold.report.rows]
        if self.distances is None:
            rows = [replace(row, scores=row.scores.without_surfaces()) for row in rows]
        classes = [name for name in self.folds[0].report.summary if name != MEAN]
        return Report.from_rows(rows, classes, self.distances)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures may be taken for, in sentences."""
        missing = [fold for fold in self.every if fold not in {one.fold for one in self.folds}]
        partly = f"Not in it: fold {', '.join(map(str, missing))} of the data set." if missing else ""
        chosen = "steered" if self.checkpoint == "last" and self.steered_by else self.checkpoint
        said = _SCORED[chosen].format(" and ".join(self.steered_by))
        return tuple(note for note in (said, _UNITS, self._surfaces, partly) if note)

    @property
    def overall(self) -> Line:
        """The Dice of all cases, the average over the classes."""
        return next(line for line in self.lines(("dice",)) if line.fold == POOLED or len(self.folds) == 1)

    @property
    def _surfaces(self) -> str:
        if self.distances is not None:
            return str(self.distances)
        said = (f"fold {fold.fold}: {fold.report.distances}" for fold in self.folds if fold.report.distances)
        return f"Surface scores differ in kind and have no mean over all folds. {' '.join(said)}"

    def lines(self, metrics: Sequence[str] = METRICS) -> list[Line]:
        """Every class, its folds and then all of them together; the average over several classes first."""
        names = list(self.folds[0].report.summary)
        classes = [name for name in names if name != MEAN]
        patients = {case: patient for fold in self.folds for case, patient in fold.patients.items()}
        parts = [(str(fold.fold), fold.report) for fold in self.folds]
        if len(self.folds) > 1:
            parts.append((POOLED, self.pooled))
        return [
            _line(fold, name, metric, report, patients)
            for name in ([MEAN, *classes] if len(classes) > 1 else classes)
            for metric in metrics
            for fold, report in parts
        ]


def write_summary(result: CrossValidation) -> None:
    """Write the summary's files into the folder of the cross-validation."""
    lines = result.lines()
    content = {
        "recipe": result.name,
        "folds": [fold.fold for fold in result.folds],
        "folds_of_the_data": result.every,
        "checkpoint": result.checkpoint,
        "notes": result.notes,
        "summary": [
            {
                key: None if isinstance(value, float) and math.isnan(value) else value
                for key, value in one.items()
            }
            for one in map(asdict, lines)
        ],
    }
    write_text(result.path / "crossval.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(result.path / "crossval.csv", _lines_csv(lines))
    write_text(result.path / "cases.csv", _cases_csv(result))
    write_text(result.path / "crossval.md", _markdown(result))


def _line(fold: str, name: str, metric: str, report: Report, patients: dict[str, str]) -> Line:
    cases = list(dict.fromkeys(row.case for row in report.rows))
    statistics = report.summary[name][metric]
    classes = [name] if name != MEAN else [one for one in report.summary if one != MEAN]
    values = _values(report, metric, classes, cases)
    interval = confidence_interval(values, [patients[case] for case in cases])
    return Line(
        fold,
        name,
        metric,
        statistics.mean,
        statistics.sd,
        interval.low,
        interval.high,
        len(cases),
        len({patients[case] for case in cases}),
    )


def _values(report: Report, metric: str, classes: Sequence[str], cases: Sequence[str]) -> NDArray[np.float64]:
    """One score, ``[class, case]``."""
    row_of, column_of = ({name: n for n, name in enumerate(names)} for names in (classes, cases))
    values = np.full((len(classes), len(cases)), np.nan)
    for row in report.rows:
        if row.name in row_of:
            values[row_of[row.name], column_of[row.case]] = getattr(row.scores, metric)
    return values


def _lines_csv(lines: Sequence[Line]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("fold", "class", "score", "mean", "sd", "ci_low", "ci_high", "cases", "patients"))
    for line in lines:
        numbers = (line.mean, line.sd, line.low, line.high)
        texts = ("" if math.isnan(number) else f"{number:.6f}" for number in numbers)
        writer.writerow((line.fold, line.name, line.metric, *texts, line.cases, line.patients))
    return buffer.getvalue()


def _cases_csv(result: CrossValidation) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("fold", "patient", "case", "class", *METRICS, "unit"))
    for fold in result.folds:
        for row in fold.report.rows:
            values = (getattr(row.scores, metric) for metric in METRICS)
            texts = ("" if math.isnan(value) else f"{value:.6f}" for value in values)
            unit = "" if fold.report.distances is None else fold.report.distances.unit
            writer.writerow((fold.fold, fold.patients[row.case], row.case, row.name, *texts, unit))
    return buffer.getvalue()


def _markdown(result: CrossValidation) -> str:
    rows = [
        "| fold | class | cases | patients | Dice | SD | 95 % CI |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| {line.fold} | {line.name.replace('|', chr(92) + '|')} | {line.cases} | {line.patients} "
        f"| {number(line.mean)} | {number(line.sd)} | {span(line)} |"
        for line in result.lines(("dice",))
    ]
    head = [f"# Cross-validation of {result.name}", "", *rows, ""]
    return "\n".join(
        [*head, *[f"{note}\n" for note in result.notes], f"![Dice of every case]({PICTURE})", ""]
    )


def number(value: float) -> str:
    """A score as a table shows it."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def span(line: Line) -> str:
    """A confidence interval as a table shows it."""
    return "-" if math.isnan(line.low) else f"{number(line.low)} to {number(line.high)}"
