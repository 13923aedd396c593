"""Layers that do not learn, for a while or for the whole training."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import paddle
from paddle import nn

from medseg_paddle.config.initialise import Freeze
from medseg_paddle.engine.recomputation import BATCH_NORMS
from medseg_paddle.errors import ModelError

_NAMED = 12  # names in a message


class Freezing:
    """Keeps layers of a model as they are.

    Frozen parameters have no gradient, so an optimiser passes them over: no step, no weight decay, no moment.
    A batch normalisation of which everything is frozen computes with its running statistics and leaves them
    alone, also while the rest of the model trains. What is frozen follows from the iteration alone, so a
    resumed training needs nothing of it saved.

    Parameters
    ----------
    model : nn.Layer
    spec : Freeze or None
        None freezes nothing.

    Raises
    ------
    ModelError
        A name or pattern matches no parameter, or nothing is left to learn.
    """

    def __init__(self, model: nn.Layer, spec: Freeze | None) -> None:
        self._model = model
        self._until = None if spec is None else spec.until
        names = set() if spec is None else _matched(model, spec.layers)
        learnable = {name: value for name, value in model.named_parameters() if not value.stop_gradient}
        self._learnable = list(learnable.values())
        self._parameters = [value for name, value in learnable.items() if name in names]
        if self._parameters and len(self._parameters) == len(learnable):
            raise ModelError(
                f"freeze.layers names all of {type(model).__name__}; nothing is left to learn",
                hint=f"name fewer of {', '.join(_parts(model))}",
            )
        self._norms = [
            layer
            for prefix, layer in model.named_sublayers()
            if isinstance(layer, BATCH_NORMS)
            and all(f"{prefix}.{name}" in names for name in layer.state_dict())
        ]
        self._hooks: list[Any] = []

    @property
    def count(self) -> int:
        """Numbers in the parameters that are named."""
        return sum(int(value.size) for value in self._parameters)

    def begin(self, iteration: int) -> None:
        """Freeze what is frozen after `iteration` iterations."""
        if not self._parameters or (self._until is not None and iteration >= self._until):
            return
        for value in self._parameters:
            value.stop_gradient = True
        # `train()` puts the whole model into training mode again and again; a layer is asked last of all.
        self._hooks = [layer.register_forward_pre_hook(_as_in_use) for layer in self._norms]

    def make_room(self, optimizer: Any) -> None:
        """Let `optimizer` hold moments of all parameters from the start, where some will be taken in later.

        Paddle 3.2.2 makes them at a parameter's first step, and refuses to make any after a state without them
        was loaded: a training that was resumed while layers were frozen would end where they are to learn.
        """
        if self._parameters and self._until is not None:
            block = paddle.static.default_main_program().global_block()
            optimizer._create_accumulators(block, self._learnable)  # noqa: SLF001  (no public way)

    def follow(self, iteration: int) -> None:
        """Let everything learn, if `iteration` was the last of the frozen ones."""
        if iteration != self._until:
            return
        for value in self._parameters:
            value.stop_gradient = False
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._model.training:
            self._model.train()


def _as_in_use(layer: nn.Layer, _inputs: Any) -> None:
    layer.eval()


def _matched(model: nn.Layer, patterns: tuple[str, ...]) -> set[str]:
    """Names in the model's state that any of the patterns matches."""
    known = list(model.state_dict())
    aliases: dict[str, str] = getattr(model, "parts", {})
    names: set[str] = set()
    for pattern in patterns:
        prefix = f"{aliases.get(pattern, pattern)}."
        found = {name for name in known if name.startswith(prefix) or fnmatchcase(name, pattern)}
        if not found:
            some = ", ".join(known[:_NAMED])
            raise ModelError(
                f"freeze.layers: '{pattern}' matches no parameter of {type(model).__name__}",
                hint=f"its parts: {', '.join(_parts(model))}; its parameters: {some}"
                + (f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""),
            )
        names |= found
    return names


def _parts(model: nn.Layer) -> list[str]:
    """Names of a model's parts, ours for them first."""
    return list(dict.fromkeys([*getattr(model, "parts", {}), *(name for name, _ in model.named_children())]))
