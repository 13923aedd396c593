"""Rules on how a recipe is trained: what its batch, its schedule and its optimiser ask of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medseg_paddle.config.base import inconsistent
from medseg_paddle.config.optimisation import OneCycleLR, ReduceOnPlateau

if TYPE_CHECKING:
    from medseg_paddle.config.recipe import Recipe

# Networks of ours, whose way down is computed by itself.
_WITH_AN_ENCODER = ("ScalableUNet", "SimpleUNet", "EncoderUNet")
_ENCODERS = ("encoder", "down")  # names of the whole way down


def require_trainable(recipe: Recipe) -> None:
    """Check how the recipe is trained; see :func:`medseg_paddle.config.agreement.require_agreement`."""
    _require_parts_of_a_batch(recipe)
    _require_a_schedule_that_can_be_followed(recipe)
    _require_an_average_to_decay(recipe)
    _require_features_to_align(recipe)


def _require_parts_of_a_batch(recipe: Recipe) -> None:
    parts, batch = recipe.gradient_accumulation, recipe.batch_size
    if batch % parts:
        fitting = max(n for n in range(1, parts) if batch % n == 0)
        raise inconsistent(
            f"a batch of {batch} cannot be computed in {parts} equal parts",
            at=("gradient_accumulation",),
            hint=f"write `gradient_accumulation: {fitting}`, or another `batch_size`",
        )
    for key, wanted in (
        ("gradient_accumulation", parts > 1),
        ("gradient_checkpointing", recipe.gradient_checkpointing),
    ):
        if wanted and recipe.to_static_training:
            raise inconsistent(
                f"{key} with to_static_training: a static graph keeps what it computes",
                at=(key,),
                hint=f"train without `to_static_training`, or without `{key}`",
            )


def _require_a_schedule_that_can_be_followed(recipe: Recipe) -> None:
    schedule = recipe.lr_scheduler
    if isinstance(schedule, ReduceOnPlateau) and recipe.val_dataset is None:
        raise inconsistent(
            "ReduceOnPlateau follows the validation score, and there is no val_dataset",
            at=("lr_scheduler", "type"),
            hint="add a `val_dataset`, or take another schedule",
        )
    if isinstance(schedule, OneCycleLR):
        steps = schedule.total_steps or recipe.iters
        if schedule.phase_pct * steps <= 1:
            raise inconsistent(
                f"OneCycleLR goes up in {schedule.phase_pct:g} of {steps} iterations, which is not one",
                at=("lr_scheduler", "phase_pct"),
                hint="write more `iters`, or a greater `phase_pct`",
            )


def _require_an_average_to_decay(recipe: Recipe) -> None:
    changed = recipe.ema_decay != type(recipe).model_fields["ema_decay"].default
    if changed and not recipe.use_ema:
        raise inconsistent(
            "ema_decay without use_ema: no average is kept",
            at=("ema_decay",),
            hint="add `use_ema: true`, or remove `ema_decay`",
        )


def _require_features_to_align(recipe: Recipe) -> None:
    if recipe.alignment is None:
        return
    if recipe.model.dimensions != 2:
        raise inconsistent(
            f"alignment is of pictures, and {recipe.model.type} sees volumes",
            at=("alignment",),
            hint="remove `alignment`",
        )
    if recipe.model.type not in _WITH_AN_ENCODER:
        raise inconsistent(
            f"alignment takes the features of an encoder, and {recipe.model.type} has none that is known",
            at=("alignment",),
            hint=f"use one of {', '.join(_WITH_AN_ENCODER)}",
        )
    frozen = [] if recipe.freeze is None or recipe.freeze.until is not None else recipe.freeze.layers
    if any(layer in _ENCODERS for layer in frozen):
        raise inconsistent(
            "alignment changes the encoder, and freeze.layers leaves it as it is",
            at=("freeze", "layers"),
            hint="freeze other layers, give `freeze.until`, or remove `alignment`",
        )
    for key, wanted, instead in (
        ("to_static_training", recipe.to_static_training, "train without it"),
        ("precision", recipe.precision != "fp32", "write `precision: fp32`"),
    ):
        if wanted:
            raise inconsistent(
                f"alignment with {key}: {str(getattr(recipe, key)).lower()} has never been tried",
                at=(key,),
                hint=f"{instead}, or remove `alignment`",
            )
