"""A training's folder: the only place that knows the names of the files in it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg_paddle import checkpoint_folder, history
from medseg_paddle.best_weights import BestWeights
from medseg_paddle.config import Recipe, change_recipe, dump_recipe, load_recipe
from medseg_paddle.errors import ModelError, RecipeError, SetupError
from medseg_paddle.io.files import locked, new_folder, require_writable, write_text
from medseg_paddle.io.sealed import seal

_RECIPE = "recipe.yml"
_PROVENANCE = "provenance.json"
_HISTORY = "validation.jsonl"
_LOG = "train.log"
_LOCK = "train.lock"
_CHECKPOINTS = "checkpoints"

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
        if path.exists() and not Run.exists(path) and (not path.is_dir() or any(_but_begun(path))):
            raise SetupError(f"{path} is there and is no run", hint="name a new or empty folder as --output")
        existed = path.exists()
        require_writable(path)
        if not existed:
            path.rmdir()

    @staticmethod
    @contextlib.contextmanager
    def held(path: Path) -> Iterator[None]:
        """Let no other process train in `path` while the block runs; a process that ends lets it go.

        Raises
        ------
        NoLocksError
            The file system has no locks.
        SetupError
            Another process trains there, or `path` cannot be written.
        """
        with locked(path / _LOCK, wait=False) as ours:
            if not ours:
                raise SetupError(
                    f"{path} is being trained by another process",
                    hint="wait until it ends, or stop it (Ctrl-C, `docker compose stop train`); for a second "
                    "training name another --output",
                )
            yield

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

    def note_initial_weights(self, facts: dict[str, Any]) -> None:
        """Add to the provenance what weights the training started from, as ``initial_weights``.

        Raises
        ------
        ModelError
            It began with others before: a run that is started again shall be the one that was begun.
        """
        known = self.provenance
        before = known.setdefault("initial_weights", facts)
        if before["sha256"] != facts["sha256"]:
            raise ModelError(
                f"{facts['source']} has other weights than when {self.path} was begun",
                hint="put them back as they were, or start anew with --overwrite",
            )
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
    def best(self) -> BestWeights:
        """The best weights, which are kept."""
        return BestWeights(self.checkpoints)

    @property
    def best_checkpoint(self) -> Path:
        """Weights to use: the best by validation of those there are, the last where nothing was validated.

        Raises
        ------
        ModelError
            Nothing has been saved yet.
        """
        for entry in self.best_first():
            if (weights := self.best.of(entry)) is not None:
                return weights
        last = self.last_checkpoint
        if last is None:
            raise ModelError(f"{self.path} has no checkpoint yet", hint="train it first, or resume it")
        return self.weights_in(last)

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
        averaged = self.average_in(last)
        return averaged if self.recipe.use_ema and averaged.is_file() else self.weights_in(last)

    @property
    def last_checkpoint(self) -> Path | None:
        """Folder of the latest checkpoint, None where there is none."""
        return next(iter(self.checkpoints_newest_first()), None)

    def checkpoints_newest_first(self) -> list[Path]:
        """Folders of the checkpoints that a training can go on from, unless they are damaged."""
        return checkpoint_folder.newest_first(self.checkpoints)

    iteration_of = staticmethod(checkpoint_folder.iteration_of)
    weights_in = staticmethod(checkpoint_folder.weights_in)
    optimizer_in = staticmethod(checkpoint_folder.optimizer_in)
    average_in = staticmethod(checkpoint_folder.average_in)
    state_in = staticmethod(checkpoint_folder.state_in)
    is_sealed = staticmethod(checkpoint_folder.is_sealed)
    damage = staticmethod(checkpoint_folder.damage)
    set_aside = staticmethod(checkpoint_folder.set_aside)

    def checkpoint_at(self, iteration: int) -> Path:
        """Folder of the checkpoint of an iteration, as `paddleseg.core.train()` names it."""
        return self.checkpoints / checkpoint_folder.name_of(iteration)

    @contextlib.contextmanager
    def new_checkpoint(self, iteration: int) -> Iterator[Path]:
        """Save a checkpoint that is whole or not there; the checksums of its files are written last.

        Yields
        ------
        Path
            Folder to write the files into.
        """
        with new_folder(self.checkpoint_at(iteration), overwrite=True) as folder:
            yield folder
            seal(folder)

    def tidy_checkpoints(self) -> None:
        """Remove checkpoints that are not whole, and all but the newest ``keep_checkpoint_max``.

        Those that were set aside stay. What a killed process was about to write goes, too.
        """
        for name in (_RECIPE, _PROVENANCE, _HISTORY, _LOG, "probe"):
            for file in self.path.glob(f".{name}.*.tmp"):
                file.unlink(missing_ok=True)
        self.best.tidy()
        whole = self.checkpoints_newest_first()
        kept = {
            *whole[: self.recipe.keep_checkpoint_max],
            *checkpoint_folder.were_set_aside(self.checkpoints),
        }
        for folder in self.checkpoints.glob(".iter_*.tmp"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in self.checkpoints.glob("iter_*"):
            if folder not in kept:
                # First out of sight: a removal that is cut short leaves no part that looks like a checkpoint.
                with contextlib.suppress(OSError):
                    shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.old.tmp")))

    def unscored(self, checkpoint: Path) -> tuple[str, ...]:
        """What the training was stopped before: validations due at `checkpoint`, of ``"model"`` and ``"ema"``."""
        iteration = self.iteration_of(checkpoint)
        if self.recipe.val_dataset is None or not self.saves_at(iteration):
            return ()
        noted = {entry["weights"] for entry in self.history() if entry["iter"] == iteration}
        kinds = ("model", "ema") if self.recipe.use_ema else ("model",)
        return tuple(kind for kind in kinds if kind not in noted)

    def unkept(self, until: int) -> dict[str, Path]:
        """See :meth:`medseg_paddle.best_weights.BestWeights.unkept`; of the evaluations up to an iteration."""
        return self.best.unkept(self.best_first(), until)

    def saves_at(self, iteration: int) -> bool:
        """Whether a validation and a checkpoint are due after an iteration."""
        return iteration % self.recipe.save_interval == 0 or iteration == self.recipe.iters

    @property
    def bundle_folder(self) -> Path:
        """Where `medseg export` writes unless told otherwise."""
        return self.path / "bundle"

    def evaluation_folder(self, split: str) -> Path:
        """Where `medseg evaluate` writes unless told otherwise."""
        return self.path / "evaluation" / split

    def history(self) -> list[dict[str, Any]]:
        """One entry per evaluation during training, oldest first; see :data:`medseg_paddle.history.Entry`.

        Raises
        ------
        ModelError
            Its file is damaged.
        """
        return history.read(self.path / _HISTORY)

    def best_first(self) -> list[dict[str, Any]]:
        """Those entries of the history that have a score, the best first, of equal ones the earlier."""
        return history.best_first(self.history(), self.recipe.selection)

    def patience_spent_at(self, until: int) -> int | None:
        """See :func:`medseg_paddle.history.patience_spent_at`."""
        return history.patience_spent_at(self.history(), self.recipe, until)

    def set_history(self, entries: list[dict[str, Any]]) -> None:
        """Replace the history; the file is whole at any time."""
        history.write(self.path / _HISTORY, entries)

    def _clear(self) -> None:
        """Remove what a former run left, and only that; where it is cut short, a run is there that has not begun."""
        for name in (_PROVENANCE, _HISTORY, _LOG):
            (self.path / name).unlink(missing_ok=True)
        for event_file in self.path.glob("*vdlrecords*"):
            event_file.unlink()
        for event_file in self.path.glob("*vdlgraph*"):
            event_file.unlink()
        for folder in (self.checkpoints, self.bundle_folder, self.path / "evaluation"):
            shutil.rmtree(folder, ignore_errors=True)
        (self.path / _RECIPE).unlink(missing_ok=True)


def _but_begun(folder: Path) -> Iterator[Path]:
    """What is in a folder, without files that a killed process was about to write."""
    return (entry for entry in folder.iterdir() if not entry.match(".*.tmp") and entry.name != _LOCK)
