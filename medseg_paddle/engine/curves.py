"""What a training writes to its dashboard besides its scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_paddle.config import Recipe
from medseg_paddle.config.selection import score_name
from medseg_paddle.core import LabelSet
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.event_log import VALIDATION
from medseg_paddle.engine.listener import Listener
from medseg_paddle.engine.running_loss import RunningLoss


class LoopWriter:
    """The writer that `train()` fills: passes points on to the dashboard and the listener."""

    def __init__(
        self,
        dashboard: Dashboard,
        listener: Listener,
        images_per_iteration: int,
        running: RunningLoss,
    ) -> None:
        self._dashboard, self._listener, self._images = dashboard, listener, images_per_iteration
        self._running = running
        self._latest: dict[str, float] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Take one point of a curve."""
        number = float(np.asarray(value).ravel()[0])
        # train() has summed up the iterations since it was called, not those before a resumption.
        if tag == "Train/loss":
            number = self._running.mean
        elif tag.startswith("Train/loss_") and (parts := self._running.parts):
            number = parts[int(tag.removeprefix("Train/loss_"))]
        self._dashboard.add_scalar(tag, number, step)
        self._latest[tag] = number
        if (
            tag == "Train/reader_cost"
        ):  # the last one of a line: seconds of an iteration until it had its images
            iteration = max(self._latest["Train/batch_cost"], 1e-9)
            self._listener.iterated(
                step,
                self._latest["Train/loss"],
                self._latest["Train/lr"],
                self._images / iteration,
                min(number / iteration, 1.0),
            )

    def close(self) -> None:
        """Write what is left."""
        self._dashboard.close()


def introduce(dashboard: Dashboard, recipe: Recipe, facts: dict[str, Any], labels: LabelSet | None) -> None:
    """Show a run's settings, beside the curves that its comparison with others is about."""
    settings = {
        "recipe": recipe.name,
        "model": facts["model"],
        "parameters": facts["parameters"],
        "device": facts["device"],
        "cpu_kernels": facts["cpu_kernels"] or "none",
        "batch_size": recipe.batch_size,
        "iters": recipe.iters,
        "optimizer": recipe.optimizer.type,
        "learning_rate": recipe.lr_scheduler.learning_rate,
        "lr_scheduler": recipe.lr_scheduler.type,
        "loss": "+".join(loss.type for loss in recipe.loss.types),
        "precision": recipe.precision,
        "seed": recipe.seed,
        **recipe.searched,
    }
    curves = ["Train/loss"]
    if labels is not None:
        scores = [recipe.selection.name, *(score_name("dice", label.name) for label in labels.foreground)]
        curves += [f"{VALIDATION}{name}" for name in dict.fromkeys(scores)]
    dashboard.hyper_parameters(settings, curves)
