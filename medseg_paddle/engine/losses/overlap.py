"""Losses that compare regions: Dice, Tversky."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F

from medseg_paddle.engine.losses.label_loss import LabelLoss, one_hot, pixel_sums


class _OverlapLoss(LabelLoss):
    """Base of losses made of the classes' overlaps.

    Parameters
    ----------
    weight, ignore_index, mixed
        See :class:`LabelLoss`.
    smooth : float
        Added to numerator and denominator; a class that is absent from the truth then has the overlap
        ``smooth / (sum p + smooth)``.
    background : bool
        Count the background as a class.
    batch : bool
        Sum over the pixels of the batch; else of each image, and take the mean of the images.
    """

    def __init__(
        self,
        weight: tuple[float, ...] | None = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
        *,
        background: bool = True,
        batch: bool = True,
        mixed: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index, mixed=mixed)
        self._smooth, self._batch = smooth, batch
        self._first = 0 if background else 1

    def _regions(self, logits: paddle.Tensor, labels: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Probabilities and truth ``[N, K, ...]``, both 0 at ignored pixels."""
        keep, safe = self.counted(labels)
        keep = keep.unsqueeze(1)
        probabilities = F.softmax(logits, axis=1) * keep
        truth = one_hot(safe, logits.shape[1]) * keep
        return probabilities, truth

    def _sums(self, values: paddle.Tensor) -> paddle.Tensor:
        """``[K]`` over the batch, or ``[N, K]`` where each image is for itself."""
        return pixel_sums(values, of_batch=self._batch)

    def _mean(self, values: paddle.Tensor) -> paddle.Tensor:
        """Of values ``[K]``, or ``[N, K]`` where each image is for itself."""
        return self.mean_of_classes((values if self._batch else values.mean(0))[self._first :])


class DiceLoss(_OverlapLoss):
    """``1 - mean_k (2 sum p_k y_k + s) / (sum p_k + sum y_k + s)``.

    Soft Dice on probabilities after Milletari et al. 2016 (https://arxiv.org/abs/1606.04797), with the
    linear denominator of Sudre et al. 2017 (https://arxiv.org/abs/1707.03237); `squared` makes it Milletari's,
    ``sum p_k^2 + sum y_k^2 + s``.
    """

    def __init__(
        self,
        weight: tuple[float, ...] | None = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
        *,
        background: bool = True,
        batch: bool = True,
        squared: bool = False,
        mixed: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index, smooth, background=background, batch=batch, mixed=mixed)
        self._squared = squared

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        probabilities, truth = self._regions(logits, labels)
        both = self._sums(probabilities * truth)
        sizes = probabilities * probabilities if self._squared else probabilities
        either = self._sums(sizes + truth)
        dice = (2 * both + self._smooth) / (either + self._smooth)
        return (1 - self._mean(dice)).reshape([1])


class TverskyLoss(_OverlapLoss):
    """``1 - mean_k (TP + s) / (TP + alpha FP + beta FN + s)``, with counts made of probabilities.

    Salehi et al. 2017 (https://arxiv.org/abs/1706.05721): beta above alpha finds more and is wrong more often. With
    0.5 for both it is the Dice loss of twice `smooth`.
    """

    def __init__(
        self,
        weight: tuple[float, ...] | None = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
        alpha: float = 0.3,
        beta: float = 0.7,
        *,
        background: bool = True,
        batch: bool = True,
        mixed: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index, smooth, background=background, batch=batch, mixed=mixed)
        self._alpha, self._beta = alpha, beta

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        return (1 - self._mean(self._index(logits, labels))).reshape([1])

    def _index(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        probabilities, truth = self._regions(logits, labels)
        found = self._sums(probabilities * truth)
        too_much, missed = self._sums(probabilities) - found, self._sums(truth) - found
        return (found + self._smooth) / (found + self._alpha * too_much + self._beta * missed + self._smooth)


class FocalTverskyLoss(TverskyLoss):
    """``mean_k (1 - T_k)^(1 / gamma)`` with the Tversky index T.

    Abraham and Khan 2019 (https://arxiv.org/abs/1810.07842), gamma 1 to 3. Their alpha is the weight of what is
    missed; here, as in :class:`TverskyLoss`, that is beta.
    """

    def __init__(
        self,
        weight: tuple[float, ...] | None = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        *,
        background: bool = True,
        batch: bool = True,
        mixed: bool = False,
    ) -> None:
        super().__init__(
            weight, ignore_index, smooth, alpha, beta, background=background, batch=batch, mixed=mixed
        )
        self._exponent = 1 / gamma

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        lacking = 1 - self._index(logits, labels)
        # At a perfect overlap the derivative of the power is infinite.
        some = lacking > 1e-7
        powers = paddle.where(some, lacking, paddle.ones_like(lacking)) ** self._exponent
        return self._mean(powers * some.astype("float32")).reshape([1])
