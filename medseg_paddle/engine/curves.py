"""What a training writes to its dashboard besides its scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_paddle.config import Recipe
from medseg_paddle.core import LabelSet
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.listener import Listener


class LoopWriter:
    """The writer that `train()` fills: passes points on to the dashboard and the listener."""

    def __init__(
        self,
        dashboard: Dashboard,
        listener: Listener,
        images_per_iteration: int,
        first_iter: int,
        log_iters: int,
    ) -> None:
        self._dashboard, self._listener, self._images = dashboard, listener, images_per_iteration
        self._first_iter, self._log_iters = first_iter, log_iters
        self._latest: dict[str, float] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Take one point of a curve."""
        number = float(np.asarray(value).ravel()[0])
        if tag.startswith("Train/loss"):
            # train() divides by log_iters also where it summed up fewer losses, after a resumption between two lines.
            number *= self._log_iters / min(self._log_iters, step - self._first_iter)
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
        curves += [f"Validation/Dice {label.name}" for label in labels.foreground]
    dashboard.hyper_parameters(settings, curves)
