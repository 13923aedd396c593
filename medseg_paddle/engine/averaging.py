"""The moving average of the weights (``use_ema``)."""

from __future__ import annotations

import paddle
from paddle import nn


def start_average(average: nn.Layer, model: nn.Layer) -> None:
    """Let `average` begin as a copy of `model`, with all that its state dict has."""
    average.set_state_dict(model.state_dict())


def update_average(average: nn.Layer, model: nn.Layer, iteration: int, decay: float) -> None:
    r"""Move the average towards the weights after an iteration.

    .. math:: average_t = d_t \cdot average_{t-1} + (1 - d_t) \cdot weights_t, \quad d_t = \min(decay, 1 - 1 / (t + 1))

    as PaddleSeg does: the first iterations, which the start would outweigh for long, are averaged evenly. The
    running statistics of batch norms, which belong to the weights, are averaged with them; numbers that are
    no floating-point ones are those of the model.

    Parameters
    ----------
    average, model : nn.Layer
        Of one kind. `average` is changed in place.
    iteration : int
        Counted from 1, over all parts of a resumed training.
    decay : float
        Share that stays, 0..1.
    """
    share = min(decay, 1 - 1 / (iteration + 1))
    now = model.state_dict()
    with paddle.no_grad():
        for name, value in average.state_dict().items():
            new = now[name].detach()
            if paddle.is_floating_point(value):
                # A step towards the weights: where they stand still (frozen layers), the average does, too.
                new = value + (new.astype(value.dtype) - value) * (1 - share)
            paddle.assign(new, value)
