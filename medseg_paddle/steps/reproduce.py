"""Train a run once more, from its own folder, and compare."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg_paddle.core import sha256
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import DataError, ModelError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.run import Run
from medseg_paddle.steps.checks import read_beside, require_same_files
from medseg_paddle.steps.differences import (
    ArrayDifference,
    Arrays,
    CurveDifference,
    compare_curves,
    count_numbers,
    differing_arrays,
)
from medseg_paddle.steps.first_iterations import Onlooker, train_first
from medseg_paddle.steps.progress import say
from medseg_paddle.steps.provenance import require_noted_data, surroundings
from medseg_paddle.steps.train import train

TOLERANCE = 0.01
"""Difference of the best validation score that still counts as reproduced."""

_LOSS, _RATE = "loss", "learning rate"
_TAGS = {_RATE: "Train/lr", _LOSS: "Train/loss"}
_SCORES = {"model": "validation score", "ema": "validation score of the moving average"}
_NAMED = 5  # arrays in a report
_COMPUTING = re.compile(r"^computing on (\S+), convolutions by (.+)$", re.MULTILINE)
_SHOWN_DIGITS = 8  # of a commit


@dataclass(frozen=True)
class Reproduction:
    """How a run and its repetition compare.

    Attributes
    ----------
    path : Path
        The repetition's folder.
    surroundings : tuple of str
        What was not as it was: versions, machine, threads.
    iteration : int
        The last that was compared.
    curves : dict
        Learning rate, loss and validation scores by their names.
    best : tuple of float or None
        The best score of both, None where nothing was validated, or the score is undefined in every case.
    compared : int
        Numbers in the weights (and the optimiser's state) that were compared; 0 where the run has no checkpoint
        of that iteration.
    arrays : tuple of ArrayDifference
        Those that differ.
    tolerance : float
    """

    path: Path
    surroundings: tuple[str, ...]
    iteration: int
    curves: Mapping[str, CurveDifference]
    best: tuple[float, float] | None
    compared: int
    arrays: tuple[ArrayDifference, ...]
    tolerance: float

    @property
    def identical(self) -> bool:
        """Whether all that was compared is the same bit for bit, and something was."""
        return (
            not self.arrays
            and all(curve.first is None for curve in self.curves.values())
            and (self.compared > 0 or self.curves[_LOSS].compared > 0)
        )

    @property
    def reproduced(self) -> bool:
        """Whether it is identical, or its best score is within the tolerance."""
        return self.identical or (
            self.best is not None and abs(self.best[0] - self.best[1]) <= self.tolerance
        )

    def lines(self) -> list[str]:
        """The comparison for people."""
        return [*self._compared(), self._verdict()]

    def _compared(self) -> Iterator[str]:
        for name, curve in self.curves.items():
            yield _curve_line(name, curve)
        if self.curves[_RATE].first is not None:
            yield (
                "  the learning rate itself differs: the recipe's length or schedule was changed while the run was "
                "trained, and its folder has only the last recipe"
            )
        if self.best is not None:
            yield f"best score: {self.best[0]:.6f} then, {self.best[1]:.6f} now"
        if not self.compared:
            yield f"weights: not compared, the run has no checkpoint of iteration {self.iteration}"
        elif not self.arrays:
            yield f"weights and optimiser at {self.iteration}: {self.compared:,} numbers the same, bit for bit"
        else:
            greatest = max(self.arrays, key=lambda one: one.relative)
            yield (
                f"weights and optimiser at {self.iteration}: {len(self.arrays)} arrays differ, most of all "
                f"{greatest}; the first:"
            )
            yield from (f"  {one}" for one in self.arrays[:_NAMED])

    def _verdict(self) -> str:
        if self.identical:
            return "reproduced, bit for bit"
        if self.best is None:
            return "not reproduced bit for bit, and there are no validation scores to compare"
        apart = abs(self.best[0] - self.best[1])
        if self.reproduced:
            return f"reproduced within the tolerance: the best scores are {apart:.6f} apart (at most {self.tolerance})"
        return f"not reproduced: the best scores are {apart:.6f} apart (tolerance {self.tolerance})"


def reproduce(
    run: Run | Path | str,
    *,
    output: Path | str | None = None,
    iterations: int | None = None,
    tolerance: float = TOLERANCE,
    device: str | None = None,
) -> Reproduction:
    """Train a run again into a new folder, and compare. The run itself is only read.

    Parameters
    ----------
    run : Run, Path or str
    output : Path or str, optional
        New folder; the run's name with ``-reproduced`` beside it where absent.
    iterations : int, optional
        Only so many; where absent, as many as the run has.
    tolerance : float
        See :data:`TOLERANCE`.
    device : str, optional
        In place of the recipe's.

    Returns
    -------
    Reproduction

    Raises
    ------
    DataError
        The data, or the weights that it started from, are not what they were; names the files.
    ModelError
        There is no run, nothing in it to compare with, or no weights any more that it started from.
    RecipeError
        More iterations are asked for than the run has.
    """
    source = run if isinstance(run, Run) else Run.open(run)
    recipe, noted = source.recipe, source.provenance
    last = source.last_checkpoint
    if last is None:
        raise ModelError(
            f"{source.path} has no checkpoint to compare with", hint="train it first, or resume it"
        )
    trained = source.iteration_of(last)
    count = trained if iterations is None else iterations
    if not 1 <= count <= trained:
        raise RecipeError(
            f"--iters {count}: {source.path} was trained for {trained} iterations",
            hint=f"give a number from 1 to {trained}",
        )
    splits = {"train": load_cases(recipe.train_dataset, recipe.dimensions, recipe.neighbours)}
    if recipe.val_dataset is not None:
        splits["val"] = load_cases(recipe.val_dataset, recipe.dimensions, recipe.neighbours)
    require_noted_data(noted["data"], splits, source.path)
    require_same_files(source, read_beside(recipe))
    folder = source.path.with_name(f"{source.path.name}-reproduced") if output is None else Path(output)
    Run.require_free(folder, overwrite=False)
    # As many iterations as the run has are trained, whatever says now when it should have ended.
    recipe = recipe.model_copy(update={"early_stopping": None, "device": device or recipe.device})

    _take_threads(noted)
    start_paddle()
    _require_same_start(source)
    from medseg_paddle.engine.cpu_kernels import expected_cpu_kernels
    from medseg_paddle.engine.device import set_training_device

    chosen = set_training_device(recipe)
    differing = _what_changed(source, surroundings(chosen), expected_cpu_kernels(recipe, chosen))
    for line in differing:
        say(f"not as it was: {line}")
    if count == recipe.iters:
        again = train(recipe, output=folder)
    else:
        # A stop saves before the next iteration; where a validation is due, it comes after that.
        until = count + 1 if count % recipe.save_interval == 0 else count
        again = train_first(recipe, folder, Onlooker("training again", recipe.batch_size, until), keep=True)
    return compare_runs(source, again, iteration=count, tolerance=tolerance, surroundings=differing)


def _require_same_start(run: Run) -> None:
    """See that the weights that a run started from are still what they were."""
    noted = run.provenance.get("initial_weights")
    if noted is None:
        return
    from medseg_paddle.engine.weight_sources import open_source

    path = Path(noted["source"])
    file = path if path.is_file() else open_source(path).file
    if sha256(file) != noted["sha256"]:
        raise DataError(
            f"{path}, which {run.path} started from, has other weights than then",
            hint="put them back as they were; from other weights it is another training, not a repetition",
        )


def compare_runs(
    first: Run,
    second: Run,
    *,
    iteration: int,
    tolerance: float = TOLERANCE,
    surroundings: tuple[str, ...] = (),
) -> Reproduction:
    """Compare what two runs noted and saved up to an iteration."""
    from medseg_paddle.engine.dashboard import curve

    window = first.recipe.log_iters
    curves = {}
    for name, tag in _TAGS.items():
        then, now = (
            {step: value for step, value in curve(run.path, tag).items() if step <= iteration}
            for run in (first, second)
        )
        if name == _LOSS and second.recipe.log_iters == 1:
            now = _averaged(now, then, window)
        curves[name] = compare_curves(then, now)
    pairs: list[tuple[float, float]] = []
    for kind, name in _SCORES.items():
        then, now = (_scores(run, kind, iteration) for run in (first, second))
        common = then.keys() & now.keys()
        if common:
            curves[name] = compare_curves(then, now)
            pairs += [(then[step], now[step]) for step in common]
    states = _states(first, second, iteration)
    return Reproduction(
        second.path,
        surroundings,
        iteration,
        curves,
        _best(first, pairs),
        compared=count_numbers(states[0]) if states else 0,
        arrays=tuple(differing_arrays(*states)) if states else (),
        tolerance=tolerance,
    )


def _states(first: Run, second: Run, iteration: int) -> tuple[Arrays, Arrays] | None:
    """All arrays of both runs' checkpoints of an iteration."""
    from medseg_paddle.engine.states import arrays_in

    folders = []
    for run in (first, second):
        found = [one for one in run.checkpoints_newest_first() if run.iteration_of(one) == iteration]
        if not found:
            return None
        folders.append(found[0])
    return arrays_in(folders[0]), arrays_in(folders[1])


def _best(run: Run, pairs: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """The best score of both; None where one has none."""
    gain = run.recipe.selection.gain
    scored = [[one for one in scores if gain(one) > -math.inf] for scores in zip(*pairs, strict=True)]
    if not scored or not all(scored):
        return None
    then, now = (max(scores, key=gain) for scores in scored)
    return then, now


def _scores(run: Run, kind: str, iteration: int) -> dict[int, float]:
    """Iteration to score, NaN where it is undefined in every case."""
    return {
        entry["iter"]: math.nan if entry["score"] is None else entry["score"]
        for entry in run.history()
        if entry["weights"] == kind and entry["iter"] <= iteration
    }


def _averaged(losses: Mapping[int, float], like: Mapping[int, float], window: int) -> dict[int, float]:
    """Means of single losses, computed as `train()` does, at the iterations of `like`."""
    found = {}
    for step in like:
        steps = range(step - window + 1, step + 1)
        if all(one in losses for one in steps):
            found[step] = float(np.float32(sum(losses[one] for one in steps) / window))
    return found


def _take_threads(noted: Mapping[str, Any]) -> None:
    """As many threads as then: another number adds in another order. What the environment says goes before."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        number = noted.get("machine", {}).get("settings", {}).get(name, "")
        if number.isdecimal() and int(number) > 0:
            os.environ.setdefault(name, number)


def _what_changed(run: Run, now: Mapping[str, Any], kernels: str) -> tuple[str, ...]:
    """What differs between the surroundings of a run, of each of its parts, and of its repetition."""
    noted = run.provenance
    computed = (
        _COMPUTING.findall(run.log.read_text(encoding="utf-8", errors="replace")) if run.log.is_file() else []
    )
    found = []
    for number, part in enumerate([noted, *noted.get("resumed", ())]):
        prefix = f"from iteration {part.get('iteration', 0)} on: " if number else ""
        then = dict(_facts(part))
        if number < len(computed):
            then["convolutions"] = computed[number][1]
        current = {**dict(_facts(now)), "convolutions": kernels or "CUDA"}
        for name, value in then.items():
            if current.get(name, "") != value:
                found.append(f"{prefix}{name} {value or 'none'} then, {current.get(name, '') or 'none'} now")
    return tuple(found)


def _facts(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of what bits may depend on."""
    yield from part["versions"].items()
    git = part.get("git") or {}
    commit = str(git.get("commit", ""))[:_SHOWN_DIGITS]
    yield "commit", commit + (" with changes" if git.get("changed") else "")
    machine = part["machine"]
    yield "processor", machine["processor"]
    yield "device", machine["device"]
    yield "processes", str(part.get("processes", 1))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE"):
        yield name, machine["settings"].get(name, "")


def _curve_line(name: str, curve: CurveDifference) -> str:
    if not curve.compared:
        return f"{name}: nothing to compare"
    if curve.first is None:
        return f"{name}: {curve.compared} points the same, bit for bit"
    one, other = curve.at_first
    return (
        f"{name}: {curve.compared} points, different from iteration {curve.first} on "
        f"({one:.9g} and {other:.9g}), by at most {curve.greatest:.3g}"
    )
