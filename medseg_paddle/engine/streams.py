"""What a training reads, of pictures or of volumes: the recipe's network says which."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case
from medseg_paddle.engine import data, volume_data
from medseg_paddle.engine.data import Survey, TrainingStream
from medseg_paddle.engine.volume_data import VolumeStream
from medseg_paddle.io.decoded import DecodedImages

Progress = Callable[[int, int, str], None]
AnyStream = TrainingStream | VolumeStream


def survey(
    cases: Sequence[Case],
    recipe: Recipe,
    progress: Progress | None = None,
    decoded: DecodedImages | None = None,
    targets: Sequence[Case] = (),
) -> Survey:
    """Look at what a training learns from, before it starts.

    See :func:`medseg_paddle.engine.data.survey` and :func:`medseg_paddle.engine.volume_data.survey_kept`.
    """
    if recipe.dimensions == 3:
        return volume_data.survey_kept(cases, recipe, progress)
    return data.survey(cases, recipe, progress, decoded, targets)


def survey_scored(cases: Sequence[Case], recipe: Recipe, progress: Progress | None = None) -> Survey:
    """Look at what a training is scored on, as it is stored.

    See :func:`medseg_paddle.engine.data.survey` and :func:`medseg_paddle.engine.volume_data.survey_stored`.
    """
    if recipe.dimensions == 3:
        return volume_data.survey_stored(cases, recipe, progress)
    return data.survey(cases, recipe, progress)


def training_stream(
    cases: Sequence[Case], recipe: Recipe, decoded: DecodedImages | None = None, found: Survey | None = None
) -> AnyStream:
    """The stream of a training's images.

    See :class:`medseg_paddle.engine.data.TrainingStream` and :class:`medseg_paddle.engine.volume_data.VolumeStream`.
    """
    if recipe.dimensions == 3:
        return VolumeStream(cases, recipe, found)
    return TrainingStream(cases, recipe, decoded, found)


def require_stackable(recipe: Recipe, found: Survey) -> None:
    """See that images of a batch will have one size, as patches of volumes have.

    Raises
    ------
    RecipeError
        They would not; see :func:`medseg_paddle.engine.data.require_stackable`.
    """
    if recipe.dimensions == 2:
        data.require_stackable(recipe, found)


def batch_bytes(recipe: Recipe, found: Survey) -> int:
    """Bytes of the largest batch that the stream serves: float32 images, and labels."""
    return volume_data.batch_bytes(recipe) if recipe.dimensions == 3 else data.batch_bytes(recipe, found)
