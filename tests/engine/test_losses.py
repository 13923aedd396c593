"""Losses against values worked by hand and against plain numpy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from medseg_paddle.engine.paddleseg_adapter.losses import CrossEntropyLoss, DiceLoss, MixedLoss

# Two pixels, two classes; softmax of (0, ln 3) is (1/4, 3/4).
LOGITS = paddle.to_tensor(np.array([[[[0.0, 0.0]], [[np.log(3), np.log(3)]]]], np.float32))
LABELS = paddle.to_tensor(np.array([[[1, 0]]], np.int64))


def value(loss: paddle.Tensor) -> float:
    assert loss.shape == [1]  # `train()` reads element 0
    return float(loss.numpy()[0])


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


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), DiceLoss()], ids=["ce", "dice"])
def test_ignored_pixels_do_not_count_and_labels_stay(loss: paddle.nn.Layer) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    labels = rng.integers(0, 3, (2, 4, 6))
    labels[:, :, 3:] = 255
    given = paddle.to_tensor(labels)
    cropped = value(loss(paddle.to_tensor(logits[..., :3]), paddle.to_tensor(labels[..., :3])))
    assert value(loss(paddle.to_tensor(logits), given)) == pytest.approx(cropped, rel=1e-5)
    np.testing.assert_array_equal(given.numpy(), labels)


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), DiceLoss()], ids=["ce", "dice"])
@pytest.mark.parametrize("fill", [0, 1, 255], ids=["empty", "full", "ignored"])
def test_gradients_are_finite_for_one_sided_labels(loss: paddle.nn.Layer, fill: int) -> None:
    logits = paddle.to_tensor(
        np.full((1, 2, 4, 4), 30.0, np.float32) * np.array([1, -1]).reshape(1, 2, 1, 1), dtype="float32"
    )
    logits.stop_gradient = False
    result = loss(logits, paddle.full([1, 4, 4], fill, "int64"))
    result.backward()
    assert np.isfinite(result.numpy()).all()
    assert np.isfinite(logits.grad.numpy()).all()


def test_mixed_loss_gives_its_weighted_parts() -> None:
    parts = MixedLoss([CrossEntropyLoss(), DiceLoss()], (0.5, 2.0))(LOGITS, LABELS)
    assert value(parts[0]) == pytest.approx(0.5 * value(CrossEntropyLoss()(LOGITS, LABELS)), rel=1e-6)
    assert value(parts[1]) == pytest.approx(2.0 * value(DiceLoss()(LOGITS, LABELS)), rel=1e-6)
