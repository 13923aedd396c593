"""Where a training's time and memory go, measured on its first iterations."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_paddle.config import Recipe, as_recipe
from medseg_paddle.core.cores import available_cores
from medseg_paddle.engine.cpu import maths_threads
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import RecipeError
from medseg_paddle.io.files import new_folder, write_text
from medseg_paddle.steps.first_iterations import Onlooker, train_first
from medseg_paddle.steps.profile_advice import Advice, Measured, advise

if TYPE_CHECKING:
    from medseg_paddle.engine.profiler import Traced

ITERATIONS = 20
_WARM_UP = 5  # iterations in which libraries prepare, processes start and buffers grow
_TRACED = 10
_PROFILE, _TRACE = "profile.json", "trace.json"


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Attributes
    ----------
    recipe : str
    model : str
    measured : Measured
    iterations : int
        That the times are the mean of; they were not traced.
    images_per_second : float
    memory_peak : int
        Most bytes that the process ever held, libraries and kept images included; processes that load not.
    traced : Traced
    advice : tuple of Advice
    folder : Path
        Where ``profile.json`` and ``trace.json`` are.
    """

    recipe: str
    model: str
    measured: Measured
    iterations: int
    images_per_second: float
    memory_peak: int
    traced: Traced
    advice: tuple[Advice, ...]
    folder: Path

    def share(self, seconds: float) -> float:
        """Of the traced time."""
        return seconds / self.traced.seconds if self.traced.seconds else 0.0

    def as_json(self) -> str:
        """Everything but the folder."""
        facts = asdict(self)
        del facts["folder"]
        return json.dumps(facts, indent=1)


class _Meter:
    """Times iterations, then has some traced."""

    def __init__(self, timed: int, traced: int) -> None:
        self._begin, self._trace_from, self.end = _WARM_UP, _WARM_UP + timed, _WARM_UP + timed + traced
        self._at: dict[int, tuple[float, float]] = {}
        self._waited = 0.0
        self.tracer: Any = None
        self.traced: Traced | None = None

    def iterated(self, step: int, _loss: float, waited: float) -> None:
        """One iteration has ended."""
        if step in (self._begin, self._trace_from):
            self._at[step] = (time.perf_counter(), time.process_time())
        if self._begin < step <= self._trace_from:
            self._waited += waited
        if step == self._trace_from:
            from medseg_paddle.engine.profiler import Tracer

            self.tracer = Tracer()
            self.tracer.start()
        elif self._trace_from < step < self.end:
            self.tracer.step()
        elif step == self.end:
            self.traced = self.tracer.stop()

    @property
    def timed(self) -> tuple[float, float, float]:
        """Seconds by the clock, of the processor, and of waiting, of the timed iterations together."""
        first, last = self._at[self._begin], self._at[self._trace_from]
        return last[0] - first[0], last[1] - first[1], self._waited


def profile(
    recipe: Path | str | Recipe,
    *,
    overrides: Sequence[str] = (),
    iterations: int = ITERATIONS,
    output: Path | str | None = None,
    device: str | None = None,
) -> Profile:
    """Train the recipe's first iterations and measure them; no run folder is made or touched.

    Five iterations warm up, `iterations` are timed, and ten more are traced: tracing takes time itself.

    Parameters
    ----------
    recipe : Path, str or Recipe
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    iterations : int
    output : Path or str, optional
        Folder for ``profile.json`` and ``trace.json``; ``outputs/profile-NAME`` where absent. A former
        profile in it is replaced.
    device : str, optional
        In place of the recipe's.

    Raises
    ------
    MedsegError
        As :func:`medseg_paddle.steps.train.train`.
    """
    if iterations < 1:
        raise RecipeError(f"{iterations} iterations cannot be timed", hint="time at least one")
    resolved = as_recipe(recipe, overrides)
    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    meter = _Meter(iterations, _TRACED)
    # Nothing is to be saved while it is timed, and the training is to be long enough.
    never = meter.end + 2
    resolved = resolved.model_copy(update={"iters": never, "save_interval": never})
    folder = Path("outputs") / f"profile-{resolved.name}" if output is None else Path(output)
    with new_folder(folder, overwrite=True, marker=_PROFILE) as files:
        onlooker = Onlooker("profiling", resolved.batch_size, meter.end, meter.iterated)
        with tempfile.TemporaryDirectory(prefix="medseg-profile-") as scratch:
            train_first(resolved, Path(scratch) / "run", onlooker, keep=False)
        found = _profile(resolved, onlooker.facts, meter, iterations, folder)
        meter.tracer.save(files / _TRACE)
        write_text(files / _PROFILE, found.as_json())
    return found


def _profile(recipe: Recipe, facts: dict[str, Any], meter: _Meter, iterations: int, folder: Path) -> Profile:
    start_paddle()
    from medseg_paddle.engine.cpu_kernels import can_train_in_bf16
    from medseg_paddle.engine.profiler import gpu_memory

    traced = meter.traced
    assert traced is not None  # noqa: S101  (the training came to its end)
    clock, processor, waited = meter.timed
    on_gpu = facts["device"] != "cpu"
    total, peak = gpu_memory() if on_gpu else (0, 0)
    in_operators = sum(one.seconds for one in traced.operators) / traced.iterations
    times = {one.name: one.device_seconds if on_gpu else one.seconds for one in traced.operators}
    whole = sum(times.values()) if on_gpu else traced.seconds
    seconds, waiting = clock / iterations, waited / clock
    measured = Measured(
        device=facts["device"],
        cpu_kernels=facts["cpu_kernels"],
        precision=recipe.precision,
        batch_size=recipe.batch_size,
        num_workers=recipe.num_workers,
        threads=maths_threads(),
        cores=available_cores(),
        cores_used=processor / clock,
        images=facts["images"],
        images_decoded=facts["images_decoded"],
        seconds=seconds,
        waiting=waiting,
        # Operators are a little slower while they are traced, so that this is rather too little.
        between=max(0.0, 1 - waiting - in_operators / seconds),
        shares={name: value / whole for name, value in times.items()} if whole else {},
        bf16_gains=can_train_in_bf16(facts["device"]),
        gpu_memory=total,
        gpu_memory_peak=peak,
    )
    return Profile(
        recipe.name,
        facts["model"],
        measured,
        iterations,
        images_per_second=iterations * recipe.batch_size / clock,
        memory_peak=_memory_peak(),
        traced=traced,
        advice=tuple(advise(measured)),
        folder=folder,
    )


def _memory_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
