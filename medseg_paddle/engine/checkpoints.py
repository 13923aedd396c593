"""Checkpoints of a training: whole or not there, found again, and kept few."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import paddle

from medseg_paddle.errors import SetupError
from medseg_paddle.io.files import whole_file
from medseg_paddle.run import Run, best_noted

_save = paddle.save


def save_whole(state: Any, path: str, **options: Any) -> None:
    """In place of `paddle.save`: the file is whole or not there.

    Raises
    ------
    SetupError
        It cannot be written, or the disk is full.
    """
    with best_noted(Path(path)), whole_file(Path(path)) as temporary:
        _save(state, str(temporary), **options)


def save_checkpoint(run: Run, iteration: int, model: paddle.nn.Layer, optimizer: Any) -> None:
    """Save what `paddleseg.core.train()` would save at `iteration`.

    Raises
    ------
    SetupError
        It cannot be written, or the disk is full; nothing of it is left then.
    """
    with run.new_checkpoint(iteration) as (weights, states):
        save_whole(model.state_dict(), str(weights))
        save_whole(optimizer.state_dict(), str(states))


def latest_whole(run: Run) -> Path | None:
    """The latest checkpoint that can be read; damaged ones after it are set aside.

    Raises
    ------
    SetupError
        A checkpoint cannot be read for a reason that lies not in it: the disk, or too little memory.
    """
    for folder in run.checkpoints_newest_first():
        try:
            for path in folder.glob("model.pd*"):
                paddle.load(str(path), return_numpy=True)  # not to the device, which may be full
        except (OSError, MemoryError) as error:
            why = "there is not enough memory" if isinstance(error, MemoryError) else str(error)
            raise SetupError(
                f"checkpoint {folder} cannot be read: {why}",
                hint="mend that and go on with --resume; if it stays so, move this checkpoint elsewhere, "
                "and the run goes on from the one before",
            ) from error
        except Exception as error:  # noqa: BLE001  (paddle.load raises whatever pickle raises)
            line = (
                f"checkpoint {folder.name} is damaged ({type(error).__name__}), going back to the one before; "
                f"kept as {run.set_aside(folder).name}\n"
            )
            sys.stderr.write(line)
            with run.log.open("a", encoding="utf-8") as log:
                log.write(line)
            continue
        return folder
    return None
