"""What holds for every loss, and the first two by hand. Their formulas: test_loss_values.py."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import paddle
import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.config.losses import Loss, SingleLoss
from medseg_paddle.engine.losses import build_losses, part_names
from medseg_paddle.engine.losses.build import MixedLoss
from medseg_paddle.engine.losses.overlap import DiceLoss
from medseg_paddle.engine.losses.pixels import CrossEntropyLoss
from medseg_paddle.preprocess.augment.mixup import packed

# Two pixels, two classes; softmax of (0, ln 3) is (1/4, 3/4).
LOGITS = paddle.to_tensor(np.array([[[[0.0, 0.0]], [[np.log(3), np.log(3)]]]], np.float32))
LABELS = paddle.to_tensor(np.array([[[1, 0]]], np.int64))

NAMES = [spec.__name__ for spec in get_args(SingleLoss)]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "CrossEntropyLoss": [{"weight": [1, 3], "label_smoothing": 0.1}, {"top_k_percent_pixels": 0.3}],
    "OhemCrossEntropyLoss": [{"min_kept": 5}],
    "BCELoss": [{"weight": "dynamic"}, {"pos_weight": "dynamic"}],
    "FocalLoss": [{"gamma": 0.5}],
    "MultiClassFocalLoss": [{"gamma": 0.5}, {"gamma": 0}],
    "DiceLoss": [{"batch": False}, {"squared": True}, {"background": False, "weight": [0, 2]}],
    "FocalTverskyLoss": [{"gamma": 3, "batch": False}],
    "LovaszSoftmaxLoss": [{"classes": "all"}, {"classes": [1]}],
    "ClDiceLoss": [{"iterations": 5}],
}
EVERY = [{"type": name, **more} for name in NAMES for more in [{}, *OPTIONS.get(name, [])]]


@pytest.fixture(params=EVERY, ids=lambda spec: "-".join(map(str, spec.values())))
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A loss as a recipe writes it."""
    return request.param


def built(spec: dict[str, Any], *, ignore_index: int = 255, mixed: bool = False) -> paddle.nn.Layer:
    parsed = next(one for one in get_args(SingleLoss) if one.__name__ == spec["type"]).model_validate(spec)
    losses = build_losses(Loss(types=(parsed,), coef=(1.0,)), ignore_index, mixed=mixed)
    return losses["types"][0]


def value(loss: paddle.Tensor) -> float:
    assert loss.shape == [1]  # `train()` reads element 0
    return float(loss.numpy()[0])


def some(size: tuple[int, ...] = (12, 10), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two classes, and labels with regions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (2, *[side // 2 for side in size]))
    for axis in range(1, labels.ndim):
        labels = labels.repeat(2, axis)
    return rng.normal(size=(2, 2, *size)).astype(np.float32), labels


def gradient(
    loss: paddle.nn.Layer, logits: np.ndarray, labels: np.ndarray, dtype: str = "float32"
) -> tuple[float, paddle.Tensor]:
    given = paddle.to_tensor(logits).astype(dtype).detach()
    given.stop_gradient = False
    result = loss(given, paddle.to_tensor(labels))
    result.backward()
    return value(result), given.grad


def test_cross_entropy_by_hand() -> None:
    assert value(CrossEntropyLoss()(LOGITS, LABELS)) == pytest.approx(
        -(np.log(3 / 4) + np.log(1 / 4)) / 2, rel=1e-6
    )


def test_cross_entropy_with_weights_is_the_weighted_mean() -> None:
    loss = CrossEntropyLoss(weight=(1.0, 3.0))(LOGITS, LABELS)
    assert value(loss) == pytest.approx(-(3 * np.log(3 / 4) + np.log(1 / 4)) / 4, rel=1e-6)


def test_dice_by_hand() -> None:
    # class 1: p = (3/4, 3/4), y = (1, 0): (2 * 3/4 + 1) / (3/2 + 1 + 1); class 0 likewise with 1/4
    dice1, dice0 = (1.5 + 1) / (1.5 + 1 + 1), (0.5 + 1) / (0.5 + 1 + 1)
    assert value(DiceLoss()(LOGITS, LABELS)) == pytest.approx(1 - (dice0 + dice1) / 2, rel=1e-6)
    assert value(DiceLoss(background=False)(LOGITS, LABELS)) == pytest.approx(1 - dice1, rel=1e-6)
    assert value(DiceLoss(weight=(1.0, 3.0))(LOGITS, LABELS)) == pytest.approx(
        1 - (dice0 + 3 * dice1) / 4, rel=1e-6
    )


def test_logits_and_labels_stay_as_they_are(spec: dict[str, Any]) -> None:
    logits, labels = some()
    labels[0, :3] = 255
    given, truth = paddle.to_tensor(logits, stop_gradient=False), paddle.to_tensor(labels)
    built(spec)(given, truth).backward()
    np.testing.assert_array_equal(given.numpy(), logits)
    np.testing.assert_array_equal(truth.numpy(), labels)


@pytest.mark.parametrize("size", [(12, 10), (6, 8, 4)], ids=["picture", "volume"])
def test_ignored_pixels_neither_count_nor_learn(spec: dict[str, Any], size: tuple[int, ...]) -> None:
    logits, labels = some(size)
    labels[..., -3:] = 255
    others = logits.copy()
    others[..., -3:] = np.random.default_rng(5).normal(size=others[..., -3:].shape)
    loss = built(spec)
    first, slopes = gradient(loss, logits, labels)
    assert first == gradient(loss, others, labels)[0]
    assert not slopes.numpy()[..., -3:].any()
    assert slopes.numpy()[..., :-3].any()


@pytest.mark.parametrize("another", [0, -1, 200])
def test_the_ignored_value_may_be_another(spec: dict[str, Any], another: int) -> None:
    logits, labels = some()
    ignored = np.random.default_rng(2).random(labels.shape) < 0.3
    if another == 0:  # the background may be ignored; then there is one class
        ignored = labels == 0
    marked, usual = np.where(ignored, another, labels), np.where(ignored, 255, labels)
    expected = gradient(built(spec), logits, usual)
    found = gradient(built(spec, ignore_index=another), logits, marked)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1].numpy(), expected[1].numpy())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("truth", ["empty", "full", "ignored", "half"])
def test_gradients_are_finite_for_any_label_and_any_certainty(
    spec: dict[str, Any], truth: str, dtype: str
) -> None:
    labels = np.full((2, 8, 8), {"empty": 0, "full": 1, "ignored": 255, "half": 0}[truth])
    if truth == "half":
        labels[0, :, :4] = 1
        labels[1] = 255
    loss = built(spec)
    for logit in (0.0, 30.0, -30.0, 20000.0, -20000.0):  # undecided; certain and right; certain and wrong
        logits = np.full((2, 2, 8, 8), logit, np.float32) * np.array([-1, 1]).reshape(1, 2, 1, 1)
        result, slopes = gradient(loss, logits, labels, dtype)
        assert np.isfinite(result)
        assert slopes.dtype == getattr(paddle, dtype)
        assert np.isfinite(slopes.astype("float32").numpy()).all()
        if truth == "ignored":
            assert result == 0
            assert not slopes.astype("float32").numpy().any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(spec: dict[str, Any], dtype: str) -> None:
    logits, labels = some((40, 40))
    rounded = paddle.to_tensor(logits).astype(dtype).astype("float32").numpy()
    expected, full = gradient(built(spec), rounded, labels)
    found, half = gradient(built(spec), logits, labels, dtype)
    assert found == expected
    np.testing.assert_array_equal(
        half.astype("float32").numpy(), full.astype(dtype).astype("float32").numpy()
    )


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_mixture_has_the_weighted_mean_of_both_losses(spec: dict[str, Any], weight: float) -> None:
    logits, first = some()
    second = some(seed=1)[1]
    first[0, :2], second[1, :, 3:] = 255, 255
    loss = built(spec, mixed=True)
    one, two = gradient(loss, logits, first), gradient(loss, logits, second)
    both = gradient(loss, logits, packed(first, second, weight, 255))
    assert both[0] == pytest.approx(weight * one[0] + (1 - weight) * two[0], rel=1e-5)
    np.testing.assert_allclose(
        both[1].numpy(), weight * one[1].numpy() + (1 - weight) * two[1].numpy(), atol=1e-6
    )


def test_a_small_output_is_brought_to_the_size_of_the_label(spec: dict[str, Any]) -> None:
    small, labels = some((6, 5))[0], some((24, 20))[1]
    labels[0, :, :4] = 255
    large = np.stack(
        [[cv2.resize(k, (20, 24), interpolation=cv2.INTER_LINEAR) for k in its] for its in small]
    )
    loss = built(spec)
    result, slopes = gradient(loss, small, labels)
    assert result == pytest.approx(gradient(loss, large, labels)[0], rel=1e-4)
    assert slopes.shape == list(small.shape)


def test_a_small_volume_is_measured_where_its_voxels_stand(spec: dict[str, Any]) -> None:
    """Strides of 2, 1 and 3: a lower level has the places 0, 2, 4 and 0, 1, 2, 3 and 0, 3, 6 of the label."""
    logits, labels = some((3, 4, 3))[0], np.random.default_rng(3).integers(0, 2, (2, 5, 4, 8))
    labels[0, 2] = 255
    places = labels[:, [0, 2, 4]][..., [0, 3, 6]]
    loss = built(spec)
    found, expected = gradient(loss, logits, labels), gradient(loss, logits, places)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1].numpy(), expected[1].numpy())


def test_mixed_loss_gives_its_weighted_parts() -> None:
    parts = MixedLoss([CrossEntropyLoss(), DiceLoss()], (0.5, 2.0))(LOGITS, LABELS)
    assert value(parts[0]) == pytest.approx(0.5 * value(CrossEntropyLoss()(LOGITS, LABELS)), rel=1e-6)
    assert value(parts[1]) == pytest.approx(2.0 * value(DiceLoss()(LOGITS, LABELS)), rel=1e-6)


@pytest.mark.parametrize(
    "sizes", [((16, 16), (8, 8), (4, 4)), ((8, 8, 4), (4, 4, 2), (2, 2, 2))], ids=["picture", "volume"]
)
def test_every_loss_in_a_mixture_and_for_many_outputs(sizes: tuple[tuple[int, ...], ...]) -> None:
    """PaddleSeg's own sum over the outputs of a network, two of them smaller than the label."""
    computed = importlib.import_module("paddleseg.core.train").loss_computation
    parts = [{"type": name} for name in NAMES]
    loss = Loss.model_validate(
        {
            "types": [{"type": "MixedLoss", "losses": parts, "coef": [1.0] * len(parts)}],
            "coef": [1, 0.5, 0.25],
        }
    )
    losses = build_losses(loss, 255, mixed=False)
    outputs = [paddle.to_tensor(some(size)[0]) for size in sizes]
    labels = paddle.to_tensor(some(sizes[0])[1])
    found = computed(outputs, labels, None, losses)
    expected = [
        coef * value(built(part)(output, labels))
        for output, coef in zip(outputs, (1, 0.5, 0.25), strict=True)
        for part in parts
    ]
    assert [value(part) for part in found] == pytest.approx(expected, rel=1e-6)
    assert part_names(loss) == [f"{name} of output {output}" for output in (1, 2, 3) for name in NAMES]
    alone = [
        value(computed(outputs[:1], labels, None, {"types": [built(part)], "coef": [2.0]})[0])
        for part in parts
    ]
    assert alone == pytest.approx([2 * one for one in expected[: len(parts)]], rel=1e-6)


@pytest.mark.parametrize(
    "name", ["CrossEntropyLoss", "DiceLoss", "BCELoss", "MultiClassFocalLoss", "TverskyLoss"]
)
def test_balanced_weights_are_those_of_the_caller(disc_recipe_file: Path, name: str) -> None:
    recipe = load_recipe(disc_recipe_file, [f"loss.types=[{{type: {name}, weight: balanced}}]"])
    logits, labels = map(paddle.to_tensor, some())
    weighed = build_losses(recipe.loss, 255, mixed=False, class_weights=(1.0, 5.0))["types"][0]
    assert value(weighed(logits, labels)) == value(built({"type": name, "weight": [1, 5]})(logits, labels))
    assert value(weighed(logits, labels)) != value(built({"type": name})(logits, labels))
    with pytest.raises(AssertionError, match="balanced"):
        build_losses(recipe.loss, 255, mixed=False)


def test_a_training_with_three_losses_logs_each(disc_recipe_file: Path, tmp_path: Path) -> None:
    from medseg_paddle.steps.train import train

    parts = "[{type: BCELoss}, {type: ClDiceLoss}, {type: BoundaryLoss}]"
    mixed = f"loss.types=[{{type: MixedLoss, losses: {parts}, coef: [1, 0.5, 0.01]}}]"
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[mixed, "iters=2", "log_iters=1"])
    assert run.history()[-1]["iter"] == 2
