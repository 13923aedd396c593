"""How volumes were taken: what a model of their slices has seen, and what it has not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from medseg_paddle.core.geometry import Plane, Units

T = TypeVar("T")


@dataclass(frozen=True)
class Slicing:
    """How one picture was cut from a volume.

    Attributes
    ----------
    plane : {"axial", "coronal", "sagittal", "oblique"}
    spacing : tuple of float
        mm along row and column index of the picture.
    units : {"HU", "arbitrary", "unknown"}
        What the volume's numbers mean.
    """

    plane: Plane
    spacing: tuple[float, float]
    units: Units


@dataclass(frozen=True)
class SpacingRange:
    """Spacings in mm along one index of the pictures."""

    smallest: float
    median: float
    largest: float

    @classmethod
    def of(cls, spacings: Iterable[float]) -> SpacingRange:
        """Of at least one spacing."""
        found = sorted(spacings)
        return cls(found[0], median(found), found[-1])

    def __str__(self) -> str:
        low, high = f"{self.smallest:.3g}", f"{self.largest:.3g}"
        return f"{low} mm" if low == high else f"{low} to {high} mm"


@dataclass(frozen=True)
class Acquisition:
    """What the slices of a data set's volumes are like.

    Attributes
    ----------
    planes, units : tuple of str
        Those that occur, the commonest first.
    rows, columns : SpacingRange
        Along row and column index of the pictures.
    """

    planes: tuple[Plane, ...]
    units: tuple[Units, ...]
    rows: SpacingRange
    columns: SpacingRange

    @classmethod
    def of(cls, slices: Iterable[Slicing | None]) -> Acquisition | None:
        """Of all pictures that were cut from volumes; None where none was."""
        cut = [one for one in slices if one is not None]
        if not cut:
            return None
        return cls(
            planes=_commonest_first(one.plane for one in cut),
            units=_commonest_first(one.units for one in cut),
            rows=SpacingRange.of(one.spacing[0] for one in cut),
            columns=SpacingRange.of(one.spacing[1] for one in cut),
        )


def _commonest_first(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(value for value, _ in Counter(values).most_common())
