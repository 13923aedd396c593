"""A few iterations of a real training, of which nothing is kept but what was measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case
from medseg_paddle.engine.data import Survey
from medseg_paddle.engine.freezing import Freezing
from medseg_paddle.engine.initialise import initialise
from medseg_paddle.engine.interruption import Stopped
from medseg_paddle.engine.models import build_model
from medseg_paddle.engine.optimizers import build_optimizer
from medseg_paddle.engine.paddleseg_adapter.loop import Hooks, LoadingFailed, run_train
from medseg_paddle.engine.paddleseg_adapter.moving_average import MovingAverage
from medseg_paddle.engine.precision import mixed_precision, training_in_bf16
from medseg_paddle.engine.randomness import seed_everything
from medseg_paddle.engine.streams import batch_bytes, training_stream
from medseg_paddle.engine.training import build_alignment, loop_arguments, set_up
from medseg_paddle.io.decoded import DecodedImages

Told = Callable[[int, float], bool]
"""Iteration and its loss, taken before the weights' step -> whether to go on."""


def try_out(
    recipe: Recipe,
    cases: Sequence[Case],
    *,
    found: Survey,
    decoded: DecodedImages,
    device: str,
    iters: int,
    told: Told,
    class_weights: tuple[float, ...] | None,
    rates: Sequence[float] | None = None,
) -> None:
    """Train `recipe` from its fresh weights for some iterations, as `medseg train` would.

    The same seed, stream of images, losses, optimiser, precision and kernels. There is no validation, and no
    file is left.

    Parameters
    ----------
    recipe : Recipe
    cases : sequence of Case
        The training's.
    found, decoded
        From :func:`medseg_paddle.engine.data.survey`, and what it kept.
    device : str
        As :func:`medseg_paddle.engine.device.set_device` returned it.
    iters : int
        Iterations to make.
    told : callable
        Hears the loss of each iteration.
    class_weights : tuple of float, optional
        What ``weight: balanced`` of a loss stands for.
    rates : sequence of float, optional
        Learning rate of each iteration, in place of the recipe's schedule.

    Raises
    ------
    MedsegError
        An image cannot be loaded.
    """
    seed_everything(recipe.seed)
    with (
        paddle.utils.unique_name.guard(),
        tempfile.TemporaryDirectory() as scratch,
        (Path(scratch) / "log").open("w", encoding="utf-8") as log,
    ):
        model = build_model(recipe)
        alignment = build_alignment(recipe, model)
        initialise(model, recipe)
        Freezing(model, recipe.freeze).begin(0)
        optimizer = build_optimizer(recipe, model, None if alignment is None else alignment.classifier)
        if rates is not None:
            optimizer.set_lr_scheduler(_Rates(rates))
        set_up(model, recipe, device)
        mixed = mixed_precision(recipe, device)
        hooks = Hooks(
            around=lambda: training_in_bf16(model, optimizer, mixed),
            before_iteration=_go_on if alignment is None else alignment.begin,
            after_step=_go_on,
            loss=lambda _iteration, loss, _parts: loss,
            evaluate=_no_validation,
            save=paddle.save,
            average=MovingAverage(None, recipe.ema_decay),
            scaler=paddle.amp.GradScaler,
        )
        try:
            run_train(
                model,
                training_stream(cases, recipe, decoded, found),
                cases=len(cases),
                batch_bytes=batch_bytes(recipe, found),
                hooks=hooks,
                writer=_Hearer(told, iters),
                log=log,
                first_iter=0,
                iters=iters,
                resume_from=None,
                val_dataset=None,
                optimizer=optimizer,
                save_dir=str(Path(scratch) / "checkpoints"),
                save_interval=iters + 1,
                log_iters=1,
                **loop_arguments(recipe, class_weights),
            )
        except LoadingFailed as failed:
            raise failed.error from failed


class _Rates(paddle.optimizer.lr.LRScheduler):  # type: ignore[misc]
    """Given learning rates, one after another."""

    def __init__(self, rates: Sequence[float]) -> None:
        self._rates = tuple(rates)
        super().__init__(self._rates[0])

    def get_lr(self) -> float:
        return float(self._rates[min(self.last_epoch, len(self._rates) - 1)])


class _Hearer:
    """In place of a VisualDL writer: passes losses on, and ends `train()` before it would save anything."""

    def __init__(self, told: Told, iters: int) -> None:
        self._told, self._iters, self._loss = told, iters, 0.0

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Take one point of a curve."""
        if tag == "Train/loss":
            self._loss = float(np.asarray(value).ravel()[0])
        elif tag == "Train/reader_cost" and (  # the last one of an iteration's line
            not self._told(step, self._loss) or step == self._iters
        ):
            raise Stopped

    def close(self) -> None:
        """Nothing is left to write."""


def _go_on(_iteration: int) -> None:
    pass


def _no_validation(*_: Any, **__: Any) -> tuple[float, float, None, None, None]:
    raise AssertionError("there are no validation cases")
