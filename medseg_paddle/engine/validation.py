"""The evaluations during a training: whole cases, scored as they will be reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import numpy as np
import paddle

from medseg_paddle.core import Case, LabelSet
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.event_log import AVERAGE, VALIDATION, eval_line
from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.listener import Listener
from medseg_paddle.engine.models import ForwardFunction
from medseg_paddle.engine.precision import mixed_precision
from medseg_paddle.engine.scoring import Scored, score_cases
from medseg_paddle.io.overlay import draw_comparison
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.run import Run


class Validation:
    """What `train()` calls in place of PaddleSeg's evaluation: whole cases, foreground Dice.

    Keeps the run's history, draws on the dashboard, and knows which score is the best, also of those before a
    resumption. `train()` knows only those since it was called; it is told a number that grows, so it offers the
    weights as the best each time, and :attr:`improved` says whether they are.

    Attributes
    ----------
    iteration : int
        The one that the weights are of.
    improved : dict of str to bool
        Whether the last score of ``"model"`` and of ``"ema"`` is the best so far.
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
        on_score: Sequence[Callable[[int, float], None]] = (),
    ) -> None:
        self._run, self._cases, self._labels = run, cases, labels
        self._dashboard, self._listener = dashboard, listener
        self.iteration, self._trained, self._stop = first_iter, trained, stop
        self._log = log
        self._on_score = on_score
        history = [entry for entry in run.history() if entry["iter"] <= first_iter]
        if dashboard is not None:
            run.set_history(history)
        self._best = {
            kind: max((e["score"] for e in history if e["weights"] == kind), default=-1.0)
            for kind in ("model", "ema")
        }
        self.improved = dict.fromkeys(self._best, False)

    def __call__(
        self, model: paddle.nn.Layer, _dataset: Any, **_options: Any
    ) -> tuple[float, float, None, None, None]:
        """Score, note, draw. The first value is for `train()` alone, see :class:`Validation`."""
        recipe, kind = self._run.recipe, "model" if model is self._trained else "ema"
        if self._dashboard is None:  # not rank 0, which alone saves checkpoints
            return -1.0, 0.0, None, None, None
        counts: dict[str, CaseCounts] = {}
        shown: dict[str, Scored] = {}
        forward = ForwardFunction(model, mixed_precision(recipe))
        for scored in score_cases(
            forward, self._cases, recipe, counts, probabilities=recipe.test_config.auc_roc
        ):
            if self._stop.wanted:  # scored anew when the run is resumed
                raise Stopped
            group = scored.case.group
            if group in shown or len(shown) < recipe.overlays:
                former = shown.get(group)
                if former is None or _foreground(scored) > _foreground(former):
                    shown[group] = scored
        report = Report.from_counts(counts, self._labels)
        # Without any foreground inside the regions of interest there is no score, and nothing is better than that.
        score = -1.0 if math.isnan(report.mean_foreground_dice) else report.mean_foreground_dice
        best = score > self._best[kind]
        self.improved[kind] = best
        self._best[kind] = max(score, self._best[kind])
        # The note comes last: a run that is killed amid this makes the validation again, and cuts the rest back.
        prefix = "" if kind == "model" else AVERAGE
        self._draw(self._dashboard, report, list(shown.values()), prefix)
        self._dashboard.sync()
        self._log.write(eval_line(self.iteration, recipe.iters, report.mean_foreground_dice, prefix))
        self._log.flush()
        self._note(report, kind, score)
        if kind == "model":
            for tell in self._on_score:
                tell(self.iteration, score)
        self._listener.validated(self.iteration, report, best=best)
        return float(self.iteration), 0.0, None, None, None

    def _note(self, report: Report, kind: str, score: float) -> None:
        dice = {label.name: report.summary[label.name]["dice"].mean for label in self._labels.foreground}
        entry = {"iter": self.iteration, "weights": kind, "score": score, "dice": dice}
        self._run.set_history([*self._run.history(), entry])

    def _draw(self, dashboard: Dashboard, report: Report, shown: list[Scored], prefix: str) -> None:
        dashboard.scalar(
            f"{VALIDATION}{prefix}mean foreground Dice", report.mean_foreground_dice, self.iteration
        )
        for label in self._labels.foreground:
            summary = report.summary[label.name]
            dashboard.scalar(f"{VALIDATION}{prefix}Dice {label.name}", summary["dice"].mean, self.iteration)
            dashboard.scalar(f"{VALIDATION}{prefix}IoU {label.name}", summary["iou"].mean, self.iteration)
            if self._run.recipe.test_config.auc_roc:
                dashboard.scalar(f"{VALIDATION}{prefix}AUC {label.name}", summary["auc"].mean, self.iteration)
        if not prefix:
            for scored in shown:
                picture = draw_comparison(
                    scored.image.astype(np.uint8), scored.truth, scored.prediction, self._labels
                )
                dashboard.image(f"{VALIDATION}{scored.case.group}", picture, self.iteration)


def _foreground(scored: Scored) -> int:
    return int(np.count_nonzero((scored.truth != 0) & (scored.truth != 255)))
