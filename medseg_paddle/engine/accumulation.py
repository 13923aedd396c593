"""Batches that are computed in parts, one after the other, with the gradients of the whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import paddle
from paddle import nn

from medseg_paddle.config import Recipe
from medseg_paddle.engine.recomputation import checkpoint_blocks, recomputed


def save_memory(model: nn.Layer, recipe: Recipe) -> None:
    """Let `model` compute as the recipe's `gradient_checkpointing` and `gradient_accumulation` say."""
    if recipe.gradient_checkpointing:
        checkpoint_blocks(model)
    if recipe.gradient_accumulation > 1:
        compute_in_parts(model, recipe.gradient_accumulation)


def compute_in_parts(model: nn.Layer, parts: int) -> None:
    """Let `model` compute a training batch in parts; only one part's results are in memory at a time.

    What comes out is the whole batch's output, so that a loss over the batch (Dice) is what it is without
    parts, and so are its gradients, up to rounding. They are had by computing each part once more. Batch norms
    see a part's images in place of the batch's, and follow each part once.

    The model stays what it is: class, names, parameters and state dict do not change. Without gradients, in
    evaluation mode, and in a graph traced from it, it computes as before.

    Parameters
    ----------
    model : nn.Layer
        Its forward takes images ``[N, C, H, W]`` and returns a list of tensors with an entry per image.
    parts : int
        As equal as may be; not more than there are images.
    """
    object.__setattr__(model, "forward", _InParts(model, model.forward, parts))


class _InParts:
    """In place of a model's forward. A deep copy of the model gets one that computes the copy."""

    def __init__(self, model: nn.Layer, forward: Callable[[paddle.Tensor], Any], parts: int) -> None:
        self._model, self._forward, self._parts = model, forward, parts

    def __call__(self, images: paddle.Tensor) -> Any:
        if not (self._model.training and paddle.is_grad_enabled() and paddle.in_dynamic_mode()):
            return self._forward(images)
        count = min(self._parts, images.shape[0])
        ends = [images.shape[0] * n // count for n in range(count + 1)]
        results = [
            recomputed(self._model, self._forward, images[start:end])
            for start, end in itertools.pairwise(ends)
        ]
        return [paddle.concat(output) for output in zip(*results, strict=True)]
