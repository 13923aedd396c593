"""The ways in which a training ends before its last iteration."""

from __future__ import annotations

import math
import time

from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.validation import Validation


class Ending:
    """What `train()` calls between iterations: ends it by a signal, when time is up, or when it gets no better.

    Parameters
    ----------
    validation : Validation
        Told each iteration; knows when the patience of `early_stopping` is spent.
    stop : StopSignals
    first_iter, iters : int
        Iterations done before, and in all.
    end_at : float
        Time of `time.monotonic` from which on no iteration is begun, but for the first one: a run that is
        resumed again and again gets on.

    Attributes
    ----------
    early : bool
        Whether the training gets no better: it is finished, and its last checkpoint is written.
    time_is_up : bool
        Whether it is the time that ended it.
    """

    def __init__(
        self,
        validation: Validation,
        stop: StopSignals,
        first_iter: int,
        iters: int,
        end_at: float = math.inf,
    ) -> None:
        self._validation, self._stop = validation, stop
        self._first_iter, self._end_at = first_iter, end_at
        self.early, self.time_is_up = validation.patience_spent and first_iter < iters, False

    def after_step(self, iteration: int) -> None:
        """Weights, optimiser and learning rate have made this iteration; nothing of it is scored or saved yet."""
        self._validation.iteration = iteration
        if self._stop.wanted:
            raise Stopped

    def before_iteration(self, iteration: int) -> None:
        """An iteration, counted from 1, begins; what was due after the one before is scored and saved."""
        self.early = self._validation.patience_spent
        self.time_is_up = iteration > self._first_iter + 1 and time.monotonic() >= self._end_at
        if self.early or self.time_is_up:
            raise Stopped
