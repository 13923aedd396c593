"""What a plan has to get by with: the device that will train, its memory and its speed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from medseg_paddle.core.cores import available_cores
from medseg_paddle.core.matrix_product import TRIES, core_speed
from medseg_paddle.engine.batch_probe import free_on_gpu
from medseg_paddle.engine.cpu import maths_threads
from medseg_paddle.engine.inspect_device import inspect_device
from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.memory import free_memory

Kind = Literal["cpu", "gpu"]

GB = 10**9
USUAL_MEMORY = 8 * GB
"""What nnU-Net plans for unless told otherwise, however much there is."""
_USED = 0.9  # of what is free, as in `medseg batch-find`
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Machine:
    """Where a training is planned to run.

    Attributes
    ----------
    device : {"cpu", "gpu"}
    memory : int
        Bytes that a training may take.
    why : str
        Where this number comes from.
    speed : float or None
        Multiplications a second of a product of matrices on one core; None where nobody measured.
    threads : int
        Cores that a training computes with.
    """

    device: Kind
    memory: int
    why: str
    speed: float | None
    threads: int

    @property
    def measured(self) -> str:
        """How its speed was found, for people; empty where nobody measured."""
        if self.speed is None:
            return ""
        return (
            f"{self.speed / 1e9:.3g} thousand million multiplications a second, of {TRIES} products of matrices the "
            f"quickest by processor time, on {self.threads} core{'s' * (self.threads > 1)} that compute nothing else"
        )


def this_machine(device: str = "auto", memory: int | None = None) -> Machine:
    """The machine that this process runs on.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu"}
        As in a recipe.
    memory : int, optional
        Bytes that a training may take; nine tenths of what is free on the device where absent, at most 8 GB.

    Raises
    ------
    SetupError
        There is no such device, or nothing says how much of its memory is free.
    """
    kind: Kind = "cpu" if device == "cpu" or not inspect_device().gpus else "gpu"
    if device == "gpu" and kind == "cpu":
        raise SetupError(
            "device gpu is asked for, but Paddle sees none",
            hint="plan with `--device cpu`; `medseg doctor` shows what is there",
        )
    speed = core_speed() if kind == "cpu" else None
    threads = min(maths_threads(), available_cores())  # more threads than cores gain nothing
    if memory is not None:
        return Machine(kind, memory, f"{memory / GB:.3g} GB, as asked for", speed, threads)
    free = free_memory() if kind == "cpu" else free_on_gpu(0)
    if free is None:
        raise SetupError(
            f"nothing says how much memory of the {kind} is free", hint="say how much to use: --memory 8GB"
        )
    usable = int(_USED * free)
    if usable <= USUAL_MEMORY:
        return Machine(kind, usable, f"{usable / GB:.3g} GB, nine tenths of what is free now", speed, threads)
    why = f"8 GB, for which nnU-Net plans; {free / GB:.3g} GB are free: `--memory` takes more"
    return Machine(kind, USUAL_MEMORY, why, speed, threads)


def parse_memory(text: str) -> int:
    """Bytes of a size such as ``8GB``, ``500 MB`` or ``8G``; powers of 1000.

    Raises
    ------
    RecipeError
        It is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    size = 0 if found is None else int(float(found[1]) * _UNITS[found[2].upper()])
    if not size:
        raise RecipeError(f"--memory {text}: no size", hint="write for example --memory 8GB")
    return size
