"""What all parts of a recipe share: frozen, no unknown keys, and a word of help for typing errors."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Number = TypeVar("Number", int, float)
Probability = Annotated[float, Field(ge=0, le=1)]
Channels = Annotated[int, Field(ge=1, le=256)]


class Spec(BaseModel):
    """A part of a recipe: immutable, refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys_and_truth_values(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key, value in data.items():
                if key not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key '{key}'",
                        {"key": str(key), "known": sorted(cls.model_fields)},
                    )
                if _holds_truth_value(value) and not _takes_truth_values(cls.model_fields[key].annotation):
                    # pydantic would read true as 1
                    raise inconsistent(
                        f"`{key}` takes no true or false",
                        at=(key,),
                        hint="write a number, or a text in quotes; YAML also reads yes, no, on and off "
                        "as true and false",
                    )
        return data


def _holds_truth_value(value: Any) -> bool:
    """Whether a value is true or false, or a list or a mapping to plain values with one among them."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, bool) or (
        isinstance(value, (list, tuple)) and any(map(_holds_truth_value, value))
    )


def _takes_truth_values(annotation: Any) -> bool:
    """Whether a field's type has room for true and false, in itself or in a part that checks its own keys."""
    if get_origin(annotation) is Literal:
        return any(isinstance(value, bool) for value in get_args(annotation))
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return issubclass(annotation, (bool, Spec))
    return any(map(_takes_truth_values, get_args(annotation)))


def did_you_mean(word: str, known: list[str]) -> str:
    """``did you mean 'x'?`` or the list of what is known."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    if close:
        return f"did you mean '{lowered[close[0]]}'?"
    return f"known here: {', '.join(known)}"


def component_arguments(spec: Spec) -> dict[str, Any]:
    """Keys and values of a component without its `type`, as plain Python."""
    return spec.model_dump(exclude={"type"})


def inconsistent(
    message: str, *, at: tuple[str | int, ...] = (), hint: str = "make the two lines agree"
) -> PydanticCustomError:
    """An error of values that are fine alone but not together.

    Parameters
    ----------
    message : str
    at : tuple of str or int
        Keys and list positions from the part that is validated to the value that is to change.
    hint : str
        What to write instead.
    """
    return PydanticCustomError("inconsistent", "{message}", {"message": message, "at": at, "hint": hint})


def _require_order(pair: tuple[Number, Number]) -> tuple[Number, Number]:
    least, greatest = pair
    if least > greatest:
        raise inconsistent(
            f"the least value {least:g} is above the greatest {greatest:g}",
            hint=f"write [{greatest:g}, {least:g}]",
        )
    return pair


Ordered = AfterValidator(_require_order)
"""Of a pair: the least value, then the greatest."""
