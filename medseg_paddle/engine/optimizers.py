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


def build_schedule(recipe: Recipe) -> paddle.optimizer.lr.LRScheduler:
    """The recipe's learning rate over the iterations; the warm-up comes before the schedule, as in PaddleSeg."""
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
    return schedule
