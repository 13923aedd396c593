"""A training's folder: the only place that knows the names of the files in it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg_paddle.config import Recipe, change_recipe, dump_recipe, load_recipe
from medseg_paddle.errors import ModelError, RecipeError, SetupError
from medseg_paddle.io.files import new_folder, require_writable, whole_file, write_text

_RECIPE = "recipe.yml"
_PROVENANCE = "provenance.json"
_HISTORY = "validation.jsonl"
_LOG = "train.log"
_CHECKPOINTS = "checkpoints"
_BEST = "best_model"
_EMA_BEST = "ema_best_model"
_WEIGHTS = "model.pdparams"
_EMA_WEIGHTS = "ema_model.pdparams"
_OPTIMIZER = "model.pdopt"
_ITERATION = "iteration"
_DAMAGED = ".damaged"

Checkpoint = Literal["best", "last"]


@dataclass(frozen=True)
class Run:
    """A folder where a recipe was trained.

    Attributes
    ----------
    path : Path
    recipe : Recipe
        As resolved when the run was started.
    """

    path: Path
    recipe: Recipe

    @classmethod
    def create(
        cls, path: Path, recipe: Recipe, provenance: dict[str, Any], *, overwrite: bool = False
    ) -> Run:
        """Start a run's folder.

        Raises
        ------
        SetupError
            The folder holds a run already, or cannot be written.
        """
        cls.require_free(path, overwrite=overwrite)
        run = cls(path, recipe)
        if overwrite:
            run._clear()
        write_text(path / _RECIPE, dump_recipe(recipe))
        write_text(path / _PROVENANCE, json.dumps(provenance, indent=1))
        return run

    @staticmethod
    def require_free(path: Path, *, overwrite: bool) -> None:
        """See that a run may be started in `path`, before anything is computed.

        Raises
        ------
        SetupError
            The folder holds a run already and `overwrite` is false, holds something else, or cannot be written.
        """
        if Run.exists(path) and not overwrite:
            raise SetupError(
                f"{path} holds a run already",
                hint="go on with it by --resume, replace it by --overwrite, or name another --output",
            )
        if path.exists() and not Run.exists(path) and (not path.is_dir() or any(path.iterdir())):
            raise SetupError(f"{path} is there and is no run", hint="name a new or empty folder as --output")
        existed = path.exists()
        require_writable(path)
        if not existed:
            path.rmdir()

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether `path` holds a run."""
        return (path / _RECIPE).is_file()

    @staticmethod
    def begun(path: Path) -> bool:
        """Whether `path` holds a run that can be gone on with, not one that was cut short as it was made."""
        return Run.exists(path) and (path / _PROVENANCE).is_file()

    def with_recipe(self, recipe: Recipe) -> Run:
        """The run with another recipe, on disk too: what is evaluated and exported is what was trained."""
        write_text(self.path / _RECIPE, dump_recipe(recipe))
        return Run(self.path, recipe)

    def changed(self, overrides: Sequence[str], keys: Sequence[str]) -> Run:
        """The run with other settings; the folder stays as it is.

        Parameters
        ----------
        overrides : sequence of str
            ``key=value``, as :func:`medseg_paddle.config.load_recipe` takes them.
        keys : sequence of str
            Parts of the recipe that may be changed.

        Raises
        ------
        RecipeError
            Another part is named, or the recipe is no longer right.
        """
        for override in overrides:
            key = override.partition("=")[0].partition(".")[0]
            if key not in keys:
                raise RecipeError(
                    f"--set {override}: `{key}` cannot be changed here",
                    hint=f"{', '.join(keys)} can; for anything else train again with it",
                )
        return Run(self.path, change_recipe(self.recipe, overrides)) if overrides else self

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open a run's folder.

        Raises
        ------
        ModelError
            There is no run in it.
        """
        path = Path(path)
        if not cls.exists(path):
            raise ModelError(
                f"{path} is not a run (no {_RECIPE} in it)", hint="give the folder that `medseg train` made"
            )
        return cls(path, load_recipe(path / _RECIPE))

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, git, machine, data fingerprints, as noted when the run was started.

        ``resumed`` lists what later parts of the training were made with.
        """
        try:
            content = json.loads((self.path / _PROVENANCE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ModelError(
                f"{self.path / _PROVENANCE} cannot be read: {error}", hint="train again"
            ) from error
        return dict(content)

    def note(self, name: str, facts: dict[str, Any]) -> None:
        """Add facts to the provenance, in place of those that had the same name."""
        write_text(self.path / _PROVENANCE, json.dumps({**self.provenance, name: facts}, indent=1))

    def note_resumption(self, facts: dict[str, Any]) -> None:
        """Add to the provenance with what the run goes on."""
        known = self.provenance
        known["resumed"] = [*known.get("resumed", ()), facts]
        write_text(self.path / _PROVENANCE, json.dumps(known, indent=1))

    @property
    def log(self) -> Path:
        """Text log of the training."""
        return self.path / _LOG

    @property
    def checkpoints(self) -> Path:
        """Folder that `paddleseg.core.train()` saves to."""
        return self.path / _CHECKPOINTS

    @property
    def best_checkpoint(self) -> Path:
        """Weights to use: the best by validation of those there are, the last where nothing was validated.

        The weights kept as the best can be of an iteration that the history has lost: a run that went
        back past a damaged checkpoint has yet to come to it again. They are then left alone.

        Raises
        ------
        ModelError
            Nothing has been saved yet.
        """
        scored = [entry for entry in self.history() if entry["score"] >= 0]
        for entry in sorted(scored, key=lambda entry: entry["score"], reverse=True):
            folder, name = (_EMA_BEST, _EMA_WEIGHTS) if entry["weights"] == "ema" else (_BEST, _WEIGHTS)
            kept = self.checkpoints / folder / name
            if kept.is_file() and _noted_iteration(kept) in (entry["iter"], None):
                return kept
            saved = self.checkpoints / f"iter_{entry['iter']}" / name
            if saved.is_file():
                return saved
        last = self.last_checkpoint
        if last is None:
            raise ModelError(f"{self.path} has no checkpoint yet", hint="train it first, or resume it")
        return last / _WEIGHTS

    def weights(self, which: Checkpoint) -> Path:
        """Weights to use: the best by validation, or those at the end (with ``use_ema`` their moving average).

        Raises
        ------
        ModelError
            Nothing has been saved yet.
        """
        if which == "best":
            return self.best_checkpoint
        last = self.last_checkpoint
        if last is None:
            raise ModelError(f"{self.path} has no checkpoint yet", hint="train it first, or resume it")
        averaged = last / _EMA_WEIGHTS
        return averaged if self.recipe.use_ema and averaged.is_file() else last / _WEIGHTS

    @property
    def last_checkpoint(self) -> Path | None:
        """Folder of the latest checkpoint, None where there is none."""
        return next(iter(self.checkpoints_newest_first()), None)

    def checkpoints_newest_first(self) -> list[Path]:
        """Folders of the checkpoints that a training can go on from."""
        found = {}
        for folder in self.checkpoints.glob("iter_*"):
            number = re.fullmatch(r"iter_(\d+)", folder.name)
            if number and (folder / _WEIGHTS).is_file() and (folder / _OPTIMIZER).is_file():
                found[int(number[1])] = folder
        return [found[number] for number in sorted(found, reverse=True)]

    @staticmethod
    def iteration_of(checkpoint: Path) -> int:
        """The iteration a checkpoint folder was saved at."""
        return int(checkpoint.name.removeprefix("iter_"))

    @contextlib.contextmanager
    def new_checkpoint(self, iteration: int) -> Iterator[tuple[Path, Path]]:
        """Save a checkpoint that is whole or not there, as `paddleseg.core.train()` names it.

        Yields
        ------
        tuple of Path
            Files to write weights and optimiser to.
        """
        with new_folder(self.checkpoints / f"iter_{iteration}", overwrite=True) as folder:
            yield folder / _WEIGHTS, folder / _OPTIMIZER

    def weights_in(self, checkpoint: Path) -> Path:
        """File of the weights in a checkpoint folder."""
        return checkpoint / _WEIGHTS

    def keep_as_best(self, checkpoint: Path) -> None:
        """Let `checkpoint`, the last that was validated, be the best one; its weights are copied."""
        best = self.checkpoints / _BEST / _WEIGHTS
        with best_noted(best), whole_file(best) as copy:
            shutil.copyfile(checkpoint / _WEIGHTS, copy)

    def set_aside(self, checkpoint: Path) -> Path:
        """Give a damaged checkpoint a name that no training goes on from; the new name."""
        aside = checkpoint.with_name(checkpoint.name + _DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        return checkpoint.rename(aside)

    def tidy_checkpoints(self) -> None:
        """Remove checkpoints that are not whole, and all but the newest ``keep_checkpoint_max``.

        Those that were set aside stay.
        """
        whole = self.checkpoints_newest_first()
        kept = {*whole[: self.recipe.keep_checkpoint_max], *self.checkpoints.glob(f"*{_DAMAGED}")}
        for folder in [*self.checkpoints.glob("iter_*"), *self.checkpoints.glob(".iter_*.tmp")]:
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def to_validate(self, checkpoint: Path) -> bool:
        """Whether the training was stopped before the validation that is due at `checkpoint`."""
        iteration = self.iteration_of(checkpoint)
        due = iteration % self.recipe.save_interval == 0 or iteration == self.recipe.iters
        noted = any(entry["iter"] == iteration for entry in self.history())
        return self.recipe.val_dataset is not None and due and not noted

    @property
    def bundle_folder(self) -> Path:
        """Where `medseg export` writes unless told otherwise."""
        return self.path / "bundle"

    def evaluation_folder(self, split: str) -> Path:
        """Where `medseg evaluate` writes unless told otherwise."""
        return self.path / "evaluation" / split

    def history(self) -> list[dict[str, Any]]:
        """One entry per evaluation during training, oldest first: ``iter``, ``score``, ``dice`` by class."""
        return _history(self.path)

    def set_history(self, entries: list[dict[str, Any]]) -> None:
        """Replace the history; the file is whole at any time."""
        write_text(self.path / _HISTORY, "".join(json.dumps(entry) + "\n" for entry in entries))

    def _clear(self) -> None:
        """Remove what a former run left, and only that."""
        for name in (_RECIPE, _PROVENANCE, _HISTORY, _LOG):
            (self.path / name).unlink(missing_ok=True)
        for event_file in self.path.glob("*vdlrecords*"):
            event_file.unlink()
        for event_file in self.path.glob("*vdlgraph*"):
            event_file.unlink()
        for folder in (self.checkpoints, self.bundle_folder, self.path / "evaluation"):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def best_noted(weights: Path) -> Iterator[None]:
    """While the best weights are replaced, note beside them which iteration they are of: the last validated one.

    Parameters
    ----------
    weights : Path
        File that the block writes. Nothing is noted about weights that are not a run's best.
    """
    if weights.parent.name not in (_BEST, _EMA_BEST):
        yield
        return
    note = weights.with_name(_ITERATION)
    note.unlink(missing_ok=True)  # no note says less than one that is wrong, should the block be cut short
    yield
    entries = _history(weights.parents[2])
    if entries:
        write_text(note, f"{entries[-1]['iter']}\n")


def _noted_iteration(weights: Path) -> int | None:
    """The iteration of the best weights; None where it is not noted."""
    note = weights.with_name(_ITERATION)
    return int(note.read_text(encoding="utf-8")) if note.is_file() else None


def _history(folder: Path) -> list[dict[str, Any]]:
    path = folder / _HISTORY
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
