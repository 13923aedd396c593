"""From a run to its scores on whole cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg_paddle.core import SPLITS, Case, Split
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.files import new_folder, write_text
from medseg_paddle.io.images import write_image, write_label
from medseg_paddle.io.overlay import draw_comparison
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.run import Run
from medseg_paddle.steps.checks import class_names, require_apart, require_same_data
from medseg_paddle.steps.progress import ProgressBar

_CASES = "cases.csv"


def evaluate(
    run: Path | Run,
    *,
    split: Split = "test",
    output: Path | None = None,
    overlays: int = 8,
    device: str | None = None,
) -> Report:
    """Score a run's best checkpoint on whole cases, in their own size.

    Writes ``cases.csv`` (a row per case and class), ``summary.json``, ``masks/`` and, for the first
    cases, ``overlays/`` (image, truth, prediction). Slices of a volume count as one case; its
    overlay is the slice with the most foreground.

    Parameters
    ----------
    run : Path or Run
    split : {"test", "val", "train"}
    output : Path, optional
        Folder to write, an earlier evaluation in it is replaced; ``evaluation/<split>`` in the run where absent.
    overlays : int
        Cases to draw.
    device : str, optional
        In place of the recipe's.

    Raises
    ------
    RecipeError, DataError, ModelError, SetupError
    """
    run = run if isinstance(run, Run) else Run.open(run)
    recipe = run.recipe
    spec = recipe.dataset(split)
    if spec is None:
        raise RecipeError(
            f"the recipe of {run.path} has no {split} set",
            hint="add `test_dataset:` to the recipe, or evaluate with --split val",
        )
    cases = load_cases(spec)
    labels = class_names(recipe)
    compared = _require_held_out(run, cases, split)

    start_paddle()
    from medseg_paddle.engine.device import set_device
    from medseg_paddle.engine.models import ForwardFunction, load_model
    from medseg_paddle.engine.scoring import score_cases

    chosen = set_device(device or recipe.device)
    checkpoint = run.best_checkpoint
    # in the precision that it was validated in
    mixed = recipe.amp_level if recipe.precision == "fp16" and chosen != "cpu" else None
    forward = ForwardFunction(load_model(recipe, checkpoint), mixed)
    counts: dict[str, CaseCounts] = {}
    most: dict[str, int] = {}
    folder = output or run.evaluation_folder(split)
    with (
        new_folder(folder, overwrite=True, marker=_CASES) as new,
        ProgressBar(f"evaluating {split}", len(cases)) as bar,
    ):
        for done, scored in enumerate(score_cases(forward, cases, recipe, counts), start=1):
            case = scored.case
            write_label(new / "masks" / f"{case.id}.png", scored.prediction)
            pixels = int(np.count_nonzero(scored.truth))
            if pixels > most.get(case.group, -1) and (case.group in most or len(most) < overlays):
                most[case.group] = pixels
                picture = draw_comparison(
                    scored.image.astype(np.uint8), scored.truth, scored.prediction, labels
                )
                write_image(new / "overlays" / f"{case.group}.png", picture)
            bar.update(done)
        report = Report.from_counts(counts, labels)
        if not any(row.scores.truth_pixels for row in report.rows):
            raise DataError(
                f"no foreground pixel in the {split} set: there is nothing to score",
                hint="check the labels' values and the list of labels",
            )
        write_text(new / _CASES, report.to_csv())
        facts = {
            "run": run.path.name,
            "split": split,
            "checkpoint": checkpoint.relative_to(run.path).as_posix(),
            "images": len(cases),
            "number_of_cases": len(counts),
            "compared_with_training_data": compared,
        }
        write_text(new / "summary.json", json.dumps({**facts, **json.loads(report.to_json())}, indent=1))
    return report


def _require_held_out(run: Run, cases: Sequence[Case], split: Split) -> bool:
    """See that nothing scored was learned from; False where the training data is not on this machine."""
    learned: dict[str, Sequence[Case]] = {}
    for name in SPLITS[: SPLITS.index(split)]:
        spec = run.recipe.dataset(name)
        if spec is not None:
            try:
                learned[name] = load_cases(spec)
            except DataError:
                return False
    require_same_data(run, learned)
    require_apart(cases, learned, split)
    return True
