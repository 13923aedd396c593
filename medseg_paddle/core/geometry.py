"""Where voxels lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core.labels import LabelSet
from medseg_paddle.errors import DataError

Plane = Literal["axial", "coronal", "sagittal", "oblique"]
Units = Literal["HU", "arbitrary", "unknown"]

# Of the patient axis across the slices: 0 to the left, 1 to the back, 2 to the head.
_PLANES: tuple[Plane, Plane, Plane] = ("sagittal", "coronal", "axial")
_OBLIQUE_DEGREES = 30.0  # brain scans along the skull base are tilted by some 20 degrees, and called axial


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
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

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

    @property
    def patient_axes(self) -> tuple[int, int, int]:
        """Patient axis (0: left, 1: back, 2: head) that slice, row and column index run along, each once.

        Of a tilted grid the nearest ones.
        """
        cosines = np.abs(self._directions)
        return max(permutations(range(3), 3), key=lambda axes: sum(cosines[a, i] for i, a in enumerate(axes)))

    @property
    def plane(self) -> Plane:
        """How the slices ``array[k]`` lie; ``"oblique"`` beyond 30 degrees from all three planes."""
        across = self.patient_axes[0]
        tilted = abs(self._directions[across, 0]) < np.cos(np.radians(_OBLIQUE_DEGREES))
        return "oblique" if tilted else _PLANES[across]

    def sliced_along(self, plane: Plane) -> tuple[int, int, int]:
        """Order of the index axes, as for ``array.transpose``, in which slices lie in `plane` or nearest to it.

        The two other axes keep their order.
        """
        first = self.patient_axes.index(_PLANES.index(plane))
        second, third = (axis for axis in range(3) if axis != first)
        return first, second, third

    def transposed(self, order: tuple[int, int, int]) -> Geometry:
        """The same voxels, their index axes in another order."""
        first, second, third = order
        shape = (self.shape[first], self.shape[second], self.shape[third])
        return Geometry(shape, self.affine[:, [*order, 3]])

    @property
    def _directions(self) -> NDArray[np.float64]:
        """Unit vectors of the index axes as columns."""
        axes = self.affine[:3, :3]
        return np.asarray(axes / np.linalg.norm(axes, axis=0))

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
