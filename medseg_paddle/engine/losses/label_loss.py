"""What all losses share: precision, the size of the logits, mixtures, ignored pixels, weights of classes."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from medseg_paddle.preprocess.augment import mixup


class LabelLoss(nn.Layer):  # type: ignore[misc]
    """A loss to a label; with `mixed` also to the two of a mixture (:mod:`medseg_paddle.preprocess.augment.mixup`).

    Which of both a batch has stands in its labels, and to read it there makes a GPU finish what it was asked for:
    so only a training with mixup is `mixed`.

    Parameters
    ----------
    weight : tuple of float or None
        Of each class, the background first; 1 where absent.
    ignore_index : int
        Label value of pixels that do not count.
    mixed : bool
        Whether labels may be mixtures.
    """

    def __init__(
        self, weight: tuple[float, ...] | None = None, ignore_index: int = 255, *, mixed: bool = False
    ) -> None:
        super().__init__()
        self._mixed = mixed
        self._weight = None if weight is None else paddle.to_tensor(weight, dtype="float32")
        self._ignore_index = ignore_index

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Loss of shape [1] from logits ``[N, K, (D,) H, W]`` and labels int64 ``[N, (D,) H, W]``.

        Logits may be smaller than labels, see :func:`at_one_size`. Of a mixture the loss is
        ``w * loss(first) + (1 - w) * loss(second)``; the weight is one for the batch.
        """
        # `train()` calls the losses under its auto_cast, which at O2 would compute them in half precision.
        with paddle.amp.auto_cast(enable=False):
            return self._of_any(*at_one_size(logits.astype("float32"), labels))

    def _of_any(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        if not self._mixed:
            return self.of(logits, labels)
        pixel = int(labels[(0,) * labels.ndim])
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
        """Loss of shape [1] from logits float32 ``[N, K, (D,) H, W]`` and plain labels int64 ``[N, (D,) H, W]``."""
        raise NotImplementedError

    def _plain(self, labels: paddle.Tensor) -> paddle.Tensor:
        ignored = paddle.full_like(labels, self._ignore_index)
        return paddle.where(labels == mixup.IGNORED, ignored, labels)

    def counted(self, labels: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """1.0 where a pixel counts, and labels with 0 in place of the ignored value; the input stays."""
        counts = labels != self._ignore_index
        return counts.astype("float32"), paddle.where(counts, labels, paddle.zeros_like(labels))

    def weight_of(self, labels: paddle.Tensor) -> paddle.Tensor | None:
        """Weight of each pixel's class; None where all weigh alike."""
        if self._weight is None:
            return None
        return paddle.gather(self._weight, labels.flatten()).reshape(labels.shape)

    def mean_of_classes(self, values: paddle.Tensor) -> paddle.Tensor:
        """Weighted mean, of shape [], of values ``[K]``, or of values ``[K - 1]`` without the background."""
        weight = paddle.ones_like(values) if self._weight is None else self._weight[-values.shape[0] :]
        return (values * weight).sum() / weight.sum()


def at_one_size(logits: paddle.Tensor, labels: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Logits ``[N, K, ...]`` and labels ``[N, ...]`` of the same size, where those of a lower level were smaller.

    Pictures: the logits are interpolated linearly to the label's size, centres on centres. The label is not brought
    down: one of fewer pixels has lost its thin structures and moved its borders. So each output is measured at the
    pixels that count in the end. The price is memory for one more array of logits.

    Volumes: the label is taken at the places that a lower level's voxels stand on, the first and every second or so
    after it, as strided convolutions count; so does nnU-Net, up to half a voxel. To interpolate two lower levels took
    one and a half times as long as all else in the loss. No labels are mixed, so ignored voxels and mixtures stay.
    """
    size, small = labels.shape[1:], logits.shape[2:]
    if small == size:
        return logits, labels
    if len(size) == 2:
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False), labels
    every = [-(-many // few) for many, few in zip(size, small, strict=True)]
    taken = labels[:, :: every[0], :: every[1], :: every[2]]
    if taken.shape[1:] != small:
        raise ValueError(f"logits of {small} voxels do not come of strides over labels of {size}")
    return logits, taken


def one_hot(labels: paddle.Tensor, classes: int) -> paddle.Tensor:
    """Truth float32 ``[N, K, ...]`` of labels ``[N, ...]`` of 0..K-1."""
    return paddle.moveaxis(F.one_hot(labels, classes), -1, 1)


def per_class(weights: paddle.Tensor, like: paddle.Tensor) -> paddle.Tensor:
    """Weights ``[K]`` as ``[1, K, 1, ...]``, to be multiplied with an array of `like`'s axes."""
    return weights.reshape([1, -1, *[1] * (like.ndim - 2)])


def pixel_sums(values: paddle.Tensor, *, of_batch: bool = True) -> paddle.Tensor:
    """Sums ``[K]`` of ``[N, K, (D,) H, W]`` over all pixels of the batch, or ``[N, K]`` over those of each image.

    Axis by axis: over several at once Paddle 3.2.2 adds pixel after pixel on a CPU, and a float32 total of millions
    swallows what is added to it (3 % of a class's sum over four images of 1024 x 1024).
    """
    for axis in reversed(range(2, values.ndim)):
        values = values.sum(axis)
    return values.sum(0) if of_batch else values


def share(part: paddle.Tensor, whole: paddle.Tensor) -> paddle.Tensor:
    """``part / whole``; 0 where nothing counts."""
    return part / whole.clip(min=1e-6)
