"""Losses that are a mean over pixels."""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F

from medseg_paddle.engine.losses.label_loss import LabelLoss, one_hot, per_class, pixel_sums, share


class CrossEntropyLoss(LabelLoss):
    """Cross-entropy, mean over the pixels that are not ignored.

    With `weight` the mean is weighted, ``sum(w_y * ce) / sum(w_y)``. A batch in which every pixel is
    ignored gives 0 with zero gradients.

    Parameters
    ----------
    weight, ignore_index, mixed
        See :class:`LabelLoss`.
    top_k_percent_pixels : float
        Share of the batch's pixels, those of the greatest (weighted) loss, that the mean is over.
    avg_non_ignore : bool
        False: ignored pixels count with loss 0 and weight 1.
    label_smoothing : float
        e in ``ce = (1 - e) * -log p_y + e * mean_k(-log p_k)`` (Szegedy et al. 2016,
        https://arxiv.org/abs/1512.00567); the pixel's weight stays that of its class.
    """

    def __init__(
        self,
        weight: tuple[float, ...] | None = None,
        ignore_index: int = 255,
        top_k_percent_pixels: float = 1.0,
        *,
        avg_non_ignore: bool = True,
        label_smoothing: float = 0.0,
        mixed: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index, mixed=mixed)
        self._hardest, self._of_counted = top_k_percent_pixels, avg_non_ignore
        self._smoothing = label_smoothing

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        keep, safe = self.counted(labels)
        pixels = _cross_entropy(logits, safe)
        if self._smoothing:
            evenly = -F.log_softmax(logits, axis=1).mean(1)
            pixels = (1 - self._smoothing) * pixels + self._smoothing * evenly
        its = self.weight_of(safe)
        weight = keep if its is None else keep * its
        losses = pixels * weight
        if not self._of_counted:
            weight = weight + (1 - keep)
        if self._hardest < 1:
            hardest = max(1, int(self._hardest * losses.size))
            losses, where = paddle.topk(losses.flatten(), hardest)
            weight = paddle.gather(weight.flatten(), where)
        return share(losses.sum(), weight.sum()).reshape([1])


class OhemCrossEntropyLoss(LabelLoss):
    """Cross-entropy, mean over the hard pixels (online hard example mining).

    Hard are the pixels whose true class has a probability below `thresh`, and in any case the `min_kept` hardest of
    the batch. After Shrivastava et al. 2016 (https://arxiv.org/abs/1604.03540), for pixels.
    """

    def __init__(
        self, thresh: float = 0.7, min_kept: int = 10000, ignore_index: int = 255, *, mixed: bool = False
    ) -> None:
        super().__init__(None, ignore_index, mixed=mixed)
        self._threshold, self._least = thresh, min_kept

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        keep, safe = self.counted(labels)
        pixels = _cross_entropy(logits, safe)
        with paddle.no_grad():
            easy = paddle.exp(-pixels) * keep + 2 * (1 - keep)  # an ignored pixel is easier than any other
            hard = easy < self._threshold
            if self._least:
                hardest, _ = paddle.topk(easy.flatten(), min(self._least, easy.size), largest=False)
                hard = paddle.logical_or(hard, easy <= hardest[-1])
            hard = hard.astype("float32") * keep
        return share((pixels * hard).sum(), hard.sum()).reshape([1])


class MultiClassFocalLoss(LabelLoss):
    """Focal loss of the softmax, ``-alpha (1 - p_y)^gamma log p_y``, mean over the pixels that are not ignored.

    Lin et al. 2017 (https://arxiv.org/abs/1708.02002). With `weight` the mean is weighted as in
    :class:`CrossEntropyLoss`.
    """

    def __init__(
        self,
        weight: tuple[float, ...] | None = None,
        alpha: float = 1.0,
        gamma: float = 2.0,
        ignore_index: int = 255,
        *,
        mixed: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index, mixed=mixed)
        self._alpha, self._gamma = alpha, gamma

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        keep, safe = self.counted(labels)
        pixels = _cross_entropy(logits, safe)
        # At a probability of 1 the derivative of the power is infinite where gamma is below 1.
        wrong = (-paddle.expm1(-pixels)).clip(min=1e-7)
        its = self.weight_of(safe)
        weight = keep if its is None else keep * its
        losses = self._alpha * wrong**self._gamma * pixels
        return share((losses * weight).sum(), weight.sum()).reshape([1])


class FocalLoss(LabelLoss):
    """Focal loss of each class against the rest, mean over the classes and the pixels that are not ignored.

    With ``p = sigmoid(logit of the class)``: ``-alpha (1 - p)^gamma log p`` at the class's own pixels,
    ``-(1 - alpha) p^gamma log(1 - p)`` at the others (Lin et al. 2017, https://arxiv.org/abs/1708.02002).
    """

    def __init__(
        self, alpha: float = 0.25, gamma: float = 2.0, ignore_index: int = 255, *, mixed: bool = False
    ) -> None:
        super().__init__(None, ignore_index, mixed=mixed)
        self._alpha, self._gamma = alpha, gamma

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        keep, safe = self.counted(labels)
        truth = one_hot(safe, logits.shape[1])
        right, wrong = F.log_sigmoid(logits), F.log_sigmoid(-logits)
        own = -self._alpha * paddle.exp(self._gamma * wrong) * right
        others = -(1 - self._alpha) * paddle.exp(self._gamma * right) * wrong
        losses = (truth * own + (1 - truth) * others).mean(1)
        return share((losses * keep).sum(), keep.sum()).reshape([1])


class BCELoss(LabelLoss):
    """Binary cross-entropy of each class against the rest, mean over the classes and the pixels that are not ignored.

    The probability of a class is ``sigmoid`` of its own logit, for two classes as for more: the logits of both are
    trained, each for itself. (Of ``sigmoid(l1 - l0)`` it would be the cross-entropy over again.)

    Parameters
    ----------
    weight : tuple of float, ``"dynamic"`` or None
        Of each class in the mean. Dynamic: a class's own pixels count twice the others' share of the batch, and the
        others twice the class's.
    pos_weight : float, ``"dynamic"`` or None
        Factor of a class's own pixels. Dynamic: twice the share of the others.
    ignore_index, mixed
        See :class:`LabelLoss`.
    """

    edge_label = False  # `train()` asks any BCELoss whether it wants edges for labels

    def __init__(
        self,
        weight: tuple[float, ...] | Literal["dynamic"] | None = None,
        pos_weight: float | Literal["dynamic"] | None = None,
        ignore_index: int = 255,
        *,
        mixed: bool = False,
    ) -> None:
        super().__init__(None if isinstance(weight, str) else weight, ignore_index, mixed=mixed)
        self._dynamic, self._own = isinstance(weight, str), pos_weight

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        keep, safe = self.counted(labels)
        keep = keep.unsqueeze(1)
        truth = one_hot(safe, logits.shape[1])
        others = 1 - share(pixel_sums(truth * keep), keep.sum())
        own_weight = 2 * per_class(others, truth) if isinstance(self._own, str) else self._own or 1.0
        own = -own_weight * truth * F.log_sigmoid(logits)
        rest = -(1 - truth) * F.log_sigmoid(-logits)
        if self._dynamic:
            own, rest = 2 * per_class(others, truth) * own, 2 * per_class(1 - others, truth) * rest
        means = share(pixel_sums((own + rest) * keep), keep.sum())
        return self.mean_of_classes(means).reshape([1])


def _cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """``-log p_y`` of each pixel, ``[N, (D,) H, W]``."""
    return F.cross_entropy(logits, labels.unsqueeze(1), axis=1, reduction="none").squeeze(1)
