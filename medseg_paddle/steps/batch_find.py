"""The largest batch that fits the free memory, measured in processes that may be killed for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from medseg_paddle import errors
from medseg_paddle.config import Recipe, as_recipe, change_recipe, dump_recipe
from medseg_paddle.engine import batch_probe
from medseg_paddle.errors import MedsegError, RecipeError, SetupError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.files import write_text
from medseg_paddle.io.memory import free_memory
from medseg_paddle.steps.volumes import ready_volumes

_MB = 10**6
_USED = 0.9
"""Share of the free memory that a training may take: a validation, other programs and the next step differ."""
_STEPS = 3  # the first one is slower and takes less: optimisers make their states in it
_ATTEMPTS = 4  # to verify a proposal
_SECONDS_BETWEEN_LOOKS = 0.01
_LOOKS_PER_LOOK_AT_WORKERS = 20
_NEARLY = 0.8  # of the limit: whoever crashed above it, crashed for want of memory


@dataclass(frozen=True)
class Probe:
    """What a few training steps with one batch size took.

    Attributes
    ----------
    batch_size : int
    peak : int or None
        Most bytes held, libraries included; of the GPU's memory where one computes. None where it was ended for
        taking too much.
    images_per_second : float or None
        Loading included, without the first step.
    fits : bool
        Whether the peak is within the limit.
    """

    batch_size: int
    peak: int | None
    images_per_second: float | None
    fits: bool


@dataclass(frozen=True)
class BatchSearch:
    """Which batch sizes were tried.

    Attributes
    ----------
    probes : tuple of Probe
        By batch size.
    limit : int
        Bytes that a training may take.
    device : str
    batch_size : int
        The largest that was measured to fit.
    at_most : int
        No larger one was to be tried.
    """

    probes: tuple[Probe, ...]
    limit: int
    device: str
    batch_size: int
    at_most: int


def batch_find(
    recipe: Path | str | Recipe,
    *,
    overrides: Sequence[str] = (),
    memory_mb: int | None = None,
    at_most: int = 64,
    device: str | None = None,
    told: Callable[[Probe], None] | None = None,
) -> BatchSearch:
    """Find the largest `batch_size` that a recipe's training steps have memory for.

    Batch sizes are doubled; from the last two peaks the largest that fits is extrapolated on a straight line,
    and then measured. Each measurement is three steps of the recipe's own training, in a process that is killed
    when it takes more than the limit. No run is made or touched.

    What is measured is the training. The validation takes whole images, one at a time, whatever the batch size:
    where these are much larger than the training's patches, leave it room by `memory_mb`.

    Parameters
    ----------
    recipe : Path, str or Recipe
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    memory_mb : int, optional
        Most that a training may take, in 10^6 bytes; nine tenths of the free memory where absent: of the machine
        and of the container, or of the GPU. The GPU's part of this was never run.
    at_most : int
        Largest batch size to try.
    device : str, optional
        In place of the recipe's.
    told : callable, optional
        Hears of each measurement.

    Raises
    ------
    RecipeError, DataError, ModelError
        As a training would.
    SetupError
        Nothing says how much memory is free, a measurement failed, or not even the smallest batch fits.
    """
    recipe = as_recipe(recipe, overrides)
    if device is not None:
        recipe = recipe.model_copy(update={"device": device})
    # What is missing is told before anything is started.
    ready_volumes(recipe, load_cases(recipe.train_dataset, recipe.dimensions, recipe.neighbours))
    smallest = _smallest(recipe, at_most)
    search = _Search(recipe, memory_mb, told)
    if not search.probe(smallest).fits:
        raise SetupError(
            f"not even a batch of {smallest} fits {search.limit / _MB:,.0f} MB",
            hint="take smaller patches, a narrower model or fewer num_workers, or free memory",
        )
    largest = at_most // smallest * smallest
    while (batch := search.fitting[-1].batch_size) < largest and search.may_fit(min(2 * batch, largest)):
        if not search.probe(min(2 * batch, largest)).fits:
            break
    for _ in range(_ATTEMPTS):
        batch = search.proposal(largest) // smallest * smallest
        if batch <= search.fitting[-1].batch_size:
            break
        search.probe(batch)
    return BatchSearch(
        tuple(sorted(search.probes, key=lambda probe: probe.batch_size)),
        search.limit,
        search.device,
        search.fitting[-1].batch_size,
        at_most,
    )


def _smallest(recipe: Recipe, at_most: int) -> int:
    """The smallest batch size that the recipe's other keys allow; its multiples are what is tried."""
    for batch in range(1, min(recipe.batch_size, at_most) + 1):
        with contextlib.suppress(RecipeError):
            change_recipe(recipe, [f"batch_size={batch}"])
            return batch
    raise RecipeError(
        f"no batch_size up to {at_most} fits the rest of the recipe", hint="allow a larger batch"
    )


class _Search:
    """The measurements so far, and what follows from them."""

    def __init__(self, recipe: Recipe, memory_mb: int | None, told: Callable[[Probe], None] | None) -> None:
        self._recipe, self._told = recipe, told
        self._given = None if memory_mb is None else memory_mb * _MB
        free = free_memory()
        host = self._given if free is None else int(_USED * free)
        if host is None:
            raise SetupError(
                "nothing on this system says how much memory is free", hint="give the limit: --memory-mb 4000"
            )
        self._host = host
        self.limit = self._host if self._given is None else self._given
        self.device = "cpu"
        self.probes: list[Probe] = []

    @property
    def fitting(self) -> list[Probe]:
        """Measurements that fit, by batch size."""
        return sorted((p for p in self.probes if p.fits), key=lambda p: p.batch_size)

    def probe(self, batch_size: int) -> Probe:
        """Measure one batch size."""
        recipe = change_recipe(self._recipe, [f"batch_size={batch_size}"])
        found = _measured(recipe, self.limit if self.device == "cpu" else self._host)
        self.device = found.get("device", self.device)
        if self.device != "cpu" and self._given is None and found.get("free"):
            self.limit = int(_USED * found["free"])
        peak = found.get("peak")
        probe = Probe(
            batch_size, peak, found.get("images_per_second"), peak is not None and peak <= self.limit
        )
        self.probes.append(probe)
        if self._told is not None:
            self._told(probe)
        return probe

    def may_fit(self, batch_size: int) -> bool:
        """Whether a batch is expected to fit; the first doubling is tried without a word about it."""
        return len(self.fitting) < 2 or batch_size <= self._on_the_line()

    def proposal(self, largest: int) -> int:
        """The largest batch size that should fit, and was not measured not to."""
        failed = min((p.batch_size for p in self.probes if not p.fits), default=largest + 1)
        best = self.fitting[-1].batch_size
        expected = min(self._on_the_line(), largest) if len(self.fitting) > 1 else largest
        return expected if expected < failed else (best + failed) // 2

    def _on_the_line(self) -> int:
        """Where the line through the last two peaks reaches the limit."""
        one, two = self.fitting[-2:]
        assert one.peak is not None and two.peak is not None  # noqa: S101, PT018  (they fit)
        slope = (two.peak - one.peak) / (two.batch_size - one.batch_size)
        if slope <= 0:  # such small batches that the libraries' own memory hides them
            return sys.maxsize
        return int(two.batch_size + (self.limit - two.peak) / slope)


def _measured(recipe: Recipe, limit: int) -> dict[str, Any]:
    """What a probe's process found; without a peak where it had to be ended."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as said:
        folder = Path(scratch)
        write_text(folder / batch_probe.RECIPE, dump_recipe(recipe))
        write_text(folder / batch_probe.ORDER, json.dumps({"steps": _STEPS, "limit": limit}))
        process = subprocess.Popen(
            [sys.executable, "-m", batch_probe.__name__, scratch],
            stdin=subprocess.PIPE,  # it ends with us
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            most, workers = _watched(process, limit)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if most > limit:
            return {}
        try:
            found: dict[str, Any] = json.loads((folder / batch_probe.RESULT).read_text(encoding="utf-8"))
        except OSError:
            if process.returncode == -signal.SIGKILL or most >= _NEARLY * limit:
                return {}
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise SetupError(
                f"three training steps with batch_size {recipe.batch_size} ended with exit code "
                f"{process.returncode}: {last[0]}",
                hint="see whether `medseg train` runs with this batch_size",
            ) from None
    if "error" in found:
        kind, message, hint = found["error"]
        error: type[MedsegError] = getattr(errors, kind, MedsegError)
        raise error(message, hint=hint)
    if found.get("peak") is not None and found.get("device") == "cpu":
        found["peak"] = max(found["peak"] + workers, most)
    return found


def _watched(process: subprocess.Popen[bytes], limit: int) -> tuple[int, int]:
    """Wait for a process; kill it when it takes more than `limit` bytes.

    Returns
    -------
    tuple of int
        The most that it was seen to hold with its own processes, and the most of these alone.
    """
    most = workers_most = workers = looks = 0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            if looks % _LOOKS_PER_LOOK_AT_WORKERS == 0:
                # What they share with their parent counts once.
                workers = sum(child.memory_full_info().uss for child in watched.children(recursive=True))
                workers_most = max(workers, workers_most)
            most = max(most, watched.memory_info().rss + workers)
        if most > limit:
            process.kill()
            break
        looks += 1
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return most, workers_most
