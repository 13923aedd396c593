"""From a recipe to a run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.config.optimisation import ReduceOnPlateau
from medseg_paddle.engine.cpu import available_cores
from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.io.files import disk_is_full, free_space
from medseg_paddle.run import Run
from medseg_paddle.steps.checks import (
    class_names,
    read_beside,
    require_apart,
    require_same_data,
    require_same_files,
    require_same_window,
    require_scored_class,
)
from medseg_paddle.steps.duration import seconds
from medseg_paddle.steps.progress import TrainingBar, say
from medseg_paddle.steps.provenance import provenance, surroundings
from medseg_paddle.steps.together import Processes, processes_wanted, train_together

if TYPE_CHECKING:
    from medseg_paddle.steps.member import Member, RemoteListener

# What comes after the training.
_LATER_USE = frozenset({"description", "prepare", "inference", "export", "test_dataset"})
# Keys that may differ between a run and its resumption: length, bookkeeping, and later use.
_MAY_CHANGE = _LATER_USE | {
    "iters", "save_interval", "log_iters", "keep_checkpoint_max", "model_graph", "num_workers", "overlays", "device",
    "cpu_kernels", "gradient_checkpointing", "early_stopping", "search",
}  # fmt: skip

Watch = Callable[[int, float], None]
"""Called with an iteration and its score, turned so that greater is better; minus infinity where there is none."""


def train(
    recipe: Path | str | Recipe,
    *,
    output: Path | str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    max_time: float | str | None = None,
    watch: Watch | None = None,
    nproc: int | None = None,
    devices: Sequence[int] | None = None,
) -> Run:
    """Train a recipe with `paddleseg.core.train()`.

    In the main thread, SIGTERM and Ctrl-C during the training let it finish the iteration and save a
    checkpoint; then they raise ``SystemExit(143)`` and ``KeyboardInterrupt``. A second one ends the
    process at once.

    Parameters
    ----------
    recipe : Path, str or Recipe
        A YAML file, or what :func:`medseg_paddle.config.load_recipe` made of one.
    output : Path or str, optional
        The run's folder; ``outputs/<name>`` where absent.
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    resume : bool
        Go on from the latest checkpoint in `output`; start if there is none. Of a finished run, what the
        recipe says about its later use is noted.
    overwrite : bool
        Replace a run in `output`.
    device : str, optional
        ``"auto"``, ``"cpu"`` or ``"gpu"``, in place of the recipe's.
    max_time : float or str, optional
        Seconds, or as in ``"1h30m"``, counted from this call. After them no iteration is begun: a checkpoint is
        saved, and `resume` goes on from it. At least one iteration is made, and a validation that is due.
    watch : callable, optional
        Called after each validation; with ``use_ema`` twice, for the model and for its average. What it raises
        ends the training as a stop does, with a checkpoint of that iteration that can be resumed, and is then
        raised here. Of several processes none can be watched.
    nproc : int, optional
        Train by so many processes on the CPU, each with its share of every batch.
    devices : sequence of int, optional
        Train by a process on each of these GPUs.

    Returns
    -------
    Run

    Raises
    ------
    RecipeError, DataError, ModelError, SetupError
        Before anything is trained; a full disk also later.
    """
    if isinstance(recipe, Recipe) and overrides:
        raise RecipeError(
            "overrides change a recipe file, not a loaded Recipe", hint="give them to load_recipe"
        )
    end_at = math.inf if max_time is None else time.monotonic() + seconds(max_time, "--max-time")
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    processes = processes_wanted(nproc, devices)
    if processes is not None:
        resolved = processes.placed(resolved)
        if watch is not None:
            raise RecipeError("several processes cannot be watched", hint="train by one, or without `watch`")
    folder = Path("outputs") / resolved.name if output is None else Path(output)
    with StopSignals() as stop, _room_needed(folder):
        return _train(
            resolved,
            folder,
            resume=resume,
            overwrite=overwrite,
            stop=stop,
            end_at=end_at,
            watch=watch,
            processes=processes,
        )


def train_as(member: Member) -> None:
    """Train as one of several processes; see :mod:`medseg_paddle.steps.together`."""
    task = member.task
    with StopSignals(patient=True) as stop, _room_needed(task.folder):
        _train(
            task.recipe,
            task.folder,
            resume=task.resume,
            overwrite=task.overwrite,
            stop=stop,
            end_at=task.end_at,
            member=member,
        )


def _train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool,
    overwrite: bool,
    stop: StopSignals,
    end_at: float,
    watch: Watch | None = None,
    processes: Processes | None = None,
    member: Member | None = None,
) -> Run:
    going_on = resume and Run.begun(folder)
    if going_on:
        run = Run.open(folder)
        _require_same_training(run, recipe)
        if (how := _how_it_finished(run, recipe)) is not None:
            say(f"{folder} is finished: {how}")
            return _with_later_use(run, recipe)
    splits = {"train": load_cases(recipe.train_dataset)}
    if recipe.val_dataset is not None:
        splits["val"] = load_cases(recipe.val_dataset)
    labels = class_names(recipe)
    scored_class = require_scored_class(recipe, labels)
    require_same_window(recipe)
    require_apart(splits.get("val", ()), {"train": splits["train"]}, "val")
    overwrite = overwrite or (resume and Run.exists(folder))
    if going_on:
        require_same_data(run, splits)
        require_same_files(run, read_beside(recipe))
    elif member is None or member.first:
        Run.require_free(folder, overwrite=overwrite)
    if processes is not None:
        with _TrainingProgress(recipe, None) as bar:
            train_together(
                recipe, folder, processes, bar, stop, resume=resume, overwrite=overwrite, end_at=end_at
            )
        return Run(folder, recipe)

    start_paddle()
    from medseg_paddle.engine.checkpoints import latest_whole
    from medseg_paddle.engine.data import balanced_weights
    from medseg_paddle.engine.device import set_device
    from medseg_paddle.engine.inspection import inspect
    from medseg_paddle.engine.ranks import ALONE
    from medseg_paddle.engine.training import fit

    chosen = set_device(recipe.device, recipe.precision, deterministic=recipe.deterministic)
    from_checkpoint = going_on and run.last_checkpoint is not None
    ranks = ALONE if member is None else member.join()
    shown: _TrainingProgress | RemoteListener = (
        _TrainingProgress(recipe, watch) if member is None else member.listener
    )
    with (
        shown as listener,
        DecodedImages((recipe.train_dataset.cache_mb << 20) // ranks.count) as decoded,
    ):
        # All that can be wrong with data and model is looked at before the folder is touched.
        found = inspect(
            recipe,
            splits["train"],
            splits.get("val", ()),
            listener,
            decoded,
            scored_class=scored_class,
            going_on=from_checkpoint,
        )
        checkpoint = None
        if not ranks.first:
            run = Run(folder, recipe)
        elif going_on:
            checkpoint = latest_whole(run)
            reached = 0 if checkpoint is None else run.iteration_of(checkpoint)
            run.note_resumption({**surroundings(chosen), "processes": ranks.count, "iteration": reached})
            run = run.with_recipe(recipe)
        else:
            facts = provenance(splits, chosen, read_beside(recipe)) | {
                "processes": ranks.count,
                "pixels_per_class": list(found.pixels),
                "class_weights": balanced_weights(recipe, found),
            }
            run = Run.create(folder, recipe, facts, overwrite=overwrite)
        checkpoint = ranks.from_first(checkpoint)
        fit(
            run,
            splits["train"],
            splits.get("val", ()),
            labels,
            found=found,
            decoded=decoded,
            device=chosen,
            checkpoint=checkpoint,
            listener=listener,
            stop=stop,
            end_at=end_at,
            ranks=ranks,
        )
    if listener.ended_by is not None:
        raise listener.ended_by
    return run


@contextlib.contextmanager
def _room_needed(folder: Path) -> Iterator[None]:
    """Let whatever a full disk raises, in our code, Paddle's or VisualDL's, be one error that says what to do."""
    try:
        yield
    except Exception as error:
        if not disk_is_full(error):
            raise
        raise SetupError(
            f"the disk of {folder} is full ({free_space(folder)})", hint="make room, then go on with --resume"
        ) from error


def _changed(run: Run, wanted: Recipe) -> list[str]:
    """Keys of the recipe that are not as in the run's."""
    before, now = run.recipe.model_dump(), wanted.model_dump()
    return [key for key in now if now[key] != before[key]]


def _with_later_use(run: Run, wanted: Recipe) -> Run:
    """A finished run with what `wanted` says about its use; other changes would have been for the training."""
    later = {key: getattr(wanted, key) for key in _changed(run, wanted) if key in _LATER_USE}
    if not later:
        return run
    recipe = run.recipe.model_copy(update=later)
    require_same_window(recipe)
    say(f"noted in its recipe: {', '.join(later)}")
    return run.with_recipe(recipe)


def _require_same_training(run: Run, wanted: Recipe) -> None:
    free = _MAY_CHANGE
    if isinstance(wanted.lr_scheduler, ReduceOnPlateau):
        free -= {"save_interval"}  # the learning rate counts validations
    changed = [key for key in _changed(run, wanted) if key not in free]
    if "inference" in _changed(run, wanted) and run.history():
        raise RecipeError(
            f"{run.path} was validated with another inference; its scores could not be compared with later ones",
            hint="give the change to `medseg evaluate` and `medseg export` with --set; the run stays as it is",
        )
    if changed:
        raise RecipeError(
            f"{run.path} was trained with another {', '.join(changed)}",
            hint="resume with the run's own recipe.yml, or start a new run with --output",
        )


def _how_it_finished(run: Run, wanted: Recipe) -> str | None:
    """What there is to say of a run with nothing left to do; None where there is something."""
    last, planned = run.last_checkpoint, Run(run.path, wanted)
    if last is None:
        return None
    done = run.iteration_of(last)
    early = planned.patience_spent_at(done) is not None
    if done < wanted.iters and not early:
        return None
    if planned.unscored(last) or run.unkept(last) or (run.is_sealed(last) and run.damage(last)):
        return None
    if done >= wanted.iters:
        return f"{done} of {wanted.iters} iterations"
    return f"{stopped_early(done, wanted)}; to go on, raise early_stopping.patience or remove early_stopping"


def stopped_early(step: int, recipe: Recipe) -> str:
    """Why a training ended before its last iteration, in words."""
    stopping = recipe.early_stopping
    assert stopping is not None  # noqa: S101  (nothing else stops a training early)
    evaluations = f"{stopping.patience} evaluation{'s' * (stopping.patience > 1)}"
    margin = f" by more than {stopping.min_delta:g}" if stopping.min_delta else ""
    return (
        f"stopped early at iteration {step} of {recipe.iters}, "
        f"{recipe.selection.name} did not get better{margin} in {evaluations}"
    )


_MUCH_WAITING = 0.2
_LAYERS_SHOWN = 20  # of those that are not as in the source of the first weights
_LINES_BEFORE_ADVICE = 3  # the first ones hold the start of the processes and of the device


def waiting_advice(waiting: float, num_workers: int, cores: int) -> str:
    """What to do about a training that waits for images.

    Parameters
    ----------
    waiting : float
        Share of the time, 0..1.
    num_workers, cores : int
        Processes that load images, and cores that they can have.
    """
    said = f"{waiting:.0%} of the time goes into waiting for images"
    if num_workers < cores:
        more = min(max(2 * num_workers, 2), cores)
        return f"{said}: num_workers: {more} in the recipe loads faster (now {num_workers})"
    return (
        f"{said}; {num_workers} processes have {cores} cores, and more would not help: keep more images decoded "
        "(cache_mb), or take dear transforms out"
    )


class _TrainingProgress(TrainingBar):
    """Shows a training on the terminal, and tells who watches its scores."""

    def __init__(self, recipe: Recipe, watch: Watch | None) -> None:
        super().__init__("checking")
        self._score = ""
        self._recipe, self._lines = recipe, 0
        self._watch = watch
        self.ended_by: Exception | None = None

    def initialised(self, summary: str, layers: Sequence[str]) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.say(summary)
        for line in layers[:_LAYERS_SHOWN]:
            self._bar.say(line)
        if len(layers) > _LAYERS_SHOWN:
            self._bar.say(f"  and {len(layers) - _LAYERS_SHOWN} more; the run's train.log has all layers")

    def started(self, folder: Path, facts: dict[str, Any], first_iter: int, iters: int) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self.begin("training", iters, first_iter)
        where = facts["device"] + (f" with {facts['cpu_kernels']}" if facts["cpu_kernels"] else "")
        shared = f", {facts['processes']} processes" if facts["processes"] > 1 else ""
        word = f"resuming at iteration {first_iter}" if first_iter else "training"
        self._bar.say(
            f"{word}: {facts['model']}, {facts['parameters']:,} parameters"
            + (f" ({facts['frozen']:,} of them frozen)" if facts["frozen"] else "")
            + f", on {where}{shared}, into {folder}"
        )
        if facts["shortage"]:
            self._bar.say(
                f"{facts['images_decoded']:,} of {facts['images']:,} images are kept decoded ({facts['shortage']}); "
                "the others are decoded in each pass"
            )

    def iterated(
        self, step: int, loss: float, learning_rate: float, images_per_second: float, waiting: float
    ) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        note = f"loss {loss:.4f}  lr {learning_rate:.2g}  {images_per_second:.1f} img/s"
        self._bar.update(step, f"{note}  {waiting:.0%} waiting for images{self._score}")
        self._lines += 1
        if self._lines == _LINES_BEFORE_ADVICE and waiting >= _MUCH_WAITING:
            self._bar.say(waiting_advice(waiting, self._recipe.num_workers, available_cores()))

    def validated(self, step: int, name: str, score: float, *, best: bool) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        mark = "  best so far, saved" if best else ""
        if math.isnan(score):
            self._bar.say(f"validation at {step}: no {name}, it is undefined in every case")
        else:
            self._score = f"  {name.removeprefix('mean foreground ')} {score:.4f}"
            self._bar.say(f"validation at {step}: {name} {score:.4f}{mark}")
        if self._watch is None:
            return
        try:
            self._watch(step, self._recipe.selection.gain(score))
        except Exception as error:
            self.ended_by = error
            raise Stopped from error

    def stopped(self, step: int, iters: int, *, time_is_up: bool) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        why = "time is up: " if time_is_up else ""
        self._bar.say(f"{why}stopped at iteration {step} of {iters}; go on with --resume")

    def stopped_early(self, step: int) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.say(stopped_early(step, self._recipe))
