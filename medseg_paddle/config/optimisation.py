"""The words of PaddleSeg's YAML files for optimisers and learning-rate schedules; checked without loading it.

Each class is called as PaddleSeg 2.8.0 calls the component, with the same keys and defaults
(`tests/config/test_components.py` compares them), so that its 2.x recipes load unchanged. Components
of our own stand beside them and say so in their first line.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from medseg_paddle.config.base import Probability, Spec, inconsistent


class GradientClip(Spec):
    """Limit of the gradients."""

    name: Literal["ClipGradByGlobalNorm", "ClipGradByNorm", "ClipGradByValue"] = Field(
        description="kind of limit"
    )
    clip_norm: PositiveFloat | None = Field(None, description="greatest norm")
    max: PositiveFloat | None = Field(None, description="greatest value (ClipGradByValue)")
    min: float | None = Field(None, description="least value (ClipGradByValue)")

    @model_validator(mode="after")
    def _require_the_limit(self) -> GradientClip:
        needed, others = ("max", ()) if self.name == "ClipGradByValue" else ("clip_norm", ("max", "min"))
        if getattr(self, needed) is None:
            raise inconsistent(f"{self.name} needs `{needed}`", hint=f"add a line `{needed}: 1.0`")
        for other in others or ("clip_norm",):
            if getattr(self, other) is not None:
                raise inconsistent(
                    f"{self.name} takes no `{other}`",
                    at=(other,),
                    hint=f"remove `{other}`; it takes `{needed}`",
                )
        return self


class _OptimizerSpec(Spec):
    weight_decay: NonNegativeFloat | None = Field(None, description="L2 penalty (decoupled in AdamW)")
    grad_clip_cfg: GradientClip | None = Field(None, description="limit of the gradients")


class SGD(_OptimizerSpec):
    """Stochastic gradient descent; with `momentum` it is Momentum, as in PaddleSeg."""

    type: Literal["SGD", "sgd"]
    momentum: Probability | None = Field(None, description="momentum")


class Momentum(_OptimizerSpec):
    """Stochastic gradient descent with momentum."""

    type: Literal["Momentum"]
    momentum: Probability = Field(0.9, description="momentum")
    use_nesterov: bool = Field(False, description="Nesterov's form")


class Adam(_OptimizerSpec):
    """Adam."""

    type: Literal["Adam", "adam"]
    beta1: Probability = Field(0.9, description="decay of the first moment")
    beta2: Probability = Field(0.999, description="decay of the second moment")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")


class AdamW(_OptimizerSpec):
    """Adam with decoupled weight decay."""

    type: Literal["AdamW"]
    beta1: Probability = Field(0.9, description="decay of the first moment")
    beta2: Probability = Field(0.999, description="decay of the second moment")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")
    weight_decay: NonNegativeFloat | None = Field(0.01, description="decoupled weight decay")


Optimizer = Annotated[SGD | Momentum | Adam | AdamW, Field(discriminator="type")]


class _ScheduleSpec(Spec):
    learning_rate: PositiveFloat = Field(description="learning rate after the warm-up")
    warmup_iters: NonNegativeInt | None = Field(None, description="iterations of linear warm-up")
    warmup_start_lr: NonNegativeFloat | None = Field(None, description="learning rate at the warm-up's start")


class PolynomialDecay(_ScheduleSpec):
    """``lr = (learning_rate - end_lr) (1 - iteration / decay_steps)^power + end_lr``."""

    type: Literal["PolynomialDecay"]
    decay_steps: PositiveInt | None = Field(None, description="iterations to `end_lr`; all where absent")
    end_lr: NonNegativeFloat = Field(0.0001, description="learning rate at the end")
    power: PositiveFloat = Field(1.0, description="exponent")
    cycle: bool = Field(False, description="start again after `decay_steps`")


class CosineAnnealingDecay(_ScheduleSpec):
    """Half a cosine from `learning_rate` to `eta_min`."""

    type: Literal["CosineAnnealingDecay"]
    T_max: PositiveInt | None = Field(None, description="iterations to `eta_min`; all where absent")
    eta_min: NonNegativeFloat = Field(0.0, description="learning rate at the end")


class StepDecay(_ScheduleSpec):
    """Times `gamma` every `step_size` iterations."""

    type: Literal["StepDecay"]
    step_size: PositiveInt = Field(description="iterations between the steps")
    gamma: PositiveFloat = Field(0.1, description="factor of each step")


class MultiStepDecay(_ScheduleSpec):
    """Times `gamma` at given iterations."""

    type: Literal["MultiStepDecay"]
    milestones: tuple[PositiveInt, ...] = Field(description="iterations of the steps")
    gamma: PositiveFloat = Field(0.1, description="factor of each step")


Schedule = Annotated[
    PolynomialDecay | CosineAnnealingDecay | StepDecay | MultiStepDecay, Field(discriminator="type")
]
