"""The part of a recipe that says which of its values to look for."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag, model_validator

from medseg_paddle.config.base import Spec, inconsistent
from medseg_paddle.config.duration import seconds
from medseg_paddle.errors import RecipeError

# Keys that change nothing of what is learned; `save_interval` only how often the best of the scores is looked for.
_NOT_LEARNED_FROM = {
    "search", "name", "description", "prepare", "export", "device", "test_dataset", "test_config", "save_interval",
    "log_iters", "keep_checkpoint_max", "model_graph", "num_workers", "overlays",
}  # fmt: skip
# Keys that decide what a score is of; the transforms of a validation set are the network's input, too.
_COMPARED_BY = ("selection", "val_dataset")
_NOT_COMPARED_BY = "val_dataset.transforms"


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
    time_budget: PositiveFloat | str | None = Field(
        None,
        description="time after which a call stops, in seconds or such as 90s, 1h30m or 2d; the next call goes on",
    )

    @model_validator(mode="after")
    def _require_parameters_that_are_learned_with(self) -> SearchSpec:
        for key in self.parameters:
            first = key.partition(".")[0]
            if first in _NOT_LEARNED_FROM:
                raise inconsistent(
                    f"`{key}` does not change what is learned", at=("parameters", key), hint="remove it"
                )
            if first in _COMPARED_BY and not f"{key}.".startswith(f"{_NOT_COMPARED_BY}."):
                raise inconsistent(
                    f"`{key}` changes what the score is of, and trials are compared by their scores",
                    at=("parameters", key),
                    hint="remove it, and write one value where it belongs in the recipe",
                )
        return self

    @model_validator(mode="after")
    def _require_a_length_of_time(self) -> SearchSpec:
        try:
            _ = self.seconds
        except RecipeError as error:
            raise inconsistent(error.message, at=("time_budget",), hint=error.hint) from None
        return self

    @property
    def seconds(self) -> float:
        """The time budget; infinite where there is none."""
        return math.inf if self.time_budget is None else seconds(self.time_budget, "search.time_budget")


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
