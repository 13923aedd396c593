"""Scoring whole cases: one way for the validation during training and for `medseg evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case, LabelMap, LabelSet, Volume
from medseg_paddle.engine.data import labelled
from medseg_paddle.errors import DataError
from medseg_paddle.io.case_volumes import read_case_labels, read_case_volumes
from medseg_paddle.io.images import read_roi
from medseg_paddle.io.neighbours import middle, read_stacked
from medseg_paddle.io.overlay import with_square_pixels
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.surface_cases import Surfaces, is_whole
from medseg_paddle.preprocess.deterministic import Preprocessing
from medseg_paddle.preprocess.orientation import Upright
from medseg_paddle.preprocess.postprocessing import (
    Rule,
    classes_of,
    cleaned,
    looks_at_parts,
    require_sizes,
    rules_from_specs,
)
from medseg_paddle.preprocess.restoring import Index
from medseg_paddle.preprocess.segment import segment, segment_volume
from medseg_paddle.preprocess.tiling import InferencePlan
from medseg_paddle.preprocess.volumes import VolumePreprocessing

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_VOXELS_AT_ONCE = 1 << 22  # counting takes some tens of bytes of each
_USUAL_RANGE = (0.5, 99.5)  # percentiles of a slice that are shown from black to white


def surfaces_of(cases: Sequence[Case], recipe: Recipe) -> Surfaces:
    """What the surfaces of these cases are to be gathered in."""
    return Surfaces(
        cases,
        num_classes=recipe.num_classes,
        tolerance=recipe.surface_tolerance,
        ignore_index=recipe.ignore_index,
        volumes=recipe.dimensions == 3,
    )


@dataclass(frozen=True)
class Scored:
    """One image after prediction.

    Attributes
    ----------
    case : Case
    image : ndarray, shape (H, W, C), float32 (uint8 where kept for a picture), 0..255
        Of a whole volume the axial slice with most foreground, upright, with square pixels, its first channel from the
        lowest to the highest usual intensity.
    truth, prediction : ndarray, shape (H, W), integer
        Of this picture, or slice.
    foreground : int
        Pixels of the truth that are neither background nor ignored.
    volume : LabelMap or None
        The whole prediction, on the grid of the case's files; None for a picture.
    """

    case: Case
    image: NDArray[Any]
    truth: NDArray[Any]
    prediction: NDArray[Any]
    foreground: int
    volume: LabelMap | None = None


def plan_of(recipe: Recipe) -> InferencePlan:
    """How whole images are predicted."""
    return InferencePlan(**recipe.inference.model_dump())


def require_rules_for(cases: Sequence[Case], recipe: Recipe, labels: LabelSet) -> tuple[Rule, ...]:
    """The rules of `postprocessing`, for these cases.

    Raises
    ------
    RecipeError
        A class is not known, or a size is in ml and these are pictures, or in pixels and these are not.
    DataError
        Slices of volumes are to be postprocessed, which is done on the whole, and not all of them are there.
    """
    rules = rules_from_specs(recipe.postprocessing_specs, labels)
    if not looks_at_parts(rules):
        return rules
    for volumes in {recipe.dimensions == 3 or case.slicing is not None for case in cases}:
        require_sizes(rules, volumes=volumes)
    if recipe.dimensions == 3:
        return rules
    groups: dict[str, list[Case]] = {}
    for case in cases:
        if case.slicing is not None:
            groups.setdefault(case.group, []).append(case)
    for name, slices in groups.items():
        if not is_whole(slices):
            raise DataError(
                f"postprocessing goes by the parts of whole volumes, and of {name} not every slice is there",
                hint="prepare all slices of the volumes with this version, or remove `postprocessing`",
            )
    return rules


def score_cases(
    forward: Forward,
    cases: Sequence[Case],
    recipe: Recipe,
    counts: dict[str, CaseCounts],
    *,
    labels: LabelSet,
    probabilities: bool = True,
    surfaces: Surfaces | None = None,
) -> Iterator[Scored]:
    """Predict images in their own size and count them into whole cases.

    What is counted is the answer that a user gets: after `postprocessing`. The AUC is that of the probabilities.

    Parameters
    ----------
    forward : callable
        Float32 ``[N, C, H, W]`` to probabilities ``[N, K, H, W]``; of a 3-D network ``[N, C, D, H, W]`` to
        ``[N, K, D, H, W]``.
    cases : sequence of Case
        Slices of one volume are counted as one case.
    counts : dict
        Filled: name of the whole case to its counts.
    labels : LabelSet
    probabilities : bool
        Also count for the AUC.
    surfaces : Surfaces, optional
        Of these cases, filled: surfaces are compared, which takes longer than the counts.

    Yields
    ------
    Scored
        Image by image; what was counted is complete when the iterator is exhausted. Slices that are postprocessed
        come when their volume is complete.
    """
    rules = require_rules_for(cases, recipe, labels)
    scorer = _Scorer(forward, recipe, labels, rules, counts, probabilities=probabilities, surfaces=surfaces)
    if recipe.dimensions == 3:
        for case in cases:
            yield scorer.volume(case)
        return
    waiting: dict[str, list[_Segmented]] = {}
    for case in cases:
        one = scorer.segmented(case)
        within = None if case.slicing is None else case.slicing.within
        if not looks_at_parts(rules):
            yield scorer.counted(one, one.found)
        elif within is None:
            yield scorer.counted(one, cleaned(one.found, labels, rules))
        else:
            slices = waiting.setdefault(case.group, [])
            slices.append(one)
            if len(slices) == within.slices:
                yield from scorer.slices(waiting.pop(case.group))


@dataclass(frozen=True)
class _Segmented:
    """A picture with the classes that its probabilities give it."""

    case: Case
    image: NDArray[np.float32]
    truth: NDArray[Any]
    roi: NDArray[np.bool_] | None
    found: NDArray[Any]


class _Scorer:
    """What all cases of :func:`score_cases` have in common."""

    def __init__(
        self,
        forward: Forward,
        recipe: Recipe,
        labels: LabelSet,
        rules: Sequence[Rule],
        counts: dict[str, CaseCounts],
        *,
        probabilities: bool,
        surfaces: Surfaces | None,
    ) -> None:
        self._forward, self._recipe, self._labels, self._rules = forward, recipe, labels, rules
        self._counts, self._probabilities, self._surfaces = counts, probabilities, surfaces
        self._plan = plan_of(recipe)

    def segmented(self, case: Case) -> _Segmented:
        """Read and predict one picture, and count its probabilities."""
        recipe = self._recipe
        image = read_stacked(case, recipe.image_channels, recipe.neighbours)
        truth = labelled(case, recipe)
        roi = None if case.roi is None else read_roi(case.roi)
        for name, other in (("label", truth), ("region of interest", roi)):
            if other is not None and other.shape != image.shape[:2]:
                raise DataError(
                    f"{case.image} is {image.shape[:2]} pixels (rows, columns), its {name} {other.shape}",
                    hint="export image and label at the same size",
                )
        preprocessing = Preprocessing.from_specs(recipe.preprocessing_specs)
        answer = segment(self._forward, image, preprocessing, self._plan)
        if self._probabilities:
            self._of(case).add_probabilities(truth, answer, roi, recipe.ignore_index)
        # A copy, where it is less: slices of a whole volume may wait, and their neighbours need not.
        shown = np.ascontiguousarray(middle(image, recipe.neighbours))
        return _Segmented(case, shown, truth, roi, classes_of(answer, self._labels, self._rules))

    def slices(self, segmented: Sequence[_Segmented]) -> Iterator[Scored]:
        """Postprocess all slices of a volume together, and count each."""
        ordered = sorted(segmented, key=lambda one: _place(one.case))
        if len({one.found.shape for one in segmented}) > 1:
            raise DataError(
                f"the slices of {segmented[0].case.group} differ in size",
                hint="prepare the data again from its volumes",
            )
        volume = np.stack([one.found for one in ordered])
        found = cleaned(volume, self._labels, self._rules, _spacing(segmented[0].case))
        for one, plane in zip(ordered, found, strict=True):
            yield self.counted(one, plane)

    def counted(self, one: _Segmented, prediction: NDArray[Any]) -> Scored:
        """Count the answer to one picture."""
        case = one.case
        self._of(case).add(one.truth, prediction, None, one.roi, self._recipe.ignore_index)
        if self._surfaces is not None:
            self._surfaces.add(case, one.truth, prediction, one.roi)
        foreground = _foreground(one.truth, self._recipe.ignore_index)
        return Scored(case, one.image, one.truth, prediction, foreground)

    def volume(self, case: Case) -> Scored:
        """Read, predict and count one whole volume."""
        recipe, labels = self._recipe, self._labels
        if case.roi is not None:
            raise DataError(
                f"{case.id} has a region of interest, and whole volumes are scored in all of their voxels",
                hint="prepare the data without `rois`",
            )
        channels = read_case_volumes(case, recipe.in_channels)
        truth = read_case_labels(case, channels[0].geometry, labels, recipe.ignore_index).array
        (spec,) = recipe.preprocessing_specs
        preprocessing = VolumePreprocessing.from_spec(spec)
        prepared, counts = preprocessing.forward(channels), self._of(case, channels[0].geometry.spacing)

        def count(index: Index, part: NDArray[np.float32]) -> None:
            counts.add_probabilities(truth[index], part, None, recipe.ignore_index)

        answer = segment_volume(
            self._forward,
            prepared,
            labels,
            self._plan,
            self._rules,
            on_probabilities=count if self._probabilities else None,
        )
        step = max(1, _VOXELS_AT_ONCE // truth[0].size)
        for start in range(0, len(truth), step):
            part = slice(start, start + step)
            counts.add(truth[part], answer.array[part], ignore_index=recipe.ignore_index)
        if self._surfaces is not None:
            self._surfaces.add_volume(case, truth, answer.array, channels[0].geometry.spacing)
        shown = _shown(channels[0], truth, answer.array, recipe.ignore_index)
        return Scored(case, *shown, foreground=_foreground(shown[1], recipe.ignore_index), volume=answer)

    def _of(self, case: Case, spacing: Sequence[float] | None = None) -> CaseCounts:
        spacing = spacing or _spacing(case)
        ml = None if spacing is None else float(np.prod(spacing)) / 1000
        return self._counts.setdefault(case.group, CaseCounts(self._recipe.num_classes, voxel_ml=ml))


def _place(case: Case) -> int:
    """Of a slice in its volume."""
    return 0 if case.slicing is None or case.slicing.within is None else case.slicing.within.place


def _spacing(case: Case) -> tuple[float, float, float] | None:
    """Of the volume that a picture is a slice of; None of other pictures."""
    if case.slicing is None or case.slicing.within is None:
        return None
    return (case.slicing.within.spacing, *case.slicing.spacing)


def _foreground(truth: NDArray[Any], ignore_index: int) -> int:
    return int(np.count_nonzero((truth != 0) & (truth != ignore_index)))


def _shown(
    volume: Volume, truth: NDArray[Any], prediction: NDArray[Any], ignore_index: int
) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any]]:
    """Image, truth and prediction in the axial slice with most foreground in truth, or else in the prediction."""
    order = volume.geometry.sliced_along("axial")
    cut = volume.transposed(order)
    true, predicted = truth.transpose(order), prediction.transpose(order)
    most = [_foreground(plane, ignore_index) for plane in true]
    if not any(most):
        most = [int(np.count_nonzero(plane)) for plane in predicted]
    place = int(np.argmax(most)) if any(most) else len(most) // 2
    upright = Upright.of(cut.geometry)
    values = upright.apply(cut.array[place])
    low, high = np.percentile(values, _USUAL_RANGE)
    grey = np.clip((values - low) * (255 / max(high - low, 1e-6)), 0, 255)
    spacing = upright.spacing(cut.geometry)
    return (
        with_square_pixels(np.ascontiguousarray(np.rint(grey).astype(np.uint8)), spacing)[..., None],
        with_square_pixels(np.ascontiguousarray(upright.apply(true[place])), spacing, nearest=True),
        with_square_pixels(np.ascontiguousarray(upright.apply(predicted[place])), spacing, nearest=True),
    )
