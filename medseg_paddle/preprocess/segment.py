"""The one path from a picture to probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess.deterministic import Preprocessing
from medseg_paddle.preprocess.tiling import Forward, InferencePlan, predict_tiled


def segment(
    forward: Forward, image: NDArray[np.float32], preprocessing: Preprocessing, plan: InferencePlan
) -> NDArray[np.float32]:
    """Probabilities of every class on the picture's own pixels.

    Validation during training, evaluation and the predictor all call this function.

    Parameters
    ----------
    forward : callable
        NCHW float32 to probabilities NKHW float32 of the same height and width.
    image : ndarray, shape (H, W, C), float32
        Intensities on the scale 0..255.
    preprocessing : Preprocessing
    plan : InferencePlan

    Returns
    -------
    ndarray, shape (K, H, W), float32
    """
    probabilities = predict_tiled(forward, preprocessing.forward(image), plan)
    return preprocessing.restore(probabilities, (image.shape[0], image.shape[1]))
