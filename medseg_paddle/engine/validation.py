"""The evaluations during a training: whole cases, scored as they will be reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TextIO

import numpy as np
import paddle

from medseg_paddle.config.selection import OVER_CLASSES, Metric, score_name
from medseg_paddle.core import Case, LabelSet
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.event_log import AVERAGE, VALIDATION, eval_line
from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.listener import Listener
from medseg_paddle.engine.models import ForwardFunction
from medseg_paddle.engine.precision import MixedPrecision
from medseg_paddle.engine.ranks import ALONE, Ranks
from medseg_paddle.engine.scoring import Scored, require_rules_for, score_cases, surfaces_of
from medseg_paddle.io.overlay import draw_comparison
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.metrics.surface_cases import SURFACE_METRICS, Surfaces
from medseg_paddle.run import Run


class Validation:
    """What `train()` calls in place of PaddleSeg's evaluation: whole cases, the score of `recipe.selection`.

    Keeps the run's history, draws on the dashboard, and knows which score is the best, also of those before a
    resumption. `train()` knows only those since it was called; it is told a number that grows, so it offers the
    weights as the best each time, and :attr:`improved` says whether they are.

    Parameters
    ----------
    log : text stream
        The run's text log.
    ranks : Ranks
        Each of these processes scores its share of the cases, and has the scores of all; the first alone writes.
    mixed : MixedPrecision, optional
        What it computes in.
    on_score : sequence of callable
        Called after each evaluation of the trained weights (not of their moving average) with the iteration
        and the score as it is shown, NaN where there is none; which way is better, `recipe.selection` knows.

    Attributes
    ----------
    iteration : int
        The one that the weights are of.
    improved : dict of str to bool
        Whether the last score of ``"model"`` and of ``"ema"`` is the best so far.
    patience_spent : bool
        Whether the latest evaluation used up the patience of `early_stopping`; known to the process that writes.
    """

    def __init__(
        self,
        run: Run,
        cases: Sequence[Case],
        labels: LabelSet,
        dashboard: Dashboard | None,
        listener: Listener,
        first_iter: int,
        trained: paddle.nn.Layer,
        stop: StopSignals,
        *,
        log: TextIO,
        ranks: Ranks = ALONE,
        mixed: MixedPrecision | None = None,
        on_score: Sequence[Callable[[int, float], None]] = (),
    ) -> None:
        self._run, self._cases, self._labels = run, cases, labels
        require_rules_for(cases, run.recipe, labels)  # before an hour of training, not after
        self._dashboard, self._listener = dashboard, listener
        self.iteration, self._trained, self._stop = first_iter, trained, stop
        self._log, self._ranks, self._mixed = log, ranks, mixed
        self._on_score = tuple(on_score)
        self._selection = run.recipe.selection
        self._with_auc = run.recipe.test_config.auc_roc or self._selection.metric == "auc"
        history = [entry for entry in run.history() if entry["iter"] <= first_iter]
        if dashboard is not None:
            run.set_history(history)
        # Only who goes on to note scores knows it: they may yet be better than those that are there.
        self.patience_spent = ranks.first and run.patience_spent_at(first_iter) is not None
        self._best = {
            kind: max(
                (self._selection.gain(entry["score"]) for entry in history if entry["weights"] == kind),
                default=-math.inf,
            )
            for kind in ("model", "ema")
        }
        self.improved = dict.fromkeys(self._best, False)

    def __call__(
        self, model: paddle.nn.Layer, _dataset: Any, **_options: Any
    ) -> tuple[float, float, None, None, None]:
        """Score, note, draw. The first value is for `train()` alone, see :class:`Validation`."""
        kind = "model" if model is self._trained else "ema"
        counts, shown, surfaces = self._scored(model)
        report = Report.from_counts(counts, self._labels, surfaces)
        score = report.summary[self._selection.label][self._selection.metric].mean
        name = report.named(self._selection.name, self._selection.metric)
        gain = self._selection.gain(score)
        best = gain > self._best[kind]  # without a score, nothing is better than that
        self.improved[kind] = best
        self._best[kind] = max(gain, self._best[kind])
        prefix = "" if kind == "model" else AVERAGE
        if self._dashboard is not None:
            # The note comes last: a run that is killed amid this makes the validation again, and cuts the rest back.
            self._draw(self._dashboard, report, list(shown.values()), prefix)
            self._dashboard.sync()
            self._log.write(eval_line(self.iteration, self._run.recipe.iters, name, score, prefix))
            self._log.flush()
            self._note(report, kind, score)
        if kind == "model":
            for tell in self._on_score:
                tell(self.iteration, score)
        self._listener.validated(self.iteration, prefix + name, score, best=best)
        return float(self.iteration), 0.0, None, None, None

    def _scored(
        self, model: paddle.nn.Layer
    ) -> tuple[dict[str, CaseCounts], dict[str, Scored], Surfaces | None]:
        """Counts of all whole cases, of some one image each, in the order of the cases; and the cases' surfaces."""
        recipe = self._run.recipe
        groups = list(dict.fromkeys(case.group for case in self._cases))
        drawn = set(groups[: recipe.overlays])
        counts: dict[str, CaseCounts] = {}
        shown: dict[str, Scored] = {}
        forward = ForwardFunction(model, self._mixed)
        # Comparing surfaces takes time that only a training which is chosen by them has to spend.
        surfaces = surfaces_of(self._cases, recipe) if self._selection.metric in SURFACE_METRICS else None
        own = shares(self._cases, self._ranks.count)[self._ranks.rank]
        stopped = False
        for scored in score_cases(
            forward,
            own,
            recipe,
            counts,
            labels=self._labels,
            probabilities=self._with_auc,
            surfaces=surfaces,
        ):
            stopped = self._stop.wanted
            if stopped:  # scored anew when the run is resumed
                break
            group = scored.case.group
            if group in drawn:
                former = shown.get(group)
                if former is None or scored.foreground > former.foreground:
                    shown[group] = replace(scored, image=scored.image.astype(np.uint8), volume=None)
        if any(self._ranks.any_of(stopped)):
            raise Stopped
        found = self._ranks.from_all((counts, shown, surfaces))
        every = {name: part for counted, _, _ in found for name, part in counted.items()}
        pictures = {name: picture for _, kept, _ in found for name, picture in kept.items()}
        for _, _, other in found:
            if surfaces is not None and other is not None:
                surfaces.take(other)
        return (
            {name: every[name] for name in groups},
            {name: pictures[name] for name in groups if name in pictures},
            surfaces,
        )

    def _note(self, report: Report, kind: str, score: float) -> None:
        dice = {label.name: report.summary[label.name]["dice"].mean for label in self._labels.foreground}
        entry = {
            "iter": self.iteration,
            "weights": kind,
            "score": None if math.isnan(score) else score,
            "metric": self._selection.metric,
            "label": self._selection.label,
            "dice": dice,
        }
        self._run.set_history([*self._run.history(), entry])
        self.patience_spent = self._run.patience_spent_at(self.iteration) is not None

    def _draw(self, dashboard: Dashboard, report: Report, shown: list[Scored], prefix: str) -> None:
        curves: list[tuple[Metric, str]] = [
            ("dice", OVER_CLASSES),
            (self._selection.metric, self._selection.label),
        ]
        for label in self._labels.foreground:
            curves += [("dice", label.name), ("iou", label.name)]
            curves += [("auc", label.name)] if self._with_auc else []
        for metric, name in dict.fromkeys(curves):
            value = report.summary[name][metric].mean
            tag = f"{VALIDATION}{prefix}{report.named(score_name(metric, name), metric)}"
            dashboard.scalar(tag, value, self.iteration)
        if not prefix:
            for scored in shown:
                picture = draw_comparison(scored.image, scored.truth, scored.prediction, self._labels)
                dashboard.image(f"{VALIDATION}{scored.case.group}", picture, self.iteration)


def shares(cases: Sequence[Case], count: int) -> list[list[Case]]:
    """Images for each of `count` processes to score, as even as may be; those of a whole case stay together."""
    members: dict[str, list[Case]] = {}
    for case in cases:
        members.setdefault(case.group, []).append(case)
    found: list[list[Case]] = [[] for _ in range(count)]
    for images in members.values():
        min(found, key=len).extend(images)
    return found
