"""Losses that stand for 1 - IoU: Lovasz extensions (Berman et al. 2018, https://arxiv.org/abs/1705.08790)."""

from __future__ import annotations

from typing import Literal

import paddle
import paddle.nn.functional as F

from medseg_paddle.engine.losses.label_loss import LabelLoss, one_hot


class LovaszSoftmaxLoss(LabelLoss):
    """Lovasz extension of 1 - IoU at the errors ``|y_k - p_k|``, over the pixels of the batch, mean over classes.

    Parameters
    ----------
    ignore_index, mixed
        See :class:`LabelLoss`.
    classes : ``"present"``, ``"all"`` or tuple of int
        The classes in the batch's labels, all of them, or these.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        classes: Literal["present", "all"] | tuple[int, ...] = "present",
        *,
        mixed: bool = False,
    ) -> None:
        super().__init__(None, ignore_index, mixed=mixed)
        self._classes = classes

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        keep, safe = self.counted(labels)
        keep = keep.unsqueeze(1)
        truth = one_hot(safe, logits.shape[1]) * keep
        errors = (truth - F.softmax(logits, axis=1) * keep).abs()
        truth, errors = (paddle.moveaxis(part, 1, 0).flatten(1) for part in (truth, errors))
        if isinstance(self._classes, tuple):
            which = paddle.to_tensor(self._classes)
            truth, errors = paddle.gather(truth, which), paddle.gather(errors, which)
        losses = _extension(errors, truth)
        if self._classes != "present":
            return losses.mean().reshape([1])
        present = (truth.sum(1) > 0).astype("float32")
        return ((losses * present).sum() / present.sum().clip(min=1)).reshape([1])


class LovaszHingeLoss(LabelLoss):
    """Lovasz extension of the foreground's 1 - IoU at the hinge errors, over the pixels of the batch; two classes.

    The error of a pixel is ``1 - (2 y - 1) (l1 - l0)``, as ``l1 - l0`` is the logit of the foreground.
    """

    def __init__(self, ignore_index: int = 255, *, mixed: bool = False) -> None:
        super().__init__(None, ignore_index, mixed=mixed)

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`, with K = 2."""
        keep, safe = self.counted(labels)
        truth = safe.astype("float32")
        errors = F.relu(1 - (2 * truth - 1) * (logits[:, 1] - logits[:, 0])) * keep
        return _extension(errors.reshape([1, -1]), truth.reshape([1, -1]))


def _extension(errors: paddle.Tensor, truth: paddle.Tensor) -> paddle.Tensor:
    """Lovasz extension of 1 - IoU: losses ``[C]`` of errors and truth ``[C, pixels]``.

    The errors in falling order, each times the step of 1 - IoU when its pixel joins the wrong ones (Alg. 1). The
    steps are written out, since differences of neighbouring values of 1 - IoU lose their digits where pixels are many.
    A pixel of error 0 changes nothing, so ignored pixels have that.
    """
    with paddle.no_grad():
        order = paddle.argsort(errors, axis=1, descending=True)
        own = paddle.take_along_axis(truth, order, 1)
        size = own.sum(1, keepdim=True)
        both = size - own.cumsum(1)
        either = size + (1 - own).cumsum(1)
        steps = own / either + (1 - own) * both / (either * (either - 1).clip(min=1))
        # Of an absent class IoU falls from 1 to 0 with the first pixel.
        first = (paddle.arange(own.shape[1]) == 0).astype("float32")
        steps = steps + (size == 0).astype("float32") * first
    # Paddle adds the pixels one by one, and a float32 total swallows steps of 1e-7.
    parts = (paddle.take_along_axis(errors, order, 1) * steps).astype("float64")
    return parts.sum(1).astype("float32")
