"""A recipe's optimiser: Paddle's, called as PaddleSeg calls it, over parameters with shares of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paddle
from paddle import nn
from paddle.regularizer import L2Decay

from medseg_paddle.config import Recipe
from medseg_paddle.config.base import component_arguments
from medseg_paddle.config.optimisation import Optimizer, ParameterGroup
from medseg_paddle.engine.schedules import RateOnPlateau, build_schedule
from medseg_paddle.errors import RecipeError

_NAMES_SHOWN = 6


def build_optimizer(
    recipe: Recipe, model: nn.Layer, beside: nn.Layer | None = None
) -> paddle.optimizer.Optimizer:
    """The recipe's optimiser over the model's parameters, and those of what is trained `beside` it.

    ``custom_cfg`` and ``decay_norms_and_biases`` are kept with the parameters, in place of Paddle's groups of
    parameters: Paddle clips the gradients of each group by themselves, so that a global norm is none, and
    ``minimize``, which a loss scaler calls, takes no groups.

    Raises
    ------
    RecipeError
        A group of ``custom_cfg`` has no parameter.
    """
    spec = recipe.optimizer
    arguments = {k: v for k, v in component_arguments(spec).items() if v is not None}
    for key in ("custom_cfg", "decay_norms_and_biases"):
        arguments.pop(key, None)
    clip = arguments.pop("grad_clip_cfg", None)
    if clip is not None:
        name = clip.pop("name")
        arguments["grad_clip"] = getattr(nn, name)(**{k: v for k, v in clip.items() if v is not None})
    kind = {"sgd": "SGD", "adam": "Adam"}.get(spec.type, spec.type)
    if kind == "SGD" and "momentum" in arguments:
        kind = "Momentum"  # as PaddleSeg does
    groups = _groups(spec, model)
    decays = _set_shares(spec, model, groups)
    parameters = [*model.parameters(), *(() if beside is None else beside.parameters())]
    arguments |= {"parameters": parameters, "learning_rate": build_schedule(recipe)}
    if kind == "AdamW":
        return _AdamW(decays, **{"weight_decay": 0.0, **arguments})
    optimizer: paddle.optimizer.Optimizer = getattr(paddle.optimizer, kind)(**arguments)
    return optimizer


def score_followers(
    optimizer: paddle.optimizer.Optimizer,
    history: Sequence[Mapping[str, Any]],
    until: int,
    gain: Callable[[float | None], float],
) -> list[Callable[[int, float], None]]:
    """What follows the validation scores: to be called with the iteration and the score of each validation.

    Parameters
    ----------
    optimizer : Optimizer
        From :func:`build_optimizer`.
    history : sequence of mapping
        The validations before (:meth:`medseg_paddle.run.Run.history`), which are told here.
    until : int
        Later ones than of this iteration are not.
    gain : callable
        The score turned so that greater is better (:meth:`medseg_paddle.config.selection.Selection.gain`).
    """
    schedule = optimizer._learning_rate
    if not isinstance(schedule, RateOnPlateau):
        return []
    for entry in history:
        if entry["weights"] == "model" and entry["iter"] <= until:
            schedule.validated(entry["iter"], gain(entry["score"]))
    return [lambda iteration, score: schedule.validated(iteration, gain(score))]


def _groups(spec: Optimizer, model: nn.Layer) -> dict[str, ParameterGroup]:
    """The group of each parameter that is in one, by the parameter's name in the model.

    Raises
    ------
    RecipeError
        A group has none.
    """
    groups = spec.custom_cfg or ()
    names = [name for name, _ in model.named_parameters()]
    found: dict[str, ParameterGroup] = {}
    for i, group in enumerate(groups):
        fitting = [name for name in names if group.name in name]
        mine = [name for name in fitting if name not in found]
        if not mine:
            shown = ", ".join(
                list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))[:_NAMES_SHOWN]
            )
            raise RecipeError(
                f"optimizer.custom_cfg.{i}: no parameter of the model has '{group.name}' in its name"
                if not fitting
                else f"optimizer.custom_cfg.{i}: a group before it has every parameter with '{group.name}' in its name",
                hint=f"names begin with {shown}, ..." if not fitting else "put the narrower group first",
            )
        found.update(dict.fromkeys(mine, group))
    return found


def _set_shares(spec: Optimizer, model: nn.Layer, groups: dict[str, ParameterGroup]) -> dict[str, float]:
    """Give the parameters their shares of learning rate and weight decay.

    Returns
    -------
    dict
        The weight decay of each parameter that has one of its own, by Paddle's name of it: for AdamW, which
        decays weights and not gradients, and keeps no decay with a parameter.
    """
    decays: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        group = groups.get(name)
        share = None if group is None else group.weight_decay_mult
        if not spec.decay_norms_and_biases and len(parameter.shape) <= 1:
            share = 0.0
        if group is not None:
            parameter.optimize_attr["learning_rate"] = group.lr_mult
        if share is not None and spec.weight_decay is not None:
            decays[parameter.name] = spec.weight_decay * share
            if spec.type != "AdamW":
                parameter.regularizer = L2Decay(spec.weight_decay * share)
    return decays


class _AdamW(paddle.optimizer.AdamW):  # type: ignore[misc]
    """AdamW with a weight decay of its own for some parameters.

    Parameters
    ----------
    decays : dict of str to float
        By Paddle's names of the parameters.
    """

    def __init__(self, decays: dict[str, float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._decays, self._decay = decays, arguments["weight_decay"]

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        self._weight_decay = self._decays.get(param_and_grad[0].name, self._decay)
        try:
            return super()._append_optimize_op(block, param_and_grad)
        finally:
            self._weight_decay = self._decay
