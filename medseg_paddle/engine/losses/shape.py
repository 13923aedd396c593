"""Losses that look at the shape of regions: their boundaries and their centre lines."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from medseg_paddle.engine.losses.label_loss import LabelLoss, one_hot, pixel_sums, share


class BoundaryLoss(LabelLoss):
    """Mean over pixels of probability times signed distance, and over the foreground classes.

    Kervadec et al. 2019 (https://arxiv.org/abs/1812.07032). Distances are in pixels of the patch. A class that an image
    lacks, or that fills it, has no boundary there and adds 0; so this belongs beside a loss of regions or pixels,
    with a small coefficient. Distance maps are made on the CPU in each iteration.

    Parameters
    ----------
    weight, ignore_index, mixed
        See :class:`LabelLoss`; the background's weight is not used.
    """

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        classes = logits.shape[1]
        keep = self.counted(labels)[0].unsqueeze(1)
        distances = np.stack(
            [
                [signed_distances(label == k) for k in range(1, classes)]
                for label in np.where(labels.numpy() == self._ignore_index, 0, labels.numpy())
            ]
        )
        probabilities = F.softmax(logits, axis=1)[:, 1:]
        means = share(pixel_sums(probabilities * paddle.to_tensor(distances) * keep), keep.sum())
        return self.mean_of_classes(means).reshape([1])


def signed_distances(region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel to a region's border, in pixels, of 2 or 3 axes.

    As in the authors' code: outside, the distance to the nearest pixel of the region; inside, minus the distance to the
    nearest pixel outside, plus 1, so 0 at the border; 0 everywhere if the region is empty or everything.
    """
    if not region.any() or region.all():
        return np.zeros(region.shape, np.float32)
    return np.where(region, 1 - _distances(region), _distances(~region)).astype(np.float32)


def _distances(region: NDArray[np.bool_]) -> NDArray[Any]:
    """Of each pixel of the region to the nearest pixel outside."""
    found: NDArray[Any] = (
        cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        if region.ndim == 2
        else ndimage.distance_transform_edt(region)
    )
    return found


class ClDiceLoss(LabelLoss):
    """1 - centre-line Dice of soft skeletons, sums over the batch, mean over the foreground classes.

    Shit et al. 2021 (https://arxiv.org/abs/2003.07311), alg. 1 and 2: with skeletons S of probabilities p and truth y,
    ``precision = (sum S(p) y + s) / (sum S(p) + s)``, ``sensitivity = (sum S(y) p + s) / (sum S(y) + s)``, and clDice
    their harmonic mean. It looks at connections, not at widths: use it beside Dice.

    Parameters
    ----------
    weight, ignore_index, mixed
        See :class:`LabelLoss`; the background's weight is not used.
    iterations : int
        Erosions; at least the radius in pixels of the thickest structure.
    smooth : float
        s.
    """

    def __init__(
        self,
        weight: tuple[float, ...] | None = None,
        ignore_index: int = 255,
        iterations: int = 3,
        smooth: float = 1.0,
        *,
        mixed: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index, mixed=mixed)
        self._iterations, self._smooth = iterations, smooth

    def of(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """See :meth:`LabelLoss.of`."""
        keep, safe = self.counted(labels)
        keep = keep.unsqueeze(1)
        probabilities = F.softmax(logits, axis=1)[:, 1:] * keep
        truth = one_hot(safe, logits.shape[1])[:, 1:] * keep
        with paddle.no_grad():
            true_lines = soft_skeleton(truth, self._iterations)
        lines = soft_skeleton(probabilities, self._iterations)
        precision = self._share_in(truth, lines)
        sensitivity = self._share_in(probabilities, true_lines)
        dice = 2 * precision * sensitivity / (precision + sensitivity)
        return (1 - self.mean_of_classes(dice)).reshape([1])

    def _share_in(self, region: paddle.Tensor, lines: paddle.Tensor) -> paddle.Tensor:
        return (pixel_sums(lines * region) + self._smooth) / (pixel_sums(lines) + self._smooth)


def soft_skeleton(regions: paddle.Tensor, iterations: int) -> paddle.Tensor:
    """What openings take away from ``[N, K, (D,) H, W]`` of 0..1, eroded 0, 1, ... `iterations` times.

    Erosion is the minimum over the neighbours along each axis, dilation the maximum over the 3 x 3 (x 3) neighbourhood,
    as in the authors' code.
    """
    lines = F.relu(regions - _dilated(_eroded(regions)))
    for _ in range(iterations):
        regions = _eroded(regions)
        taken = F.relu(regions - _dilated(_eroded(regions)))
        lines = lines + F.relu(taken - lines * taken)
    return lines


def _eroded(regions: paddle.Tensor) -> paddle.Tensor:
    dimensions = regions.ndim - 2
    least = None
    for axis in range(dimensions):
        window = [3 if other == axis else 1 for other in range(dimensions)]
        along = -_greatest(-regions, window)
        least = along if least is None else paddle.minimum(least, along)
    return least


def _dilated(regions: paddle.Tensor) -> paddle.Tensor:
    return _greatest(regions, [3] * (regions.ndim - 2))


def _greatest(regions: paddle.Tensor, window: list[int]) -> paddle.Tensor:
    pool = {2: F.max_pool2d, 3: F.max_pool3d}[len(window)]
    return pool(regions, window, stride=1, padding=[side // 2 for side in window])
