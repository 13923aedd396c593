"""Optimiser and learning-rate schedule of a recipe, PaddleSeg's own where it has them."""

from __future__ import annotations

from typing import Any

import paddle
import paddleseg.optimizers  # noqa: F401  (registers the optimisers with the manager)
from paddle import nn

from medseg_paddle.config import Recipe
from medseg_paddle.config.base import component_arguments
from medseg_paddle.engine.paddleseg_adapter import manager


def build_optimizer(recipe: Recipe, model: nn.Layer) -> paddle.optimizer.Optimizer:
    """The recipe's optimiser over the model's parameters."""
    spec = recipe.optimizer
    arguments = {k: v for k, v in component_arguments(spec).items() if v is not None}
    kind = {"sgd": "SGD", "adam": "Adam"}.get(spec.type, spec.type)
    if kind == "SGD" and "momentum" in arguments:
        kind = "Momentum"  # as PaddleSeg does
    if "grad_clip_cfg" in arguments:
        arguments["grad_clip_cfg"] = {k: v for k, v in arguments["grad_clip_cfg"].items() if v is not None}
    return manager.OPTIMIZERS[kind](**arguments)(model, build_schedule(recipe))


class _RateOfIteration(paddle.optimizer.lr.LRScheduler):  # type: ignore[misc]
    """A schedule whose learning rate follows from recipe and iteration alone, not from the rate before.

    Paddle computes a cosine from the former rate and takes that from a checkpoint. A run that had come to
    its end, and is made longer, would go on at the rate of that end.
    """

    def __init__(self, schedule: paddle.optimizer.lr.LRScheduler) -> None:
        self._schedule = schedule
        super().__init__(schedule.base_lr)

    def get_lr(self) -> float:
        self._schedule.step(self.last_epoch)  # with a number it takes the closed form
        return float(self._schedule())

    def set_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch = state_dict["last_epoch"]
        self.last_lr = self.get_lr()


def build_schedule(recipe: Recipe) -> paddle.optimizer.lr.LRScheduler:
    """The recipe's learning rate over the iterations; the warm-up comes before the schedule, as in PaddleSeg.

    Without ``T_max`` or ``decay_steps`` it ends with the recipe's iterations, also where a resumed run has
    more of them than before.
    """
    spec = recipe.lr_scheduler
    arguments: dict[str, Any] = {k: v for k, v in component_arguments(spec).items() if v is not None}
    warmup, start = arguments.pop("warmup_iters", 0), arguments.pop("warmup_start_lr", 0.0)
    remaining = max(recipe.iters - warmup, 1)
    if spec.type == "PolynomialDecay":
        arguments.setdefault("decay_steps", remaining)
    elif spec.type == "CosineAnnealingDecay":
        arguments.setdefault("T_max", remaining)
    schedule = getattr(paddle.optimizer.lr, spec.type)(**arguments)
    if warmup:
        schedule = paddle.optimizer.lr.LinearWarmup(schedule, warmup, start, spec.learning_rate)
    return _RateOfIteration(schedule)
