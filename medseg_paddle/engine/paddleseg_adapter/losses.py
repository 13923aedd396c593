"""Losses under PaddleSeg's names that work on Paddle 3. See the package's docstring for why."""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import nn

from medseg_paddle.config import optimisation
from medseg_paddle.config.base import component_arguments
from medseg_paddle.config.optimisation import Loss
from medseg_paddle.preprocess.augment import mixup


class _LabelLoss(nn.Layer):  # type: ignore[misc]
    """A loss to a label; with `mixed` also to the two of a mixture (:mod:`medseg_paddle.preprocess.augment.mixup`).

    Which of both a batch has stands in its labels, and to read it there makes a GPU finish what it was asked for:
    so only a training with mixup is `mixed`.
    """

    def __init__(self, weight: tuple[float, ...] | None, ignore_index: int, *, mixed: bool) -> None:
        super().__init__()
        self._mixed = mixed
        self._weight = None if weight is None else paddle.to_tensor(weight, dtype="float32")
        self._ignore_index = ignore_index

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Loss of shape [1] from logits ``[N, K, H, W]`` and labels int64 ``[N, H, W]``.

        Of a mixture it is ``w * loss(first) + (1 - w) * loss(second)``; the weight is one for the batch.
        """
        if not self._mixed:
            return self.of(logits, labels)
        pixel = int(labels[0, 0, 0])
        if pixel < mixup.MIXTURE:
            return self.of(logits, labels)
        # Paddle 3.2.2 has no bitwise operators of a tensor and a number.
        values = 2**mixup.BITS
        first, second = labels % values, labels // values % values
        weight = mixup.weight_of(pixel)
        return weight * self.of(logits, self._plain(first)) + (1 - weight) * self.of(
            logits, self._plain(second)
        )

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Loss to plain labels."""
        raise NotImplementedError

    def _plain(self, labels: paddle.Tensor) -> paddle.Tensor:
        ignored = paddle.full_like(labels, self._ignore_index)
        return paddle.where(labels == mixup.IGNORED, ignored, labels)


class CrossEntropyLoss(_LabelLoss):
    """Cross-entropy, mean over the pixels that are not ignored.

    With `weight` the mean is weighted, ``sum(w_y * ce) / sum(w_y)``. A batch in which every pixel is
    ignored gives 0 with zero gradients.
    """

    def __init__(
        self, weight: tuple[float, ...] | None = None, ignore_index: int = 255, *, mixed: bool = False
    ) -> None:
        super().__init__(weight, ignore_index, mixed=mixed)

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Loss of shape [1] from logits ``[N, K, H, W]`` and plain labels int64 ``[N, H, W]``."""
        logits = logits.astype("float32")
        keep, safe = _without_ignored(labels, self._ignore_index)
        pixels = F.cross_entropy(logits, safe.unsqueeze(1), axis=1, reduction="none").squeeze(1)
        weight = (
            keep
            if self._weight is None
            else keep * paddle.gather(self._weight, safe.flatten()).reshape(safe.shape)
        )
        return ((pixels * weight).sum() / weight.sum().clip(min=1e-6)).reshape([1])


class DiceLoss(_LabelLoss):
    """``1 - mean_k (2 sum p_k y_k + s) / (sum p_k + sum y_k + s)``, sums over the batch.

    Soft Dice on probabilities after Milletari et al. 2016 (https://arxiv.org/abs/1606.04797), with the
    linear denominator of Sudre et al. 2017 (https://arxiv.org/abs/1707.03237).
    """

    def __init__(
        self,
        weight: tuple[float, ...] | None = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
        *,
        background: bool = True,
        mixed: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index, mixed=mixed)
        self._smooth, self._background = smooth, background

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Loss of shape [1] from logits ``[N, K, H, W]`` and plain labels int64 ``[N, H, W]``."""
        keep, safe = _without_ignored(labels, self._ignore_index)
        keep = keep.unsqueeze(1)
        probabilities = F.softmax(logits.astype("float32"), axis=1) * keep
        truth = paddle.moveaxis(F.one_hot(safe, logits.shape[1]), -1, 1) * keep
        both = (probabilities * truth).sum([0, 2, 3])
        either = (probabilities + truth).sum([0, 2, 3])
        dice = (2 * both + self._smooth) / (either + self._smooth)
        weight = paddle.ones_like(dice) if self._weight is None else self._weight
        first = 0 if self._background else 1
        dice, weight = dice[first:], weight[first:]
        return (1 - (dice * weight).sum() / weight.sum()).reshape([1])


class MixedLoss(nn.Layer):  # type: ignore[misc]
    """Weighted losses of one output; `train()` knows the class by this name and adds the parts up."""

    def __init__(self, losses: list[nn.Layer], coef: tuple[float, ...]) -> None:
        super().__init__()
        self.losses = nn.LayerList(losses)
        self._coef = coef

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> list[paddle.Tensor]:
        """The weighted parts, each of shape [1]."""
        return [coef * loss(logits, labels) for coef, loss in zip(self._coef, self.losses, strict=True)]


def build_losses(spec: Loss, ignore_index: int, *, mixed: bool) -> dict[str, list[Any]]:
    """The ``losses`` argument of `train()`: one loss per output of the model; `mixed` where batches may be mixtures."""
    types = spec.types * len(spec.coef) if len(spec.types) == 1 else spec.types
    return {"types": [_build(loss, ignore_index, mixed=mixed) for loss in types], "coef": list(spec.coef)}


def part_names(spec: Loss) -> list[str]:
    """What `train()` logs as ``loss_0``, ``loss_1``, ...: the losses by name, numbered where outputs share them."""
    types = spec.types * len(spec.coef) if len(spec.types) == 1 else spec.types
    names = []
    for output, loss in enumerate(types, start=1):
        parts = loss.losses if isinstance(loss, optimisation.MixedLoss) else (loss,)
        names += [part.type if len(types) == 1 else f"{part.type} of output {output}" for part in parts]
    return names


def _build(spec: optimisation.LossType, ignore_index: int, *, mixed: bool) -> nn.Layer:
    if isinstance(spec, optimisation.MixedLoss):
        return MixedLoss([_build(loss, ignore_index, mixed=mixed) for loss in spec.losses], spec.coef)
    arguments = component_arguments(spec)
    if arguments["ignore_index"] is None:
        arguments["ignore_index"] = ignore_index
    return {"CrossEntropyLoss": CrossEntropyLoss, "DiceLoss": DiceLoss}[spec.type](**arguments, mixed=mixed)


def _without_ignored(labels: paddle.Tensor, ignore_index: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """1.0 where a pixel counts, and labels with 0 in place of the ignored value; the input stays."""
    counts = labels != ignore_index
    return counts.astype("float32"), paddle.where(counts, labels, paddle.zeros_like(labels))
