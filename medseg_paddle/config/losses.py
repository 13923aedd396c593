"""The words of PaddleSeg's YAML files for losses; checked without loading it.

Each class is called as PaddleSeg 2.8.0 calls the component, with the same keys and defaults
(`tests/config/test_components.py` compares them), so that its 2.x recipes load unchanged. Components
of our own stand beside them and say so in their first line, and so do keys of our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from medseg_paddle.config.base import Spec, inconsistent

ClassWeights = tuple[NonNegativeFloat, ...]


class _LossSpec(Spec):
    ignore_index: int | None = Field(None, description="label value left out; the data set's where absent")


class _WeightedLossSpec(_LossSpec):
    weight: ClassWeights | Literal["balanced"] | None = Field(
        None, description="weight per class, the background first; `balanced`: from the training data"
    )

    @field_validator("weight", mode="before")
    @classmethod
    def _require_a_known_word(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "balanced":
            raise inconsistent(f"weight = '{value}' is no weights", hint="write `[1, 10]` or `balanced`")
        return value


class CrossEntropyLoss(_WeightedLossSpec):
    """Cross-entropy over the pixels that are not ignored."""

    type: Literal["CrossEntropyLoss"]
    top_k_percent_pixels: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the pixels, those of the greatest loss, that count"
    )
    avg_non_ignore: bool = Field(
        True, description="mean over the pixels that count; false: over all, the ignored ones with loss 0"
    )
    data_format: Literal["NCHW"] = Field("NCHW", description="PaddleSeg's key; channels come first")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="ours: share of the truth that is spread evenly over all classes"
    )


class OhemCrossEntropyLoss(_LossSpec):
    """Cross-entropy over the hard pixels: the true class has a probability below `thresh`."""

    type: Literal["OhemCrossEntropyLoss"]
    thresh: Annotated[float, Field(ge=0, le=1)] = Field(
        0.7, description="probability from which a pixel is easy"
    )
    min_kept: NonNegativeInt = Field(
        10000, description="pixels of a batch that count at least, the hardest first"
    )


class BCELoss(_LossSpec):
    """Binary cross-entropy of each class against the rest, mean over the classes."""

    type: Literal["BCELoss"]
    weight: ClassWeights | Literal["balanced", "dynamic"] | None = Field(
        None,
        description="`dynamic`: the class and the rest count alike in each batch; ours: weight per class, "
        "the background first, or `balanced`: from the training data",
    )
    pos_weight: PositiveFloat | Literal["dynamic"] | None = Field(
        None,
        description="factor of a class's own pixels; `dynamic`: twice the share of the others in the batch",
    )
    edge_label: Literal[False] = Field(
        False, description="PaddleSeg's key; training on edges is not supported"
    )

    @field_validator("weight", "pos_weight", mode="before")
    @classmethod
    def _require_a_known_word(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("balanced", "dynamic"):
            raise inconsistent(
                f"'{value}' is no weight", hint="write numbers or `dynamic`; `weight` may be `balanced`"
            )
        return value


class FocalLoss(_LossSpec):
    """Focal loss of each class against the rest, mean over the classes."""

    type: Literal["FocalLoss"]
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.25, description="weight of a class's own pixels; the others have the rest"
    )
    gamma: NonNegativeFloat = Field(2.0, description="how much less easy pixels count")


class MultiClassFocalLoss(_WeightedLossSpec):
    """Focal loss of the softmax."""

    type: Literal["MultiClassFocalLoss"]
    num_class: PositiveInt | None = Field(None, description="PaddleSeg's key; the model's where absent")
    alpha: PositiveFloat = Field(1.0, description="factor of the loss")
    gamma: NonNegativeFloat = Field(2.0, description="how much less easy pixels count")
    weight: ClassWeights | Literal["balanced"] | None = Field(
        None, description="ours: weight per class, the background first; `balanced`: from the training data"
    )


class _OverlapSpec(_WeightedLossSpec):
    smooth: PositiveFloat = Field(1.0, description="added to numerator and denominator")
    background: bool = Field(True, description="ours: count the background as a class")
    batch: bool = Field(
        True, description="ours: sum over the pixels of the batch; false: of each image, as PaddleSeg does"
    )


class DiceLoss(_OverlapSpec):
    """1 - soft Dice, mean over the classes."""

    type: Literal["DiceLoss"]
    squared: bool = Field(False, description="ours: square the probabilities in the denominator")


class TverskyLoss(_OverlapSpec):
    """Ours: 1 - Tversky index, mean over the classes: Dice that weighs what is missed against what is too much."""

    type: Literal["TverskyLoss"]
    alpha: PositiveFloat = Field(0.3, description="weight of false positives")
    beta: PositiveFloat = Field(0.7, description="weight of false negatives")


class FocalTverskyLoss(_OverlapSpec):
    """Ours: (1 - Tversky index) ^ (1 / gamma), mean over the classes: classes that overlap badly count more."""

    type: Literal["FocalTverskyLoss"]
    alpha: PositiveFloat = Field(0.3, description="weight of false positives")
    beta: PositiveFloat = Field(0.7, description="weight of false negatives")
    gamma: PositiveFloat = Field(4 / 3, description="the exponent is 1 / gamma")


class LovaszSoftmaxLoss(_LossSpec):
    """Lovasz extension of 1 - IoU on the softmax, mean over the classes."""

    type: Literal["LovaszSoftmaxLoss"]
    classes: Literal["present", "all"] | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = Field(
        "present", description="the classes in the batch's labels, all, or a list of classes"
    )


class LovaszHingeLoss(_LossSpec):
    """Lovasz extension of the foreground's 1 - IoU on the hinge loss; two classes."""

    type: Literal["LovaszHingeLoss"]


class BoundaryLoss(_WeightedLossSpec):
    """Ours: probability times signed distance to the label's boundary, mean over pixels and foreground classes."""

    type: Literal["BoundaryLoss"]


class ClDiceLoss(_WeightedLossSpec):
    """Ours: 1 - centre-line Dice of the soft skeletons, mean over the foreground classes."""

    type: Literal["ClDiceLoss"]
    iterations: PositiveInt = Field(
        3, description="erosions; at least the radius in pixels of the thickest structure"
    )
    smooth: PositiveFloat = Field(1.0, description="added to numerators and denominators")


SingleLoss = (
    CrossEntropyLoss | OhemCrossEntropyLoss | BCELoss | FocalLoss | MultiClassFocalLoss | DiceLoss | TverskyLoss
    | FocalTverskyLoss | LovaszSoftmaxLoss | LovaszHingeLoss | BoundaryLoss | ClDiceLoss
)  # fmt: skip


class MixedLoss(Spec):
    """A weighted sum of losses."""

    type: Literal["MixedLoss"]
    losses: Annotated[tuple[Annotated[SingleLoss, Field(discriminator="type")], ...], Field(min_length=1)] = (
        Field(description="the losses")
    )
    coef: tuple[float, ...] = Field(description="weight per loss")


LossType = Annotated[SingleLoss | MixedLoss, Field(discriminator="type")]


class Loss(Spec):
    """Losses of the model's outputs."""

    types: Annotated[tuple[LossType, ...], Field(min_length=1)] = Field(
        description="one loss per output of the model, or one for all"
    )
    coef: Annotated[tuple[float, ...], Field(min_length=1)] = Field(
        description="weight per output of the model"
    )


_At = tuple[str | int, ...]


def single_losses(loss: Loss) -> Iterator[tuple[_At, SingleLoss]]:
    """Every loss that is no mixture, with the keys and list positions that lead from the recipe to it."""
    for i, its in enumerate(loss.types):
        at: _At = ("loss", "types", i)
        if isinstance(its, MixedLoss):
            yield from (((*at, "losses", n), part) for n, part in enumerate(its.losses))
        else:
            yield at, its


def require_losses_that_know_the_classes(loss: Loss, num_classes: int, ignore_index: int) -> None:
    """Check each loss against the number of classes, background included, and the ignored label value.

    Raises
    ------
    PydanticCustomError
        One does not fit.
    """
    for at, single in single_losses(loss):
        weight = getattr(single, "weight", None)
        if isinstance(weight, tuple):
            _require_weights(single, weight, num_classes, (*at, "weight"))
        if single.ignore_index is not None and single.ignore_index != ignore_index:
            raise inconsistent(
                f"{single.type} ignores label {single.ignore_index}, train_dataset {ignore_index}",
                at=(*at, "ignore_index"),
                hint="remove the loss's `ignore_index`; the data set's holds",
            )
        if isinstance(single, MultiClassFocalLoss) and single.num_class not in (None, num_classes):
            raise inconsistent(
                f"MultiClassFocalLoss has {single.num_class} classes, the model {num_classes}",
                at=(*at, "num_class"),
                hint="remove `num_class`; the model's holds",
            )
        if isinstance(single, LovaszHingeLoss) and num_classes != 2:
            raise inconsistent(
                f"LovaszHingeLoss is for 2 classes, not {num_classes}", at=at, hint="use LovaszSoftmaxLoss"
            )
        if isinstance(single, LovaszSoftmaxLoss) and isinstance(single.classes, tuple):
            beyond = [k for k in single.classes if k >= num_classes]
            if beyond:
                raise inconsistent(
                    f"LovaszSoftmaxLoss names class {beyond[0]}, but there are {num_classes} (from 0)",
                    at=(*at, "classes"),
                    hint=f"name classes of 0 to {num_classes - 1}",
                )


def _require_weights(loss: SingleLoss, weight: ClassWeights, num_classes: int, at: _At) -> None:
    if len(weight) != num_classes:
        raise inconsistent(
            f"{loss.type} has {len(weight)} weight(s) for {num_classes} classes",
            at=at,
            hint="give one weight per class, the background first",
        )
    foreground_only = isinstance(loss, BoundaryLoss | ClDiceLoss) or not getattr(loss, "background", True)
    counted = weight[1:] if foreground_only else weight
    if not any(counted):
        raise inconsistent(
            f"{loss.type} has a weight of 0 for every class that it counts",
            at=at,
            hint="give one foreground class at least a weight above 0",
        )
