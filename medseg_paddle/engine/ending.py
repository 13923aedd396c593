"""The ways in which a training ends before its last iteration."""

from __future__ import annotations

import math
import time

from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.ranks import ALONE, Ranks
from medseg_paddle.engine.validation import Validation


class Ending:
    """Looks between iterations whether the training is to stop, time is up, or it gets no better.

    Parameters
    ----------
    validation : Validation
        Knows when the patience of `early_stopping` is spent.
    stop : StopSignals
    end_at : float
        Time of `time.monotonic` from which on no iteration is begun, but for the first one: a run that is
        resumed again and again gets on.
    ranks : Ranks
        What one of these processes finds holds for all.

    Attributes
    ----------
    early : bool
        Whether the training gets no better: it is finished, and its last checkpoint is written.
    time_is_up : bool
        Whether it is the time that ended it.
    """

    def __init__(
        self, validation: Validation, stop: StopSignals, end_at: float = math.inf, ranks: Ranks = ALONE
    ) -> None:
        self._validation, self._stop, self._end_at, self._ranks = validation, stop, end_at, ranks
        self._begun = self.early = self.time_is_up = False

    def before_iteration(self) -> None:
        """What was due after the iteration before is scored and saved.

        Raises
        ------
        Stopped
            The training ends.
        """
        stopped, early, time_is_up = self._ranks.any_of(
            self._stop.wanted,
            self._validation.patience_spent,
            self._begun and time.monotonic() >= self._end_at,
        )
        self._begun = True
        if not stopped:
            self.early, self.time_is_up = early, time_is_up
        if stopped or early or time_is_up:
            raise Stopped
