"""The evaluations during a training: whole cases, scored as they will be reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle

from medseg_paddle.config.selection import OVER_CLASSES, Metric, score_name
from medseg_paddle.core import Case, LabelSet
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.listener import Listener
from medseg_paddle.engine.models import ForwardFunction
from medseg_paddle.engine.scoring import Scored, score_cases
from medseg_paddle.io.overlay import draw_comparison
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.run import Run

_NOT_BETTER = -2.0  # train() starts its own memory of the best score at -1 whenever it is called


class Validation:
    """What `train()` calls in place of PaddleSeg's evaluation: whole cases, the score of `recipe.selection`.

    Keeps the run's history, draws on the dashboard, and returns what picks the best checkpoint. A resumed
    run knows the best score from before.

    Parameters
    ----------
    on_score : sequence of callable
        Called after each evaluation of the trained weights (not of their moving average) with the iteration
        and the score as it is shown, NaN where there is none; which way is better, `recipe.selection` knows.

    Attributes
    ----------
    iteration : int
        The one that the weights are of.
    patience_spent : bool
        Whether the latest evaluation used up the patience of `early_stopping`.
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
        on_score: Sequence[Callable[[int, float], None]] = (),
    ) -> None:
        self._run, self._cases, self._labels = run, cases, labels
        self._dashboard, self._listener = dashboard, listener
        self.iteration, self._trained, self._stop = first_iter, trained, stop
        self._on_score = tuple(on_score)
        self._selection = run.recipe.selection
        self._with_auc = run.recipe.test_config.auc_roc or self._selection.metric == "auc"
        history = [entry for entry in run.history() if entry["iter"] <= first_iter]
        if dashboard is not None:
            run.set_history(history)
        self.patience_spent = run.patience_spent_at(first_iter) is not None
        self._best = {
            kind: max(
                (self._selection.gain(entry["score"]) for entry in history if entry["weights"] == kind),
                default=-math.inf,
            )
            for kind in ("model", "ema")
        }

    def __call__(
        self, model: paddle.nn.Layer, _dataset: Any, **_options: Any
    ) -> tuple[float, float, None, None, None]:
        """Score, note, draw. The first value picks the best checkpoint (greatest wins)."""
        recipe, kind = self._run.recipe, "model" if model is self._trained else "ema"
        if self._dashboard is None:  # not rank 0, which alone saves checkpoints
            return _NOT_BETTER, 0.0, None, None, None
        counts: dict[str, CaseCounts] = {}
        shown: dict[str, Scored] = {}
        forward = ForwardFunction(model, recipe.amp_level if recipe.precision == "fp16" else None)
        for scored in score_cases(forward, self._cases, recipe, counts, probabilities=self._with_auc):
            if self._stop.wanted:  # scored anew when the run is resumed
                raise Stopped
            group = scored.case.group
            if group in shown or len(shown) < recipe.overlays:
                former = shown.get(group)
                if former is None or _foreground(scored) > _foreground(former):
                    shown[group] = scored
        report = Report.from_counts(counts, self._labels)
        score = report.summary[self._selection.label][self._selection.metric].mean
        gain = self._selection.gain(score)
        best = gain > self._best[kind]  # without a score, nothing is better than that
        self._best[kind] = max(gain, self._best[kind])
        self._note(report, kind, score)
        self._draw(self._dashboard, report, list(shown.values()), "" if kind == "model" else "EMA ")
        self._listener.validated(self.iteration, self._selection.name, score, best=best)
        if kind == "model":
            for told in self._on_score:
                told(self.iteration, score)
        picked = 1 / (1 + score) if self._selection.smaller_is_better else score
        return (picked if best else _NOT_BETTER), 0.0, None, None, None

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
            dashboard.scalar(f"Validation/{prefix}{score_name(metric, name)}", value, self.iteration)
        if not prefix:
            for scored in shown:
                picture = draw_comparison(
                    scored.image.astype(np.uint8), scored.truth, scored.prediction, self._labels
                )
                dashboard.image(f"Validation/{scored.case.group}", picture, self.iteration)


def _foreground(scored: Scored) -> int:
    return int(np.count_nonzero((scored.truth != 0) & (scored.truth != 255)))
