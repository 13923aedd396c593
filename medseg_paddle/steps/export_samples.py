"""What an exported graph is compared on with the trained model: parts of validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case, LabelSet
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.case_volumes import read_case_labels, read_case_volumes
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.neighbours import read_stacked
from medseg_paddle.preprocess import InferencePlan, VolumePreprocessing
from medseg_paddle.preprocess.sliding import filled_up

# Differences do not grow with the size, the time does, and less of a patient's image travels in the bundle.
_SIDE = 320  # of pictures
_VOLUME_SIDE = 64  # of the sample of a 3-D model


@dataclass(frozen=True, eq=False)
class Compared:
    """What two models are compared on.

    Attributes
    ----------
    images : sequence of ndarray
        Pictures ``[H, W, C]``, 0..255; of a 3-D model patches ``[C, D, H, W]`` as the network takes them.
    sample : ndarray
        One like these, that goes into the bundle.
    """

    images: Sequence[NDArray[np.float32]]
    sample: NDArray[np.float32]


def pictures(recipe: Recipe) -> Compared:
    """Parts of validation pictures, spread over the set, and one more of an awkward size; the sample is the first.

    Raises
    ------
    RecipeError, DataError
        There are none, or they cannot be read.
    """
    cases = _spread(_validation(recipe), recipe.export.samples)
    channels, neighbours = recipe.image_channels, recipe.neighbours
    images = [_centre(read_stacked(case, channels, neighbours), _SIDE) for case in cases]
    height, width = images[0].shape[:2]
    # Odd, unequal sides: no multiple of any network's divisor, so that padding takes part.
    odd = images[0][: height * 3 // 4 | 1, : width * 3 // 5 | 1]
    return Compared([*images, np.ascontiguousarray(odd)], images[0])


def patches(
    recipe: Recipe, labels: LabelSet, preprocessing: VolumePreprocessing, plan: InferencePlan
) -> Compared:
    """A tile of each of some validation volumes, spread over the set, around foreground where there is any.

    One holds foreground at least; the sample is a part of it. Where the plan takes volumes whole, so does this.

    Raises
    ------
    RecipeError, DataError
        There are none, they cannot be read, or none of them has foreground.
    """
    cases = _validation(recipe)
    spread = _spread(cases, recipe.export.samples)
    images: list[NDArray[np.float32]] = []
    sample: NDArray[np.float32] | None = None
    for case in [*spread, *(case for case in cases if case not in spread)]:
        if len(images) >= len(spread) and sample is not None:
            break
        volumes = read_case_volumes(case, recipe.in_channels)
        truth = read_case_labels(case, volumes[0].geometry, labels, recipe.ignore_index)
        prepared = preprocessing.forward(volumes)
        found = prepared.labels(truth).array
        inside = np.argwhere((found != 0) & (found != recipe.ignore_index))
        centre = inside[len(inside) // 2] if len(inside) else np.array(found.shape) // 2
        tile = plan.tile_on(found.shape)
        images.append(_around(prepared.array, centre, tile))
        if sample is None and len(inside):
            sample = _around(prepared.array, centre, [_halved(side) for side in tile])
    if sample is None:
        raise DataError(
            "no validation volume has foreground: the exported graph would be compared with the trained model where "
            "nothing is to be found",
            hint="name validation volumes with foreground in the recipe",
        )
    return Compared(images, sample)


def _validation(recipe: Recipe) -> Sequence[Case]:
    if recipe.val_dataset is None:
        raise RecipeError(
            "the recipe has no val_dataset, on which the exported graph is compared with the trained model",
            hint="add val_dataset to the recipe and train again",
        )
    return load_cases(recipe.val_dataset, recipe.dimensions, recipe.neighbours)


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    places = np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int)
    return [cases[place] for place in places]


def _centre(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _around(image: NDArray[np.float32], centre: NDArray[np.intp], size: Sequence[int]) -> NDArray[np.float32]:
    """A part of `size` around a voxel of an image ``[C, D, H, W]``; a smaller image is filled up as for prediction."""
    padded = filled_up(image, size)
    starts = np.clip(centre - np.array(size) // 2, 0, np.array(padded.shape[1:]) - size)
    slices, rows, columns = (slice(start, start + side) for start, side in zip(starts, size, strict=True))
    return np.ascontiguousarray(padded[:, slices, rows, columns])


def _halved(side: int) -> int:
    """A tile's side, halved until it is small."""
    while side > _VOLUME_SIDE:
        side = -(-side // 2)
    return side
