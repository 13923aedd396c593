"""Batch norms that see the whole batch, where several processes have a share of it each.

What `nn.SyncBatchNorm` does, which Paddle 3.2.2 has for GPUs alone.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from medseg_paddle.engine.losses.label_loss import per_class, pixel_sums
from medseg_paddle.engine.ranks import Ranks
from medseg_paddle.engine.recomputation import BATCH_NORMS

_FORWARD = "forward"


def share_batch_norms(model: nn.Layer, ranks: Ranks) -> None:
    """Let the batch norms of `model` normalise by the images of all processes while it trains.

    So do their running statistics. The layers stay what they are: classes, names, parameters and state dict do not
    change. In evaluation mode, where their statistics are frozen, and in a graph traced from the model they compute as
    before.

    Parameters
    ----------
    model : nn.Layer
    ranks : Ranks
        Each with as many images, of one size, and with the same model.
    """
    if ranks.count == 1:
        return

    def forward(layer: nn.Layer, x: paddle.Tensor) -> paddle.Tensor:
        learning = layer.training and not layer._use_global_stats  # noqa: SLF001  (no public way)
        if not (learning and paddle.in_dynamic_mode()):
            return type(layer).forward(layer, x)
        with paddle.amp.auto_cast(enable=False):
            return _normalised(layer, x.astype("float32"), ranks).astype(x.dtype)

    for layer in model.sublayers(include_self=True):
        if isinstance(layer, BATCH_NORMS):
            # A bound method, which a deep copy of the layer binds to the copy.
            object.__setattr__(layer, _FORWARD, MethodType(forward, layer))


def _normalised(layer: nn.Layer, x: paddle.Tensor, ranks: Ranks) -> paddle.Tensor:
    """What the layer makes of its share `x` float32 ``[N, C, ...]`` of the batch; its statistics follow the batch."""
    with paddle.no_grad():
        numbers = x.size // x.shape[1]
        mean = pixel_sums(x) / numbers
        variance = pixel_sums((x - per_class(mean, x)) ** 2) / numbers
        every = ranks.each(paddle.stack([mean, variance]))
        mean = every[:, 0].mean(0)
        # As many numbers in each process (Chan et al. 1983): what is within them, and what is between them.
        variance = (every[:, 1] + (every[:, 0] - mean) ** 2).mean(0)
        share = layer._momentum  # noqa: SLF001  (no public way, as below)
        for running, new in ((layer._mean, mean), (layer._variance, variance)):  # noqa: SLF001
            paddle.assign(running * share + new * (1 - share), running)
        scale = paddle.rsqrt(variance + layer._epsilon)  # noqa: SLF001
    y = _Normalise.apply(x, layer.weight, layer.bias, mean, scale, ranks)
    activation = getattr(layer, "_act", None)  # of the older `nn.BatchNorm`
    return y if activation is None else getattr(F, activation)(y)


class _Normalise(PyLayer):  # type: ignore[misc]
    """``(x - mean) * scale * weight + bias``, where mean and scale are made of the `x` of all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
        mean: paddle.Tensor,
        scale: paddle.Tensor,
        ranks: Ranks,
    ) -> paddle.Tensor:
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.wanted, ctx.ranks = [not value.stop_gradient for value in (x, weight, bias)], ranks
        return (x - per_class(mean, x)) * per_class(scale * weight, x) + per_class(bias, x)

    @staticmethod
    def backward(ctx: Any, dy: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensor()
        normal = (x - per_class(mean, x)) * per_class(scale, x)
        # Of parameters each process has its own part; all are added up before the step, as all gradients are.
        of_weight, of_bias = pixel_sums(dy * normal), pixel_sums(dy)
        whole = ctx.ranks.each(paddle.stack([of_weight, of_bias])).sum(0)
        numbers = ctx.ranks.count * (x.size // x.shape[1])
        through = (per_class(whole[0], x) * normal + per_class(whole[1], x)) / numbers
        of_x = (dy - through) * per_class(scale * weight, x)
        found = [
            value if wanted else None
            for value, wanted in zip((of_x, of_weight, of_bias), ctx.wanted, strict=True)
        ]
        return (*found, None, None)
