"""Which score chooses the best checkpoint, and when a training is not worth going on with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from medseg_paddle.config.base import Spec

Metric = Literal[
    "dice", "iou", "accuracy", "precision", "recall", "specificity", "volume_error", "auc", "hd95", "assd", "nsd"
]  # fmt: skip

OVER_CLASSES = "mean"
"""In place of a class: the average over all foreground classes."""

_SMALLER_IS_BETTER: frozenset[Metric] = frozenset({"volume_error", "hd95", "assd"})
_NAMES: dict[Metric, str] = {
    "dice": "Dice", "iou": "IoU", "auc": "AUC", "volume_error": "volume error", "hd95": "HD95", "assd": "ASSD",
    "nsd": "NSD",
}  # fmt: skip


def score_name(metric: Metric, label: str) -> str:
    """What people read: ``mean foreground Dice``, ``IoU vessel``."""
    name = _NAMES.get(metric, metric)
    return f"mean foreground {name}" if label == OVER_CLASSES else f"{name} {label}"


class Selection(Spec):
    """Ours: the score of the validation that chooses the best checkpoint, a mean over whole cases."""

    metric: Metric = Field(
        "dice",
        description="the score; of volume_error, hd95 and assd the smallest is the best, of all others the greatest",
    )
    label: str = Field("mean", description="a class by its name, or `mean` over all foreground classes")

    @property
    def name(self) -> str:
        """What people read."""
        return score_name(self.metric, self.label)

    @property
    def smaller_is_better(self) -> bool:
        """Whether the smallest score is the best."""
        return self.metric in _SMALLER_IS_BETTER

    def gain(self, score: float | None) -> float:
        """The score turned so that greater is better; minus infinity where there is none (None or NaN).

        Runs of earlier versions noted -1 where there was none.
        """
        if score is None or math.isnan(score) or score < 0:
            return -math.inf
        return -score if self.smaller_is_better else score


class EarlyStopping(Spec):
    """Ours: end a training that no longer gets better, once the checkpoint of that evaluation is saved."""

    patience: PositiveInt = Field(description="evaluations in a row without a better score until the end")
    min_delta: NonNegativeFloat = Field(
        0.0, description="a score is better if it beats the best by more than this"
    )

    def spent_at(self, gains: Sequence[float]) -> int | None:
        """The evaluation that uses up the patience.

        A score that is better, but not by more than `min_delta`, does not become the best that later ones
        are compared with; so a slow rise counts once it has added up.

        Parameters
        ----------
        gains : sequence of float
            One score per evaluation, in order, greater is better; minus infinity where there is none.

        Returns
        -------
        int or None
            Its place in `gains`; None where there is patience left.
        """
        best, without = -math.inf, 0
        for place, gain in enumerate(gains):
            if gain > best + self.min_delta:
                best, without = gain, 0
            else:
                without += 1
            if without >= self.patience:
                return place
        return None
