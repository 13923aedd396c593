"""From a recipe to a run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg_paddle.config import Recipe, as_recipe
from medseg_paddle.config.duration import seconds
from medseg_paddle.config.optimisation import ReduceOnPlateau
from medseg_paddle.core import Case, LabelSet
from medseg_paddle.engine.interruption import StopSignals
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.io.files import NoLocksError, disk_is_full, free_space
from medseg_paddle.run import Run
from medseg_paddle.steps.checks import (
    class_names,
    read_beside,
    require_apart,
    require_fresh_start,
    require_same_data,
    require_same_files,
    require_same_window,
    require_scored_class,
    require_unseen_pictures,
)
from medseg_paddle.steps.progress import say
from medseg_paddle.steps.provenance import provenance, surroundings
from medseg_paddle.steps.together import Processes, processes_wanted, train_together
from medseg_paddle.steps.train_progress import TrainingProgress, Watch, stopped_early
from medseg_paddle.steps.volumes import ready_volumes

if TYPE_CHECKING:
    from medseg_paddle.engine.data import Survey
    from medseg_paddle.steps.member import Member, RemoteListener

# What comes after the training.
_LATER_USE = frozenset(
    {
        "description", "codes", "colors", "prepare", "inference", "postprocessing", "export", "test_dataset",
        "surface_tolerance",
    }
)  # fmt: skip
# Keys that may differ between a run and its resumption: length, bookkeeping, and later use.
_MAY_CHANGE = _LATER_USE | {
    "iters", "save_interval", "log_iters", "keep_checkpoint_max", "model_graph", "num_workers", "overlays", "device",
    "cpu_kernels", "gradient_checkpointing", "early_stopping", "search",
}  # fmt: skip


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
    end_at = math.inf if max_time is None else time.monotonic() + seconds(max_time, "--max-time")
    resolved = as_recipe(recipe, overrides)
    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    processes = processes_wanted(nproc, devices)
    if processes is not None:
        resolved = processes.placed(resolved)
        if watch is not None:
            raise RecipeError("several processes cannot be watched", hint="train by one, or without `watch`")
    folder = Path("outputs") / resolved.name if output is None else Path(output)
    with StopSignals() as stop, _room_needed(folder), contextlib.ExitStack() as held:
        return _train(
            resolved,
            folder,
            resume=resume,
            overwrite=overwrite,
            stop=stop,
            end_at=end_at,
            watch=watch,
            held=held,
            processes=processes,
        )


def train_as(member: Member) -> None:
    """Train as one of several processes; see :mod:`medseg_paddle.steps.together`."""
    task = member.task
    with StopSignals(patient=True) as stop, _room_needed(task.folder), contextlib.ExitStack() as held:
        _train(
            task.recipe,
            task.folder,
            resume=task.resume,
            overwrite=task.overwrite,
            stop=stop,
            end_at=task.end_at,
            held=held,
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
    held: contextlib.ExitStack,
    watch: Watch | None = None,
    processes: Processes | None = None,
    member: Member | None = None,
) -> Run:
    existed = Run.exists(folder)
    writes = member is None or member.first
    if writes and existed and (resume or overwrite):
        held.enter_context(_alone(folder))
    going_on = resume and Run.begun(folder)
    if going_on:
        run = Run.open(folder)
        _require_same_training(run, recipe)
        if (how := _how_it_finished(run, recipe)) is not None:
            say(f"{folder} is finished: {how}")
            return _with_later_use(run, recipe)
    splits, labels, scored_class = checked(recipe)
    overwrite = overwrite or (resume and existed)
    if going_on:
        require_same_data(run, splits)
        require_same_files(run, read_beside(recipe))
    elif writes:
        Run.require_free(folder, overwrite=overwrite)
    ready_volumes(recipe, splits["train"])
    if processes is not None:
        held.close()  # for the first of those that it starts
        with TrainingProgress(recipe, None) as bar:
            train_together(
                recipe, folder, processes, bar, stop, resume=resume, overwrite=overwrite, end_at=end_at
            )
        return Run(folder, recipe)

    start_paddle()
    from medseg_paddle.engine.checkpoints import latest_whole
    from medseg_paddle.engine.device import set_training_device
    from medseg_paddle.engine.inspection import inspect
    from medseg_paddle.engine.ranks import ALONE
    from medseg_paddle.engine.training import fit

    chosen = set_training_device(recipe)
    from_checkpoint = going_on and run.last_checkpoint is not None
    ranks = ALONE if member is None else member.join()
    shown: TrainingProgress | RemoteListener = (
        TrainingProgress(recipe, watch) if member is None else member.listener
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
            if not existed:
                held.enter_context(_alone(folder))
            run = new_run(folder, recipe, splits, found, chosen, processes=ranks.count, overwrite=overwrite)
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


def checked(
    recipe: Recipe, *, validated: bool = True
) -> tuple[dict[str, tuple[Case, ...]], LabelSet, int | None]:
    """What a training works on, all right as far as names and headers tell.

    Parameters
    ----------
    recipe : Recipe
    validated : bool
        The training has the recipe's validation set.

    Returns
    -------
    splits : dict
        ``"train"``, and ``"val"`` if there is one, to their cases.
    labels : LabelSet
    scored_class : int or None
        The class that chooses the best checkpoint; None where it is their mean.

    Raises
    ------
    RecipeError, DataError
        Something is missing, or in two sets.
    """
    splits = {"train": load_cases(recipe.train_dataset, recipe.dimensions, recipe.neighbours)}
    if validated and recipe.val_dataset is not None:
        splits["val"] = load_cases(recipe.val_dataset, recipe.dimensions, recipe.neighbours)
    labels = class_names(recipe)
    scored_class = require_scored_class(recipe, labels)
    require_same_window(recipe)
    require_apart(splits.get("val", ()), {"train": splits["train"]}, "val")
    require_unseen_pictures(recipe, splits.get("val", ()))
    require_fresh_start(recipe, splits.get("val", ()), "val")
    return splits, labels, scored_class


def new_run(
    folder: Path,
    recipe: Recipe,
    splits: Mapping[str, Sequence[Case]],
    found: Survey,
    device: str,
    *,
    processes: int = 1,
    overwrite: bool = False,
) -> Run:
    """Make a run's folder, with what the run depends on beside its recipe.

    Parameters
    ----------
    folder : Path
    recipe : Recipe
    splits : mapping
        Split to its cases; the checksums of their files are noted.
    found : Survey
        Of the training's images.
    device : str
    processes : int
        How many train together.
    overwrite : bool
        Replace a run there.
    """
    from medseg_paddle.engine.data import balanced_weights

    facts = provenance(splits, device, read_beside(recipe)) | {
        "processes": processes,
        "pixels_per_class": list(found.pixels),
        "class_weights": balanced_weights(recipe, found),
    }
    return Run.create(folder, recipe, facts, overwrite=overwrite)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """See that no other process trains in `folder`, where its disk can tell."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(Run.held(folder))
        except NoLocksError as error:
            say(f"warning: {error.message}; see to it that no second training is started in this folder")
        yield


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
    """Keys of the recipe that are not as in the run's; `cache_mb` decides how fast images are there, not which."""
    before, now = (one.model_dump(exclude={"train_dataset": {"cache_mb"}}) for one in (run.recipe, wanted))
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
    if wanted.selection.metric == "nsd":
        free -= {"surface_tolerance"}
    changed = [key for key in _changed(run, wanted) if key not in free]
    predicted = [key for key in ("inference", "postprocessing") if key in _changed(run, wanted)]
    if predicted and run.history():
        raise RecipeError(
            f"{run.path} was validated with another {predicted[0]}; its scores could not be compared with later ones",
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
    if planned.unscored(last) or run.unkept(done) or (run.is_sealed(last) and run.damage(last)):
        return None
    if done >= wanted.iters:
        return f"{done} of {wanted.iters} iterations"
    return f"{stopped_early(done, wanted)}; to go on, raise early_stopping.patience or remove early_stopping"
