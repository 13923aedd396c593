"""From pictures to what a network takes, and back: arrays in, arrays out; no files, no Paddle."""

from medseg_paddle.preprocess.augment import TRAIN_TRANSFORMS, foreground_indices
from medseg_paddle.preprocess.deterministic import TRANSFORMS, Preprocessing
from medseg_paddle.preprocess.intensity import (
    NORMALIZATIONS,
    ForegroundRange,
    HuWindow,
    Normalization,
    ZScore,
    foreground_values,
)
from medseg_paddle.preprocess.interpolation import Interpolation
from medseg_paddle.preprocess.postprocessing import Rule, rules_from_specs
from medseg_paddle.preprocess.regions import body_mask, nonzero_mask, roi_box
from medseg_paddle.preprocess.resampling import resample, resample_labels
from medseg_paddle.preprocess.segment import forecast, labels_of, segment, segment_volume
from medseg_paddle.preprocess.tiling import Forward, InferencePlan, predict_tiled
from medseg_paddle.preprocess.volumes import PreparedVolume, VolumePreprocessing

__all__ = [
    "NORMALIZATIONS",
    "TRAIN_TRANSFORMS",
    "TRANSFORMS",
    "ForegroundRange",
    "Forward",
    "HuWindow",
    "InferencePlan",
    "Interpolation",
    "Normalization",
    "PreparedVolume",
    "Preprocessing",
    "Rule",
    "VolumePreprocessing",
    "ZScore",
    "body_mask",
    "forecast",
    "foreground_indices",
    "foreground_values",
    "labels_of",
    "nonzero_mask",
    "predict_tiled",
    "resample",
    "resample_labels",
    "roi_box",
    "rules_from_specs",
    "segment",
    "segment_volume",
]
