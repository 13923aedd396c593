"""The part of a recipe that says which of its values to look for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag, model_validator

from medseg_paddle.config.base import Spec, inconsistent

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NOT_LEARNED_FROM = ("search", "name", "description", "prepare", "export", "device")


class Range(Spec):
    """Numbers between two ends, both included; whole numbers if both ends are written as such."""

    low: int | float = Field(description="smallest value")
    high: int | float = Field(description="greatest value")
    log: bool = Field(False, description="draw on a logarithmic scale")
    step: PositiveInt | PositiveFloat | None = Field(
        None, description="draw `low` and multiples of this above it only"
    )

    @model_validator(mode="after")
    def _require_ends_in_order(self) -> Range:
        if not self.low < self.high:
            raise inconsistent(
                f"`low` {self.low} is not below `high` {self.high}",
                at=("high",),
                hint="a single value needs no search: write it where it belongs in the recipe",
            )
        if self.log and (self.low <= 0 or self.step is not None):
            raise inconsistent(
                "`log` needs a `low` above 0 and takes no `step`",
                at=("log",),
                hint="write a positive `low`, and no `step`; or draw without `log`",
            )
        if self.whole and not isinstance(self.step, int | None):
            raise inconsistent(
                f"a `step` of {self.step} between whole numbers",
                at=("step",),
                hint="write a whole `step`, or the ends with a decimal point",
            )
        return self

    @property
    def whole(self) -> bool:
        """Whether whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Choices = Annotated[tuple[Any, ...], Field(min_length=2)]


def _kind(value: Any) -> str:
    return "range" if isinstance(value, (dict, Range)) else "choices"


Candidates = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)
]


class SearchSpec(Spec):
    """What `medseg search` tries."""

    parameters: Annotated[dict[str, Candidates], Field(min_length=1)] = Field(
        description="keys of the recipe, with dots as for --set, each with a list of values or a range"
    )
    trials: PositiveInt = Field(20, description="trainings in all, those of earlier calls included")
    seed: NonNegativeInt = Field(0, description="seed of the values that are drawn")
    startup_trials: NonNegativeInt = Field(
        5,
        description="trials with values drawn at random before any is learned from; `median` ends none before so many "
        "are complete",
    )
    pruner: Literal["median", "hyperband", "none"] = Field(
        "median",
        description="end a trial early whose score is below the median of the others at that iteration, or by "
        "Hyperband's halvings, or never",
    )
    time_budget: Annotated[str, Field(pattern=r"^[1-9]\d*[smhd]$")] | None = Field(
        None, description="time after which a call stops, such as 90s, 45m, 8h or 2d; the next call goes on"
    )

    @model_validator(mode="after")
    def _require_parameters_that_are_learned_with(self) -> SearchSpec:
        for key in self.parameters:
            if key.partition(".")[0] in _NOT_LEARNED_FROM:
                raise inconsistent(
                    f"`{key}` does not change a training", at=("parameters", key), hint="remove it"
                )
        return self

    @property
    def seconds(self) -> float:
        """The time budget; infinite where there is none."""
        if self.time_budget is None:
            return float("inf")
        return int(self.time_budget[:-1]) * _SECONDS[self.time_budget[-1]]


def value_at(recipe: Any, key: str) -> Any:
    """The value of a dotted key in a dumped recipe.

    Raises
    ------
    KeyError
        There is none; its arguments are the part that is missing and what is known in its place.
    """
    value = recipe
    for part in key.split("."):
        items = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
        known = {str(name): item for name, item in items.items()} if isinstance(items, dict) else {}
        if part not in known:
            raise KeyError(part, list(known))
        value = known[part]
    return value
