"""How well a segmentation agrees with the truth, pixel by pixel, one class against the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError

METRICS = (
    "dice", "iou", "accuracy", "precision", "recall", "specificity", "volume_error", "auc", "hd95", "assd", "nsd",
)  # fmt: skip
"""Fields of :class:`ClassScores` that are scores, in the order in which they are shown."""

# Logits of float32 probabilities: below, softmax and sigmoid go down to 1e-38, but a pixel under
# exp(-40) = 4e-18 may count as a tie with its like; above, float32 ends at 1 - 6e-8 (logit 16.6).
_LOWEST_LOGIT, _HIGHEST_LOGIT, _BINS_PER_LOGIT = -40, 17, 256
_BINS = (_HIGHEST_LOGIT - _LOWEST_LOGIT) * _BINS_PER_LOGIT


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in one case; NaN where a score has no meaning.

    Attributes
    ----------
    label : int
        Index of the class.
    dice : float
        2 TP / (2 TP + FP + FN); NaN if the class is absent in truth and prediction.
    iou : float
        TP / (TP + FP + FN), the Jaccard index; NaN like ``dice``.
    accuracy : float
        (TP + TN) / all pixels; NaN if no pixel was scored.
    precision : float
        TP / (TP + FP); NaN if nothing was predicted.
    recall : float
        TP / (TP + FN), also called sensitivity; NaN if the class is absent in truth.
    specificity : float
        TN / (TN + FP); NaN if all pixels are of this class.
    volume_error : float
        abs(predicted - true volume) / true volume, of which less is better: VD of Heimann
        et al., IEEE Trans Med Imaging 28:1251, 2009, without its sign; NaN if the class is absent in truth.
    auc : float
        Area under the ROC curve of the class's probability; NaN if only one kind of pixel
        exists or probabilities were not given for all pixels.
    truth_pixels, predicted_pixels : int
        TP + FN and TP + FP.
    truth_ml, predicted_ml : float
        The same as volumes in ml; NaN where a pixel's volume is not known, as of a picture.
    hd95, assd, nsd : float
        See :class:`medseg_paddle.metrics.surface.SurfaceScores`; of the first two less is better. NaN if surfaces were
        not compared, or the class is absent in truth and prediction.
    """

    label: int
    dice: float
    iou: float
    accuracy: float
    precision: float
    recall: float
    specificity: float
    volume_error: float
    auc: float
    truth_pixels: int
    predicted_pixels: int
    hd95: float = math.nan
    assd: float = math.nan
    nsd: float = math.nan
    truth_ml: float = math.nan
    predicted_ml: float = math.nan

    def without_surfaces(self) -> ClassScores:
        """These scores, as if surfaces had not been compared."""
        return replace(self, hd95=math.nan, assd=math.nan, nsd=math.nan)


class CaseCounts:
    """Pixel counts of one case, gathered from one image or slice by slice.

    The AUC needs no list of all pixels: probabilities are counted in bins of 1/256 logit. Two pixels
    in one bin count as a tie, which changes the area by less than 1e-4 where the probabilities (float32)
    spread over some tens of bins or more. Above 1 - 6e-8 and below 4e-18 all are ties.

    Parameters
    ----------
    num_classes : int
        Background included.
    voxel_ml : float, optional
        Volume that a pixel stands for.
    """

    def __init__(self, num_classes: int, *, voxel_ml: float | None = None) -> None:
        if num_classes < 2:
            raise ValueError(f"at least background and one class are needed, got {num_classes}")
        self.num_classes = num_classes
        self._voxel_ml = voxel_ml
        self._confusion = np.zeros((num_classes, num_classes), np.int64)  # [truth, prediction]
        self._histograms: NDArray[np.int64] | None = None  # [foreground class, is it the truth, bin]

    def add(
        self,
        truth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        probabilities: NDArray[np.floating] | None = None,
        roi: NDArray[np.bool_] | None = None,
        ignore_index: int | None = 255,
    ) -> None:
        """Count one image, or a part of a volume.

        Parameters
        ----------
        truth, prediction : ndarray, shape (H, W) or (D, H, W), integer
            Class of every pixel.
        probabilities : ndarray, shape (num_classes, *truth.shape), optional
            Of every class, 0..1. They can be counted by :meth:`add_probabilities` as well; there is an AUC if they
            were for all pixels.
        roi : ndarray, of the same shape, bool, optional
            Pixels outside are not scored.
        ignore_index : int or None
            Pixels that have this value in `truth` are not scored.

        Raises
        ------
        DataError
            Sizes differ, or a label is not below `num_classes`.
        """
        scored = self._scored(truth, roi, ignore_index, prediction=(prediction.shape, truth.shape))
        truth_of = self._valid(truth[scored], "truth")
        prediction_of = self._valid(prediction[scored], "prediction")
        # All is checked before anything is counted: an error leaves the counts as they were.
        if probabilities is not None:
            self.add_probabilities(truth, probabilities, roi, ignore_index)
        pairs = np.bincount(truth_of * self.num_classes + prediction_of, minlength=self.num_classes**2)
        self._confusion += pairs.reshape(self.num_classes, self.num_classes)

    def add_probabilities(
        self,
        truth: NDArray[np.integer],
        probabilities: NDArray[np.floating],
        roi: NDArray[np.bool_] | None = None,
        ignore_index: int | None = 255,
    ) -> None:
        """Count the probabilities of an image or of a part of it, for the AUC; parameters and errors as of :meth:`add`.

        The image's labels need not be counted in the same parts.
        """
        scored = self._scored(
            truth, roi, ignore_index, probabilities=(probabilities.shape, (self.num_classes, *truth.shape))
        )
        truth_of = self._valid(truth[scored], "truth")
        histograms = self._histograms_of(truth_of, probabilities[1:, scored])
        self._histograms = histograms if self._histograms is None else self._histograms + histograms

    def _scored(
        self,
        truth: NDArray[np.integer],
        roi: NDArray[np.bool_] | None,
        ignore_index: int | None,
        **shapes: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> NDArray[np.bool_]:
        """Which pixels are scored; `shapes` are those found and wanted of what is to be counted."""
        if roi is not None:
            shapes = {**shapes, "region of interest": (roi.shape, truth.shape)}
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise DataError(
                    f"the {name} has shape {found}, the truth of shape {truth.shape} needs {wanted}",
                    hint="image, label and region of interest of a case must have the same size",
                )
        scored = np.ones(truth.shape, np.bool_) if roi is None else roi.astype(np.bool_)
        if ignore_index is not None:
            scored &= truth != ignore_index
        return scored

    def scores(self) -> tuple[ClassScores, ...]:
        """Scores of every foreground class, in index order, over all that was added."""
        return tuple(self._scores_of(label) for label in range(1, self.num_classes))

    def _valid(self, labels: NDArray[np.integer], name: str) -> NDArray[np.int64]:
        if labels.size and (labels.min() < 0 or labels.max() >= self.num_classes):
            strange = [int(value) for value in np.unique(labels) if not 0 <= value < self.num_classes]
            raise DataError(
                f"the {name} holds label {', '.join(map(str, strange[:8]))}; the classes are 0 to "
                f"{self.num_classes - 1}",
                hint="map the values when the data is prepared, or correct the number of classes",
            )
        return labels.astype(np.int64)

    def _histograms_of(
        self, truth: NDArray[np.int64], probabilities: NDArray[np.floating]
    ) -> NDArray[np.int64]:
        histograms = np.empty((self.num_classes - 1, 2, _BINS), np.int64)
        for label, values in enumerate(probabilities, start=1):
            if not ((values >= 0) & (values <= 1)).all():  # NaN fails both
                raise DataError(
                    f"the probabilities of class {label} are not all between 0 and 1",
                    hint="the model's output has diverged or is not a probability; train again",
                )
            bins = _bins(values) + _BINS * (truth == label)
            histograms[label - 1] = np.bincount(bins, minlength=2 * _BINS).reshape(2, _BINS)
        return histograms

    def _scores_of(self, label: int) -> ClassScores:
        total = int(self._confusion.sum())
        hit = int(self._confusion[label, label])
        present = int(self._confusion[label].sum())
        predicted = int(self._confusion[:, label].sum())
        negatives = total - present
        false_alarms = predicted - hit
        return ClassScores(
            label=label,
            dice=_ratio(2 * hit, present + predicted),
            iou=_ratio(hit, present + predicted - hit),
            accuracy=_ratio(total - present - predicted + 2 * hit, total),
            precision=_ratio(hit, predicted),
            recall=_ratio(hit, present),
            specificity=_ratio(negatives - false_alarms, negatives),
            volume_error=_ratio(abs(predicted - present), present),
            auc=self._auc(label),
            truth_pixels=present,
            predicted_pixels=predicted,
            truth_ml=math.nan if self._voxel_ml is None else present * self._voxel_ml,
            predicted_ml=math.nan if self._voxel_ml is None else predicted * self._voxel_ml,
        )

    def _auc(self, label: int) -> float:
        """Area under the ROC curve as the Mann-Whitney statistic (Hanley and McNeil, Radiology 1982)."""
        if self._histograms is None or self._histograms[0].sum() != self._confusion.sum():
            return math.nan  # some pixels came without
        negatives, positives = self._histograms[label - 1].astype(np.float64)
        below = np.cumsum(negatives) - negatives
        wins = float(np.sum(positives * (below + negatives / 2)))
        return _ratio(wins, float(positives.sum() * negatives.sum()))


def _bins(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    with np.errstate(divide="ignore"):  # 0 and 1 go to the outermost bins
        logits = np.log(probabilities) - np.log1p(-probabilities)
    scaled = np.floor((logits - _LOWEST_LOGIT) * _BINS_PER_LOGIT)
    clipped: NDArray[np.int64] = np.clip(scaled, 0, _BINS - 1).astype(np.int64)
    return clipped


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
