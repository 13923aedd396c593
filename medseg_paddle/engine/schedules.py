"""Learning rates over the iterations of a recipe, Paddle's own where it has them."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import paddle

from medseg_paddle.config import Recipe
from medseg_paddle.config.base import component_arguments
from medseg_paddle.config.optimisation import OneCycleLR, ReduceOnPlateau


def build_schedule(recipe: Recipe) -> paddle.optimizer.lr.LRScheduler:
    """The recipe's learning rate over the iterations; the warm-up comes before the schedule, as in PaddleSeg.

    Without ``T_max``, ``decay_steps`` or ``total_steps`` it ends with the recipe's iterations, also where a
    resumed run has more of them than before.
    """
    spec = recipe.lr_scheduler
    if isinstance(spec, ReduceOnPlateau):
        return RateOnPlateau(spec)
    arguments: dict[str, Any] = {k: v for k, v in component_arguments(spec).items() if v is not None}
    if isinstance(spec, OneCycleLR):
        arguments.setdefault("total_steps", recipe.iters)
        # Paddle's goes beyond its end in the step after the last.
        return _RateOfIteration(paddle.optimizer.lr.OneCycleLR(**arguments), arguments["total_steps"] - 1)
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


class _Followed(paddle.optimizer.lr.LRScheduler):  # type: ignore[misc]
    """A schedule that takes nothing but the iteration from a checkpoint.

    Paddle's take the rate too. A run that had come to its end, and is made longer, would go on at the rate
    of that end.
    """

    @abstractmethod
    def get_lr(self) -> float:
        """The learning rate of the iteration after ``last_epoch``, which counts iterations here."""

    def set_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch = state_dict["last_epoch"]
        self.last_lr = self.get_lr()


class _RateOfIteration(_Followed):
    """A schedule whose learning rate follows from recipe and iteration alone, not from the rate before.

    Parameters
    ----------
    schedule : LRScheduler
        Paddle's.
    last : int, optional
        Iteration from which on its rate stays.
    """

    def __init__(self, schedule: paddle.optimizer.lr.LRScheduler, last: int | None = None) -> None:
        self._schedule, self._last = schedule, last
        super().__init__(schedule.base_lr)

    def get_lr(self) -> float:
        iteration = self.last_epoch if self._last is None else min(self.last_epoch, self._last)
        self._schedule.step(iteration)  # with a number it takes the closed form
        return float(self._schedule())


class RateOnPlateau(_Followed):
    """A learning rate that follows from the iteration and the validation scores before it.

    The scores are the run's history, which a checkpoint need not repeat: whoever resumes a training tells
    those up to its checkpoint again.

    Parameters
    ----------
    spec : ReduceOnPlateau
    """

    def __init__(self, spec: ReduceOnPlateau) -> None:
        self._spec, self._warmup = spec, spec.warmup_iters or 0
        self._scores: dict[int, float] = {}
        super().__init__(spec.learning_rate)

    def validated(self, iteration: int, score: float) -> None:
        """Take the score of the weights after `iteration`; greater is better, NaN is none."""
        self._scores[iteration] = -math.inf if math.isnan(score) else score
        self.last_lr = self.get_lr()

    def get_lr(self) -> float:
        """The learning rate of the next iteration."""
        spec, now = self._spec, self.last_epoch
        if now < self._warmup:
            start = spec.warmup_start_lr or 0.0
            return float(start + (spec.learning_rate - start) * now / self._warmup)
        names = ("factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "epsilon")
        plateau = _Plateau(spec.learning_rate, mode="max", **{name: getattr(spec, name) for name in names})
        for iteration in sorted(self._scores):
            if self._warmup <= iteration <= now:
                plateau.step(self._scores[iteration])
        return float(plateau())


class _Plateau(paddle.optimizer.lr.ReduceOnPlateau):  # type: ignore[misc]
    """Paddle's, for scores of any sign: a share of a negative best would make every equal score a better one."""

    def _is_better(self, current: float, best: float) -> bool:
        if math.isinf(best):
            return current > best
        least = self.threshold * (abs(best) if self.threshold_mode == "rel" else 1.0)
        return bool(current > best + least)
