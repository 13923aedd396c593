"""From a run to its scores on whole cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg_paddle.config import Recipe
from medseg_paddle.core import SPLITS, Case, Split, sha256
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.files import new_folder, write_text
from medseg_paddle.io.images import write_image, write_label
from medseg_paddle.io.nifti import write_label_nifti
from medseg_paddle.io.overlay import draw_comparison
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.preprocess.tiling import Forward
from medseg_paddle.run import Checkpoint, Run
from medseg_paddle.steps.checks import (
    class_names,
    require_apart,
    require_fresh_start,
    require_same_data,
    require_same_window,
    require_unseen,
)
from medseg_paddle.steps.members import Runs, open_members, require_one_task
from medseg_paddle.steps.progress import ProgressBar, warn
from medseg_paddle.steps.provenance import fingerprint_of

_CASES = "cases.csv"
SUMMARY = "summary.json"
# What of a recipe an evaluation reads that the training did not; the last for the test only.
_MAY_CHANGE = ("inference", "postprocessing", "device", "cpu_kernels", "surface_tolerance", "test_dataset")
_WITHOUT_A_TEST_SET = (
    "score the validation set with --split val, or name held-out images with "
    "--set 'test_dataset={type: ..., dataset_root: ..., mode: test, transforms: [...]}'"
)


def evaluate(
    run: Runs,
    *,
    split: Split = "test",
    checkpoint: Checkpoint = "best",
    output: Path | str | None = None,
    overlays: int = 8,
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> Report:
    """Score a run, or several that answer together, on whole cases, in their own size.

    Writes ``cases.csv`` (a row per case and class), ``summary.json``, ``masks/`` (of whole volumes NIfTI, on the
    grid of the image) and, for the first cases, ``overlays/`` (image, truth, prediction). Slices of a volume
    count as one case; its overlay is the slice with the most foreground, of a whole volume an axial one.
    Surfaces are those of whole volumes where the data set says how their slices lie, see
    :class:`medseg_paddle.metrics.Distances`.

    Parameters
    ----------
    run : Path, str, Run or a sequence of these
        Of several, the mean of their probabilities is scored, on images that none of them learned from.
    split : {"test", "val", "train"}
    checkpoint : {"best", "last"}
        Weights to score: the best by validation, or those at the end.
    output : Path or str, optional
        Folder to write, an earlier evaluation in it is replaced; ``evaluation/<split>`` in the run where absent.
        Several runs need one.
    overlays : int
        Cases to draw.
    device : str, optional
        In place of the recipe's.
    overrides : sequence of str
        ``key=value`` changes of the recipe for this evaluation: of ``inference``, ``postprocessing``, ``device``,
        ``cpu_kernels``, ``surface_tolerance`` and, for the test, ``test_dataset``. The run stays as it is;
        ``summary.json`` says what was used.

    Raises
    ------
    RecipeError, DataError, ModelError, SetupError
    """
    trained = open_members(run)
    keys = _MAY_CHANGE if split == "test" else _MAY_CHANGE[:-1]
    members = [member.changed(overrides, keys) for member in trained]
    first, recipe = members[0], members[0].recipe
    if output is None and len(members) > 1:
        raise RecipeError(
            f"{len(members)} runs are scored together, in none of their folders", hint="add --output FOLDER"
        )
    if len(members) > 1:
        require_one_task(
            members,
            images=lambda member: [
                (case.image, case.label, case.roi) for case in _scored_cases(member, split)
            ],
        )
    cases = _scored_cases(first, split)
    labels = class_names(recipe)
    compared = True
    for member in members:
        require_same_window(member.recipe)
        compared = _require_held_out(member, cases, split) and compared

    start_paddle()
    from medseg_paddle.engine.device import set_device
    from medseg_paddle.engine.scoring import score_cases, surfaces_of

    chosen = set_device(device or recipe.device)
    weights = [member.weights(checkpoint) for member in members]
    forward = _network(members, weights, chosen)
    counts: dict[str, CaseCounts] = {}
    surfaces = surfaces_of(cases, recipe)
    most: dict[str, int] = {}
    folder = first.evaluation_folder(split) if output is None else Path(output)
    with (
        new_folder(folder, overwrite=True, marker=_CASES) as new,
        ProgressBar(f"evaluating {split}", len(cases)) as bar,
    ):
        for done, scored in enumerate(
            score_cases(forward, cases, recipe, counts, labels=labels, surfaces=surfaces), start=1
        ):
            case = scored.case
            if scored.volume is None:
                write_label(new / "masks" / f"{case.id}.png", scored.prediction)
            else:
                write_label_nifti(new / "masks" / f"{case.id}.nii.gz", scored.volume)
            found = scored.foreground
            if found > most.get(case.group, -1) and (case.group in most or len(most) < overlays):
                most[case.group] = found
                picture = draw_comparison(
                    scored.image.astype(np.uint8), scored.truth, scored.prediction, labels
                )
                write_image(new / "overlays" / f"{case.group}.png", picture)
            bar.update(done)
        report = Report.from_counts(counts, labels, surfaces)
        if not any(row.scores.truth_pixels for row in report.rows):
            raise DataError(
                f"no foreground pixel in the {split} set: there is nothing to score",
                hint="check the labels' values and the list of labels",
            )
        write_text(new / _CASES, report.to_csv())
        facts = {
            "run": ", ".join(member.path.name for member in members),
            "split": split,
            "checkpoint": ", ".join(
                path.relative_to(member.path).as_posix()
                for member, path in zip(members, weights, strict=True)
            ),
            "checkpoint_chosen_by": first.recipe.selection.name
            if checkpoint == "best" and first.best_first()
            else None,
            "weights": [sha256(path) for path in weights],
            "images": len(cases),
            "number_of_cases": len(counts),
            "sha256": fingerprint_of(cases),
            "compared_with_training_data": compared,
            "device": chosen,
            "inference": recipe.inference.model_dump(mode="json"),
            "postprocessing": recipe.postprocessing_specs,
            "inference_as_in_validation": _as_validated(recipe, trained),
            "changed": list(overrides),
        }
        write_text(new / SUMMARY, json.dumps({**facts, **json.loads(report.to_json())}, indent=1))
    return report


def _network(members: Sequence[Run], weights: Sequence[Path], chosen: str) -> Forward:
    from medseg_paddle.engine.cpu_kernels import use_cpu_kernels
    from medseg_paddle.engine.models import ForwardFunction, load_model, mean_of
    from medseg_paddle.engine.precision import mixed_precision

    networks = []
    for member, path in zip(members, weights, strict=True):
        recipe = member.recipe
        model = load_model(recipe, path)
        use_cpu_kernels(model, recipe.cpu_kernels, chosen)
        # on a GPU in the precision of the training; on a CPU in float32, as it was validated
        networks.append(ForwardFunction(model, mixed_precision(recipe, chosen)))
    return mean_of(networks)


def _as_validated(recipe: Recipe, members: Sequence[Run]) -> bool | None:
    """Whether images are predicted as for the scores that chose the checkpoints; None where there were none."""
    if not all(member.history() for member in members):
        return None
    return all(
        recipe.inference == member.recipe.inference and recipe.postprocessing == member.recipe.postprocessing
        for member in members
    )


def _scored_cases(run: Run, split: Split) -> Sequence[Case]:
    spec = run.recipe.dataset(split)
    if spec is None:
        raise RecipeError(f"the recipe of {run.path} has no {split} set", hint=_WITHOUT_A_TEST_SET)
    try:
        return load_cases(spec, run.recipe.dimensions, run.recipe.neighbours)
    except DataError as error:
        if split != "test" or run.recipe.test_dataset is not None or not Path(spec.dataset_root).is_dir():
            raise
        raise DataError(error.message, hint=_WITHOUT_A_TEST_SET) from error


def _require_held_out(run: Run, cases: Sequence[Case], split: Split) -> bool:
    """See that nothing scored was learned from; False where training data is not on this machine."""
    learned: dict[str, Sequence[Case]] = {}
    complete = True
    for name in SPLITS[: SPLITS.index(split)]:
        spec = run.recipe.dataset(name)
        if spec is None:
            continue
        if Path(spec.dataset_root).is_dir():
            learned[name] = load_cases(spec, run.recipe.dimensions, run.recipe.neighbours)
        else:
            complete = False
            warn(
                f"the {name} set {spec.dataset_root} is not on this machine; "
                f"nobody looks whether its images or patients are in the {split} set"
            )
    require_same_data(run, learned)
    require_apart(cases, learned, split)
    require_fresh_start(run.recipe, cases, split)
    return _require_unseen(run, cases, split) and complete


def _require_unseen(run: Run, cases: Sequence[Case], split: Split) -> bool:
    """See that nothing scored was looked at without its label; False where such pictures are not on this machine."""
    sampling = run.recipe.train_dataset.sampling
    scores = None if sampling is None or sampling.scores is None else Path(sampling.scores)
    seen = [path for path in map(Path, run.provenance.get("files", {})) if path != scores]
    if split == "train" or not seen:
        return True
    there = [path for path in seen if path.is_file()]
    require_unseen(there, cases, split, run.recipe.in_channels)
    if len(there) < len(seen):
        warn(
            f"{len(seen) - len(there)} picture(s) that the training looked at without labels are not on this machine; "
            f"nobody looks whether they are in the {split} set"
        )
    return len(there) == len(seen)
