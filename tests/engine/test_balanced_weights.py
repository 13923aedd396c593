"""`weight: balanced` through a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from medseg_paddle.config import load_recipe
from medseg_paddle.engine.data import Survey, balanced_weights
from medseg_paddle.errors import DataError
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train


def weights_of(run: Run, iteration: int) -> dict[str, np.ndarray]:
    state = paddle.load(str(run.checkpoints / f"iter_{iteration}" / "model.pdparams"))
    return {name: value.numpy() for name, value in state.items()}


def assert_same(one: Run, other: Run) -> None:
    first, second = weights_of(one, 4), weights_of(other, 4)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def loss(weight: str) -> str:
    return f"loss.types=[{{type: CrossEntropyLoss, weight: {weight}}}]"


SHORT = ["iters=4", "save_interval=2", "lr_scheduler.decay_steps=4"]


def test_balanced_is_the_numbers_that_the_training_labels_give(disc_recipe_file, discs, tmp_path):
    labels = [np.asarray(Image.open(path)) for path in sorted((discs / "labels").glob("train*.png"))]
    disc, every = sum(int(label.sum()) for label in labels), sum(label.size for label in labels)
    numbers = [every / (2 * (every - disc)), every / (2 * disc)]
    balanced = train(disc_recipe_file, output=tmp_path / "balanced", overrides=[*SHORT, loss("balanced")])
    assert balanced.provenance["pixels_per_class"] == [every - disc, disc]
    assert balanced.provenance["class_weights"] == pytest.approx(numbers)
    assert f"weight: balanced is {balanced.provenance['class_weights']}" in balanced.log.read_text()
    written = train(disc_recipe_file, output=tmp_path / "written", overrides=[*SHORT, loss(str(numbers))])
    assert written.provenance["class_weights"] is None
    assert_same(balanced, written)
    train(disc_recipe_file, output=tmp_path / "parts", overrides=[*SHORT, "iters=2", loss("balanced")])
    parts = train(
        disc_recipe_file, output=tmp_path / "parts", overrides=[*SHORT, loss("balanced")], resume=True
    )
    assert_same(balanced, parts)


def test_a_class_without_pixels_is_said_before_there_is_a_folder(disc_recipe_file, tmp_path: Path):
    dataset = f"type: Dataset, num_classes: 3, mode: train, dataset_root: {tmp_path / 'discs'}"
    three = [
        "labels=[background, disc, cup]",
        f"train_dataset={{{dataset}, train_path: train_list.txt, transforms: [{{type: Normalize}}]}}",
        "val_dataset=null",
        "model.num_classes=3",
    ]
    with pytest.raises(DataError, match="no pixel of cup in the training set"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=[*three, loss("balanced")])
    assert not (tmp_path / "run").exists()


def test_a_class_that_is_ignored_weighs_nothing(disc_recipe_file):
    recipe = load_recipe(disc_recipe_file, [loss("balanced")])
    ignoring = recipe.model_construct(
        **{**recipe.__dict__, "train_dataset": _Ignoring(), "labels": tuple("abc")}
    )
    assert balanced_weights(ignoring, Survey((0, 30, 10), frozenset())) == (0.0, 40 / 60, 40 / 20)


class _Ignoring:
    ignore_index = 0
