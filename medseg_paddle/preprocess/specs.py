"""From a recipe's ``{type: Name, parameter: value, ...}`` to an object, with errors that name the key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from medseg_paddle.errors import RecipeError

T = TypeVar("T")


def build(spec: Mapping[str, Any], registry: Mapping[str, type[T]]) -> T:
    """Make the dataclass of `registry` that `spec` names.

    Parameters
    ----------
    spec : mapping
        ``type`` is a key of `registry`, all other keys are fields of that dataclass.
    registry : mapping of str to type
        Frozen dataclasses; they check their own values and raise RecipeError.

    Raises
    ------
    RecipeError
        Unknown type, unknown or missing parameter, wrong value.
    """
    supported = ", ".join(sorted(registry))
    name = spec.get("type")
    if not isinstance(name, str) or name not in registry:
        close = difflib.get_close_matches(str(name), registry, n=1)
        raise RecipeError(
            f"transform '{name}' is not supported here" if name else "a transform has no 'type'",
            hint=(f"did you mean '{close[0]}'? " if close else "") + f"supported are: {supported}",
        )
    known = {field.name: field for field in fields(registry[name])}  # type: ignore[arg-type]
    parameters = {key: value for key, value in spec.items() if key != "type"}
    for key in parameters:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            raise RecipeError(
                f"{name} has no parameter '{key}'",
                hint=(f"did you mean '{close[0]}'? " if close else "")
                + f"it takes: {', '.join(known) or 'none'}",
            )
    for key, field in known.items():
        if field.default is MISSING and key not in parameters:
            raise RecipeError(
                f"{name} needs '{key}'", hint=f"add `{key}: ...` to the transform in the recipe"
            )
    return registry[name](**parameters)


def whole_number(value: Any, where: str) -> int:
    """`value` as positive int, or RecipeError naming `where`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RecipeError(f"{where} must be a whole number of at least 1, got {value!r}", hint="correct it")
    return value


def whole_pair(value: Any, where: str) -> tuple[int, int]:
    """`value` as two positive ints, or RecipeError naming `where`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise RecipeError(f"{where} must be two whole numbers, got {value!r}", hint="write it as [a, b]")
    return whole_number(value[0], where), whole_number(value[1], where)


def number(value: Any, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a finite float in ``[low, high]``, or RecipeError naming `where`."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not low <= value <= high
    ):
        raise RecipeError(
            f"{where} must be a number from {low:g} to {high:g}, got {value!r}", hint="correct it"
        )
    return float(value)


def numbers(value: Any, where: str) -> tuple[float, ...]:
    """`value` as a non-empty tuple of finite floats, or RecipeError naming `where`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise RecipeError(f"{where} must be a list of numbers, got {value!r}", hint="write it as [a, b, ...]")
    return tuple(number(item, where) for item in value)


def interval(value: Any, where: str, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
    """`value` as ``(least, greatest)`` within ``[low, high]``, or RecipeError naming `where`."""
    pair = numbers(value, where)
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise RecipeError(
            f"{where} must be [least, greatest] from {low:g} to {high:g}, got {list(pair)}", hint="correct it"
        )
    return pair[0], pair[1]
