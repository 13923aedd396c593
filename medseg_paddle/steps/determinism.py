"""Train the first iterations twice, each time in a fresh process, and compare every bit."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_paddle.config import Recipe, as_recipe
from medseg_paddle.engine.interruption import StopSignals
from medseg_paddle.errors import MedsegError, RecipeError, SetupError
from medseg_paddle.io.files import write_bytes
from medseg_paddle.steps.differences import (
    ArrayDifference,
    Arrays,
    CurveDifference,
    compare_curves,
    count_numbers,
    differing_arrays,
)
from medseg_paddle.steps.first_iterations import Onlooker, train_first

ITERATIONS = 20
# A relative difference that the order of additions in single precision explains.
_ROUNDING = 1e-4
_NAMED = 5  # arrays in a report
_OPTIMIZER = "optimizer: "


@dataclass(frozen=True)
class Trained:
    """What one process trained.

    Attributes
    ----------
    losses : dict
        Iteration to loss.
    arrays : dict
        Weights and the optimiser's state after the last of them.
    facts : dict
        What the training said of itself: device, kernels.
    threads : str
        Of the maths libraries.
    num_workers : int
        Processes that loaded images.
    """

    losses: dict[int, float]
    arrays: Arrays
    facts: dict[str, Any] = field(default_factory=dict)
    threads: str = ""
    num_workers: int = 0


@dataclass(frozen=True)
class Verdict:
    """What the comparison found.

    Attributes
    ----------
    losses : CurveDifference
    arrays : tuple of ArrayDifference
        Those that differ, in the order of the layers.
    first, second : Trained
    causes : tuple of str
        What may be the cause; empty where nothing differs.
    """

    losses: CurveDifference
    arrays: tuple[ArrayDifference, ...]
    first: Trained
    second: Trained
    causes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every loss and every number is the same, bit for bit."""
        return self.losses.first is None and not self.arrays

    def lines(self) -> list[str]:
        """The verdict for people."""
        weights = [name for name in self.first.arrays if not name.startswith(_OPTIMIZER)]
        what = (
            f"{self.losses.compared} losses, {len(weights)} arrays of weights and "
            f"{len(self.first.arrays) - len(weights)} of the optimiser ({count_numbers(self.first.arrays):,} numbers)"
        )
        workers = (self.first.num_workers, self.second.num_workers)
        loading = f"num_workers {workers[0]}" + ("" if workers[0] == workers[1] else f" and {workers[1]}")
        kernels = self.first.facts.get("cpu_kernels")
        where = self.first.facts.get("device", "") + (f" with {kernels}" if kernels else "")
        compared = f"compared: {what}; {loading}, {where}, {self.first.threads} threads"
        if self.same:
            return [compared, "the same, bit for bit"]
        lines = [compared]
        if self.losses.first is not None:
            one, other = self.losses.at_first
            lines.append(
                f"the losses differ from iteration {self.losses.first} on: {one:.9g} and {other:.9g}; "
                f"by at most {self.losses.greatest:.3g} later"
            )
        else:
            lines.append(f"the {self.losses.compared} losses are the same")
        lines.append(f"{len(self.arrays)} of {len(self.first.arrays)} arrays differ; the first:")
        lines += [f"  {difference}" for difference in self.arrays[:_NAMED]]
        return [*lines, *(f"cause: {cause}" for cause in self.causes)]


def verify_determinism(
    recipe: Path | str | Recipe,
    *,
    overrides: Sequence[str] = (),
    iterations: int = ITERATIONS,
    other_workers: int | None = None,
    device: str | None = None,
) -> Verdict:
    """Train the recipe's first iterations twice, each time in a fresh process, and compare.

    No run folder is made or touched; nothing is validated.

    Parameters
    ----------
    recipe : Path, str or Recipe
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    iterations : int
        How many; all of the recipe's where it has fewer.
    other_workers : int, optional
        ``num_workers`` of the second training; the recipe's where absent.
    device : str, optional
        In place of the recipe's.

    Raises
    ------
    MedsegError
        As :func:`medseg_paddle.steps.train.train`; SetupError where a process ended without an answer.
    """
    if iterations < 1:
        raise RecipeError(f"{iterations} iterations show nothing", hint="compare at least one")
    resolved = as_recipe(recipe, overrides)
    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    count = min(iterations, resolved.iters)
    resolved = resolved.model_copy(update={"save_interval": count})
    second = resolved if other_workers is None else resolved.model_copy(update={"num_workers": other_workers})
    return compare(
        _in_a_fresh_process(resolved, count, "first training"),
        _in_a_fresh_process(second, count, "second training"),
        deterministic=resolved.deterministic,
    )


def compare(first: Trained, second: Trained, *, deterministic: bool) -> Verdict:
    """Compare two trainings of the same recipe.

    Parameters
    ----------
    first, second : Trained
    deterministic : bool
        The recipe's key; it decides what may be the cause.
    """
    losses = compare_curves(first.losses, second.losses)
    arrays = tuple(differing_arrays(first.arrays, second.arrays))
    same = losses.first is None and not arrays
    causes = () if same else _causes(losses, arrays, first, second, deterministic=deterministic)
    return Verdict(losses, arrays, first, second, causes)


def _causes(
    losses: CurveDifference,
    arrays: Sequence[ArrayDifference],
    first: Trained,
    second: Trained,
    *,
    deterministic: bool,
) -> tuple[str, ...]:
    found = []
    if losses.first == min(first.losses, default=0):
        found.append(
            "the first loss already differs: other images, other initial weights, or a network that draws random "
            "numbers that do not follow from the seed"
        )
    else:
        found.append(
            "the first loss is the same, so the first images and the initial weights are; it is in a gradient, in the "
            "optimiser, or in later images"
        )
    if first.num_workers != second.num_workers:
        found.append(
            f"images were loaded by {first.num_workers} and by {second.num_workers} processes; what is drawn at "
            "random must follow from the seed and the image's position alone. Compare again with equal num_workers: "
            "if nothing differs then, that is it"
        )
    if losses.first is None:
        size = max((one.relative for one in arrays), default=0.0)
    else:
        size = abs(losses.at_first[0] - losses.at_first[1]) / max(abs(losses.at_first[0]), 1e-30)
    if size <= _ROUNDING:
        found.append(f"a first difference of {size:.1e} of the value is rounding: additions in another order")
    else:
        found.append(
            f"a first difference of {size:.1e} of the value is more than the order of additions explains"
        )
    if str(first.facts.get("device", "")).startswith("gpu"):
        found.append(
            "on a GPU some operators have no fixed order of additions (docs/howto/reproduce.md lists them)"
            if deterministic
            else "on a GPU cuDNN may take algorithms without a fixed order of additions: set `deterministic: true`"
        )
    return tuple(found)


def _in_a_fresh_process(recipe: Recipe, iterations: int, title: str) -> Trained:
    """Train in a process that has computed nothing before."""
    with tempfile.TemporaryDirectory(prefix="medseg-determinism-") as folder:
        request, answer = Path(folder) / "request", Path(folder) / "answer"
        request.write_bytes(pickle.dumps((recipe, iterations, title, Path(folder) / "run", answer)))
        where = os.pathsep.join(place for place in sys.path if place)
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(request)],
            env={**os.environ, "PYTHONPATH": where},
            check=False,
        )
        if not answer.is_file():
            how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
            raise SetupError(
                f"the process of the {title} ended without an answer ({how})",
                hint="what it printed above says why; memory may have run out",
            )
        found = pickle.loads(answer.read_bytes())  # noqa: S301  (of our own process)
    if isinstance(found, MedsegError):
        raise found
    return Trained(**found)


def _train(recipe: Recipe, iterations: int, title: str, folder: Path) -> dict[str, Any]:
    """What :class:`Trained` is made of."""
    losses: dict[int, float] = {}
    onlooker = Onlooker(
        title, recipe.batch_size, iterations, lambda step, loss, _: losses.update({step: loss})
    )
    run = train_first(recipe, folder, onlooker, keep=False)
    from medseg_paddle.engine.states import arrays_in

    return {
        "losses": losses,
        "arrays": arrays_in(run.checkpoints / f"iter_{iterations}"),
        "facts": onlooker.facts,
        "threads": os.environ["OMP_NUM_THREADS"],
        "num_workers": recipe.num_workers,
    }


def _serve(request: Path) -> None:
    """Do what the parent process asks for."""
    recipe, iterations, title, folder, answer = pickle.loads(request.read_bytes())  # noqa: S301  (of our parent)
    found: dict[str, Any] | MedsegError
    with StopSignals():
        try:
            found = _train(recipe, iterations, title, folder)
        except MedsegError as error:
            found = error
        write_bytes(answer, pickle.dumps(found), flush=False)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
