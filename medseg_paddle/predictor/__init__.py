"""A bundle in use: pictures and volumes in, masks in their own size and geometry out."""

from medseg_paddle.predictor.answer import Segmentation
from medseg_paddle.predictor.loaded import Predictor

__all__ = ["Predictor", "Segmentation"]
