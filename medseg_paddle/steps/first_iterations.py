"""The first iterations of a recipe's training, exactly as `medseg train` computes them, in a folder of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medseg_paddle.config import Recipe
from medseg_paddle.engine.interruption import StopSignals
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.run import Run
from medseg_paddle.steps.progress import TrainingBar
from medseg_paddle.steps.train import checked, new_run
from medseg_paddle.steps.volumes import ready_volumes

# So many that one which was saved amid others is still there when the training was asked to end.
_CHECKPOINTS_KEPT = 4


class StopRequest(StopSignals):
    """A stop that the program itself may want; it ends a training as a signal does."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = False

    def ask(self) -> None:
        """Let the training end after its iteration."""
        self._asked = True

    @property
    def wanted(self) -> bool:
        """Whether the training is to end."""
        return self._asked or super().wanted


class Onlooker(TrainingBar):
    """Follows a training iteration by iteration, shows how far it is, and ends it; a context manager.

    Parameters
    ----------
    title : str
        What the bar says is being done.
    batch_size : int
        Images of an iteration.
    until : int
        The iteration whose end asks for the stop; the training makes one more, at most, and ends.
    each : callable, optional
        Called at the end of each iteration with its number, the loss, and the seconds that it waited for images.

    Attributes
    ----------
    stop : StopRequest
    facts : dict
        What the training said of itself as it began.
    """

    def __init__(
        self,
        title: str,
        batch_size: int,
        until: int,
        each: Callable[[int, float, float], None] | None = None,
    ) -> None:
        super().__init__(f"{title}: looking at the data")
        self.stop, self.facts = StopRequest(), dict[str, Any]()
        self._title, self._batch_size, self._until, self._each = title, batch_size, until, each

    def started(self, folder: Path, facts: dict[str, Any], first_iter: int, iters: int) -> None:  # noqa: ARG002
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self.facts = facts
        self.begin(self._title, max(min(self._until, iters), 1), first_iter)
        if self._until <= first_iter:
            self.stop.ask()

    def iterated(
        self, step: int, loss: float, learning_rate: float, images_per_second: float, waiting: float
    ) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        if step > self._until:
            return
        if self._each is not None:
            self._each(step, loss, waiting * self._batch_size / images_per_second)
        self._bar.update(step, f"loss {loss:.4f}  lr {learning_rate:.2g}")
        if step == self._until:
            self.stop.ask()

    def initialised(self, summary: str, layers: Sequence[str]) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""

    def validated(self, step: int, name: str, score: float, *, best: bool) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        mark = "  best so far" if best else ""
        self._bar.say(f"validation at {step}: {name} {score:.4f}{mark}")

    def stopped(self, step: int, iters: int, *, time_is_up: bool) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""

    def stopped_early(self, step: int) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""


def train_first(recipe: Recipe, folder: Path, onlooker: Onlooker, *, keep: bool) -> Run:
    """Train until `onlooker` ends it; the schedule of the learning rate stays that of the whole recipe.

    Parameters
    ----------
    recipe : Recipe
        Each iteration is logged, whatever it says.
    folder : Path
        New or empty; the run is made in it.
    onlooker : Onlooker
    keep : bool
        Make a run to keep: with validation, and checksums of its data.

    Raises
    ------
    MedsegError
        As :func:`medseg_paddle.steps.train.train`.
    """
    recipe = recipe.model_copy(
        update={
            "log_iters": 1,
            "model_graph": False,
            "keep_checkpoint_max": max(recipe.keep_checkpoint_max, _CHECKPOINTS_KEPT),
        }
    )
    splits, labels, scored_class = checked(recipe, validated=keep)
    Run.require_free(folder, overwrite=False)
    ready_volumes(recipe, splits["train"])
    start_paddle()
    from medseg_paddle.engine.device import set_training_device
    from medseg_paddle.engine.inspection import inspect
    from medseg_paddle.engine.training import fit

    chosen = set_training_device(recipe)
    with onlooker, DecodedImages(recipe.train_dataset.cache_mb << 20) as decoded:
        found = inspect(
            recipe, splits["train"], splits.get("val", ()), onlooker, decoded, scored_class=scored_class
        )
        run = new_run(folder, recipe, splits if keep else {}, found, chosen)
        fit(
            run,
            splits["train"],
            splits.get("val", ()),
            labels,
            found=found,
            decoded=decoded,
            device=chosen,
            checkpoint=None,
            listener=onlooker,
            stop=onlooker.stop,
        )
    return run
