"""Scoring whole cases: one way for the validation during training and for `medseg evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case
from medseg_paddle.engine.data import labelled
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_image, read_roi
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.surface_cases import Surfaces
from medseg_paddle.preprocess.deterministic import Preprocessing
from medseg_paddle.preprocess.segment import segment
from medseg_paddle.preprocess.tiling import InferencePlan

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def surfaces_of(cases: Sequence[Case], recipe: Recipe) -> Surfaces:
    """What the surfaces of these cases are to be gathered in."""
    return Surfaces(
        cases,
        num_classes=recipe.num_classes,
        tolerance=recipe.surface_tolerance,
        ignore_index=recipe.ignore_index,
    )


@dataclass(frozen=True)
class Scored:
    """One image after prediction.

    Attributes
    ----------
    case : Case
    image : ndarray, shape (H, W, C), float32 (uint8 where kept for a picture), 0..255
    truth, prediction : ndarray, shape (H, W), integer
    """

    case: Case
    image: NDArray[Any]
    truth: NDArray[Any]
    prediction: NDArray[np.uint8]


def plan_of(recipe: Recipe) -> InferencePlan:
    """How whole images are predicted."""
    return InferencePlan(**recipe.inference.model_dump())


def score_cases(
    forward: Forward,
    cases: Sequence[Case],
    recipe: Recipe,
    counts: dict[str, CaseCounts],
    *,
    probabilities: bool = True,
    surfaces: Surfaces | None = None,
) -> Iterator[Scored]:
    """Predict images in their own size and count them into whole cases.

    Parameters
    ----------
    forward : callable
        Float32 ``[N, C, H, W]`` to probabilities ``[N, K, H, W]``.
    cases : sequence of Case
        Slices of one volume are counted as one case.
    counts : dict
        Filled: name of the whole case to its counts.
    probabilities : bool
        Also count for the AUC.
    surfaces : Surfaces, optional
        Of these cases, filled: surfaces are compared, which takes longer than the counts.

    Yields
    ------
    Scored
        Image by image; what was counted is complete when the iterator is exhausted.
    """
    preprocessing, plan = Preprocessing.from_specs(recipe.preprocessing_specs), plan_of(recipe)
    for case in cases:
        image = read_image(case.image, recipe.in_channels)
        truth = labelled(case, recipe)
        roi = None if case.roi is None else read_roi(case.roi)
        for name, other in (("label", truth), ("region of interest", roi)):
            if other is not None and other.shape != image.shape[:2]:
                raise DataError(
                    f"{case.image} is {image.shape[:2]} pixels (rows, columns), its {name} {other.shape}",
                    hint="export image and label at the same size",
                )
        answer = segment(forward, image, preprocessing, plan)
        prediction = answer.argmax(0).astype(np.uint8)
        counts.setdefault(case.group, CaseCounts(recipe.num_classes)).add(
            truth, prediction, answer if probabilities else None, roi, recipe.ignore_index
        )
        if surfaces is not None:
            surfaces.add(case, truth, prediction, roi)
        yield Scored(case, image, truth, prediction)
