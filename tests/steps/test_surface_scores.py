"""Distances between surfaces from a data set of volumes to a chosen checkpoint and a table."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medseg_paddle.cli import app
from medseg_paddle.core import Case, LabelSet, Manifest, Slicing, Within
from medseg_paddle.engine import validation
from medseg_paddle.errors import RecipeError
from medseg_paddle.io.images import read_label
from medseg_paddle.metrics.surface import surface_scores
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train

SPACING = (3.0, 0.7, 0.9)
SLICES, SIDE = 4, 32
RECIPE = """\
name: balls
batch_size: 2
iters: 6
save_interval: 2
overlays: 0
model_graph: false
device: cpu
train_dataset: {{type: Manifest, dataset_root: {root}, transforms: [{{type: Normalize}}]}}
val_dataset: {{type: Manifest, dataset_root: {root}, mode: val, transforms: [{{type: Normalize}}]}}
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1]}}
model: {{type: SimpleUNet, width: 4, num_classes: 2}}
selection: {{metric: hd95, label: ball}}
"""


def write_volumes(root: Path) -> Path:
    """Two volumes to learn from, two that choose: slices of a noisy ball."""
    rng = np.random.default_rng(2)
    (root / "images").mkdir(parents=True)
    grid = np.mgrid[:SLICES, :SIDE, :SIDE] * np.reshape(SPACING, (3, 1, 1, 1))
    cases: dict[str, list[Case]] = {"train": [], "val": []}
    for number in range(4):
        centre = np.array([4.5, *rng.uniform(8, 16, 2)]).reshape(3, 1, 1, 1)
        ball = ((grid - centre) ** 2).sum(axis=0) < 36
        grey = np.clip(80 + 90 * ball + rng.normal(0, 20, ball.shape), 0, 255).astype(np.uint8)
        for place in range(SLICES):
            image, label = (root / "images" / f"{kind}{number}_{place}.png" for kind in "il")
            Image.fromarray(grey[place]).save(image)
            Image.fromarray(ball[place].astype(np.uint8)).save(label)
            slicing = Slicing("axial", SPACING[1:], "HU", Within(place, SLICES, SPACING[0]))
            case = Case(
                f"v{number}_{place}",
                image,
                label,
                patient=f"p{number}",
                volume=f"v{number}",
                slicing=slicing,
            )
            cases["train" if number < 2 else "val"].append(case)
    made = Manifest("balls", LabelSet.from_names(["background", "ball"]), cases, root)  # type: ignore[arg-type]
    (root / "manifest.json").write_text(made.to_json())
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = write_volumes(tmp_path_factory.mktemp("volumes") / "balls")
    (root.parent / "balls.yml").write_text(RECIPE.format(root=root))
    return train(root.parent / "balls.yml", output=root.parent / "run")


def test_a_volume_s_surface_is_scored_as_it_lies_in_the_patient(run: Run, tmp_path: Path) -> None:
    report = evaluate(run, split="val", output=tmp_path / "scores")
    found = {row.case: row.scores for row in report.rows}
    assert list(found) == ["v2", "v3"]
    for name, scores in found.items():
        truth, prediction = (
            np.stack([read_label(folder / f"{stem}_{place}.png") for place in range(SLICES)])
            for folder, stem in (
                (run.path.parent / "balls" / "images", name.replace("v", "l")),
                (tmp_path / "scores" / "masks", name),
            )
        )
        (expected,) = surface_scores(truth, prediction, num_classes=2, spacing=SPACING, tolerance=2)
        assert (scores.hd95, scores.assd, scores.nsd) == (expected.hd95, expected.assd, expected.nsd)
    said = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert said["distances"] == {"unit": "mm", "between": "volumes", "tolerance": 2.0}
    rows = list(csv.DictReader((tmp_path / "scores" / "cases.csv").open()))
    assert [row["unit"] for row in rows] == ["mm", "mm"]


def test_the_checkpoint_with_the_smallest_distance_is_the_best(run: Run, tmp_path: Path) -> None:
    history = run.history()
    scores = {entry["iter"]: entry["score"] for entry in history}
    assert len(set(scores.values())) > 1, "there is something to choose from"
    best = min(history, key=lambda entry: entry["score"])
    assert run.best_first()[0] == best
    assert {entry["metric"] for entry in history} == {"hd95"}
    report = evaluate(run, split="val", output=tmp_path / "scores")
    assert report.summary["ball"]["hd95"].mean == pytest.approx(best["score"], abs=1e-9)
    log = (run.path / "train.log").read_text()
    assert re.findall(r"HD95 ball \(mm\): ([\d.]+)", log) == [f"{score:.4f}" for score in scores.values()]


def test_the_command_says_what_is_measured_and_how(run: Run, tmp_path: Path) -> None:
    words = ["evaluate", str(run.path), "--split", "val", "--output", str(tmp_path / "scores")]
    said = CliRunner().invoke(app, [*words, "--set", "surface_tolerance=3.5"])
    assert said.exit_code == 0, said.output
    for score in ("hd95 (mm)", "assd (mm)", "nsd (3.5 mm)"):
        assert score in said.stdout
    assert "Surfaces are those of whole volumes, in mm; nsd allows 3.5 mm." in said.stdout
    assert run.recipe.surface_tolerance == 2


def test_a_tolerance_that_chooses_the_best_stays(run: Run) -> None:
    recipe = run.path.parent / "balls.yml"
    noted = train(recipe, output=run.path, overrides=["surface_tolerance=1"], resume=True)
    assert noted.recipe.surface_tolerance == 1
    train(recipe, output=run.path, resume=True)
    chosen = ["selection.metric=nsd", "iters=2"]
    other = train(recipe, output=run.path.parent / "nsd", overrides=chosen)
    with pytest.raises(RecipeError, match="another surface_tolerance"):
        train(recipe, output=other.path, overrides=[*chosen, "surface_tolerance=1"], resume=True)


def test_a_training_that_is_chosen_by_another_score_compares_no_surfaces(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(validation, "surfaces_of", lambda *given: asked.append(given))
    train(
        run.path.parent / "balls.yml", output=tmp_path / "run", overrides=["selection.metric=iou", "iters=2"]
    )
    assert asked == []
