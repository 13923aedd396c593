"""What saves memory, what stays frozen, and what losses and averages add: all in one training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from medseg_paddle.run import Run
from medseg_paddle.steps.train import train

SPARING = ["gradient_accumulation=2", "gradient_checkpointing=true"]
LOSSES = (
    "[{type: CrossEntropyLoss, weight: balanced, label_smoothing: 0.1}, {type: DiceLoss}, "
    "{type: FocalTverskyLoss, background: false}, {type: ClDiceLoss}]"
)
GROUPS = "custom_cfg: [{name: head, lr_mult: 2}], grad_clip_cfg: {name: ClipGradByGlobalNorm, clip_norm: 0.1}"
EVERYTHING = [
    "model={type: ScalableUNet, width: 4, depth: 3, dropout: 0.5, norm: instance, deep_supervision: 1}",
    f"loss.types=[{{type: MixedLoss, losses: {LOSSES}, coef: [1, 1, 0.5, 0.5]}}]",
    "loss.coef=[1, 0.5]",
    "train_dataset.transforms.0={type: RandomAffinePatch, size: [32, 32], rotation: 90, border: ignore}",
    "train_dataset.mixup={alpha: 0.4, prob: 0.7}",
    "batch_size=4",
    "use_ema=true",
    "ema_decay=0.7",
    "freeze={layers: [down.0, up.0], until: 3}",
    f"optimizer={{type: AdamW, epsilon: 1.0e-3, weight_decay: 0.1, decay_norms_and_biases: false, {GROUPS}}}",
    "lr_scheduler={type: PolynomialDecay, learning_rate: 0.002, decay_steps: 20, warmup_iters: 2}",
    "iters=5",
    "save_interval=1",
    "keep_checkpoint_max=9",
]


def state(run: Run, iteration: int, file: str) -> dict[str, np.ndarray]:
    loaded = paddle.load(str(run.checkpoints / f"iter_{iteration}" / file), return_numpy=True)
    return {name: value for name, value in loaded.items() if isinstance(value, np.ndarray)}


def greatest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def frozen(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in weights.items() if name.startswith(("down.0.", "up.0."))}


def others(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in weights.items() if not name.startswith(("down.0.", "up.0."))}


def test_in_parts_and_blocks_it_is_the_training_of_the_large_batch(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=EVERYTHING)
    parts = train(disc_recipe_file, output=tmp_path / "parts", overrides=[*EVERYTHING, *SPARING])
    for file in ("model.pdparams", "ema_model.pdparams"):
        assert greatest_difference(state(parts, 5, file), state(whole, 5, file)) < 1e-5
        assert greatest_difference(others(state(whole, 1, file)), others(state(whole, 5, file))) > 1e-3
        assert greatest_difference(frozen(state(parts, 1, file)), frozen(state(parts, 3, file))) == 0
        assert greatest_difference(frozen(state(parts, 3, file)), frozen(state(parts, 5, file))) > 1e-4


@pytest.fixture(scope="module")
def with_batch_norms(
    kept_disc_recipe: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str], Run]:
    folder = tmp_path_factory.mktemp("combined")
    path = folder / "discs.yml"
    path.write_text(kept_disc_recipe)
    overrides = [*(words.replace("norm: instance", "norm: batch") for words in EVERYTHING), *SPARING]
    return path, overrides, train(path, output=folder / "whole", overrides=overrides)


def test_frozen_statistics_stay_in_the_weights_and_in_their_average(with_batch_norms: Any) -> None:
    _, _, whole = with_batch_norms
    for file in ("model.pdparams", "ema_model.pdparams"):
        first, last = frozen(state(whole, 1, file)), frozen(state(whole, 3, file))
        assert any(name.endswith("_variance") for name in first)
        assert greatest_difference(first, last) == 0


@pytest.mark.parametrize("stop", [2, 4], ids=["while frozen", "when thawed"])
def test_it_is_resumed_to_the_bit(stop: int, with_batch_norms: Any, tmp_path: Path) -> None:
    path, overrides, whole = with_batch_norms
    # As a process leaves it that was killed after that iteration.
    shutil.copytree(whole.path, tmp_path / "parts")
    parts = Run.open(tmp_path / "parts")
    for later in range(stop + 1, 6):
        shutil.rmtree(parts.checkpoints / f"iter_{later}")
    parts.set_history([entry for entry in whole.history() if entry["iter"] <= stop])
    train(path, output=parts.path, overrides=overrides, resume=True)
    for file in ("model.pdparams", "ema_model.pdparams"):
        assert greatest_difference(state(parts, 5, file), state(whole, 5, file)) == 0
    assert parts.history() == whole.history()
