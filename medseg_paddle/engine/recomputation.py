"""Parts of a model that compute again for their gradients, in place of keeping what they computed.

Chen et al. 2016, https://arxiv.org/abs/1604.06174.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import paddle
from paddle import nn
from paddle.distributed.fleet.utils import recompute

from medseg_paddle.engine.onednn import interpolating_as_now
from medseg_paddle.errors import ModelError

_FORWARD = "forward"
_WEIGHTED = (nn.Conv2D, nn.Conv3D, nn.Conv2DTranspose, nn.Conv3DTranspose, nn.Linear)
BATCH_NORMS = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)
_CONTAINERS = (nn.LayerList, nn.LayerDict)


def checkpoint_blocks(model: nn.Layer) -> None:
    """Let the blocks of `model` keep only what goes into them while it trains, and compute again for the gradients.

    A block is a layer with two or more convolutions and no smaller such layer inside. The model stays what it
    is: classes, names, parameters and state dict do not change, nor does what it computes; batch norms follow
    the data once. Without gradients, in evaluation mode, and in a graph traced from it, nothing is different.

    Raises
    ------
    ModelError
        The model has no blocks.
    """
    blocks = _blocks(model)
    if not blocks:
        raise ModelError(
            f"{type(model).__name__} has no blocks of layers that could compute again",
            hint="train it without gradient_checkpointing",
        )
    for block in blocks:
        # A bound method, which a deep copy of the block binds to the copy.
        object.__setattr__(block, _FORWARD, MethodType(_checkpointed, block))


def recomputed(layer: nn.Layer, forward: Callable[..., Any], *inputs: Any) -> Any:
    """``forward(*inputs)``, of which only the inputs are kept; computed again when its gradients are wanted.

    The second time draws the same random numbers (dropout), and moves no running statistics.

    Parameters
    ----------
    layer : nn.Layer
        Whose forward it is.
    forward : callable
        Takes and returns tensors, or lists of them.
    *inputs
        What it takes.
    """
    tensors = paddle.utils.flatten(list(inputs))
    learning = any(not tensor.stop_gradient for tensor in (*tensors, *layer.parameters()))
    if not (layer.training and paddle.is_grad_enabled() and paddle.in_dynamic_mode() and learning):
        return forward(*inputs)
    if all(tensor.stop_gradient for tensor in tensors):
        # Paddle asks the inputs whether there are gradients to come.
        tensors[0] = tensors[0].detach()
        tensors[0].stop_gradient = False
    kernels = interpolating_as_now()
    shape: Any = None

    def compute(*flat: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        nonlocal shape
        again = paddle.is_grad_enabled()
        with kernels(), _statistics_kept(layer) if again else contextlib.nullcontext():
            found = forward(*paddle.utils.pack_sequence_as(list(inputs), list(flat)))
        shape = paddle.utils.map_structure(lambda _: 0, found)
        return tuple(paddle.utils.flatten(found))

    results = recompute(compute, *tensors)  # of one result, that
    return paddle.utils.pack_sequence_as(shape, paddle.utils.flatten(results))


def _checkpointed(layer: nn.Layer, *inputs: Any, **named: Any) -> Any:
    """In place of a block's forward."""
    if named:
        return type(layer).forward(layer, *inputs, **named)
    return recomputed(layer, functools.partial(type(layer).forward, layer), *inputs)


def _blocks(layer: nn.Layer, *, whole: bool = True) -> list[nn.Layer]:
    inside = [block for child in layer.children() for block in _blocks(child, whole=False)]
    if inside or whole or isinstance(layer, _CONTAINERS):
        return inside
    weighted = [part for part in layer.sublayers() if isinstance(part, _WEIGHTED)]
    return [layer] if len(weighted) >= 2 else []


@contextlib.contextmanager
def _statistics_kept(layer: nn.Layer) -> Iterator[None]:
    """Let the batch norms of `layer` keep all of their running statistics, and move them by nothing."""
    norms = [part for part in layer.sublayers(include_self=True) if isinstance(part, BATCH_NORMS)]
    momenta = [norm._momentum for norm in norms]
    for norm in norms:
        norm._momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm._momentum = momentum
