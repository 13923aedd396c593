"""Cross-validation from a data set with folds to its summary, and the ensemble of its models."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medseg_paddle.bundle import Bundle
from medseg_paddle.cli import app
from medseg_paddle.config import change_recipe, load_recipe
from medseg_paddle.core import Case, LabelSet, Manifest
from medseg_paddle.errors import DataError, ModelError, RecipeError, SetupError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.files import locked
from medseg_paddle.io.images import read_image, read_label
from medseg_paddle.metrics import Distances
from medseg_paddle.predictor import Predictor
from medseg_paddle.run import Run
from medseg_paddle.steps.crossval import crossval, export_folds
from medseg_paddle.steps.crossval_page import write_page
from medseg_paddle.steps.crossval_summary import CrossValidation
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.predict import predict
from medseg_paddle.steps.train import train

SETS = ("train", "val")
SIDE = 32
RECIPE = """\
name: discs
batch_size: 2
iters: 4
save_interval: 2
log_iters: 2
overlays: 0
model_graph: false
device: cpu
train_dataset:
  type: Manifest
  dataset_root: {root}
  transforms: [{{type: RandomAffinePatch, size: [32, 32], flip_horizontal: 0.5}}, {{type: Normalize}}]
val_dataset:
  type: Manifest
  dataset_root: {root}
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1]}}
model: {{type: SimpleUNet, width: 4, num_classes: 2}}
"""


def write_manifest(root: Path, *, folds: bool = True) -> Path:
    """Six patients of two pictures each: four in two folds of two, two in the test."""
    rng = np.random.default_rng(1)
    (root / "images").mkdir(parents=True)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    cases: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
    for number in range(12):
        patient = number // 2
        centre = rng.integers(SIDE // 4, 3 * SIDE // 4, 2)
        disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 36
        grey = np.clip(80 + 90 * disc + rng.normal(0, 20, disc.shape), 0, 255).astype(np.uint8)
        image, label = root / "images" / f"i{number}.png", root / "images" / f"l{number}.png"
        Image.fromarray(np.stack([grey] * 3, axis=-1)).save(image)
        Image.fromarray(disc.astype(np.uint8)).save(label)
        split = "test" if patient > 3 else "val" if patient < 2 and folds else "train"
        fold = patient // 2 if split != "test" and folds else None
        cases[split].append(Case(f"i{number}", image, label, patient=f"p{patient}", fold=fold))
    made = Manifest("discs", LabelSet.from_names(["background", "disc"]), cases, root)  # type: ignore[arg-type]
    (root / "manifest.json").write_text(made.to_json())
    return root


def recipe_file(root: Path, name: str = "recipe.yml") -> Path:
    path = root.parent / name
    path.write_text(RECIPE.format(root=root))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> CrossValidation:
    """A cross-validation that could not look at the test set: its pictures were not there."""
    hidden = data.with_name("hidden")
    hidden.mkdir()
    held_out = [data / "images" / f"{kind}{number}.png" for number in range(8, 12) for kind in "il"]
    for path in held_out:
        path.rename(hidden / path.name)
    result = crossval(recipe_file(data), output=tmp_path_factory.mktemp("cv") / "discs")
    for path in held_out:
        (hidden / path.name).rename(path)
    return result


def weights(run: Run) -> dict[str, np.ndarray]:
    import paddle

    return {name: value.numpy() for name, value in paddle.load(str(run.weights("last"))).items()}


def same(one: Run, other: Run) -> bool:
    first, second = weights(one), weights(other)
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_every_patient_is_scored_once_by_a_model_that_never_saw_them(done: CrossValidation) -> None:
    rows = list(csv.DictReader((done.path / "cases.csv").open()))
    assert sorted(row["case"] for row in rows) == sorted(f"i{number}" for number in range(8))
    for row in rows:
        recipe = Run.open(done.path / f"fold_{row['fold']}").recipe
        assert row["patient"] not in {case.patient for case in load_cases(recipe.train_dataset)}


def test_a_fold_s_score_is_that_of_its_last_weights(done: CrossValidation, tmp_path: Path) -> None:
    run = Run.open(done.path / "fold_1")
    report = evaluate(run, split="val", checkpoint="last", output=tmp_path / "again")
    assert report.mean_foreground_dice == done.folds[1].report.mean_foreground_dice
    assert run.history()[-1]["score"] == pytest.approx(report.mean_foreground_dice)
    said = json.loads((run.evaluation_folder("val") / "summary.json").read_text())
    assert said["checkpoint"] == "checkpoints/iter_4/model.pdparams"
    assert said["checkpoint_chosen_by"] is None


def test_surfaces_are_pooled_only_where_all_folds_measure_the_same(done: CrossValidation) -> None:
    said = "Surfaces are those of single pictures, in pixels; nsd allows 2 pixels."
    assert said in done.notes
    assert said in (done.path / "crossval.md").read_text()
    assert {row["unit"] for row in csv.DictReader((done.path / "cases.csv").open())} == {"pixels"}
    assert done.pooled.summary["disc"]["hd95"].n == 8
    in_mm = dataclasses.replace(done.folds[0].report, distances=Distances("mm", "volumes", 2))
    mixed = dataclasses.replace(
        done, folds=(dataclasses.replace(done.folds[0], report=in_mm), *done.folds[1:])
    )
    assert mixed.pooled.summary["disc"]["hd95"].n == 0
    assert mixed.pooled.summary["disc"]["dice"] == done.pooled.summary["disc"]["dice"]
    (differ,) = [note for note in mixed.notes if note.startswith("Surface scores differ in kind")]
    assert "fold 0: Surfaces are those of whole volumes, in mm" in differ
    assert "fold 1: Surfaces are those of single pictures, in pixels" in differ


def test_the_summary_by_hand(done: CrossValidation) -> None:
    rows = list(csv.DictReader((done.path / "cases.csv").open()))
    lines = {
        (line["fold"], line["score"]): line for line in csv.DictReader((done.path / "crossval.csv").open())
    }
    for fold in ("0", "1", "all"):
        scores = [float(row["dice"]) for row in rows if fold in (row["fold"], "all")]
        line = lines[fold, "dice"]
        assert float(line["mean"]) == pytest.approx(statistics.fmean(scores), abs=1e-5)
        assert float(line["sd"]) == pytest.approx(statistics.stdev(scores), abs=1e-5)
        assert (int(line["cases"]), int(line["patients"])) == (len(scores), len(scores) // 2)
        if fold != "all":
            assert line["ci_low"] == line["ci_high"] == "", "two patients are too few to say"
            continue
        by_patient = [statistics.fmean(scores[n : n + 2]) for n in range(0, len(scores), 2)]
        assert min(by_patient) - 1e-5 <= float(line["ci_low"]) <= float(line["mean"]) + 1e-5
        assert float(line["mean"]) - 1e-5 <= float(line["ci_high"]) <= max(by_patient) + 1e-5
    said = json.loads((done.path / "crossval.json").read_text())
    assert (said["folds"], said["folds_of_the_data"], said["checkpoint"]) == ([0, 1], [0, 1], "last")
    assert (
        f"| all | disc | 8 | 4 | {float(lines['all', 'dice']['mean']):.4f} |"
        in (done.path / "crossval.md").read_text()
    )
    assert np.asarray(Image.open(done.path / "crossval.png")).std() > 0


def test_the_page_shows_the_lowest_scores_first_and_escapes_names(
    done: CrossValidation, tmp_path: Path
) -> None:
    page = (done.path / "crossval.html").read_text()
    rows = sorted(csv.DictReader((done.path / "cases.csv").open()), key=lambda row: float(row["dice"]))
    shown = re.findall(
        r"<figcaption><b>(\w+)</b> <span>disc ([\d.]+)</span><br>fold (\d), patient (p\d)", page
    )
    assert shown == [(row["case"], f"{float(row['dice']):.4f}", row["fold"], row["patient"]) for row in rows]
    assert page.count("data:image/png;base64,") == 1 + len(rows), "every case was drawn, and the scores"
    assert not re.search(r"https?:", page)
    copy = Path(shutil.copytree(done.path, tmp_path / "cv"))
    write_page(replace(done, path=copy, name="<b>discs"))
    page = (copy / "crossval.html").read_text()
    assert "<b>discs" not in page
    assert "&lt;b&gt;discs" in page


def test_a_cross_validation_that_was_stopped_ends_as_one_that_was_not(
    done: CrossValidation, data: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(recipe_file(data))
    first = crossval(recipe, output=tmp_path / "cv", folds=[0])
    assert first.notes[-1] == "Not in it: fold 1 of the data set."
    kept = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "cv" / "fold_0").rglob("*") if path.is_file()
    }

    def stop(iteration: int, _score: float) -> None:
        raise InterruptedError(iteration)

    half = change_recipe(recipe, ["train_dataset.fold=1", "val_dataset.fold=1"])
    with pytest.raises(InterruptedError, match="2"):
        train(half, output=tmp_path / "cv" / "fold_1", watch=stop)
    again = crossval(recipe, output=tmp_path / "cv", resume=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # neither trained nor scored again
    assert (again.path / "cases.csv").read_text() == (done.path / "cases.csv").read_text()
    for fold in (0, 1):
        assert same(Run.open(again.path / f"fold_{fold}"), Run.open(done.path / f"fold_{fold}"))


def test_the_command_prints_a_table(done: CrossValidation, data: Path) -> None:
    words = ["crossval", "-c", str(recipe_file(data)), "-o", str(done.path), "--resume", "--folds", "0, 1"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    mean = f"{done.pooled.mean_foreground_dice:.4f}"
    assert re.search(rf"all +8 +4 +{mean} +0\.\d{{4}} +0\.\d{{4}} to 0\.\d{{4}}", said.stdout)
    assert "which no score chose" in said.stdout.replace("\n", " ")
    assert CliRunner().invoke(app, ["crossval", "-c", "r.yml", "--folds", "0;1"]).exit_code == 2


def test_the_best_checkpoint_may_be_scored_and_is_said_to_be_too_good(
    done: CrossValidation, data: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(done.path, tmp_path / "cv"))
    best = crossval(load_recipe(recipe_file(data)), output=copy, checkpoint="best", resume=True)
    assert "too good" in best.notes[0]
    for fold in best.folds:
        history = Run.open(copy / f"fold_{fold.fold}").history()
        assert fold.report.mean_foreground_dice == pytest.approx(max(entry["score"] for entry in history))


def test_what_cannot_be_cross_validated_is_said_before_anything_is_trained(
    data: Path, tmp_path: Path, disc_recipe_file: Path
) -> None:
    out = tmp_path / "cv"
    with pytest.raises(RecipeError, match="`type: Manifest`"):
        crossval(disc_recipe_file, output=out)
    with pytest.raises(RecipeError, match="there is no fold 7: the data set has the folds 0, 1"):
        crossval(recipe_file(data), output=out, folds=[0, 7])
    without = write_manifest(tmp_path / "set", folds=False)
    with pytest.raises(DataError, match="has no folds"):
        crossval(recipe_file(without), output=out)
    (out / "fold_1").mkdir(parents=True)
    with pytest.raises(SetupError, match="holds fold 1 already") as caught:
        crossval(recipe_file(data), output=out)
    assert "--resume" in caught.value.hint
    assert sorted(path.name for path in out.iterdir()) == ["fold_1"]


def test_a_fold_that_learned_from_other_data_is_no_part_of_it(
    done: CrossValidation, data: Path, tmp_path: Path
) -> None:
    """Its own cases are the same; those it was trained on are not."""
    copy = Path(shutil.copytree(done.path, tmp_path / "cv"))
    noted = Run.open(copy / "fold_1").provenance["data"]
    Run.open(copy / "fold_1").note("data", {**noted, "train": {**noted["train"], "sha256": "other"}})
    with pytest.raises(DataError, match=r"the train set of .*fold_1 has changed since the training"):
        crossval(recipe_file(data), output=copy, resume=True)


def test_weights_that_know_a_patient_are_not_scored_on_them(
    done: CrossValidation, data: Path, tmp_path: Path
) -> None:
    """Each fold starts from a run that learned from the patients of fold 1."""
    recipe = load_recipe(recipe_file(data), [f"initialise.source={done.path / 'fold_0'}"])
    with pytest.raises(DataError, match=r"training set of .*fold_0 and the val set, .* starts from that run"):
        crossval(recipe, output=tmp_path / "cv")
    assert not (tmp_path / "cv").exists()
    with pytest.raises(DataError, match="starts from that run"):
        train(change_recipe(recipe, [f"{name}_dataset.fold=1" for name in SETS]), output=tmp_path / "run")


def test_two_processes_are_not_at_one_fold(done: CrossValidation, data: Path) -> None:
    with (
        locked(done.path / ".locks" / "fold_1"),
        pytest.raises(SetupError, match="another process is at fold 1") as caught,
    ):
        crossval(recipe_file(data), output=done.path, resume=True)
    assert "--folds" in caught.value.hint


def test_a_training_that_followed_the_scores_of_its_fold_is_said_to_be_too_good(
    done: CrossValidation, data: Path, tmp_path: Path
) -> None:
    assert "which no score chose" in done.notes[0]
    copy = Path(shutil.copytree(done.path, tmp_path / "cv"))
    recipe = load_recipe(recipe_file(data), ["early_stopping={patience: 9}"])
    notes = crossval(recipe, output=copy, resume=True).notes
    assert "(early_stopping), so these figures are too good" in notes[0]
    assert notes[0] in (copy / "crossval.md").read_text()


# --- ensembles --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensemble(done: CrossValidation) -> Bundle:
    return export_folds(done)


def test_an_ensemble_answers_with_the_mean_of_its_members_probabilities(
    done: CrossValidation, ensemble: Bundle, data: Path, tmp_path: Path
) -> None:
    picture = read_image(data / "images" / "i9.png", 3)
    found = Predictor(ensemble, "cpu").predict(picture, probabilities=True)
    alone = [
        Predictor(export(done.path / f"fold_{fold}", checkpoint="last", output=tmp_path / f"b{fold}"), "cpu")
        .predict(picture, probabilities=True)
        .probabilities
        for fold in (0, 1)
    ]
    assert found.probabilities is not None
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(found.probabilities, np.mean(alone, axis=0), rtol=0, atol=1e-6)
    said = ensemble.description
    assert (said.members, ensemble.parity.max_difference <= said.tolerance) == (2, True)
    assert [member["run"] for member in said.provenance["members"]] == ["fold_0", "fold_1"]
    assert [member["recipe"]["val_dataset"]["fold"] for member in said.provenance["members"]] == [0, 1]
    assert all("files" not in member["data"]["train"] for member in said.provenance["members"])
    assert Bundle.open(tmp_path / "b0").description.members == 1


def test_an_ensemble_predicts_as_any_bundle(ensemble: Bundle, data: Path, tmp_path: Path) -> None:
    summary = predict(ensemble.path, [data / "images" / "i9.png"], tmp_path / "answers")
    summary.require_complete()
    assert (tmp_path / "answers" / "i9_mask.png").is_file()


def test_an_ensemble_is_scored_on_the_test_set(
    done: CrossValidation, ensemble: Bundle, data: Path, tmp_path: Path
) -> None:
    runs = [done.path / f"fold_{fold}" for fold in (0, 1)]
    report = evaluate(runs, checkpoint="last", output=tmp_path / "test")
    predictor = Predictor(ensemble, "cpu")
    for row in report.rows:
        image, truth = (data / "images" / f"{kind}{row.case[1:]}.png" for kind in "il")
        mask, disc = predictor.predict(read_image(image, 3)).array == 1, read_label(truth) == 1
        dice = 2 * (mask & disc).sum() / (mask.sum() + disc.sum())
        assert row.scores.dice == pytest.approx(dice, abs=2e-3)
    said = json.loads((tmp_path / "test" / "summary.json").read_text())
    assert (said["run"], len(said["weights"])) == ("fold_0, fold_1", 2)
    with pytest.raises(RecipeError, match="2 runs are scored together") as caught:
        evaluate(runs)
    assert "--output" in caught.value.hint


def test_an_ensemble_is_not_scored_on_what_a_member_learned(done: CrossValidation, tmp_path: Path) -> None:
    runs = [done.path / f"fold_{fold}" for fold in (0, 1)]
    with pytest.raises(ModelError, match="differ in images"):
        evaluate(runs, split="val", output=tmp_path / "val")


NOWHERE = "{type: OpticDiscSeg, dataset_root: nowhere, transforms: [{type: Normalize}], mode: "


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("inference", ["inference.mode=tiles", "inference.tile=[32, 32]"]),
        ("preprocessing", [f"{name}_dataset.transforms=[{{type: Normalize, mean: [0.4]}}]" for name in SETS]),
        ("classes", ["labels=[background, cup]", *(f"{name}_dataset={NOWHERE}{name}}}" for name in SETS)]),
    ],
)
def test_members_that_cannot_answer_together_are_refused(
    done: CrossValidation, tmp_path: Path, what: str, changes: list[str]
) -> None:
    other = Path(shutil.copytree(done.path / "fold_1", tmp_path / "other"))
    changed = change_recipe(Run.open(other).recipe, changes)
    Run.open(other).with_recipe(changed)
    with pytest.raises(ModelError, match=f"cannot answer together: they differ in {what}") as caught:
        export([done.path / "fold_0", other], output=tmp_path / "bundle")
    assert str(other) in caught.value.message
    assert not (tmp_path / "bundle").exists()


def test_an_ensemble_needs_a_folder_of_its_own_and_each_run_once(
    done: CrossValidation, tmp_path: Path
) -> None:
    fold = done.path / "fold_0"
    with pytest.raises(RecipeError, match="exported together"):
        export([fold, done.path / "fold_1"])
    with pytest.raises(RecipeError, match="given twice"):
        export([fold, fold], output=tmp_path / "bundle")
    assert not math.isnan(done.pooled.mean_foreground_dice)
