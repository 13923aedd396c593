"""What is looked at before a training makes its folder."""

from __future__ import annotations

from collections.abc import Sequence

import paddle

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case
from medseg_paddle.engine.data import Survey, balanced_weights, targets_of
from medseg_paddle.engine.freezing import Freezing
from medseg_paddle.engine.initialise import initialise
from medseg_paddle.engine.listener import Listener
from medseg_paddle.engine.models import build_model
from medseg_paddle.engine.optimizers import build_optimizer
from medseg_paddle.engine.shared_memory import require_shared_memory
from medseg_paddle.engine.streams import (
    batch_bytes,
    require_stackable,
    survey,
    survey_scored,
    training_stream,
)
from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.io.decoded import DecodedImages

_NAMED = 3  # labels in a message


def inspect(
    recipe: Recipe,
    train: Sequence[Case],
    val: Sequence[Case],
    listener: Listener,
    decoded: DecodedImages,
    *,
    scored_class: int | None = None,
    going_on: bool = False,
) -> Survey:
    """Look at everything that a training needs, before its folder is made.

    Parameters
    ----------
    recipe : Recipe
    train, val : sequence of Case
    listener : Listener
    decoded : DecodedImages
        Gets the training's images and labels.
    scored_class : int, optional
        The one class whose score chooses the best checkpoint.
    going_on : bool
        From a checkpoint; what the recipe starts from need not be there any more.

    Returns
    -------
    Survey
        Of the training's images.

    Raises
    ------
    DataError
        An image or a label is unreadable or does not fit, there is no foreground to learn or score, none of
        a class whose loss is to be balanced, or what
        the recipe names for sampling, as a style or to be aligned cannot be read.
    RecipeError
        The images cannot be stacked to a batch, or the optimiser names parameters that the model has not.
    ModelError
        The weights to start from are missing or do not fit, or a layer to freeze is not there.
    SetupError
        Memory is too small for the processes that load images, or this is one of several processes that do not know
        of each other.
    """
    if paddle.distributed.ParallelEnv().nranks > 1 and not paddle.distributed.is_initialized():
        raise SetupError(
            "paddle.distributed.launch has started several processes, each of which would train for itself",
            hint="give `medseg train` the number: --devices 0,1 for GPUs, --nproc 2 for the CPU; it starts them",
        )
    found = survey(train, recipe, listener.surveyed, decoded, targets_of(recipe))
    require_stackable(recipe, found)
    require_shared_memory(batch_bytes(recipe, found), recipe.num_workers)
    _require_foreground(found, f"the training set ({len(train)} images)")
    _doubt(found, "training", recipe, listener)
    training_stream(train, recipe, decoded, found)
    balanced_weights(recipe, found)
    if val:
        scored = survey_scored(val, recipe, listener.surveyed)
        _require_foreground(scored, f"the validation set ({len(val)} images)")
        if scored_class is not None and not scored.pixels[scored_class]:
            raise DataError(
                f"the class '{recipe.selection.label}' is in no label of the validation set ({len(val)} images); "
                f"its {recipe.selection.metric} cannot choose a checkpoint",
                hint="give the validation set images of that class, or write `label: mean` in `selection`",
            )
        _doubt(scored, "validation", recipe, listener)
    with paddle.utils.unique_name.guard():
        model = build_model(recipe)
        started_from = None if going_on else initialise(model, recipe)
        Freezing(model, recipe.freeze)
        build_optimizer(recipe, model)
    if started_from is not None:
        listener.initialised(started_from.summary, started_from.table("adapted", "fresh"))
    return found


def _require_foreground(found: Survey, where: str) -> None:
    if not sum(found.pixels[1:]):
        raise DataError(
            f"no foreground pixel in {where}: every label is background",
            hint="check the labels' values (0 and 255 need `label_map: {255: 1}` in prepare) and the list of labels",
        )


def _doubt(found: Survey, which: str, recipe: Recipe, listener: Listener) -> None:
    """Tell of labels that may have been exported with the ignored value for an object: nobody else would."""
    labels = found.only_ignored
    if labels:
        named = ", ".join(str(path) for path in labels[:_NAMED])
        more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
        listener.doubted(
            f"{len(labels)} of the {which} labels hold the ignored value {recipe.ignore_index} and no class: "
            f"{named}{more}. If it is an object there, it is neither learned nor scored: write "
            f"`label_map: {{{recipe.ignore_index}: 1}}` in prepare, and prepare again"
        )
