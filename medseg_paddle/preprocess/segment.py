"""The one path from a picture, or from a volume, to its segmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import LabelMap, LabelSet
from medseg_paddle.preprocess.deterministic import Preprocessing
from medseg_paddle.preprocess.postprocessing import Rule, classes_of, cleaned, looks_at_parts
from medseg_paddle.preprocess.restoring import Index, restored_slabs, slices_together
from medseg_paddle.preprocess.sliding import Forecast, predicted_slabs, slab_bytes
from medseg_paddle.preprocess.tiling import Forward, InferencePlan, predict_tiled
from medseg_paddle.preprocess.volumes import PreparedVolume, StreamedVolume


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


def labels_of(
    probabilities: NDArray[np.floating],
    labels: LabelSet,
    rules: Sequence[Rule] = (),
    spacing: Sequence[float] | None = None,
) -> NDArray[Any]:
    """The answer: the class of every pixel or voxel, after the rules of a recipe's `postprocessing`.

    Parameters
    ----------
    probabilities : ndarray, shape (K, H, W) or (K, D, H, W)
    labels : LabelSet
    rules : sequence of Rule
    spacing : sequence of float, optional
        mm along each axis of a volume; None of a picture.

    Returns
    -------
    ndarray, uint8, uint16 beyond 256 classes
    """
    return cleaned(classes_of(probabilities, labels, rules), labels, rules, spacing)


def segment_volume(
    forward: Forward,
    prepared: PreparedVolume | StreamedVolume,
    labels: LabelSet,
    plan: InferencePlan,
    postprocessing: Sequence[Rule] = (),
    *,
    on_tile: Callable[[int, int], None] | None = None,
    on_probabilities: Callable[[Index, NDArray[np.float32]], None] | None = None,
    threads: int | None = None,
) -> LabelMap:
    """Segment a volume by a 3-D network, on the grid that the volume came on.

    Probabilities are interpolated, not labels, and go to that grid while they are computed: beside the prepared
    volume (or, of a streamed one, as many slices as a tile has) and the answer there is one slab as deep as a tile, see
    :func:`forecast`. Validation during training, evaluation and the predictor all call this function.

    Parameters
    ----------
    forward : callable
        NCDHW float32 to probabilities NKDHW float32 of the same size.
    prepared : PreparedVolume or StreamedVolume
    labels : LabelSet
    plan : InferencePlan
    postprocessing : sequence of Rule
    on_tile : callable, optional
        Called with the number of tiles done and their total.
    on_probabilities : callable, optional
        Called with each part of the source's grid and its probabilities ``[K, *part]``, each voxel once.
    threads : int, optional
        That resample; as many as there are processors unless told otherwise.

    Returns
    -------
    LabelMap
        On ``prepared.source``.

    Raises
    ------
    ModelError
        The network has other classes than `labels`, or returns numbers that are none.
    """
    source, classes = prepared.source, len(labels)
    found = np.empty(source.shape, np.uint8 if classes <= 256 else np.uint16)
    slabs = predicted_slabs(forward, prepared.array, plan, classes, on_tile=on_tile)
    for index, part in restored_slabs(slabs, prepared.geometry, source, classes, threads=threads):
        found[index] = classes_of(part, labels, postprocessing)
        if on_probabilities is not None:
            on_probabilities(index, part)
    return LabelMap(cleaned(found, labels, postprocessing, source.spacing), source, labels)


def forecast(
    prepared: PreparedVolume | StreamedVolume,
    plan: InferencePlan,
    labels: LabelSet,
    postprocessing: Sequence[Rule] = (),
) -> Forecast:
    """Bytes that :func:`segment_volume` needs, without the network's own and the volume as it was read.

    An upper bound, but for interpreter and libraries; the postprocessing's is that of classes which fill the volume.
    """
    volume, slab, tiles = slab_bytes(prepared.array, plan, len(labels))
    voxels = math.prod(prepared.source.shape)
    # Parts reach from end to end along two axes, whichever they are.
    plane = voxels // min(prepared.source.shape)
    step = min(slices_together(plane, len(labels)) * plane, voxels)
    label = 1 if len(labels) <= 256 else 2
    # The part itself, what is held to make it, and the greatest value with two masks.
    part = step * (4 * 2 * len(labels) + 4 + 2 + label)
    parts = voxels * (label + 5) if looks_at_parts(postprocessing) else 0
    return Forecast(volume, slab, tiles, voxels * label + max(part, parts))
