"""Surfaces of whole cases, gathered slice by slice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Case
from medseg_paddle.errors import DataError
from medseg_paddle.metrics.surface import SurfaceScores, surface_scores

SURFACE_METRICS = ("hd95", "assd", "nsd")
"""Fields of :class:`~medseg_paddle.metrics.surface.SurfaceScores`."""


@dataclass(frozen=True)
class Distances:
    """What the distances between surfaces of a set of cases are, the same for all of them.

    Attributes
    ----------
    unit : {"mm", "pixels"}
        Pixels where a case does not say its spacing.
    between : {"volumes", "pictures"}
        Whether slices were stacked to their volumes. Of pictures, a case has the mean over those of its pictures in
        which the class is in truth or prediction.
    tolerance : float
        That of ``nsd``, in this unit.
    """

    unit: Literal["mm", "pixels"]
    between: Literal["volumes", "pictures"]
    tolerance: float

    @classmethod
    def of(cls, cases: Sequence[Case], tolerance: float) -> Distances:
        """For cases that are scored together."""
        known = all(case.slicing is not None for case in cases)
        whole = known and any(len(slices) > 1 for slices in _groups(cases).values())
        whole = whole and all(is_whole(slices) for slices in _groups(cases).values())
        return cls("mm" if known else "pixels", "volumes" if whole else "pictures", tolerance)

    def measure(self, metric: str) -> str:
        """What stands behind a score's name: ``" (mm)"``, ``" (2 mm)"`` for a tolerance, nothing for other scores."""
        if metric not in SURFACE_METRICS:
            return ""
        return f" ({self.tolerance:g} {self.unit})" if metric == "nsd" else f" ({self.unit})"

    def __str__(self) -> str:
        how = "whole volumes" if self.between == "volumes" else "single pictures"
        return f"Surfaces are those of {how}, in {self.unit}; nsd allows {self.tolerance:g} {self.unit}."


class Surfaces:
    """Surface scores of whole cases.

    A volume is scored when its last slice is there; until then its labels are kept, 2 bytes a voxel.

    Parameters
    ----------
    cases : sequence of Case
        All that will be added.
    num_classes : int
        Background included.
    tolerance : float
        Of ``nsd``.
    ignore_index : int
        Pixels that have this value in the truth are not scored.
    volumes : bool
        Whole volumes will be added, by :meth:`add_volume`.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        num_classes: int,
        tolerance: float,
        ignore_index: int = 255,
        volumes: bool = False,
    ) -> None:
        self.distances = Distances("mm", "volumes", tolerance) if volumes else Distances.of(cases, tolerance)
        self._num_classes, self._ignore_index = num_classes, ignore_index
        self._missing = Counter(case.group for case in cases)
        self._slices: dict[str, dict[int, NDArray[np.integer]]] = {}  # group: place: truth and prediction
        self._scores: dict[str, list[tuple[SurfaceScores, ...]]] = {}

    def add(
        self,
        case: Case,
        truth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        roi: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take one image.

        What is outside the region of interest or ignored counts as background in truth and prediction: there both
        have the same border.

        Parameters
        ----------
        case : Case
        truth, prediction : ndarray, shape (H, W), integer
        roi : ndarray, shape (H, W), bool, optional

        Raises
        ------
        DataError
            Slices of a volume differ in size.
        """
        ignored = truth == self._ignore_index
        if roi is not None:
            ignored |= ~roi.astype(np.bool_)
        both = np.stack([truth, prediction])
        both[:, ignored] = 0
        within = None if case.slicing is None else case.slicing.within
        if self.distances.between == "pictures" or case.slicing is None or within is None:
            spacing = (
                (1.0, 1.0)
                if self.distances.unit == "pixels" or case.slicing is None
                else case.slicing.spacing
            )
            self._score(case.group, both, spacing)
            return
        self._missing[case.group] -= 1
        slices = self._slices.setdefault(case.group, {})
        slices[within.place] = both
        if self._missing[case.group]:
            return
        del self._slices[case.group]
        if len({one.shape for one in slices.values()}) > 1:
            raise DataError(
                f"the slices of {case.group} differ in size", hint="prepare the data again from its volumes"
            )
        # A volume of one slice has no neighbours above and below: as a picture, not all of it is border.
        if within.slices == 1:
            self._score(case.group, both, case.slicing.spacing)
        else:
            volume = np.empty((2, within.slices, *truth.shape), both.dtype)
            for place in range(within.slices):
                volume[:, place] = slices.pop(place)
            self._score(case.group, volume, (within.spacing, *case.slicing.spacing))

    def add_volume(
        self,
        case: Case,
        truth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        spacing: Sequence[float],
    ) -> None:
        """Take a whole volume; voxels to be ignored are treated as by :meth:`add`.

        Parameters
        ----------
        case : Case
        truth, prediction : ndarray, shape (slices, rows, columns), integer
        spacing : sequence of float
            mm along slices, rows and columns.
        """
        both = np.stack([truth, prediction])
        both[:, truth == self._ignore_index] = 0
        # Along an axis of one voxel there are no neighbours, and not all of the volume is border.
        thick = [axis for axis, side in enumerate(truth.shape) if side > 1]
        self._score(
            case.group,
            both.reshape(2, *(truth.shape[axis] for axis in thick)),
            [spacing[axis] for axis in thick],
        )

    def scores(self, group: str) -> tuple[SurfaceScores, ...]:
        """Scores of every foreground class of a whole case, in index order, over all that was added."""
        return tuple(_mean(of_class) for of_class in zip(*self._scores[group], strict=True))

    def take(self, other: Surfaces) -> None:
        """Take the scores of other whole cases of the same set, which were added elsewhere."""
        self._scores.update(other._scores)

    def _score(self, group: str, both: NDArray[np.integer], spacing: Sequence[float]) -> None:
        found = surface_scores(
            *both, num_classes=self._num_classes, spacing=spacing, tolerance=self.distances.tolerance
        )
        self._scores.setdefault(group, []).append(found)


def _groups(cases: Sequence[Case]) -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.group, []).append(case)
    return found


def is_whole(slices: Sequence[Case]) -> bool:
    """Whether these are all slices of one volume, each once, on one grid."""
    cut = [case.slicing for case in slices if case.slicing is not None]
    places = [one.within.place for one in cut if one.within is not None]
    grids = {
        (one.plane, one.spacing, one.within.slices, one.within.spacing)
        for one in cut
        if one.within is not None
    }
    return (
        len(grids) == 1 and sorted(places) == list(range(next(iter(grids))[2])) and len(places) == len(slices)
    )


def _mean(scores: Sequence[SurfaceScores]) -> SurfaceScores:
    """Over the pictures that have the class in truth or prediction."""
    if len(scores) == 1:
        return scores[0]
    values = [(one.hd95, one.assd, one.nsd) for one in scores if not math.isnan(one.nsd)]
    return SurfaceScores(*(float(value) for value in np.mean(values, axis=0))) if values else scores[0]
