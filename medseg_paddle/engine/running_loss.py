"""The loss that is logged: a mean over the iterations since the line before, also across a resumption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


class RunningLoss:
    """Mean of the loss and of its parts since the last line of the log.

    It is saved with each checkpoint. So a run that was stopped between two lines logs the same number as one
    that was not.

    Parameters
    ----------
    log_iters : int
        A line is written after every so many iterations, counted from the first of the training.
    """

    def __init__(self, log_iters: int) -> None:
        self._log_iters = log_iters
        self._count, self._total = 0, 0.0
        self._parts: list[float] = []

    def add(self, iteration: int, total: float, parts: Sequence[float]) -> None:
        """Take in the loss of an iteration; one that is not finite (fp16 skips that step) is left out."""
        if (iteration - 1) % self._log_iters == 0:
            self._count, self._total, self._parts = 0, 0.0, []
        if not math.isfinite(total):
            return
        self._count += 1
        self._total += total
        before = self._parts or [0.0] * len(parts)
        self._parts = [one + other for one, other in zip(before, parts, strict=True)]

    @property
    def sum(self) -> float:
        """The mean, times the iterations of a line: what they would sum up to."""
        return self.mean * self._log_iters

    @property
    def mean(self) -> float:
        """Mean loss of an iteration; NaN where there is none."""
        return self._total / self._count if self._count else math.nan

    @property
    def parts(self) -> list[float]:
        """Mean of each part of the loss; empty where `train()` does not tell them."""
        return [part / self._count for part in self._parts]

    def state_dict(self) -> dict[str, Any]:
        """See :class:`medseg_paddle.engine.checkpoints.StatefulPart`."""
        return {"count": self._count, "total": self._total, "parts": self._parts}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """See :class:`medseg_paddle.engine.checkpoints.StatefulPart`."""
        self._count, self._total, self._parts = state["count"], state["total"], list(state["parts"])
