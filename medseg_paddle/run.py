"""A training's folder: the only place that knows the names of the files in it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg_paddle.config import Recipe, change_recipe, dump_recipe, load_recipe
from medseg_paddle.errors import ModelError, RecipeError, SetupError
from medseg_paddle.io.files import new_folder, require_writable, whole_file, write_text
from medseg_paddle.io.sealed import damage, is_sealed, seal

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
_STATE = "model.pdstate"
_KEPT = {"model": (_BEST, _WEIGHTS), "ema": (_EMA_BEST, _EMA_WEIGHTS)}
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
        if path.exists() and not Run.exists(path) and (not path.is_dir() or any(_but_begun(path))):
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
    def best_checkpoint(self) -> Path:
        """Weights to use: the best by validation of those there are, the last where nothing was validated.

        The weights kept as the best can be of an iteration that the history has lost: a run that went
        back past a damaged checkpoint has yet to come to it again. They are then left alone.

        Raises
        ------
        ModelError
            Nothing has been saved yet.
        """
        for entry in self.best_first():
            folder, name = _KEPT[entry["weights"]]
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
        """Folders of the checkpoints that a training can go on from, unless they are damaged."""
        found = {}
        for folder in self.checkpoints.glob("iter_*"):
            number = re.fullmatch(r"iter_(\d+)", folder.name)
            complete = (folder / _WEIGHTS).is_file() and (folder / _OPTIMIZER).is_file()
            if number and (self.is_sealed(folder) or complete):
                found[int(number[1])] = folder
        return [found[number] for number in sorted(found, reverse=True)]

    @staticmethod
    def iteration_of(checkpoint: Path) -> int:
        """The iteration a checkpoint folder was saved at."""
        return int(checkpoint.name.removeprefix("iter_"))

    def checkpoint_at(self, iteration: int) -> Path:
        """Folder of the checkpoint of an iteration, as `paddleseg.core.train()` names it."""
        return self.checkpoints / f"iter_{iteration}"

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

    @staticmethod
    def is_sealed(checkpoint: Path) -> bool:
        """Whether a checkpoint has checksums; those of earlier versions have none."""
        return is_sealed(checkpoint)

    @staticmethod
    def damage(checkpoint: Path) -> str | None:
        """What is wrong with a sealed checkpoint, None if its files are as they were written.

        Raises
        ------
        OSError
            A file cannot be read at all.
        """
        return damage(checkpoint, (_WEIGHTS, _OPTIMIZER, _STATE))

    @staticmethod
    def weights_in(checkpoint: Path) -> Path:
        """File of the weights in a checkpoint folder."""
        return checkpoint / _WEIGHTS

    @staticmethod
    def optimizer_in(checkpoint: Path) -> Path:
        """File of the optimiser's state in a checkpoint folder."""
        return checkpoint / _OPTIMIZER

    @staticmethod
    def average_in(checkpoint: Path) -> Path:
        """File of the weights' moving average in a checkpoint folder; there with ``use_ema``."""
        return checkpoint / _EMA_WEIGHTS

    @staticmethod
    def state_in(checkpoint: Path) -> Path:
        """File of everything else that a training goes on with; those of earlier versions have none."""
        return checkpoint / _STATE

    def keep_as_best(self, checkpoint: Path, kind: str = "model") -> None:
        """Let `checkpoint`, the last that was validated, be the best one; its weights are copied.

        `kind` is ``"model"``, or ``"ema"`` for the moving average of the weights.
        """
        folder, name = _KEPT[kind]
        best = self.checkpoints / folder / name
        with best_noted(best), whole_file(best) as copy:
            shutil.copyfile(checkpoint / name, copy)

    def best_kept_in(self, weights: Path) -> str | None:
        """Whose best weights are kept in a file: ``"model"``, ``"ema"`` or, of any other file, None."""
        if weights.parent.parent != self.checkpoints:
            return None
        return next((kind for kind, (folder, _) in _KEPT.items() if folder == weights.parent.name), None)

    def set_aside(self, checkpoint: Path) -> Path:
        """Give a damaged checkpoint a name that no training goes on from; the new name."""
        aside = checkpoint.with_name(checkpoint.name + _DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        return checkpoint.rename(aside)

    def tidy_checkpoints(self) -> None:
        """Remove checkpoints that are not whole, and all but the newest ``keep_checkpoint_max``.

        Those that were set aside stay. What a killed process was about to write goes, too.
        """
        begun = [f".{name}.*.tmp" for name in (_RECIPE, _PROVENANCE, _HISTORY, _LOG, "probe")]
        for pattern in (*begun, f"{_CHECKPOINTS}/{_BEST}/.*.tmp", f"{_CHECKPOINTS}/{_EMA_BEST}/.*.tmp"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)
        whole = self.checkpoints_newest_first()
        kept = {*whole[: self.recipe.keep_checkpoint_max], *self.checkpoints.glob(f"*{_DAMAGED}")}
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

    def unkept(self, checkpoint: Path) -> tuple[str, ...]:
        """What the training was killed before: weights of `checkpoint` that are to be kept as the best, and are not."""
        found = []
        for kind, (folder, name) in _KEPT.items():
            best = next((entry for entry in self.best_first() if entry["weights"] == kind), None)
            kept = self.checkpoints / folder / name
            if best is None or best["iter"] != self.iteration_of(checkpoint):
                continue
            if not kept.is_file() or _noted_iteration(kept) != best["iter"]:
                found.append(kind)
        return tuple(found)

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
        """One entry per evaluation during training, oldest first.

        ``iter``, ``weights`` (``model`` or ``ema``), ``score`` with its ``metric`` and ``label``, None where it
        is undefined in every case, and ``dice`` by class.
        """
        return _history(self.path)

    def best_first(self) -> list[dict[str, Any]]:
        """Those entries of the history that have a score, the best first, of equal ones the earlier."""
        gain = self.recipe.selection.gain
        scored = [entry for entry in self.history() if gain(entry["score"]) > -math.inf]
        return sorted(scored, key=lambda entry: gain(entry["score"]), reverse=True)

    def patience_spent_at(self, until: int) -> int | None:
        """The iteration of the evaluation that used up the patience of `early_stopping`; None where it has not.

        Of an iteration at which the moving average of the weights was scored too, the better score counts.

        Parameters
        ----------
        until : int
            Evaluations after this iteration are not looked at.
        """
        if self.recipe.early_stopping is None:
            return None
        gains: dict[int, float] = {}
        for entry in self.history():
            if entry["iter"] <= until:
                gain = self.recipe.selection.gain(entry["score"])
                gains[entry["iter"]] = max(gain, gains.get(entry["iter"], -math.inf))
        place = self.recipe.early_stopping.spent_at(list(gains.values()))
        return None if place is None else list(gains)[place]

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


def _but_begun(folder: Path) -> Iterator[Path]:
    """What is in a folder, without files that a killed process was about to write."""
    return (entry for entry in folder.iterdir() if not entry.match(".*.tmp"))


def _noted_iteration(weights: Path) -> int | None:
    """The iteration of the best weights; None where it is not noted."""
    note = weights.with_name(_ITERATION)
    return int(note.read_text(encoding="utf-8")) if note.is_file() else None


def _history(folder: Path) -> list[dict[str, Any]]:
    path = folder / _HISTORY
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
