"""Where voxels lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core.labels import LabelSet
from medseg_paddle.errors import DataError


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in the patient.

    Attributes
    ----------
    shape : tuple of int
        Number of slices, rows, columns.
    affine : ndarray, shape (4, 4), float64
        Maps ``(slice, row, column, 1)`` to LPS millimetres (DICOM's patient frame: x to the
        patient's left, y to the back, z to the head), voxel centres.
    frame_of_reference : str
        DICOM frame-of-reference UID, ``""`` where there is none.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    frame_of_reference: str = ""

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if (
            affine.shape != (4, 4)
            or not np.isfinite(affine).all()
            or abs(np.linalg.det(affine[:3, :3])) < 1e-9
        ):
            raise DataError(
                "the image's geometry is not a valid grid (affine singular or not finite)",
                hint="check pixel spacing, orientation and position of the source",
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbours along slice, row and column index."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    def to_lps(self, index: NDArray[Any]) -> NDArray[np.float64]:
        """LPS mm of voxel indices ``(..., 3)`` given as slice, row, column."""
        index = np.asarray(index, dtype=np.float64)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities on a geometry.

    Attributes
    ----------
    array : ndarray, shape ``geometry.shape``
        ``array[slice, row, column]``.
    geometry : Geometry
    units : str
        What the numbers mean: ``"HU"`` or ``"arbitrary"``.
    """

    array: NDArray[Any]
    geometry: Geometry
    units: str = "arbitrary"

    def __post_init__(self) -> None:
        _require_shape(self.array, self.geometry)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Integer labels on a geometry; ``array`` is uint8 or uint16 of shape ``geometry.shape``."""

    array: NDArray[Any]
    geometry: Geometry
    labels: LabelSet

    def __post_init__(self) -> None:
        _require_shape(self.array, self.geometry)
        if not np.issubdtype(self.array.dtype, np.integer):
            raise DataError(
                f"a label map holds integers, got {self.array.dtype}",
                hint="binarise or round the mask on purpose before it is used",
            )


def _require_shape(array: NDArray[Any], geometry: Geometry) -> None:
    if array.shape != geometry.shape:
        raise DataError(
            f"array of shape {array.shape} does not fit a grid of shape {geometry.shape}",
            hint="image and geometry must come from the same source",
        )
