"""From a run on whole volumes to scores, masks and pictures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg_paddle.core import Case, LabelSet, Manifest, Slicing
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train

SPACING = (1.2, 1.0, 2.0)  # of i, j, k
SHAPE = (20, 18, 14)
RECIPE = """\
name: balls
batch_size: 2
iters: 4
save_interval: 2
overlays: 1
device: cpu
model_graph: false
train_dataset:
  type: Manifest
  dataset_root: {root}
  mode: train
  img_channels: 1
  transforms: [{{type: VolumePreprocessing, spacing: [2, 1.5, 1.5], normalization: {{type: ZScore}}}},
               {{type: RandomVolumePatch, size: [8, 8, 8]}}]
val_dataset:
  type: Manifest
  dataset_root: {root}
  mode: val
  img_channels: 1
  transforms: [{{type: VolumePreprocessing, spacing: [2, 1.5, 1.5], normalization: {{type: ZScore}}}}]
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1]}}
model: {{type: UNet3D, width: 4, depth: 2, num_classes: 2}}
inference: {{mirror: [2]}}
postprocessing: [{{type: KeepLargest}}]
"""


def write_volumes(root: Path) -> Path:
    rng = np.random.default_rng(2)
    (root / "images").mkdir(parents=True)
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1) * SPACING
    affine = nib.affines.from_matvec(np.diag(SPACING), (-10, -20, 30))
    cases: dict[str, list[Case]] = {"train": [], "val": []}
    for number in range(4):
        ball = np.linalg.norm(places - rng.uniform(8, 12, 3), axis=-1) < 6
        image, label = (root / "images" / f"{kind}{number}.nii.gz" for kind in "il")
        nib.save(nib.Nifti1Image((ball + rng.normal(0, 0.2, SHAPE)).astype(np.float32), affine), image)
        nib.save(nib.Nifti1Image(ball.astype(np.uint8), affine), label)
        cut = Slicing("axial", (1, 1.2), "arbitrary")
        case = Case(f"v{number}", image, label, patient=f"p{number}", volume=f"v{number}", slicing=cut)
        cases["train" if number < 2 else "val"].append(case)
    made = Manifest("balls", LabelSet.from_names(["background", "ball"]), cases, root)  # type: ignore[arg-type]
    (root / "manifest.json").write_text(made.to_json())
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = write_volumes(tmp_path_factory.mktemp("volumes") / "balls")
    (root.parent / "balls.yml").write_text(RECIPE.format(root=root))
    return train(root.parent / "balls.yml", output=root.parent / "run")


def test_masks_lie_where_the_images_do_and_give_the_scores(run: Run, tmp_path: Path) -> None:
    report = evaluate(run, split="val", output=tmp_path / "scores", overlays=1)
    assert [row.case for row in report.rows] == ["v2", "v3"]
    data = run.path.parent / "balls" / "images"
    lines = {line["case"]: line for line in csv.DictReader((tmp_path / "scores" / "cases.csv").open())}
    for row in report.rows:
        number = row.case.removeprefix("v")
        truth = nib.load(data / f"l{number}.nii.gz")
        mask = nib.load(tmp_path / "scores" / "masks" / f"{row.case}.nii.gz")
        np.testing.assert_allclose(mask.affine, truth.affine, atol=1e-4)
        one, other = (np.asarray(image.dataobj) > 0 for image in (truth, mask))
        assert row.scores.dice == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()))
        ml = other.sum() * np.prod(SPACING) / 1000
        assert float(lines[row.case]["predicted_ml"]) == pytest.approx(ml, abs=1e-4)
        assert lines[row.case]["unit"] == "mm"
    assert [path.name for path in (tmp_path / "scores" / "overlays").iterdir()] == ["v2.png"]
    assert Image.open(tmp_path / "scores" / "overlays" / "v2.png").width > 300
    said = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert said["inference"]["tile"] == [8, 8, 8]
    assert said["postprocessing"][0]["type"] == "KeepLargest"
    assert said["inference_as_in_validation"]


def test_what_chose_the_checkpoint_is_what_is_scored(run: Run, tmp_path: Path) -> None:
    report = evaluate(run, split="val", output=tmp_path / "scores", overlays=0)
    best = max(entry["score"] for entry in run.history() if entry["weights"] == "model")
    assert report.summary["ball"]["dice"].mean == pytest.approx(best, abs=1e-6)


def test_rules_and_averaging_can_be_changed_for_an_evaluation(run: Run, tmp_path: Path) -> None:
    changes = ["postprocessing=[{type: RemoveSmall, ml: 1000}]", "inference.mirror=[]"]
    report = evaluate(run, split="val", output=tmp_path / "scores", overlays=0, overrides=changes)
    assert all(row.scores.predicted_pixels == 0 for row in report.rows)
    said = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert not said["inference_as_in_validation"]
    assert said["inference"]["mirror"] == []


def test_runs_answer_together(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "twin")
    alone = evaluate(run, split="val", output=tmp_path / "one", overlays=0)
    together = evaluate([run, tmp_path / "twin"], split="val", output=tmp_path / "both", overlays=0)
    assert together.rows == alone.rows
