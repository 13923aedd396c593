"""Who is told how a training goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Listener(Protocol):
    """Who wants to know how the training goes."""

    def surveyed(self, done: int, total: int, what: str) -> None:
        """A label was looked at before the start."""

    def doubted(self, what: str) -> None:
        """Something found before the start may be wrong, and may be meant."""

    def initialised(self, summary: str, layers: Sequence[str]) -> None:
        """The weights to start from were read; a line for each layer that is not as in their source."""

    def started(self, folder: Path, facts: dict[str, Any], first_iter: int, iters: int) -> None:
        """The loop begins."""

    def iterated(
        self, step: int, loss: float, learning_rate: float, images_per_second: float, waiting: float
    ) -> None:
        """A few iterations are done; `waiting` is the share of their time spent waiting for images."""

    def validated(self, step: int, name: str, score: float, *, best: bool) -> None:
        """The validation cases were scored; `name` is that of the score, which is NaN where there is none.

        That of the moving average begins with ``EMA``, as its curves do.
        """

    def stopped(self, step: int, iters: int, *, time_is_up: bool) -> None:
        """A signal, lost images, or the end of the time ended the training; its state after `step` is saved."""

    def stopped_early(self, step: int) -> None:
        """The training no longer got better; it is finished."""
