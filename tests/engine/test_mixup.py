"""Mixup through the loss, the loader and a training."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.engine.data import TrainingStream, batch_bytes, survey
from medseg_paddle.engine.loading import loaded
from medseg_paddle.engine.losses import label_loss
from medseg_paddle.engine.losses.build import MixedLoss
from medseg_paddle.engine.losses.overlap import DiceLoss
from medseg_paddle.engine.losses.pixels import CrossEntropyLoss
from medseg_paddle.engine.paddleseg_adapter.loop import StreamSampler
from medseg_paddle.errors import RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.preprocess.augment.mixup import packed, unpacked

MIXED = ["batch_size=3", "train_dataset.mixup={alpha: 1.0, prob: 0.7}"]
ADDED = [
    {"type": "RandomGaussianBlur", "prob": 0.5},
    {"type": "RandomNoise", "prob": 0.5},  # PaddleSeg's, which draws from the global generators
    {"type": "RandomCutout", "label": "ignore"},
]


def recipe(path: Path, *overrides: str):
    steps = [t.model_dump(mode="json") for t in load_recipe(path).train_dataset.transforms]
    return load_recipe(path, [*overrides, f"train_dataset.transforms={[steps[0], *ADDED, *steps[1:]]}"])


def batches(path: Path, workers: int, first: int = 0, last: int = 9) -> list[tuple[np.ndarray, np.ndarray]]:
    """What a training with this many processes gets."""
    mixing = recipe(path, *MIXED)
    cases = load_cases(mixing.train_dataset)
    orders = StreamSampler(len(cases), mixing.batch_size, first, last)
    room = batch_bytes(mixing, survey(cases, mixing))
    with loaded(TrainingStream(cases, mixing), orders, num_workers=workers, batch_bytes=room) as served:
        return [(batch["img"].numpy(), batch["label"].numpy()) for batch in served]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_stream_is_the_same_for_any_number_of_processes(disc_recipe_file, workers):
    alone, several = batches(disc_recipe_file, 0), batches(disc_recipe_file, workers)
    assert len(alone) == len(several) == 9
    for (image, label), (other, its_label) in zip(alone, several, strict=True):
        np.testing.assert_array_equal(image, other)
        np.testing.assert_array_equal(label, its_label)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_goes_on_where_a_training_stopped(disc_recipe_file, workers):
    whole, rest = batches(disc_recipe_file, 0), batches(disc_recipe_file, workers, first=4)
    for (image, label), (other, its_label) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(image, other)
        np.testing.assert_array_equal(label, its_label)


def test_a_batch_is_mixed_as_a_whole_from_its_own_images(disc_recipe_file):
    cases = load_cases(recipe(disc_recipe_file).train_dataset)
    plain = TrainingStream(cases, recipe(disc_recipe_file, "batch_size=3"))
    mixing = TrainingStream(cases, recipe(disc_recipe_file, *MIXED))
    kinds = set()
    for batch in range(12):
        images = [plain[position] for position in range(3 * batch, 3 * batch + 3)]
        results = [mixing[position] for position in range(3 * batch, 3 * batch + 3)]
        if unpacked(results[0]["label"], 255) is None:
            kinds.add("plain")
            for image, result in zip(images, results, strict=True):
                np.testing.assert_array_equal(image["img"], result["img"])
                np.testing.assert_array_equal(image["label"], result["label"])
            continue
        parts = [unpacked(result["label"], 255) for result in results]
        assert len({weight for _, _, weight in parts}) == 1
        weight = parts[0][2]
        step = next(s for s in (1, 2) if (images[s]["label"] == parts[0][1]).all())
        kinds.add(step)
        for place, (first, second, _) in enumerate(parts):
            one, two = images[place], images[(place + step) % 3]
            np.testing.assert_array_equal(first, one["label"])
            np.testing.assert_array_equal(second, two["label"])
            np.testing.assert_allclose(
                results[place]["img"], weight * one["img"] + (1 - weight) * two["img"], atol=1e-5
            )
    assert kinds == {"plain", 1, 2}


def test_another_seed_mixes_otherwise(disc_recipe_file):
    def weights(seed: int) -> list[float | None]:
        mixing = recipe(disc_recipe_file, *MIXED, f"seed={seed}")
        stream = TrainingStream(load_cases(mixing.train_dataset), mixing)
        found = [unpacked(stream[3 * batch]["label"], 255) for batch in range(8)]
        return [mixture and mixture[2] for mixture in found]

    assert weights(1) == weights(1) != weights(2)


LOSSES = {
    "ce": CrossEntropyLoss(mixed=True),
    "weighted ce": CrossEntropyLoss(weight=(1.0, 2.0, 5.0), mixed=True),
    "dice": DiceLoss(mixed=True),
    "dice of foreground": DiceLoss(weight=(1.0, 2.0, 5.0), background=False, mixed=True),
    "another ignored value": CrossEntropyLoss(ignore_index=2, mixed=True),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_the_loss_of_a_mixture_is_the_weighted_mean_of_both(name, weight):
    loss, rng = LOSSES[name], np.random.default_rng(0)
    ignore = 2 if name == "another ignored value" else 255
    logits = paddle.to_tensor(rng.normal(size=(2, 3, 5, 6)).astype(np.float32), stop_gradient=False)
    first, second = rng.integers(0, 3, (2, 2, 5, 6))
    first[0, :2], second[1, :, 3:] = ignore, ignore
    one, two = (loss(logits, paddle.to_tensor(label)) for label in (first, second))
    both = loss(logits, paddle.to_tensor(packed(first, second, weight, ignore)))
    assert both.shape == [1]
    assert float(both[0]) == pytest.approx(weight * float(one[0]) + (1 - weight) * float(two[0]), rel=1e-6)
    (gradient,) = paddle.grad(both, logits, retain_graph=True)
    (expected,) = paddle.grad(weight * one + (1 - weight) * two, logits)
    np.testing.assert_allclose(gradient.numpy(), expected.numpy(), atol=1e-7)


def test_cross_entropy_of_a_mixture_by_hand():
    # softmax of (0, ln 3) is (1/4, 3/4); three quarters of the weight are on class 1
    logits = paddle.to_tensor(np.array([[[[0.0]], [[np.log(3)]]]], np.float32))
    label = packed(np.ones((1, 1, 1)), np.zeros((1, 1, 1)), 0.75, 255)
    value = float(CrossEntropyLoss(mixed=True)(logits, paddle.to_tensor(label))[0])
    assert value == pytest.approx(-(0.75 * np.log(3 / 4) + 0.25 * np.log(1 / 4)), rel=1e-6)


def test_the_parts_of_a_mixed_loss_are_mixed_each():
    rng = np.random.default_rng(1)
    logits = paddle.to_tensor(rng.normal(size=(2, 2, 4, 4)).astype(np.float32))
    label = paddle.to_tensor(packed(*rng.integers(0, 2, (2, 2, 4, 4)), 0.375, 255))
    parts = MixedLoss([CrossEntropyLoss(mixed=True), DiceLoss(mixed=True)], (0.5, 2.0))(logits, label)
    assert float(parts[0][0]) == pytest.approx(
        0.5 * float(CrossEntropyLoss(mixed=True)(logits, label)[0]), rel=1e-6
    )
    assert float(parts[1][0]) == pytest.approx(2.0 * float(DiceLoss(mixed=True)(logits, label)[0]), rel=1e-6)


@pytest.mark.parametrize("mixup", [None, {"alpha": 1.0}])
def test_only_a_training_with_mixup_reads_labels_back_from_the_device(
    disc_recipe_file, tmp_path, monkeypatch, mixup
):
    """On a GPU that waits for all that was asked of it; the recipe's two losses of a batch would do it twice."""
    from medseg_paddle.steps.train import train

    read, number = [], paddle.Tensor.__int__

    def note(tensor):
        read.append(sys._getframe(1).f_code.co_filename)
        return number(tensor)

    monkeypatch.setattr(paddle.Tensor, "__int__", note)
    losses = "[{type: MixedLoss, losses: [{type: CrossEntropyLoss}, {type: DiceLoss}], coef: [1, 1]}]"
    settings = ["iters=4", f"loss.types={losses}", f"train_dataset.mixup={mixup or 'null'}"]
    train(disc_recipe_file, output=tmp_path / "run", overrides=settings)
    assert read.count(label_loss.__file__) == (0 if mixup is None else 2 * 4)


def test_a_training_with_mixup_ends_with_scores_and_resumes_to_the_same_weights(disc_recipe_file, tmp_path):
    from medseg_paddle.steps.train import train

    settings = [*MIXED, "lr_scheduler.decay_steps=12"]
    whole = train(recipe(disc_recipe_file, *settings), output=tmp_path / "whole")
    train(recipe(disc_recipe_file, *settings, "iters=6"), output=tmp_path / "parts")
    parts = train(recipe(disc_recipe_file, *settings), output=tmp_path / "parts", resume=True)
    assert whole.history()[-1]["iter"] == 12
    first, second = (paddle.load(str(run.weights_in(run.last_checkpoint))) for run in (whole, parts))
    for name, value in first.items():
        np.testing.assert_array_equal(value.numpy(), second[name].numpy(), err_msg=name)


def test_mixup_of_single_images_is_refused(disc_recipe_file):
    with pytest.raises(RecipeError, match="batch_size is 1"):
        load_recipe(disc_recipe_file, ["batch_size=1", "train_dataset.mixup={}"])
