"""From a recipe to a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import Self

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.engine.cpu import available_cores
from medseg_paddle.engine.interruption import Stopped, StopSignals
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.io.files import disk_is_full, free_space
from medseg_paddle.metrics.report import Report
from medseg_paddle.run import Run
from medseg_paddle.steps.checks import class_names, require_apart, require_same_data, require_same_window
from medseg_paddle.steps.progress import ProgressBar, say
from medseg_paddle.steps.provenance import provenance, surroundings

# What comes after the training.
_LATER_USE = frozenset({"description", "prepare", "inference", "export", "test_dataset"})
# Keys that may differ between a run and its resumption: length, bookkeeping, and later use.
_MAY_CHANGE = _LATER_USE | {
    "iters", "save_interval", "log_iters", "keep_checkpoint_max", "model_graph", "num_workers", "overlays", "device",
    "cpu_kernels", "search",
}  # fmt: skip

Watch = Callable[[int, float], None]
"""Called with an iteration and the score that it was validated with, the greater the better."""


def train(
    recipe: Path | str | Recipe,
    *,
    output: Path | str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    watch: Watch | None = None,
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
    watch : callable, optional
        Called after each validation; with ``use_ema`` twice, for the model and for its average. What it raises
        ends the training as a stop does, with a checkpoint of that iteration that can be resumed, and is then
        raised here.

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
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if device is not None:
        resolved = resolved.model_copy(update={"device": device})
    folder = Path("outputs") / resolved.name if output is None else Path(output)
    with StopSignals() as stop, _room_needed(folder):
        return _train(resolved, folder, resume=resume, overwrite=overwrite, stop=stop, watch=watch)


def _train(
    recipe: Recipe, folder: Path, *, resume: bool, overwrite: bool, stop: StopSignals, watch: Watch | None
) -> Run:
    going_on = resume and Run.begun(folder)
    if going_on:
        run = Run.open(folder)
        _require_same_training(run, recipe)
        if (done := _finished_at(run, recipe)) is not None:
            say(f"{folder} is finished: {done} of {recipe.iters} iterations")
            return _with_later_use(run, recipe)
        _require_resumable(run, recipe)
    splits = {"train": load_cases(recipe.train_dataset)}
    if recipe.val_dataset is not None:
        splits["val"] = load_cases(recipe.val_dataset)
    labels = class_names(recipe)
    require_same_window(recipe)
    require_apart(splits.get("val", ()), {"train": splits["train"]}, "val")
    overwrite = overwrite or (resume and Run.exists(folder))
    if going_on:
        require_same_data(run, splits)
    else:
        Run.require_free(folder, overwrite=overwrite)

    start_paddle()
    from medseg_paddle.engine.device import set_device
    from medseg_paddle.engine.inspection import inspect
    from medseg_paddle.engine.training import fit

    chosen = set_device(recipe.device, recipe.precision)
    with (
        _TrainingProgress(recipe.num_workers, watch) as listener,
        DecodedImages(recipe.train_dataset.cache_mb << 20) as decoded,
    ):
        # All that can be wrong with data and model is looked at before the folder is touched.
        found = inspect(recipe, splits["train"], splits.get("val", ()), listener, decoded)
        if going_on:
            last = run.last_checkpoint
            run.note_resumption(
                {**surroundings(chosen), "iteration": 0 if last is None else run.iteration_of(last)}
            )
            run = run.with_recipe(recipe)
        else:
            run = Run.create(folder, recipe, provenance(splits, chosen), overwrite=overwrite)
        listener.run = run
        try:
            fit(
                run,
                splits["train"],
                splits.get("val", ()),
                labels,
                found=found,
                decoded=decoded,
                device=chosen,
                resume=going_on,
                listener=listener,
                stop=stop,
            )
        except Stopped:  # by the validation that a resumed run makes up for, before the loop
            if listener.ended_by is None:
                raise
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
    changed = [key for key in _changed(run, wanted) if key not in _MAY_CHANGE]
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


def _finished_at(run: Run, wanted: Recipe) -> int | None:
    """The iteration of the last checkpoint, if there is nothing left to do."""
    last = run.last_checkpoint
    if last is None or run.iteration_of(last) < wanted.iters or Run(run.path, wanted).to_validate(last):
        return None
    return run.iteration_of(last)


def _require_resumable(run: Run, recipe: Recipe) -> None:
    if recipe.use_ema and run.last_checkpoint is not None:
        raise RecipeError(
            "a run with use_ema cannot be resumed: PaddleSeg does not load the moving average again",
            hint="train it in one go, or without use_ema",
        )


_MUCH_WAITING = 0.2
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


class _TrainingProgress:
    """Shows a training on the terminal, and tells who watches its scores."""

    def __init__(self, num_workers: int, watch: Watch | None) -> None:
        self._bar = ProgressBar("checking", 1).__enter__()
        self._score = ""
        self._watch = watch
        self.run: Run | None = None
        self.ended_by: Exception | None = None
        self._num_workers, self._lines = num_workers, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)

    def surveyed(self, done: int, total: int, what: str) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.advance(done, total, what)

    def doubted(self, what: str) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.say(f"warning: {what}")

    def started(self, folder: Path, facts: dict[str, Any], first_iter: int, iters: int) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._bar.__exit__(None, None, None)
        self._bar = ProgressBar("training", iters, first_iter)
        self._bar.__enter__()
        where = facts["device"] + (f" with {facts['cpu_kernels']}" if facts["cpu_kernels"] else "")
        word = f"resuming at iteration {first_iter}" if first_iter else "training"
        self._bar.say(
            f"{word}: {facts['model']}, {facts['parameters']:,} parameters, on {where}, into {folder}"
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
            self._bar.say(waiting_advice(waiting, self._num_workers, available_cores()))

    def validated(self, step: int, report: Report, *, best: bool) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        self._score = f"  Dice {report.mean_foreground_dice:.4f}"
        mark = "  best so far, saved" if best else ""
        self._bar.say(f"validation at {step}: mean foreground Dice {report.mean_foreground_dice:.4f}{mark}")
        if self._watch is None or self.run is None:
            return
        try:
            self._watch(step, self.run.history()[-1]["score"])
        except Exception as error:
            self.ended_by = error
            raise Stopped from error

    def stopped(self, step: int, iters: int, *, resumable: bool) -> None:
        """See :class:`medseg_paddle.engine.listener.Listener`."""
        advice = "go on with --resume" if resumable else "a run with use_ema cannot be resumed"
        self._bar.say(f"stopped at iteration {step} of {iters}; {advice}")
