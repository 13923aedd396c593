"""From a recipe's losses to those that `train()` computes."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from medseg_paddle.config import losses as config
from medseg_paddle.config.base import component_arguments
from medseg_paddle.engine.losses import lovasz, overlap, pixels, shape
from medseg_paddle.engine.losses.label_loss import LabelLoss, at_one_size

_LOSSES: dict[str, type[LabelLoss]] = {
    loss.__name__: loss
    for loss in (
        pixels.CrossEntropyLoss,
        pixels.OhemCrossEntropyLoss,
        pixels.BCELoss,
        pixels.FocalLoss,
        pixels.MultiClassFocalLoss,
        overlap.DiceLoss,
        overlap.TverskyLoss,
        overlap.FocalTverskyLoss,
        lovasz.LovaszSoftmaxLoss,
        lovasz.LovaszHingeLoss,
        shape.BoundaryLoss,
        shape.ClDiceLoss,
    )
}
# PaddleSeg's keys of which a recipe may give one value only.
_FIXED = frozenset({"data_format", "edge_label", "num_class"})


class MixedLoss(nn.Layer):  # type: ignore[misc]
    """Weighted losses of one output; `train()` knows the class by this name and adds the parts up."""

    def __init__(self, losses: list[nn.Layer], coef: tuple[float, ...]) -> None:
        super().__init__()
        self.losses = nn.LayerList(losses)
        self._coef = coef

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> list[paddle.Tensor]:
        """The weighted parts, each of shape [1]; see :meth:`LabelLoss.forward`."""
        with paddle.amp.auto_cast(enable=False):
            logits, labels = at_one_size(logits.astype("float32"), labels)  # once for all parts
            return [coef * loss(logits, labels) for coef, loss in zip(self._coef, self.losses, strict=True)]


def build_losses(
    spec: config.Loss, ignore_index: int, *, mixed: bool, class_weights: tuple[float, ...] | None = None
) -> dict[str, list[Any]]:
    """The ``losses`` argument of `train()`: one loss per output of the model.

    Parameters
    ----------
    spec : Loss
    ignore_index : int
        The data set's.
    mixed : bool
        Whether batches may be mixtures.
    class_weights : tuple of float, optional
        What ``weight: balanced`` stands for, the background first; needed where a loss says so.
    """
    types = spec.types * len(spec.coef) if len(spec.types) == 1 else spec.types
    built = [_build(loss, ignore_index, class_weights, mixed=mixed) for loss in types]
    return {"types": built, "coef": list(spec.coef)}


def part_names(spec: config.Loss) -> list[str]:
    """What `train()` logs as ``loss_0``, ``loss_1``, ...: the losses by name, numbered where outputs share them."""
    types = spec.types * len(spec.coef) if len(spec.types) == 1 else spec.types
    names = []
    for output, loss in enumerate(types, start=1):
        parts = loss.losses if isinstance(loss, config.MixedLoss) else (loss,)
        names += [part.type if len(types) == 1 else f"{part.type} of output {output}" for part in parts]
    return names


def _build(
    spec: config.LossType, ignore_index: int, class_weights: tuple[float, ...] | None, *, mixed: bool
) -> nn.Layer:
    if isinstance(spec, config.MixedLoss):
        parts = [_build(loss, ignore_index, class_weights, mixed=mixed) for loss in spec.losses]
        return MixedLoss(parts, spec.coef)
    arguments = {key: value for key, value in component_arguments(spec).items() if key not in _FIXED}
    if arguments["ignore_index"] is None:
        arguments["ignore_index"] = ignore_index
    if arguments.get("weight") == "balanced":
        assert class_weights is not None, "weight: balanced, and nobody weighed the classes"  # noqa: S101
        arguments["weight"] = class_weights
    return _LOSSES[spec.type](**arguments, mixed=mixed)
