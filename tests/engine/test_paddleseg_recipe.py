"""A recipe in PaddleSeg's own form (its configs/unet and configs/_base_) trains without a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train

BASE = """\
batch_size: 16
iters: 40000

train_dataset:
  type: DRIVE
  dataset_root: {root}
  transforms:
    - type: ResizeStepScaling
      min_scale_factor: 0.5
      max_scale_factor: 2.0
      scale_step_size: 0.25
    - type: RandomPaddingCrop
      crop_size: [32, 32]
    - type: RandomHorizontalFlip
    - type: RandomVerticalFlip
    - type: RandomDistort
      brightness_range: 0.4
      contrast_range: 0.4
      saturation_range: 0.4
    - type: Normalize
  mode: train

val_dataset:
  type: DRIVE
  dataset_root: {root}
  transforms:
    - type: Normalize
  mode: val

optimizer:
  type: SGD
  momentum: 0.9
  weight_decay: 4.0e-5

lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
  end_lr: 0
  power: 0.9

loss:
  types:
    - type: DiceLoss
  coef: [1]

test_config:
  auc_roc: True
"""

CHILD = """\
_base_: '../_base_/drive.yml'

batch_size: 2
iters: 3

model:
  type: UNet
  num_classes: 2
  use_deconv: {deconv}
  pretrained: Null
"""


@pytest.mark.parametrize("deconv", ["False", "True"])
def test_it_trains_and_is_evaluated(tmp_path: Path, discs: Path, deconv: str) -> None:
    (tmp_path / "_base_").mkdir()
    (tmp_path / "unet").mkdir()
    (tmp_path / "_base_" / "drive.yml").write_text(BASE.format(root=discs))
    recipe = tmp_path / "unet" / "unet_drive.yml"
    recipe.write_text(CHILD.format(deconv=deconv))
    run = train(recipe, output=tmp_path / "run", overrides=["log_iters=1"])
    assert run.recipe.optimizer.momentum == 0.9
    assert run.history()[0]["iter"] == 3
    assert evaluate(run).rows[0].scores.auc >= 0


def test_every_learning_rate_schedule_and_optimiser_of_a_recipe_runs(
    tmp_path: Path, disc_recipe_file: Path
) -> None:
    variants = [
        ("{type: CosineAnnealingDecay, learning_rate: 0.01}", "{type: Adam}"),
        ("{type: StepDecay, learning_rate: 0.01, step_size: 1}", "{type: Momentum, use_nesterov: true}"),
        (
            "{type: MultiStepDecay, learning_rate: 0.01, milestones: [1]}",
            "{type: AdamW, grad_clip_cfg: {name: ClipGradByGlobalNorm, clip_norm: 1.0}}",
        ),
        (
            "{type: PolynomialDecay, learning_rate: 0.01, warmup_iters: 2, warmup_start_lr: 0.001}",
            "{type: sgd, momentum: 0.9}",
        ),
    ]
    for number, (schedule, optimizer) in enumerate(variants):
        overrides = [f"lr_scheduler={schedule}", f"optimizer={optimizer}", "iters=3", "log_iters=1"]
        run = train(disc_recipe_file, output=tmp_path / str(number), overrides=overrides)
        assert run.best_checkpoint.is_file()
