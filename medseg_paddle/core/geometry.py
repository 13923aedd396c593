"""Where voxels lie in the patient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError, RecipeError

Plane = Literal["axial", "coronal", "sagittal", "oblique"]

# Of the patient axis across the slices: 0 to the left, 1 to the back, 2 to the head.
_PLANES: tuple[Plane, Plane, Plane] = ("sagittal", "coronal", "axial")
_OBLIQUE_DEGREES = 30.0  # brain scans along the skull base are tilted by some 20 degrees, and called axial
# From the origin of the patient's frame, mm: NIfTI's numbers of 32 bits hold a place to 0.01 mm up to here.
FARTHEST_MM = 1e5
_TOWARDS = ("LR", "PA", "SI")  # of each patient axis: where it points to, and the opposite


@dataclass(frozen=True)
class Box:
    """A range of voxels, ``start <= index < stop`` along slice, row and column; it may reach beyond a grid.

    Raises
    ------
    DataError
        The box holds no voxel.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    def __post_init__(self) -> None:
        if any(stop <= start for start, stop in zip(self.start, self.stop, strict=True)):
            raise DataError(
                f"the part from voxel {self.start} up to {self.stop} is empty",
                hint="choose a part with at least one voxel along each axis",
            )

    @classmethod
    def around(cls, mask: NDArray[Any], margin: tuple[int, int, int] = (0, 0, 0)) -> Box:
        """The smallest box that holds every voxel of `mask` that is not 0, and `margin` voxels more, within the mask.

        Raises
        ------
        DataError
            The mask is empty.
        """
        spans = []
        for axis, wider in enumerate(margin):
            others = tuple(other for other in range(3) if other != axis)
            found = np.flatnonzero(mask.any(axis=others))
            if not len(found):
                raise DataError(
                    "there is no voxel to crop to", hint="check the mask; it is empty, or crop nothing"
                )
            spans.append((max(int(found[0]) - wider, 0), min(int(found[-1]) + 1 + wider, mask.shape[axis])))
        return cls(
            (spans[0][0], spans[1][0], spans[2][0]),
            (spans[0][1], spans[1][1], spans[2][1]),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows, columns."""
        slices, rows, columns = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return slices, rows, columns

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of an array that holds the whole box."""
        one, two, three = (slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))
        return one, two, three


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
        DICOM's UID of the frame that the millimetres are measured in; empty where nobody said.

    Raises
    ------
    DataError
        The affine is singular or not finite, an axis has no voxel, or a voxel lies more than `FARTHEST_MM` away.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    frame_of_reference: str = ""

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if (
            affine.shape != (4, 4)
            or not np.isfinite(affine).all()
            or np.abs(affine).max() > FARTHEST_MM
            or abs(np.linalg.det(affine[:3, :3])) < 1e-9
        ):
            raise DataError(
                "the image's geometry is not a valid grid (affine singular, not finite or beyond measure)",
                hint="check pixel spacing, orientation and position of the source",
            )
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise DataError(
                f"the image's geometry is not a valid grid ({' x '.join(str(side) for side in self.shape)} voxels)",
                hint="a volume has three axes, each with one voxel at least",
            )
        if not np.abs(corners(self.shape) @ affine[:3, :3].T + affine[:3, 3]).max() <= FARTHEST_MM:
            raise DataError(
                f"the image's geometry is not a valid grid (voxels more than {FARTHEST_MM / 1e3:g} m away)",
                hint="check pixel spacing, orientation and position of the source",
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(side) for side in self.shape))

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
    def axis_codes(self) -> str:
        """Where slice, row and column index run to: L(eft), R(ight), P(osterior), A(nterior), S(uperior), I(nferior).

        ``"SPL"`` is an axial volume whose slices go to the head, rows to the back and columns to the patient's left.
        Of a tilted grid the nearest ones. The letters are nibabel's (``aff2axcodes``), the order is that of our index.
        """
        return "".join(
            _TOWARDS[axis][int(self.affine[axis, index] < 0)] for index, axis in enumerate(self.patient_axes)
        )

    @property
    def plane(self) -> Plane:
        """How the slices ``array[k]`` lie; ``"oblique"`` beyond 30 degrees from all three planes."""
        across = self.patient_axes[0]
        tilted = abs(self._directions[across, 0]) < np.cos(np.radians(_OBLIQUE_DEGREES))
        return "oblique" if tilted else _PLANES[across]

    @property
    def tilt(self) -> float:
        """Angle in degrees between an index axis and the patient axis that it runs along, the greatest of the three."""
        cosines = [abs(self._directions[axis, index]) for index, axis in enumerate(self.patient_axes)]
        return float(np.degrees(np.arccos(min(*cosines, 1.0))))

    def sliced_along(self, plane: Plane) -> tuple[int, int, int]:
        """Order of the index axes, as for ``array.transpose``, in which slices lie in `plane` or nearest to it.

        The two other axes keep their order.
        """
        first = self.patient_axes.index(_PLANES.index(plane))
        second, third = (axis for axis in range(3) if axis != first)
        return first, second, third

    def is_at(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether the voxels are as many as those of `other`, and lie where those lie."""
        return self.shape == other.shape and np.allclose(self.affine, other.affine, rtol=0, atol=tolerance_mm)

    def transposed(self, order: tuple[int, int, int]) -> Geometry:
        """The same voxels, their index axes in another order."""
        first, second, third = order
        shape = (self.shape[first], self.shape[second], self.shape[third])
        return replace(self, shape=shape, affine=self.affine[:, [*order, 3]])

    def flipped(self, axes: Iterable[int]) -> Geometry:
        """The same voxels, counted from the other end along `axes`."""
        affine = self.affine.copy()
        for axis in set(axes):
            affine[:3, 3] += affine[:3, axis] * (self.shape[axis] - 1)
            affine[:3, axis] *= -1
        return replace(self, affine=affine)

    def turn_to(self, codes: str) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """What brings the index axes to `codes`: their order, and which of them to flip then; see :attr:`axis_codes`.

        Raises
        ------
        RecipeError
            `codes` does not name each patient axis once.
        """
        wanted = parse_axis_codes(codes)
        first, second, third = (self.patient_axes.index(axis) for axis, _ in wanted)
        order = (first, second, third)
        signs = [self.affine[axis, index] < 0 for index, (axis, _) in zip(order, wanted, strict=True)]
        flips = tuple(place for place, (_, opposite) in enumerate(wanted) if signs[place] != opposite)
        return order, flips

    def boxed(self, box: Box) -> Geometry:
        """The grid of a part, or of more than the grid; voxels that both hold stay where they are."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_lps(np.array(box.start))
        return replace(self, shape=box.shape, affine=affine)

    def respaced(self, spacing: Sequence[float | None]) -> Geometry:
        """A grid of another spacing over the same ground: from edge to edge of the outermost voxels.

        Parameters
        ----------
        spacing : three floats, or None
            mm along slice, row and column; an axis with None keeps its voxels.

        Returns
        -------
        Geometry
            ``round(extent / spacing)`` voxels along an axis, one at least, which share the extent evenly: the spacing
            is the one wanted but for less than half a voxel in the whole extent, and :attr:`spacing` tells it exactly.
            No ground is lost or made up, and the way back meets the same edges.

        Raises
        ------
        RecipeError
            A spacing is not above 0.
        """
        shape, affine = list(self.shape), self.affine.copy()
        for axis, wanted in enumerate(spacing):
            if wanted is None:
                continue
            if not (np.isfinite(wanted) and wanted > 0):
                raise RecipeError(
                    f"a spacing of {wanted} mm", hint="name mm above 0 for slices, rows and columns"
                )
            shape[axis] = max(1, round(self.shape[axis] * self.spacing[axis] / wanted))
            ratio = self.shape[axis] / shape[axis]
            # The first voxel's edge stays where it is: half an old voxel before the old centre.
            affine[:3, 3] += self.affine[:3, axis] * (ratio - 1) / 2
            affine[:3, axis] *= ratio
        slices, rows, columns = shape
        return replace(self, shape=(slices, rows, columns), affine=affine)

    @property
    def _directions(self) -> NDArray[np.float64]:
        """Unit vectors of the index axes as columns."""
        axes = self.affine[:3, :3]
        return np.asarray(axes / np.linalg.norm(axes, axis=0))

    def to_lps(self, index: NDArray[Any]) -> NDArray[np.float64]:
        """LPS mm of voxel indices ``(..., 3)`` given as slice, row, column."""
        index = np.asarray(index, dtype=np.float64)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, lps: NDArray[Any]) -> NDArray[np.float64]:
        """Slice, row, column ``(..., 3)``, with fractions, of points in LPS mm."""
        offsets = np.asarray(lps, dtype=np.float64) - self.affine[:3, 3]
        return np.asarray(offsets @ np.linalg.inv(self.affine[:3, :3]).T)


def corners(shape: Sequence[int]) -> NDArray[np.intp]:
    """Indices of the outermost voxels of a grid, shape (8, 3)."""
    return np.array(list(product(*((0, length - 1) for length in shape))))


def straightened(geometry: Geometry) -> tuple[NDArray[np.float64], float]:
    """The grid whose slices follow their normal, through the middle of the line that they follow.

    Positions of slices are often rounded, so that they move a little aside of their normal.

    Returns
    -------
    affine : ndarray, shape (4, 4)
    apart : float
        Mm by which it puts a corner elsewhere, at the most.
    """
    slices, rows, columns = geometry.affine[:3, :3].T
    normal = np.cross(columns, rows)
    normal /= np.linalg.norm(normal)
    affine = geometry.affine.copy()
    affine[:3, 0] = normal * (slices @ normal)
    affine[:3, 3] += (geometry.shape[0] - 1) / 2 * (slices - affine[:3, 0])
    moved = corners(geometry.shape) @ (affine - geometry.affine)[:3, :3].T + (affine - geometry.affine)[:3, 3]
    return affine, float(np.linalg.norm(moved, axis=1).max())


def parse_axis_codes(codes: str) -> list[tuple[int, bool]]:
    """Patient axis of each letter (see :attr:`Geometry.axis_codes`), and whether the index runs against it.

    Raises
    ------
    RecipeError
        `codes` does not name each patient axis once.
    """
    found = [
        (axis, letter == names[1])
        for letter in codes
        for axis, names in enumerate(_TOWARDS)
        if letter in names
    ]
    if len(codes) != 3 or sorted(axis for axis, _ in found) != [0, 1, 2]:
        raise RecipeError(
            f"'{codes}' does not name the directions of slices, rows and columns",
            hint="write one letter of L and R, one of P and A, one of S and I, for example SPL: slices to the head "
            "(superior), rows to the back (posterior), columns to the patient's left",
        )
    return found


def require_same_frame(one: Geometry, other: Geometry) -> None:
    """Refuse two grids whose millimetres are not measured in the same frame.

    Raises
    ------
    DataError
        Both name a frame of reference, and not the same.
    """
    frames = (one.frame_of_reference, other.frame_of_reference)
    if all(frames) and frames[0] != frames[1]:
        raise DataError(
            f"the images lie in two frames of reference, {frames[0]} and {frames[1]}",
            hint="register them first, or take images of one scan; positions of two frames cannot be compared",
        )
