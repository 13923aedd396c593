"""The losses that a recipe can name; PaddleSeg's `train()` is given these.

A loss takes logits ``[N, K, (D,) H, W]`` of any float dtype and labels int64 ``[N, (D,) H, W]``, computes in
float32, changes neither, and returns shape [1], as `train()` wants it. Where it is built for a training with
mixup, labels may be mixtures (:mod:`medseg_paddle.preprocess.augment.mixup`).
"""

from medseg_paddle.engine.losses.build import build_losses, part_names

__all__ = ["build_losses", "part_names"]
