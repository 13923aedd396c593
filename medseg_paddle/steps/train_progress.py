"""What a training says on the terminal while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg_paddle.config import Recipe
from medseg_paddle.core.cores import available_cores
from medseg_paddle.engine.interruption import Stopped
from medseg_paddle.steps.profile_advice import waiting_advice
from medseg_paddle.steps.progress import TrainingBar

_MUCH_WAITING = 0.2
_LAYERS_SHOWN = 20  # of those that are not as in the source of the first weights
_LINES_BEFORE_ADVICE = 3  # the first ones hold the start of the processes and of the device

Watch = Callable[[int, float], None]
"""Called with an iteration and its score, turned so that greater is better; minus infinity where there is none."""


def stopped_early(step: int, recipe: Recipe) -> str:
    """Why a training ended before its last iteration, in words."""
    stopping = recipe.early_stopping
    assert stopping is not None  # noqa: S101  (nothing else stops a training early)
    evaluations = f"{stopping.patience} evaluation{'s' * (stopping.patience > 1)}"
    margin = f" by more than {stopping.min_delta:g}" if stopping.min_delta else ""
    return (
        f"stopped early at iteration {step} of {recipe.iters}, "
        f"{recipe.selection.name} did not get better{margin} in {evaluations}"
    )


class TrainingProgress(TrainingBar):
    """Shows a training on the terminal, and tells who watches its scores.

    Parameters
    ----------
    recipe : Recipe
    watch : callable or None

    Attributes
    ----------
    ended_by : Exception or None
        What the one who watches raised; it ended the training.
    """

    def __init__(self, recipe: Recipe, watch: Watch | None) -> None:
        super().__init__("checking")
        self._scores: dict[str, str] = {}
        self._recipe, self._lines = recipe, 0
        self._watch = watch
        self.ended_by: Exception | None = None

    def initialised(self, summary: str, layers: Sequence[str]) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.say(summary)
        for line in layers[:_LAYERS_SHOWN]:
            self._bar.say(line)
        if len(layers) > _LAYERS_SHOWN:
            self._bar.say(f"  and {len(layers) - _LAYERS_SHOWN} more; the run's train.log has all layers")

    def started(self, folder: Path, facts: dict[str, Any], first_iter: int, iters: int) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self.begin("training", iters, first_iter)
        where = facts["device"] + (f" with {facts['cpu_kernels']}" if facts["cpu_kernels"] else "")
        shared = f", {facts['processes']} processes" if facts["processes"] > 1 else ""
        word = f"resuming at iteration {first_iter}" if first_iter else "training"
        self._bar.say(
            f"{word}: {facts['model']}, {facts['parameters']:,} parameters"
            + (f" ({facts['frozen']:,} of them frozen)" if facts["frozen"] else "")
            + f", on {where}{shared}, into {folder}"
        )
        if facts["shortage"]:
            self._bar.say(
                f"{facts['images_decoded']:,} of {facts['images']:,} images are kept decoded ({facts['shortage']}); "
                "the others are decoded in each pass"
            )

    def iterated(
        self, step: int, loss: float, learning_rate: float, images_per_second: float, waiting: float
    ) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        note = f"loss {loss:.4f}  lr {learning_rate:.2g}  {images_per_second:.1f} img/s"
        self._bar.update(step, f"{note}  {waiting:.0%} waiting for images{''.join(self._scores.values())}")
        self._lines += 1
        if self._lines == _LINES_BEFORE_ADVICE and waiting >= _MUCH_WAITING:
            self._bar.say(waiting_advice(waiting, self._recipe.num_workers, available_cores()))

    def validated(self, step: int, name: str, score: float, *, best: bool) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        mark = "  best so far, saved" if best else ""
        if math.isnan(score):
            self._bar.say(f"validation at {step}: no {name}, it is undefined in every case")
        else:
            self._scores[name] = f"  {name.replace('mean foreground ', '')} {score:.4f}"
            self._bar.say(f"validation at {step}: {name} {score:.4f}{mark}")
        if self._watch is None:
            return
        try:
            self._watch(step, self._recipe.selection.gain(score))
        except Exception as error:
            self.ended_by = error
            raise Stopped from error

    def stopped(self, step: int, iters: int, *, time_is_up: bool) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        why = "time is up: " if time_is_up else ""
        self._bar.say(f"{why}stopped at iteration {step} of {iters}; go on with --resume")

    def stopped_early(self, step: int) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.say(stopped_early(step, self._recipe))
