"""One checkpoint of a training: the only place that knows the names of the files in its folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from medseg_paddle.errors import SetupError
from medseg_paddle.io import sealed

WEIGHTS = "model.pdparams"
EMA_WEIGHTS = "ema_model.pdparams"
_OPTIMIZER = "model.pdopt"
_STATE = "model.pdstate"
_DAMAGED = ".damaged"


def name_of(iteration: int) -> str:
    """Name of the folder, as `paddleseg.core.train()` has it."""
    return f"iter_{iteration}"


def iteration_of(checkpoint: Path) -> int:
    """The iteration a checkpoint folder was saved at."""
    return int(checkpoint.name.removeprefix("iter_"))


def weights_in(checkpoint: Path) -> Path:
    """File of the weights in a checkpoint folder."""
    return checkpoint / WEIGHTS


def optimizer_in(checkpoint: Path) -> Path:
    """File of the optimiser's state in a checkpoint folder."""
    return checkpoint / _OPTIMIZER


def average_in(checkpoint: Path) -> Path:
    """File of the weights' moving average in a checkpoint folder; there with ``use_ema``."""
    return checkpoint / EMA_WEIGHTS


def state_in(checkpoint: Path) -> Path:
    """File of everything else that a training goes on with; those of earlier versions have none."""
    return checkpoint / _STATE


def is_sealed(checkpoint: Path) -> bool:
    """Whether a checkpoint has checksums; those of earlier versions have none."""
    return sealed.is_sealed(checkpoint)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a sealed checkpoint, None if its files are as they were written.

    Raises
    ------
    OSError
        A file cannot be read at all.
    """
    return sealed.damage(checkpoint, (WEIGHTS, _OPTIMIZER, _STATE))


def set_aside(checkpoint: Path) -> Path:
    """Give a damaged checkpoint a name that no training goes on from; the new name."""
    aside = checkpoint.with_name(checkpoint.name + _DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.rename(aside)


def newest_first(folder: Path) -> list[Path]:
    """Checkpoints in a folder that a training can go on from, unless they are damaged.

    Raises
    ------
    SetupError
        One of them cannot be looked into.
    """
    return [checkpoint for checkpoint, whole in _newest_first(folder) if whole]


def remains(folder: Path) -> list[Path]:
    """Checkpoints in a folder without checksums of which weights or optimiser are missing: nothing goes on from them.

    Raises
    ------
    SetupError
        One of them cannot be looked into.
    """
    return [checkpoint for checkpoint, whole in _newest_first(folder) if not whole]


def _newest_first(folder: Path) -> list[tuple[Path, bool]]:
    """Checkpoints, and whether each has checksums or all that a training goes on from."""
    found = {}
    for checkpoint in folder.glob("iter_*"):
        number = re.fullmatch(r"iter_(\d+)", checkpoint.name)
        try:
            complete = weights_in(checkpoint).is_file() and optimizer_in(checkpoint).is_file()
            if number:
                found[int(number[1])] = checkpoint, is_sealed(checkpoint) or complete
        except OSError as error:
            raise unreadable(checkpoint, str(error)) from error
    return [found[number] for number in sorted(found, reverse=True)]


def unreadable(checkpoint: Path, why: str) -> SetupError:
    """The error for a checkpoint that cannot be read for a reason that lies not in it."""
    return SetupError(
        f"checkpoint {checkpoint} cannot be read: {why}",
        hint="mend that and go on with --resume; if it stays so, move this checkpoint elsewhere, "
        "and the run goes on from the one before",
    )


def were_set_aside(folder: Path) -> list[Path]:
    """Checkpoints in a folder that :func:`set_aside` renamed."""
    return sorted(folder.glob(f"iter_*{_DAMAGED}"))
