"""Cross-validation: every patient is scored once, by a model that never saw them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_paddle.bundle import Bundle
from medseg_paddle.config import Recipe, as_recipe, change_recipe
from medseg_paddle.config.datasets import EvalManifest, TrainManifest
from medseg_paddle.config.optimisation import ReduceOnPlateau
from medseg_paddle.core import Case, Manifest, sha256
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.files import locked
from medseg_paddle.metrics.report import Report
from medseg_paddle.run import Checkpoint, Run
from medseg_paddle.steps.checks import require_apart, require_fresh_start, require_same_data
from medseg_paddle.steps.crossval_page import write_page
from medseg_paddle.steps.crossval_summary import CrossValidation, FoldScores, write_summary
from medseg_paddle.steps.evaluate import SUMMARY, evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.progress import say
from medseg_paddle.steps.provenance import fingerprint_of
from medseg_paddle.steps.train import train

_BUNDLE = "bundle"
_DRAWN = 64  # cases of a fold; the page shows those with the lowest scores


def crossval(
    recipe: Path | str | Recipe,
    *,
    output: Path | str | None = None,
    overrides: Sequence[str] = (),
    folds: Sequence[int] = (),
    checkpoint: Checkpoint = "last",
    resume: bool = False,
    device: str | None = None,
) -> CrossValidation:
    """Train and score a recipe on every fold of its data set.

    Each fold is an ordinary run in ``fold_<k>``, trained on the other folds and scored on whole cases of its own
    (``evaluation/val`` in the run). The test set is not looked at. The summary is written as ``crossval.json``,
    ``crossval.csv``, ``crossval.md``, ``crossval.png``, ``crossval.html`` and, case by case, ``cases.csv``.

    Parameters
    ----------
    recipe : Path, str or Recipe
        Its data sets are a manifest with folds; a fold that they name is replaced.
    output : Path or str, optional
        ``outputs/<name>_crossval`` where absent.
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    folds : sequence of int
        Those to train and to summarise; all where empty.
    checkpoint : {"last", "best"}
        Weights that are scored. The last were chosen by no score. The best were chosen by the very images that
        score them, so their scores are too good.
    resume : bool
        Go on with what is there: finished folds are not trained again, and not scored again if nothing changed.
    device : str, optional
        In place of the recipe's.

    Returns
    -------
    CrossValidation

    Raises
    ------
    RecipeError, DataError, ModelError, SetupError
        The data has no folds, or a training, an evaluation or the folder fails.
    """
    resolved = as_recipe(recipe, overrides)
    every = _folds_of(resolved)
    chosen = tuple(dict.fromkeys(folds)) or every
    if unknown := [fold for fold in chosen if fold not in every]:
        raise RecipeError(
            f"there is no fold {unknown[0]}: the data set has the folds {_listed(every)}",
            hint=f"name folds out of {_listed(every)}",
        )
    folder = Path("outputs") / f"{resolved.name}_crossval" if output is None else Path(output)
    if not resume and (taken := [fold for fold in chosen if (folder / f"fold_{fold}").exists()]):
        raise SetupError(
            f"{folder} holds fold {_listed(taken)} already",
            hint="go on with --resume, or name another --output",
        )
    recipes = {
        fold: change_recipe(resolved, [f"train_dataset.fold={fold}", f"val_dataset.fold={fold}"])
        for fold in chosen
    }
    held_out = {fold: _held_out(one, folder / f"fold_{fold}") for fold, one in recipes.items()}
    scores = []
    for done, (fold, one) in enumerate(recipes.items(), start=1):
        cases = held_out[fold]
        say(f"fold {fold} ({done} of {len(recipes)}): {len(cases)} images held out")
        with _at_work_on(folder, fold):
            run = train(one, output=folder / f"fold_{fold}", resume=resume, device=device)
            scores.append(FoldScores.of(fold, _scored(run, cases, checkpoint, device), cases))
    result = CrossValidation(folder, resolved.name, every, checkpoint, tuple(scores), _steered_by(resolved))
    write_summary(result)
    write_page(result)
    return result


def export_folds(result: CrossValidation, *, device: str | None = None) -> Bundle:
    """Freeze the models of all folds that were scored into one bundle, ``bundle`` in the folder.

    It holds the weights that were scored. Its probabilities are the mean of the folds', see
    :func:`medseg_paddle.steps.export.export`.
    """
    runs = [result.path / f"fold_{one.fold}" for one in result.folds]
    return export(
        runs, checkpoint=result.checkpoint, output=result.path / _BUNDLE, overwrite=True, device=device
    )


def _folds_of(recipe: Recipe) -> tuple[int, ...]:
    train_set, val_set = recipe.train_dataset, recipe.val_dataset
    if not (isinstance(train_set, TrainManifest) and isinstance(val_set, EvalManifest)):
        raise RecipeError(
            "cross-validation needs a train_dataset and a val_dataset of `type: Manifest`",
            hint="set `folds: 5` in `prepare`, run `medseg prepare`, and name its folder in both",
        )
    if Path(train_set.dataset_root).resolve() != Path(val_set.dataset_root).resolve():
        raise RecipeError(
            f"train_dataset reads {train_set.dataset_root}, val_dataset {val_set.dataset_root}",
            hint="name one data set in both; its folds are trained on and held out in turn",
        )
    found = Manifest.load(Path(train_set.dataset_root), splits=("train", "val")).folds
    if len(found) < 2:
        raise DataError(
            f"{train_set.dataset_root} has no folds",
            hint="set `folds: 5` in `prepare` and run `medseg prepare` again",
        )
    return found


def _held_out(recipe: Recipe, folder: Path) -> tuple[Case, ...]:
    """The images that score a fold.

    Before anything is trained, see that none of its patients is learned from, and that a run that is there
    learned from the data that there is now.
    """
    if recipe.val_dataset is None:
        raise ValueError("a recipe without a validation set came past the check for one")
    held_out, learned = (
        load_cases(spec, recipe.dimensions, recipe.neighbours)
        for spec in (recipe.val_dataset, recipe.train_dataset)
    )
    require_apart(held_out, {"train": learned}, "val")
    require_fresh_start(recipe, held_out, "val")
    if Run.begun(folder):
        require_same_data(Run.open(folder), {"train": learned, "val": held_out})
    return held_out


@contextlib.contextmanager
def _at_work_on(folder: Path, fold: int) -> Iterator[None]:
    """Keep a fold for this process until the block, or the process, ends."""
    with locked(folder / ".locks" / f"fold_{fold}", wait=False) as held:
        if not held:
            raise SetupError(
                f"another process is at fold {fold} of {folder}",
                hint="wait for it, or give each process folds of its own with --folds",
            )
        yield


def _steered_by(recipe: Recipe) -> tuple[str, ...]:
    """Keys that let a training follow its validation scores, also where no checkpoint is chosen by them."""
    plateau = isinstance(recipe.lr_scheduler, ReduceOnPlateau)
    found = {"early_stopping": recipe.early_stopping is not None, "lr_scheduler ReduceOnPlateau": plateau}
    return tuple(key for key, used in found.items() if used)


def _scored(run: Run, cases: Sequence[Case], checkpoint: Checkpoint, device: str | None) -> Report:
    """The scores of a fold: those on disk if they are of these weights and images, else new ones."""
    noted = run.evaluation_folder("val") / SUMMARY
    try:
        text = noted.read_text(encoding="utf-8")
        if _is_of(json.loads(text), run, cases, checkpoint):
            return Report.from_json(text)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or of an earlier version
    return evaluate(run, split="val", checkpoint=checkpoint, overlays=_DRAWN, device=device)


def _is_of(summary: Mapping[str, Any], run: Run, cases: Sequence[Case], checkpoint: Checkpoint) -> bool:
    return bool(
        summary["weights"] == [sha256(run.weights(checkpoint))]
        and summary["sha256"] == fingerprint_of(cases)
        and summary["distances"]["tolerance"] == run.recipe.surface_tolerance
        and summary["inference"] == run.recipe.inference.model_dump(mode="json")
        and summary["postprocessing"] == run.recipe.postprocessing_specs
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
