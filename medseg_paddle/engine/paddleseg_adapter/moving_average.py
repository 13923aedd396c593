"""The moving average of the weights that PaddleSeg's `train()` keeps, within reach of checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import paddle

from medseg_paddle.engine.averaging import start_average, update_average
from medseg_paddle.engine.models import load_weights


class MovingAverage:
    """What `train()` calls in place of its own to make, to begin and to move the average.

    The stock `train()` neither gives the average away, so that a stop could save it, nor loads one.

    Parameters
    ----------
    saved : Path or None
        File of the average to go on from.
    decay : float
        See :func:`medseg_paddle.engine.averaging.update_average`.

    Attributes
    ----------
    model : paddle.nn.Layer or None
        The network with the averaged weights, once `train()` has made it.
    """

    def __init__(self, saved: Path | None, decay: float) -> None:
        self._saved, self._decay = saved, decay
        self.model: paddle.nn.Layer | None = None

    def make(self, model: paddle.nn.Layer) -> paddle.nn.Layer:
        """In place of `deepcopy`, which `train()` calls for this alone."""
        self.model = copy.deepcopy(model)
        return self.model

    def begin(self, average: paddle.nn.Layer, model: paddle.nn.Layer) -> None:
        """In place of `init_ema_params`: the first iteration of this process begins."""
        if self._saved is None:
            start_average(average, model)
        else:
            load_weights(average, self._saved)

    def update(self, average: paddle.nn.Layer, model: paddle.nn.Layer, *, step: int) -> None:
        """In place of `update_ema_model`: an iteration is done."""
        update_average(average, model, step, self._decay)

    def state_dict(self) -> Any | None:
        """Weights to save; None where there is no average."""
        return None if self.model is None else self.model.state_dict()
