"""How volumes were taken: what a model of them, or of their slices, has seen, and what it has not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

from medseg_paddle.core.geometry import Geometry, Plane
from medseg_paddle.core.volume import Units

T = TypeVar("T")


@dataclass(frozen=True)
class Within:
    """Where a slice lies in its volume.

    Attributes
    ----------
    place : int
        Counted from 0; neighbours differ by 1.
    slices : int
        How many the volume has.
    spacing : float
        mm between neighbours.
    """

    place: int
    slices: int
    spacing: float


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
    within : Within or None
        Where the picture lies in the volume; None where the data set does not say, and of a whole volume.
    """

    plane: Plane
    spacing: tuple[float, float]
    units: Units
    within: Within | None = None

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Slicing:
        """From what ``dataclasses.asdict`` made of it; data sets of earlier versions have no ``within``.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is something else, or a spacing is not above 0.
        """
        rows, columns = (float(one) for one in entry["spacing"])
        found, within = entry.get("within"), None
        if found is not None:
            within = Within(int(found["place"]), int(found["slices"]), float(found["spacing"]))
        lengths = (rows, columns) if within is None else (rows, columns, within.spacing)
        if not all(0 < one < math.inf for one in lengths):
            raise ValueError(f"spacing {lengths}")
        return cls(entry["plane"], (rows, columns), entry["units"], within)


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

    @classmethod
    def together(cls, several: Sequence[SpacingRange]) -> SpacingRange:
        """From the smallest to the largest of several; the median is that of the medians."""
        return cls(
            min(one.smallest for one in several),
            median(one.median for one in several),
            max(one.largest for one in several),
        )

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

    @classmethod
    def together(cls, several: Sequence[Acquisition | None]) -> Acquisition | None:
        """What was seen in at least one of several training sets; None where none was of slices.

        Raises
        ------
        ValueError
            Only some were of slices, or planes or units differ.
        """
        known = [one for one in several if one is not None]
        kinds = {(frozenset(one.planes), frozenset(one.units)) for one in known}
        if len(kinds) > 1 or 0 < len(known) < len(several):
            raise ValueError("they were trained on slices of other planes or units, or on no slices")
        if not known:
            return None
        return cls(
            known[0].planes,
            known[0].units,
            SpacingRange.together([one.rows for one in known]),
            SpacingRange.together([one.columns for one in known]),
        )


@dataclass(frozen=True)
class VolumeAcquisition:
    """What the whole volumes of a data set are like, as they came.

    Attributes
    ----------
    units : tuple of str
        Those that occur, the commonest first.
    spacing : three SpacingRange
        Along the axes that a network calls slices, rows and columns.
    tilt : float
        The greatest of :attr:`Geometry.tilt`, degrees.
    """

    units: tuple[Units, ...]
    spacing: tuple[SpacingRange, SpacingRange, SpacingRange]
    tilt: float

    @classmethod
    def of(cls, volumes: Iterable[tuple[Geometry, Units]], axes: str) -> VolumeAcquisition:
        """Of at least one volume; `axes` as in :attr:`Geometry.axis_codes`."""
        grids, units = zip(*volumes, strict=True)
        along = [grid.transposed(grid.turn_to(axes)[0]).spacing for grid in grids]
        slices, rows, columns = (SpacingRange.of(one) for one in zip(*along, strict=True))
        return cls(_commonest_first(units), (slices, rows, columns), max(grid.tilt for grid in grids))

    @classmethod
    def together(cls, several: Sequence[VolumeAcquisition]) -> VolumeAcquisition:
        """What was seen in at least one of several training sets.

        Raises
        ------
        ValueError
            Their units differ.
        """
        if len({frozenset(one.units) for one in several}) > 1:
            raise ValueError("they were trained on volumes of other units")
        slices, rows, columns = (
            SpacingRange.together([one.spacing[axis] for one in several]) for axis in range(3)
        )
        return cls(several[0].units, (slices, rows, columns), max(one.tilt for one in several))


def _commonest_first(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(value for value, _ in Counter(values).most_common())
