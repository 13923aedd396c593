"""The words of PaddleSeg's YAML files for optimisers and learning-rate schedules; checked without loading it.

Each class is called as PaddleSeg 2.8.0 calls the component, with the same keys and defaults
(`tests/config/test_components.py` compares them), so that its 2.x recipes load unchanged. Components
of our own stand beside them and say so in their first line.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from medseg_paddle.config.base import Probability, Spec, inconsistent

_Decay = Annotated[float, Field(ge=0, lt=1)]
_Factor = Annotated[float, Field(gt=0, lt=1)]


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


class ParameterGroup(Spec):
    """Parameters with a learning rate and a weight decay of their own."""

    name: Annotated[str, Field(min_length=1)] = Field(
        description="part of the parameters' names, such as `head` or `down.0`; the first group that fits counts"
    )
    lr_mult: NonNegativeFloat = Field(1.0, description="times the learning rate")
    weight_decay_mult: NonNegativeFloat | None = Field(None, description="times the weight decay")


class _OptimizerSpec(Spec):
    weight_decay: NonNegativeFloat | None = Field(None, description="L2 penalty (decoupled in AdamW)")
    grad_clip_cfg: GradientClip | None = Field(None, description="limit of the gradients")
    custom_cfg: tuple[ParameterGroup, ...] | None = Field(
        None, description="parameters with a learning rate or weight decay of their own"
    )
    decay_norms_and_biases: bool = Field(
        True,
        description="ours: weight decay also of the scales and shifts of norms and of biases (parameters of one axis)",
    )

    @model_validator(mode="after")
    def _require_a_decay_to_change(self) -> _OptimizerSpec:
        if self.weight_decay is not None:
            return self
        for i, group in enumerate(self.custom_cfg or ()):
            if group.weight_decay_mult is not None:
                raise inconsistent(
                    "weight_decay_mult multiplies the weight decay, and there is none",
                    at=("custom_cfg", i, "weight_decay_mult"),
                    hint="add `weight_decay:` to the optimizer, or remove `weight_decay_mult`",
                )
        if not self.decay_norms_and_biases:
            raise inconsistent(
                "decay_norms_and_biases: false, but there is no weight decay",
                at=("decay_norms_and_biases",),
                hint="add `weight_decay:` to the optimizer, or remove `decay_norms_and_biases`",
            )
        return self


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
    beta1: _Decay = Field(0.9, description="decay of the first moment")
    beta2: _Decay = Field(0.999, description="decay of the second moment")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")


class AdamW(_OptimizerSpec):
    """Adam with decoupled weight decay."""

    type: Literal["AdamW"]
    beta1: _Decay = Field(0.9, description="decay of the first moment")
    beta2: _Decay = Field(0.999, description="decay of the second moment")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")
    weight_decay: NonNegativeFloat | None = Field(0.01, description="decoupled weight decay; null is none")


class RMSProp(_OptimizerSpec):
    """Ours: Paddle's RMSProp, with its keys and defaults; PaddleSeg has none."""

    type: Literal["RMSProp"]
    rho: _Decay = Field(0.95, description="decay of the mean of squared gradients")
    epsilon: PositiveFloat = Field(1e-6, description="added to that mean before its root is taken")
    momentum: _Decay = Field(0.0, description="momentum")
    centered: bool = Field(False, description="divide by the gradients' deviation, not by their size")


Optimizer = Annotated[SGD | Momentum | Adam | AdamW | RMSProp, Field(discriminator="type")]


class _FallingSpec(Spec):
    """A schedule that goes down from a greatest learning rate."""

    greatest_key: ClassVar[str] = "learning_rate"
    least_key: ClassVar[str | None] = None  # of the rate that it goes down to

    @model_validator(mode="after")
    def _require_a_rate_that_falls(self) -> _FallingSpec:
        key = self.least_key
        if key is None:
            return self
        greatest, least, given = (
            getattr(self, self.greatest_key),
            getattr(self, key),
            key in self.model_fields_set,
        )
        if least > greatest or (least == greatest and not given):
            raise inconsistent(
                f"{self.greatest_key} is {greatest:g}, and `{key}` is {least:g}{'' if given else ' where absent'}: "
                "the rate would not fall",
                at=(key if given else self.greatest_key,),
                hint=f"write `{key}: 0`, or another rate below {self.greatest_key}",
            )
        return self


class _ScheduleSpec(_FallingSpec):
    learning_rate: PositiveFloat = Field(description="learning rate after the warm-up")
    warmup_iters: NonNegativeInt | None = Field(None, description="iterations of linear warm-up")
    warmup_start_lr: NonNegativeFloat | None = Field(None, description="learning rate at the warm-up's start")

    @model_validator(mode="after")
    def _require_a_warm_up_that_rises(self) -> _ScheduleSpec:
        if self.warmup_start_lr is None:
            return self
        if self.warmup_iters is None:
            raise inconsistent(
                "warmup_start_lr without a warm-up",
                at=("warmup_start_lr",),
                hint="add `warmup_iters:`, or remove `warmup_start_lr`",
            )
        if self.warmup_iters and self.warmup_start_lr >= self.learning_rate:
            raise inconsistent(
                f"the warm-up starts at {self.warmup_start_lr:g}, and learning_rate is {self.learning_rate:g}",
                at=("warmup_start_lr",),
                hint="write a smaller `warmup_start_lr`",
            )
        return self


class PolynomialDecay(_ScheduleSpec):
    """``lr = (learning_rate - end_lr) (1 - iteration / decay_steps)^power + end_lr``."""

    least_key: ClassVar[str | None] = "end_lr"
    type: Literal["PolynomialDecay"]
    decay_steps: PositiveInt | None = Field(None, description="iterations to `end_lr`; all where absent")
    end_lr: NonNegativeFloat = Field(0.0001, description="learning rate at the end")
    power: PositiveFloat = Field(1.0, description="exponent")
    cycle: bool = Field(False, description="start again after `decay_steps`")


class CosineAnnealingDecay(_ScheduleSpec):
    """Half a cosine from `learning_rate` to `eta_min`."""

    least_key: ClassVar[str | None] = "eta_min"
    type: Literal["CosineAnnealingDecay"]
    T_max: PositiveInt | None = Field(None, description="iterations to `eta_min`; all where absent")
    eta_min: NonNegativeFloat = Field(0.0, description="learning rate at the end")


class StepDecay(_ScheduleSpec):
    """Times `gamma` every `step_size` iterations."""

    type: Literal["StepDecay"]
    step_size: PositiveInt = Field(description="iterations between the steps")
    gamma: _Factor = Field(0.1, description="factor of each step")


class MultiStepDecay(_ScheduleSpec):
    """Times `gamma` at given iterations."""

    type: Literal["MultiStepDecay"]
    milestones: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        description="iterations of the steps, rising"
    )
    gamma: _Factor = Field(0.1, description="factor of each step")

    @model_validator(mode="after")
    def _require_rising_milestones(self) -> MultiStepDecay:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise inconsistent(
                f"milestones {list(self.milestones)} do not rise",
                at=("milestones",),
                hint=f"write {sorted(set(self.milestones))}",
            )
        return self


class OneCycleLR(_FallingSpec):
    """Up to `max_learning_rate` and down to `end_learning_rate` (Smith & Topin 2019, https://arxiv.org/abs/1708.07120).

    It begins with a warm-up of its own, so takes none.
    """

    greatest_key: ClassVar[str] = "max_learning_rate"
    least_key: ClassVar[str | None] = "end_learning_rate"
    type: Literal["OneCycleLR"]
    max_learning_rate: PositiveFloat = Field(description="greatest learning rate")
    total_steps: PositiveInt | None = Field(
        None, description="iterations of the cycle, at whose end the rate stays; all where absent"
    )
    divide_factor: Annotated[float, Field(ge=1)] = Field(
        25.0, description="the first learning rate is the greatest divided by this"
    )
    end_learning_rate: NonNegativeFloat = Field(0.0001, description="learning rate at the end")
    phase_pct: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.3, description="share of the iterations that go up"
    )
    anneal_strategy: Literal["cos", "linear"] = Field("cos", description="form of the ways up and down")
    three_phase: bool = Field(
        False, description="down to the first learning rate in as many iterations as up, then to the end's"
    )

    @property
    def learning_rate(self) -> float:
        """The one that schedules are compared by."""
        return self.max_learning_rate

    @model_validator(mode="after")
    def _require_room_for_three_phases(self) -> OneCycleLR:
        if self.three_phase and self.phase_pct >= 0.5:
            raise inconsistent(
                f"three_phase with phase_pct {self.phase_pct:g} leaves nothing for the third",
                at=("phase_pct",),
                hint="write a `phase_pct` below 0.5",
            )
        return self


class ReduceOnPlateau(_ScheduleSpec):
    """Times `factor` when the validation score has not risen for more than `patience` validations.

    PaddleSeg has the word, and its `train()` compares the loss of every iteration. Here the score that
    chooses the best checkpoint counts (greater is better, so there is no `mode`), once in a validation. Those
    before the end of the warm-up do not count.
    """

    least_key: ClassVar[str | None] = "min_lr"
    type: Literal["ReduceOnPlateau"]
    factor: _Factor = Field(0.1, description="factor of each reduction")
    patience: NonNegativeInt = Field(10, description="validations without a better score that are borne")
    threshold: NonNegativeFloat = Field(1e-4, description="how much better a score must be to count")
    threshold_mode: Literal["rel", "abs"] = Field(
        "rel", description="threshold as a share of the best score, or as a difference"
    )
    cooldown: NonNegativeInt = Field(0, description="validations after a reduction that do not count")
    min_lr: NonNegativeFloat = Field(0.0, description="least learning rate")
    epsilon: NonNegativeFloat = Field(1e-8, description="a smaller reduction is not made")


Schedule = Annotated[
    PolynomialDecay | CosineAnnealingDecay | StepDecay | MultiStepDecay | OneCycleLR | ReduceOnPlateau,
    Field(discriminator="type"),
]
