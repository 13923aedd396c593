"""Random changes of training images: geometry, intensity, blanks.

Every transform is a frozen dataclass, called with an image (HWC, uint8 or float32, 0..255), its label (HW
integer) and a generator. It never writes into what it is given, hands on what it does not change, and
gives the same answer for the same state of the generator. :class:`RandomIntensity` returns float32; all
others keep the dtype and round uint8 to whole grey levels. Intensities of uint8 come from tables, which is
several times faster.
"""

from __future__ import annotations

from medseg_paddle.preprocess.augment.geometry import (
    ElasticDeformation,
    RandomAffinePatch,
    foreground_indices,
)
from medseg_paddle.preprocess.augment.intensity import (
    RandomGaussianBlur,
    RandomIntensity,
    RandomLowResolution,
)
from medseg_paddle.preprocess.augment.mixup import Mixup
from medseg_paddle.preprocess.augment.occlusion import RandomChannelDrop, RandomCutout

TrainTransform = (
    RandomAffinePatch
    | ElasticDeformation
    | RandomIntensity
    | RandomGaussianBlur
    | RandomLowResolution
    | RandomChannelDrop
    | RandomCutout
)

TRAIN_TRANSFORMS: dict[str, type[TrainTransform]] = {
    "ElasticDeformation": ElasticDeformation,
    "RandomAffinePatch": RandomAffinePatch,
    "RandomChannelDrop": RandomChannelDrop,
    "RandomCutout": RandomCutout,
    "RandomGaussianBlur": RandomGaussianBlur,
    "RandomIntensity": RandomIntensity,
    "RandomLowResolution": RandomLowResolution,
}
"""What a recipe may name under ``train_dataset.transforms``, beside PaddleSeg's own."""

__all__ = [
    "TRAIN_TRANSFORMS",
    "ElasticDeformation",
    "Mixup",
    "RandomAffinePatch",
    "RandomChannelDrop",
    "RandomCutout",
    "RandomGaussianBlur",
    "RandomIntensity",
    "RandomLowResolution",
    "TrainTransform",
    "foreground_indices",
]
