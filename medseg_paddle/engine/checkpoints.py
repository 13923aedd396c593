"""Checkpoints of a training: whole or not there, with everything that it goes on with, and found again."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import paddle

from medseg_paddle.checkpoint_folder import remains, unreadable
from medseg_paddle.engine.models import load_paddle_file, load_weights
from medseg_paddle.errors import ModelError
from medseg_paddle.io.files import whole_file, write_bytes
from medseg_paddle.io.plain_pickle import load_plain
from medseg_paddle.run import Run

_save = paddle.save


class StatefulPart(Protocol):
    """A part of a training with a state besides weights and optimiser; `fit` saves it with each checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """The state, in plain Python values and numpy arrays."""

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that :meth:`state_dict` gave."""


def save_whole(state: Any, path: str, **options: Any) -> None:
    """In place of `paddle.save`: the file is whole or not there.

    Raises
    ------
    SetupError
        It cannot be written, or the disk is full.
    """
    with whole_file(Path(path)) as temporary:
        _save(state, str(temporary), **options)


class CheckpointWriter:
    """Saves checkpoints as whole folders.

    Parameters
    ----------
    run : Run
    parts : mapping of str to StatefulPart
        What is saved besides weights, optimiser and moving average.
    before : callable
        Called before a checkpoint is written: brings to disk what a run that goes on from it does not write
        again.
    """

    def __init__(self, run: Run, parts: Mapping[str, StatefulPart], before: Callable[[], None]) -> None:
        self._run, self._parts, self._before = run, parts, before
        self._given: dict[Path, Any] = {}

    def save(self, state: Any, path: str, **options: Any) -> None:
        """In place of `paddle.save` inside `train()`, which saves the files of a checkpoint one by one.

        They are held until all are given, and then written at once. Other files are written as they come.
        """
        file = Path(path)
        folder = file.parent
        wanted = {self._run.weights_in(folder), self._run.optimizer_in(folder)}
        if self._run.recipe.use_ema:
            wanted.add(self._run.average_in(folder))
        if file not in wanted or not folder.name.startswith("iter_"):
            if self._run.best.kind_of(file) is None:
                save_whole(state, path, **options)
            else:
                with self._run.best.replaced(file, self._run.history()[-1]["iter"]):
                    save_whole(state, path, **options)
            return
        self._given[file] = state
        if wanted <= self._given.keys():
            given, self._given = self._given, {}
            self.write(
                self._run.iteration_of(folder),
                given[self._run.weights_in(folder)],
                given[self._run.optimizer_in(folder)],
                given.get(self._run.average_in(folder)),
            )

    def write(self, iteration: int, weights: Any, optimizer: Any, average: Any | None) -> None:
        """Write a checkpoint, and remove those that are no longer kept.

        Parameters
        ----------
        iteration : int
        weights, optimizer, average
            State dicts; no `average` without ``use_ema``.

        Raises
        ------
        SetupError
            It cannot be written, or the disk is full; nothing of it is left then.
        """
        self._before()
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        with self._run.new_checkpoint(iteration) as folder:
            save_whole(weights, str(self._run.weights_in(folder)))
            save_whole(optimizer, str(self._run.optimizer_in(folder)))
            if average is not None:
                save_whole(average, str(self._run.average_in(folder)))
            write_bytes(self._run.state_in(folder), pickle.dumps(parts, protocol=4))
        self._run.tidy_checkpoints()


def restore(run: Run, checkpoint: Path, model: paddle.nn.Layer, parts: Mapping[str, StatefulPart]) -> None:
    """Put the parts of a training into the state that `checkpoint` holds.

    Weights and optimiser are only looked at: `train()` itself loads them, and takes what is of another network as far
    as it fits.

    Raises
    ------
    ModelError
        The checkpoint is of another network, or one of its files holds more than numbers.
    """
    load_weights(model, run.weights_in(checkpoint))
    load_plain(run.optimizer_in(checkpoint))
    file = run.state_in(checkpoint)
    if not file.is_file():  # of an earlier version
        return
    states = load_plain(file)
    for name, part in parts.items():
        if name in states:
            part.set_state_dict(states[name])


def latest_whole(run: Run) -> Path | None:
    """The latest checkpoint that is as it was written; damaged ones after it, and remains of any, are set aside.

    One without checksums, which an earlier version wrote, is taken if it can be read.

    Raises
    ------
    ModelError
        There are checkpoints, and all of them are damaged. They stay as they are.
    SetupError
        A checkpoint cannot be read for a reason that lies not in it: the disk, or too little memory.
    """
    for one in remains(run.checkpoints):
        aside = run.set_aside(one).name
        _say(
            run,
            f"checkpoint {one.name} has no checksums, and weights or optimiser are missing; kept as {aside}",
        )
    damaged: dict[Path, str] = {}
    for folder in run.checkpoints_newest_first():
        wrong = _wrong_with(run, folder)
        if wrong is not None:
            damaged[folder] = wrong
            continue
        for one, why in damaged.items():
            aside = run.set_aside(one).name
            _say(
                run,
                f"checkpoint {one.name} is damaged ({why}), going back to the one before; kept as {aside}",
            )
        if not run.is_sealed(folder):
            _say(
                run, f"checkpoint {folder.name} has no checksums: an earlier version wrote it; it can be read"
            )
        return folder
    if damaged:
        # To begin anew would also replace the best weights, which may be all that is left of the training.
        listed = ", ".join(f"{folder.name} ({why})" for folder, why in damaged.items())
        raise ModelError(
            f"no checkpoint of {run.path} is whole: {listed}",
            hint="bring one back from a copy, or train anew with --overwrite or another --output; the best weights, "
            "if they are whole, can still be exported",
        )
    return None


def _wrong_with(run: Run, checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing is."""
    try:
        return run.damage(checkpoint) if run.is_sealed(checkpoint) else _unreadable(run, checkpoint)
    except (OSError, MemoryError) as error:
        why = "there is not enough memory" if isinstance(error, MemoryError) else str(error)
        raise unreadable(checkpoint, why) from error


def _unreadable(run: Run, checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint without checksums; None if it can be read."""
    if run.recipe.use_ema and not run.average_in(checkpoint).is_file():
        return "it has no moving average"
    try:
        for path in checkpoint.glob("*model.pd*"):
            load_paddle_file(path)
    except (OSError, MemoryError, ModelError):
        raise
    except Exception as error:  # noqa: BLE001  (of a damaged file, whatever pickle raises)
        return type(error).__name__
    return None


def _say(run: Run, what: str) -> None:
    sys.stderr.write(what + "\n")
    with run.log.open("a", encoding="utf-8") as log:
        log.write(what + "\n")
