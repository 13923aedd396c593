"""Every loss against itself in plain numpy and scipy and float64, written from the formulas of the papers.

A reference takes logits ``[N, K, (D,) H, W]`` and labels ``[N, (D,) H, W]``; pixels of `IGNORED` do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import paddle
import pytest
from scipy import ndimage, special

from medseg_paddle.engine.losses.lovasz import LovaszHingeLoss, LovaszSoftmaxLoss
from medseg_paddle.engine.losses.overlap import DiceLoss, FocalTverskyLoss, TverskyLoss
from medseg_paddle.engine.losses.pixels import (
    BCELoss,
    CrossEntropyLoss,
    FocalLoss,
    MultiClassFocalLoss,
    OhemCrossEntropyLoss,
)
from medseg_paddle.engine.losses.shape import BoundaryLoss, ClDiceLoss, signed_distances

IGNORED = 255
Array = np.ndarray[Any, Any]
Reference = Callable[[Array, Array], float]


def flat(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Logits ``[pixels, K]`` and labels of the pixels that count."""
    keep = labels.ravel() != IGNORED
    return np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1])[keep], labels.ravel()[keep]


def cross_entropies(logits: Array, labels: Array) -> tuple[Array, Array]:
    """``-log p`` of the true class of each pixel that counts, and its label."""
    pixels, truth = flat(logits, labels)
    return -special.log_softmax(pixels, axis=1)[np.arange(truth.size), truth], truth


def cross_entropy(
    logits: Array,
    labels: Array,
    weight: Any = None,
    smoothing: float = 0.0,
    hardest: float = 1.0,
    of_all: bool = False,
) -> float:
    pixels, truth = flat(logits, labels)
    spread = np.eye(logits.shape[1])[truth] * (1 - smoothing) + smoothing / logits.shape[1]
    weights = np.ones(truth.size) if weight is None else np.asarray(weight, float)[truth]
    losses = -(spread * special.log_softmax(pixels, axis=1)).sum(1) * weights
    if hardest < 1:
        order = np.argsort(-losses)[: int(hardest * labels.size)]
        losses, weights = losses[order], weights[order]
    if of_all:
        return losses.sum() / (weights.sum() + (labels == IGNORED).sum())
    return losses.sum() / weights.sum()


def hard_cross_entropy(logits: Array, labels: Array, threshold: float, least: int) -> float:
    losses = np.sort(cross_entropies(logits, labels)[0])[::-1]
    return losses[: max(least, (np.exp(-losses) < threshold).sum())].mean()


def focal_softmax(
    logits: Array, labels: Array, weight: Any = None, alpha: float = 1.0, gamma: float = 2.0
) -> float:
    losses, truth = cross_entropies(logits, labels)
    weights = np.ones(truth.size) if weight is None else np.asarray(weight, float)[truth]
    return (weights * alpha * (1 - np.exp(-losses)) ** gamma * losses).sum() / weights.sum()


def focal_sigmoid(logits: Array, labels: Array, alpha: float = 0.25, gamma: float = 2.0) -> float:
    pixels, truth = flat(logits, labels)
    p, own = special.expit(pixels), np.eye(logits.shape[1])[truth] == 1
    losses = np.where(
        own, -alpha * (1 - p) ** gamma * np.log(p), -(1 - alpha) * p**gamma * np.log(special.expit(-pixels))
    )
    return losses.mean()


def binary_cross_entropy(
    logits: Array, labels: Array, weight: Any = None, dynamic: bool = False, own_weight: Any = 1.0
) -> float:
    pixels, truth = flat(logits, labels)
    means = []
    for k in range(logits.shape[1]):
        own = truth == k
        factor = 2 * (1 - own.mean()) if own_weight == "dynamic" else own_weight
        losses = np.where(
            own, -factor * np.log(special.expit(pixels[:, k])), -np.log(special.expit(-pixels[:, k]))
        )
        if dynamic:
            losses = losses * np.where(own, 2 * (1 - own.mean()), 2 * own.mean())
        means.append(losses.mean())
    return np.average(means, weights=weight)


def groups(logits: Array, labels: Array, batch: bool) -> list[tuple[Array, Array]]:
    """Probabilities ``[pixels, K]`` and truth of the whole batch, or of each image."""
    images = (
        [(logits, labels)] if batch else [(logits[n : n + 1], labels[n : n + 1]) for n in range(len(labels))]
    )
    found = []
    for pair in images:
        pixels, truth = flat(*pair)
        found.append((special.softmax(pixels, axis=1), np.eye(logits.shape[1])[truth]))
    return found


def dice(
    logits: Array,
    labels: Array,
    weight: Any = None,
    smooth: float = 1.0,
    background: bool = True,
    batch: bool = True,
    power: int = 1,
) -> float:
    first = 0 if background else 1
    values = []
    for p, y in groups(logits, labels, batch):
        values.append((2 * (p * y).sum(0) + smooth) / ((p**power).sum(0) + (y**power).sum(0) + smooth))
    return 1 - np.average(np.mean(values, 0)[first:], weights=None if weight is None else weight[first:])


def tversky(
    logits: Array,
    labels: Array,
    weight: Any = None,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float | None = None,
    background: bool = True,
    batch: bool = True,
) -> float:
    first = 0 if background else 1
    values = []
    for p, y in groups(logits, labels, batch):
        found, too_much, missed = (p * y).sum(0), (p * (1 - y)).sum(0), ((1 - p) * y).sum(0)
        lacking = 1 - (found + 1) / (found + alpha * too_much + beta * missed + 1)
        values.append(lacking if gamma is None else lacking ** (1 / gamma))
    return np.average(np.mean(values, 0)[first:], weights=None if weight is None else weight[first:])


def lovasz_extension(errors: Array, own: Array) -> float:
    """By the definition: 1 - IoU of the set of wrong pixels, as it grows from the greatest error to the least."""

    def lost(wrong: Array) -> float:
        union = (own | wrong).sum()
        return 1 - (own & ~wrong).sum() / union if union else 0.0

    wrong, total = np.zeros(own.size, bool), 0.0
    for pixel in np.argsort(-errors, kind="stable"):
        before = lost(wrong)
        wrong[pixel] = True
        total += errors[pixel] * (lost(wrong) - before)
    return total


def lovasz_softmax(logits: Array, labels: Array, classes: Any = "present") -> float:
    pixels, truth = flat(logits, labels)
    p = special.softmax(pixels, axis=1)
    if classes == "present":
        classes = np.unique(truth)
    elif classes == "all":
        classes = range(logits.shape[1])
    return float(np.mean([lovasz_extension(abs((truth == k) - p[:, k]), truth == k) for k in classes]))


def lovasz_hinge(logits: Array, labels: Array) -> float:
    pixels, truth = flat(logits, labels)
    margins = (pixels[:, 1] - pixels[:, 0]) * np.where(truth == 1, 1, -1)
    return lovasz_extension(np.maximum(1 - margins, 0), truth == 1)


def signed_distance(region: Array) -> Array:
    """By comparing every pixel with every other."""
    if region.all() or not region.any():
        return np.zeros(region.shape)
    places = np.stack(np.indices(region.shape), -1).reshape(-1, region.ndim).astype(float)
    between = np.linalg.norm(places[:, None] - places[None], axis=-1)
    inside = region.ravel()
    nearest = np.where(inside, between[:, ~inside].min(1), between[:, inside].min(1))
    return np.where(inside, 1 - nearest, nearest).reshape(region.shape)


def boundary(logits: Array, labels: Array, weight: Any = None) -> float:
    p, keep = special.softmax(logits, axis=1), labels != IGNORED
    values = [
        np.mean(np.stack([signed_distance(label == k) for label in labels])[keep] * p[:, k][keep])
        for k in range(1, logits.shape[1])
    ]
    return float(np.average(values, weights=None if weight is None else weight[1:]))


def skeleton(image: Array, iterations: int) -> Array:
    """Algorithm 1 of Shit et al. on one image."""
    cross = ndimage.generate_binary_structure(image.ndim, 1)

    def eroded(x: Array) -> Array:
        return ndimage.minimum_filter(x, footprint=cross, mode="constant", cval=np.inf)

    def opened(x: Array) -> Array:
        return ndimage.maximum_filter(eroded(x), size=3, mode="constant", cval=-np.inf)

    lines = np.maximum(image - opened(image), 0)
    for _ in range(iterations):
        image = eroded(image)
        lines = lines + (1 - lines) * np.maximum(image - opened(image), 0)
    return lines


def centre_line_dice(
    logits: Array, labels: Array, weight: Any = None, iterations: int = 3, smooth: float = 1.0
) -> float:
    keep = labels != IGNORED
    values = []
    for k in range(1, logits.shape[1]):
        p, y = special.softmax(logits, axis=1)[:, k] * keep, ((labels == k) & keep).astype(float)
        of_p, of_y = (np.stack([skeleton(image, iterations) for image in images]) for images in (p, y))
        precision = ((of_p * y).sum() + smooth) / (of_p.sum() + smooth)
        sensitivity = ((of_y * p).sum() + smooth) / (of_y.sum() + smooth)
        values.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
    return float(np.average(values, weights=None if weight is None else weight[1:]))


W = (0.5, 1.0, 3.0)
CASES: dict[str, tuple[paddle.nn.Layer, Reference]] = {
    "ce": (CrossEntropyLoss(), cross_entropy),
    "ce, weights": (CrossEntropyLoss(W), partial(cross_entropy, weight=W)),
    "ce, smoothing": (
        CrossEntropyLoss(W, label_smoothing=0.1),
        partial(cross_entropy, weight=W, smoothing=0.1),
    ),
    "ce, hardest": (
        CrossEntropyLoss(W, top_k_percent_pixels=0.2),
        partial(cross_entropy, weight=W, hardest=0.2),
    ),
    "ce, mean of all": (
        CrossEntropyLoss(W, avg_non_ignore=False),
        partial(cross_entropy, weight=W, of_all=True),
    ),
    "ohem, by number": (OhemCrossEntropyLoss(0.01, 7), partial(hard_cross_entropy, threshold=0.01, least=7)),
    "ohem, by threshold": (OhemCrossEntropyLoss(0.4, 7), partial(hard_cross_entropy, threshold=0.4, least=7)),
    "ohem, no number": (OhemCrossEntropyLoss(0.4, 0), partial(hard_cross_entropy, threshold=0.4, least=0)),
    "ohem, all": (OhemCrossEntropyLoss(), cross_entropy),
    "bce": (BCELoss(), binary_cross_entropy),
    "bce, weights": (BCELoss(W, 2.5), partial(binary_cross_entropy, weight=W, own_weight=2.5)),
    "bce, dynamic": (BCELoss("dynamic"), partial(binary_cross_entropy, dynamic=True)),
    "bce, dynamic own": (BCELoss(None, "dynamic"), partial(binary_cross_entropy, own_weight="dynamic")),
    "focal": (FocalLoss(), focal_sigmoid),
    "focal, flat": (FocalLoss(0.7, 0.0), partial(focal_sigmoid, alpha=0.7, gamma=0.0)),
    "focal softmax": (MultiClassFocalLoss(), focal_softmax),
    "focal softmax, weights": (
        MultiClassFocalLoss(W, 0.5, 0.5),
        partial(focal_softmax, weight=W, alpha=0.5, gamma=0.5),
    ),
    "dice": (DiceLoss(W), partial(dice, weight=W)),
    "dice, images": (DiceLoss(batch=False, background=False), partial(dice, batch=False, background=False)),
    "dice, squared": (DiceLoss(squared=True, smooth=0.1), partial(dice, power=2, smooth=0.1)),
    "tversky": (TverskyLoss(W, background=False), partial(tversky, weight=W, background=False)),
    "tversky, images": (
        TverskyLoss(alpha=0.6, beta=0.2, batch=False),
        partial(tversky, alpha=0.6, beta=0.2, batch=False),
    ),
    "focal tversky": (FocalTverskyLoss(W), partial(tversky, weight=W, gamma=4 / 3)),
    "lovasz": (LovaszSoftmaxLoss(), lovasz_softmax),
    "lovasz, all": (LovaszSoftmaxLoss(classes="all"), partial(lovasz_softmax, classes="all")),
    "lovasz, some": (LovaszSoftmaxLoss(classes=(2, 0)), partial(lovasz_softmax, classes=(2, 0))),
    "hinge": (LovaszHingeLoss(), lovasz_hinge),
    "boundary": (BoundaryLoss(), boundary),
    "boundary, weights": (BoundaryLoss(W), partial(boundary, weight=W)),
    "centre lines": (ClDiceLoss(), centre_line_dice),
    "centre lines, weights": (
        ClDiceLoss(W, iterations=1, smooth=0.1),
        partial(centre_line_dice, weight=W, iterations=1, smooth=0.1),
    ),
}


def random_case(name: str, size: tuple[int, ...], *, absent: int | None = None) -> tuple[Array, Array]:
    """Smooth logits and labels with regions, some pixels ignored."""
    rng = np.random.default_rng(len(name))
    classes = 2 if name == "hinge" else 3
    smooth = [0, 0] + [1.5] * len(size)
    truth = ndimage.gaussian_filter(rng.normal(size=(2, classes, *size)), smooth)
    logits = 8 * ndimage.gaussian_filter(rng.normal(size=truth.shape), smooth) + 8 * truth
    labels = truth.argmax(1)
    if absent is not None:
        labels[labels == absent] = 0
    labels[0, ..., :2] = IGNORED
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("size", "absent"),
    [((9, 10), None), ((9, 10), 1), ((4, 6, 5), None)],
    ids=["picture", "absent", "volume"],
)
def test_value_and_gradient_are_the_formulas(name: str, size: tuple[int, ...], absent: int | None) -> None:
    loss, reference = CASES[name]
    logits, labels = random_case(name, size, absent=absent)
    given = paddle.to_tensor(logits, stop_gradient=False)
    result = loss(given, paddle.to_tensor(labels))
    assert result.shape == [1]
    assert float(result.numpy()[0]) == pytest.approx(
        reference(logits.astype(float), labels), rel=2e-5, abs=1e-6
    )
    result.backward()
    way = np.random.default_rng(1).normal(size=logits.shape)
    step = 1e-6
    ahead, behind = (reference(logits + sign * step * way, labels) for sign in (1, -1))
    slope = float((given.grad.numpy() * way).sum())
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_volume_of_one_slice_is_a_picture(name: str) -> None:
    logits, labels = random_case(name, (9, 10))
    loss = CASES[name][0]
    picture = loss(paddle.to_tensor(logits), paddle.to_tensor(labels))
    for axis in (1, 2, 3):
        slice_ = loss(
            paddle.to_tensor(np.expand_dims(logits, axis + 1)), paddle.to_tensor(np.expand_dims(labels, axis))
        )
        assert float(slice_[0]) == pytest.approx(float(picture[0]), rel=1e-5)


@pytest.mark.parametrize("name", ["lovasz", "hinge"])
def test_lovasz_of_certain_predictions_is_one_minus_iou(name: str) -> None:
    rng = np.random.default_rng(3)
    labels, predicted = rng.integers(0, 2, (2, 2, 8, 8))
    # Errors of 0 or 1: of the softmax by far logits, of the hinge by a margin of 1 or, where wrong, of 0.
    margin = 200 * predicted - 100 if name == "lovasz" else (labels == predicted) * (2 * labels - 1)
    logits = paddle.to_tensor(np.stack([0 * margin, margin], 1).astype(np.float32))
    ious = [
        ((labels == k) & (predicted == k)).sum() / ((labels == k) | (predicted == k)).sum() for k in (0, 1)
    ]
    expected = 1 - np.mean(ious) if name == "lovasz" else 1 - ious[1]
    assert float(CASES[name][0](logits, paddle.to_tensor(labels))[0]) == pytest.approx(expected, rel=1e-5)


def test_lovasz_keeps_its_digits_over_a_million_pixels() -> None:
    rng = np.random.default_rng(4)
    labels = (rng.random((1, 1024, 1024)) < 0.1).astype(int)
    logits = rng.normal(size=(1, 2, 1024, 1024)).astype(np.float32)
    errors = special.softmax(logits.astype(float), axis=1)[:, 1].ravel()
    own = labels.ravel() == 1
    errors = np.where(own, 1 - errors, errors)
    order = np.argsort(-errors)
    lost = 1 - (own.sum() - own[order].cumsum()) / (own.sum() + (~own[order]).cumsum())
    expected = (errors[order] * np.diff(lost, prepend=0)).sum()
    loss = LovaszSoftmaxLoss(classes=(1,))(paddle.to_tensor(logits), paddle.to_tensor(labels))
    assert float(loss[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["dice", "tversky", "bce"])
def test_sums_over_a_million_pixels_keep_their_digits(name: str) -> None:
    rng = np.random.default_rng(4)
    labels = (rng.random((1, 1024, 1024)) < 0.1).astype(int)
    logits = (3 * rng.normal(size=(1, 3, 1024, 1024)) + 6 * np.eye(3)[labels].transpose(0, 3, 1, 2)).astype(
        np.float32
    )
    loss, reference = CASES[name]
    found = float(loss(paddle.to_tensor(logits), paddle.to_tensor(labels))[0])
    assert found == pytest.approx(reference(logits.astype(float), labels), rel=1e-4)


def test_signed_distances_by_hand() -> None:
    region = np.array(
        [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool
    )
    corner, side = np.sqrt(2), 1.0
    expected = [
        [corner, side, side, side, corner],
        [side, 0, 0, 0, side],
        [side, 0, -1, 0, side],
        [side, 0, 0, 0, side],
        [corner, side, side, side, corner],
    ]
    np.testing.assert_allclose(signed_distances(region), expected, atol=1e-5)
    np.testing.assert_allclose(signed_distances(np.stack([region] * 5))[2], expected, atol=1e-5)


def lines(*, gap: bool, wide: bool) -> Array:
    """Two lines of 20 pixels, one pixel wide or three; with a gap of two pixels in the first."""
    label = np.zeros((1, 16, 24), int)
    for row in (4, 11):
        label[0, row - wide : row + 1 + wide, 2:22] = 1
    if gap:
        label[0, :8, 11:13] = 0
    return label


def test_centre_line_dice_of_a_gap_by_hand() -> None:
    logits = 100.0 * np.eye(2)[lines(gap=True, wide=False)].transpose(0, 3, 1, 2)
    loss = ClDiceLoss()(
        paddle.to_tensor(logits.astype(np.float32)), paddle.to_tensor(lines(gap=False, wide=False))
    )
    sensitivity = (38 + 1) / (40 + 1)  # 38 of 40 pixels are found, none is wrong
    assert float(loss[0]) == pytest.approx(1 - 2 * sensitivity / (1 + sensitivity), rel=1e-5)


def test_centre_line_dice_looks_at_connections_and_not_at_widths() -> None:
    def value(predicted: Array) -> tuple[float, float]:
        logits = paddle.to_tensor((100.0 * np.eye(2)[predicted]).transpose(0, 3, 1, 2).astype(np.float32))
        label = paddle.to_tensor(lines(gap=False, wide=True))
        return float(ClDiceLoss()(logits, label)[0]), float(DiceLoss(background=False)(logits, label)[0])

    thin, torn = value(lines(gap=False, wide=False)), value(lines(gap=True, wide=True))
    assert thin[0] < torn[0]
    assert thin[1] > torn[1]


def test_tversky_with_halves_is_dice() -> None:
    logits, labels = map(paddle.to_tensor, random_case("x", (9, 10)))
    halves = TverskyLoss(smooth=0.5, alpha=0.5, beta=0.5)(logits, labels)
    assert float(halves[0]) == pytest.approx(float(DiceLoss(smooth=1.0)(logits, labels)[0]), rel=1e-5)
