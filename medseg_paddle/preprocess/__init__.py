"""From pictures to what a network takes, and back: arrays in, arrays out; no files, no Paddle."""

from medseg_paddle.preprocess.augment import TRAIN_TRANSFORMS, foreground_indices
from medseg_paddle.preprocess.deterministic import TRANSFORMS, Preprocessing
from medseg_paddle.preprocess.segment import segment
from medseg_paddle.preprocess.tiling import Forward, InferencePlan, predict_tiled

__all__ = [
    "TRAIN_TRANSFORMS",
    "TRANSFORMS",
    "Forward",
    "InferencePlan",
    "Preprocessing",
    "foreground_indices",
    "predict_tiled",
    "segment",
]
