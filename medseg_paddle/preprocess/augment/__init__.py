"""Random changes of training images: geometry, intensity, style, blanks.

Every transform is a frozen dataclass, called with an image (HWC, uint8 or float32, 0..255), its label (HW
integer) and a generator. It never writes into what it is given, hands on what it does not change, and
gives the same answer for the same state of the generator. :class:`RandomIntensity` returns float32, and so does
:class:`StandardizeImage`, which is preprocessing and draws nothing; all others keep the dtype and round uint8 to
whole grey levels. Intensities of uint8 come from tables, which is several times faster.
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
from medseg_paddle.preprocess.augment.style import RandomFourierStyle, RandomHistogramMatch
from medseg_paddle.preprocess.standardize import StandardizeImage

TrainTransform = (
    RandomAffinePatch
    | ElasticDeformation
    | RandomIntensity
    | RandomGaussianBlur
    | RandomLowResolution
    | RandomChannelDrop
    | RandomCutout
    | RandomHistogramMatch
    | RandomFourierStyle
    | StandardizeImage
)

TRAIN_TRANSFORMS: dict[str, type[TrainTransform]] = {
    "ElasticDeformation": ElasticDeformation,
    "RandomAffinePatch": RandomAffinePatch,
    "RandomChannelDrop": RandomChannelDrop,
    "RandomCutout": RandomCutout,
    "RandomFourierStyle": RandomFourierStyle,
    "RandomGaussianBlur": RandomGaussianBlur,
    "RandomHistogramMatch": RandomHistogramMatch,
    "RandomIntensity": RandomIntensity,
    "RandomLowResolution": RandomLowResolution,
    "StandardizeImage": StandardizeImage,
}
"""What a recipe may name under ``train_dataset.transforms``, beside PaddleSeg's own."""

__all__ = [
    "TRAIN_TRANSFORMS",
    "ElasticDeformation",
    "Mixup",
    "RandomAffinePatch",
    "RandomChannelDrop",
    "RandomCutout",
    "RandomFourierStyle",
    "RandomGaussianBlur",
    "RandomHistogramMatch",
    "RandomIntensity",
    "RandomLowResolution",
    "StandardizeImage",
    "TrainTransform",
    "foreground_indices",
]
