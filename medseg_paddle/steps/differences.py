"""Where two trainings differ, and by how much. Arrays and numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ArrayDifference:
    """One array that is not the same in both.

    Attributes
    ----------
    name : str
    greatest : float
        Largest absolute difference; infinite where shapes or types differ, or the array is in one of both only.
    relative : float
        The same, divided by the array's largest absolute value.
    share : float
        Of its numbers, how many differ.
    """

    name: str
    greatest: float
    relative: float
    share: float

    def __str__(self) -> str:
        if math.isinf(self.greatest):
            return f"{self.name}: of another shape or type, or missing in one of both"
        return (
            f"{self.name}: {self.share:.0%} of its numbers, by at most {self.greatest:.3g} "
            f"({self.relative:.1e} of its largest value)"
        )


@dataclass(frozen=True)
class CurveDifference:
    """Two sequences of numbers by iteration.

    Attributes
    ----------
    compared : int
        Iterations that both have.
    first : int or None
        The first that differs; None where all are the same, bit for bit.
    greatest : float
        Largest absolute difference.
    at_first : tuple of float
        Both values there.
    """

    compared: int
    first: int | None
    greatest: float
    at_first: tuple[float, float] = (math.nan, math.nan)


def differing_arrays(first: Arrays, second: Arrays) -> list[ArrayDifference]:
    """Arrays that are not the same bit for bit, in the order of `first`."""
    found = []
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
            found.append(ArrayDifference(name, math.inf, math.inf, 1.0))
        elif one.tobytes() != other.tobytes():
            found.append(_difference(name, one, other))
    return found


def count_numbers(arrays: Arrays) -> int:
    """Numbers in all arrays."""
    return sum(array.size for array in arrays.values())


def compare_curves(first: Mapping[int, float], second: Mapping[int, float]) -> CurveDifference:
    """Compare what two trainings noted at the same iterations. A NaN is the same as a NaN."""
    common = sorted(first.keys() & second.keys())
    differing = [step for step in common if not _same(first[step], second[step])]
    if not differing:
        return CurveDifference(len(common), None, 0.0)
    sizes = [abs(first[step] - second[step]) for step in differing]
    greatest = max((size for size in sizes if not math.isnan(size)), default=math.nan)
    step = differing[0]
    return CurveDifference(len(common), step, greatest, (first[step], second[step]))


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _difference(name: str, one: NDArray[Any], other: NDArray[Any]) -> ArrayDifference:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        distance = np.abs(a - b)
    finite = distance[np.isfinite(distance)]
    greatest = float(finite.max()) if finite.size else math.nan
    size = float(np.nanmax(np.abs(np.concatenate([a, b])), initial=0.0))
    differ = one.ravel().view(np.uint8) != other.ravel().view(np.uint8)
    share = float(differ.reshape(one.size, -1).any(axis=1).mean())
    return ArrayDifference(name, greatest, greatest / size if size else math.nan, share)
