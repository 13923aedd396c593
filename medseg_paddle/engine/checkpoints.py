"""Checkpoints of a training: whole or not there, found again, and kept few."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import paddle

from medseg_paddle.io.files import whole_file
from medseg_paddle.run import Run

_save = paddle.save


def save_whole(state: Any, path: str, **options: Any) -> None:
    """In place of `paddle.save`: the file is whole or not there.

    Raises
    ------
    SetupError
        It cannot be written, or the disk is full.
    """
    with whole_file(Path(path)) as temporary:
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
    """The latest checkpoint that can be read; damaged ones after it are removed."""
    for folder in run.checkpoints_newest_first():
        try:
            for path in folder.glob("model.pd*"):
                paddle.load(str(path))
        except Exception as error:  # noqa: BLE001  (paddle.load raises whatever pickle raises)
            with run.log.open("a", encoding="utf-8") as log:
                log.write(
                    f"checkpoint {folder.name} is damaged ({type(error).__name__}), going back to the one before\n"
                )
            shutil.rmtree(folder, ignore_errors=True)
            continue
        return folder
    return None
