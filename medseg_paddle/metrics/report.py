"""What was measured, case by case and in summary."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from medseg_paddle.core import LabelSet
from medseg_paddle.errors import RecipeError
from medseg_paddle.metrics.overlap import METRICS, CaseCounts, ClassScores
from medseg_paddle.metrics.surface_cases import Distances, Surfaces

MEAN = "mean"
"""Name of the summary over all foreground classes."""

_LATER = ("truth_ml", "predicted_ml")  # evaluations of earlier versions lack them
TABLE_HEADER = ("class", "", *METRICS)
"""Column titles of :meth:`Report.table_rows`."""


@dataclass(frozen=True)
class Row:
    """Scores of one class in one case."""

    case: str
    name: str
    scores: ClassScores


@dataclass(frozen=True)
class Statistics:
    """Summary of one score; cases where it is NaN are left out.

    Attributes
    ----------
    mean, sd, median : float
        ``sd`` is the sample standard deviation (n - 1), NaN for fewer than two values.
    n : int
        Number of values.
    """

    mean: float
    sd: float
    median: float
    n: int


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes
    ----------
    rows : tuple of Row
        Every case and foreground class.
    summary : dict
        Class name to score name to Statistics over the cases. Where there are several classes,
        ``"mean"`` holds the plain average over the foreground classes of each statistic, and
        the number of all values; with one class it equals that class.
    distances : Distances or None
        What ``hd95``, ``assd`` and ``nsd`` are; None where surfaces were not compared.
    """

    rows: tuple[Row, ...]
    summary: dict[str, dict[str, Statistics]]
    distances: Distances | None = None

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, CaseCounts], labels: LabelSet, surfaces: Surfaces | None = None
    ) -> Report:
        """Score every case.

        Parameters
        ----------
        counts : mapping
            Case id to its counts.
        labels : LabelSet
            Names of the classes; the background gets no score.
        surfaces : Surfaces, optional
            Of the same cases.

        Raises
        ------
        RecipeError
            A class has the name of the summary over all classes.
        """
        if MEAN in labels.names:
            raise RecipeError(
                f"a class is named '{MEAN}', which stands for the average over all classes in a report",
                hint="give the class another name",
            )
        rows = []
        for case, case_counts in counts.items():
            if case_counts.num_classes != len(labels):
                raise ValueError(f"case {case} counts {case_counts.num_classes} classes, not {len(labels)}")
            found = case_counts.scores()
            if surfaces is not None:
                apart = surfaces.scores(case)
                found = tuple(replace(one, **asdict(two)) for one, two in zip(found, apart, strict=True))
            for label, scores in zip(labels.foreground, found, strict=True):
                rows.append(Row(case, label.name, scores))
        return cls.from_rows(rows, labels.names[1:], None if surfaces is None else surfaces.distances)

    @classmethod
    def from_rows(
        cls, rows: Iterable[Row], classes: Iterable[str], distances: Distances | None = None
    ) -> Report:
        """Summarise scores that were taken before, class by class in the order of `classes`."""
        kept = tuple(rows)
        summary = {
            name: {
                metric: _statistics(getattr(row.scores, metric) for row in kept if row.name == name)
                for metric in METRICS
            }
            for name in classes
        }
        over_classes = {
            metric: _average([statistics[metric] for statistics in summary.values()]) for metric in METRICS
        }
        return cls(kept, {**summary, MEAN: over_classes}, distances)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """What :meth:`to_json` wrote.

        Raises
        ------
        ValueError, KeyError, TypeError
            It is something else.
        """
        content = json.loads(text)
        rows = []
        for entry in content["cases"]:
            scores: dict[str, Any] = {
                field.name: math.nan if entry[field.name] is None else entry[field.name]
                for field in fields(ClassScores)
                if field.name in entry or field.name not in _LATER
            }
            rows.append(Row(entry["case"], entry["class"], ClassScores(**scores)))
        distances = content["distances"]
        return cls.from_rows(
            rows,
            [name for name in content["summary"] if name != MEAN],
            None if distances is None else Distances(**distances),
        )

    def named(self, name: str, metric: str) -> str:
        """A score's name with its unit: ``hd95 (mm)``; as it is where it has none."""
        return name if self.distances is None else name + self.distances.measure(metric)

    @property
    def mean_foreground_dice(self) -> float:
        """Average over the foreground classes of the mean Dice over the cases (NaN left out both times)."""
        return self.summary[MEAN]["dice"].mean

    def to_csv(self) -> str:
        """One line per case and class, an empty field where a score is NaN; the last one is the distances' unit.

        The volumes in ml stand where a voxel's volume is known.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("case", "class", *METRICS, "truth_pixels", "predicted_pixels", *_LATER, "unit"))
        for row in self.rows:
            values = (getattr(row.scores, metric) for metric in METRICS)
            writer.writerow(
                (
                    row.case,
                    row.name,
                    *("" if math.isnan(value) else f"{value:.6f}" for value in values),
                    row.scores.truth_pixels,
                    row.scores.predicted_pixels,
                    *(
                        "" if math.isnan(ml) else f"{ml:.4f}"
                        for ml in (row.scores.truth_ml, row.scores.predicted_ml)
                    ),
                    "" if self.distances is None else self.distances.unit,
                )
            )
        return stream.getvalue()

    def to_json(self) -> str:
        """Rows and summary, ``null`` where a score is NaN."""
        content = {
            "mean_foreground_dice": self.mean_foreground_dice,
            "distances": None if self.distances is None else asdict(self.distances),
            "summary": {
                name: {metric: asdict(value) for metric, value in scores.items()}
                for name, scores in self.summary.items()
            },
            "cases": [{"case": row.case, "class": row.name, **asdict(row.scores)} for row in self.rows],
        }
        return json.dumps(_without_nan(content), indent=1, allow_nan=False)

    def table_rows(self) -> list[tuple[str, ...]]:
        """Return the summary as text, mean, SD, median, n per class; columns as in :data:`TABLE_HEADER`."""
        names = [name for name in self.summary if name != MEAN or len(self.summary) > 2]
        rows: list[tuple[str, ...]] = []
        for name in names:
            scores = [self.summary[name][metric] for metric in METRICS]
            rows.append((name, "mean", *(_text(score.mean) for score in scores)))
            rows.append(("", "SD", *(_text(score.sd) for score in scores)))
            rows.append(("", "median", *(_text(score.median) for score in scores)))
            rows.append(("", "n", *(str(score.n) for score in scores)))
        return rows


def dice_by_case(text: str) -> dict[str, float]:
    """Mean Dice over the classes of each case, from :meth:`Report.to_json`.

    1 where a case has no Dice: its classes are absent in truth and prediction, as they should be.

    Raises
    ------
    ValueError
        The text is not of that form.
    """
    content = json.loads(text)
    found: dict[str, list[float]] = {}
    try:
        for row in content["cases"]:
            dice = found.setdefault(str(row["case"]), [])
            if row["dice"] is not None:
                dice.append(float(row["dice"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"there is no list of cases with a dice in it ({error})") from error
    for case, dice in found.items():
        if not all(0 <= value <= 1 for value in dice):  # nor NaN
            raise ValueError(f"a dice of {case} is not between 0 and 1")
    return {case: statistics.fmean(dice) if dice else 1.0 for case, dice in found.items()}


def _statistics(values: Iterable[float]) -> Statistics:
    valid = [value for value in values if not math.isnan(value)]
    if not valid:
        return Statistics(math.nan, math.nan, math.nan, 0)
    sd = statistics.stdev(valid) if len(valid) > 1 else math.nan
    return Statistics(statistics.fmean(valid), sd, statistics.median(valid), len(valid))


def _average(parts: list[Statistics]) -> Statistics:
    return Statistics(
        _statistics(part.mean for part in parts).mean,
        _statistics(part.sd for part in parts).mean,
        _statistics(part.median for part in parts).mean,
        sum(part.n for part in parts),
    )


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
