"""The ways in which a training ends by itself before its last iteration."""

from __future__ import annotations

import math
import time

from medseg_paddle.engine.interruption import Stopped
from medseg_paddle.engine.validation import Validation


class Ending:
    """Looks between iterations whether time is up, or the training gets no better.

    Parameters
    ----------
    validation : Validation
        Knows when the patience of `early_stopping` is spent.
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

    def __init__(self, validation: Validation, end_at: float = math.inf) -> None:
        self._validation, self._end_at = validation, end_at
        self._begun = self.early = self.time_is_up = False

    def before_iteration(self) -> None:
        """What was due after the iteration before is scored and saved.

        Raises
        ------
        Stopped
            The training ends.
        """
        self.early = self._validation.patience_spent
        self.time_is_up = self._begun and time.monotonic() >= self._end_at
        self._begun = True
        if self.early or self.time_is_up:
            raise Stopped
