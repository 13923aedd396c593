"""What lies on a grid in the patient: intensities, or the labels of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core.geometry import Geometry
from medseg_paddle.core.labels import LabelSet
from medseg_paddle.errors import DataError

Units = Literal["HU", "arbitrary", "unknown"]


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities on a geometry.

    Attributes
    ----------
    array : ndarray, shape ``geometry.shape``
        ``array[slice, row, column]``.
    geometry : Geometry
    units : {"HU", "arbitrary", "unknown"}
        What the numbers mean: Hounsfield units of a CT; a scale of their own, as in MR; or nobody said.
    """

    array: NDArray[Any]
    geometry: Geometry
    units: Units = "unknown"

    def __post_init__(self) -> None:
        _require_shape(self.array, self.geometry)
        if self.units not in get_args(Units):
            raise DataError(
                f"a volume in units '{self.units}'", hint=f"name one of {', '.join(get_args(Units))}"
            )

    def transposed(self, order: tuple[int, int, int]) -> Volume:
        """The same voxels, their index axes in another order; the array is a view."""
        return Volume(self.array.transpose(order), self.geometry.transposed(order), self.units)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Integer labels on a geometry; ``array`` is uint8 or uint16 of shape ``geometry.shape``.

    Raises
    ------
    DataError
        Another type or shape.
    """

    array: NDArray[Any]
    geometry: Geometry
    labels: LabelSet

    def __post_init__(self) -> None:
        _require_shape(self.array, self.geometry)
        if self.array.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"a label map holds integers of 8 or 16 bits without a sign, got {self.array.dtype}",
                hint="binarise, round or cast the mask on purpose before it is used",
            )


def _require_shape(array: NDArray[Any], geometry: Geometry) -> None:
    if array.shape != geometry.shape:
        raise DataError(
            f"array of shape {array.shape} does not fit a grid of shape {geometry.shape}",
            hint="image and geometry must come from the same source",
        )
