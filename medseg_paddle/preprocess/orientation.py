"""Slices as a radiologist looks at them, however the volume is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from medseg_paddle.core import Geometry

# Patient axis (0: left, 1: back, 2: head) across the slices -> axis and sign that rows and columns follow.
_UPRIGHT = {2: ((1, 1), (0, 1)), 1: ((2, -1), (0, 1)), 0: ((2, -1), (1, 1))}


@dataclass(frozen=True)
class Upright:
    """How a stored slice is turned to the orientation in which slices are shown and segmented.

    A network that learned slices of one orientation fails on turned ones without a word, and files
    store them in any: DICOM's axial rows run to the back, those of most NIfTI files to the front.
    Axial slices get rows to the patient's back and columns to the patient's left, coronal ones rows
    to the feet and columns to the left, sagittal ones rows to the feet and columns to the back. An
    oblique volume is taken as the nearest of these. Nothing is interpolated.

    Attributes
    ----------
    transposed : bool
        Rows and columns change places, before the flips.
    flip_rows, flip_columns : bool
        The order of the rows, of the columns is reversed.
    """

    transposed: bool
    flip_rows: bool
    flip_columns: bool

    @classmethod
    def of(cls, geometry: Geometry) -> Upright:
        """For the slices ``array[k]`` of a volume on `geometry`."""
        order, directions = geometry.patient_axes, geometry.affine[:3, :3]
        (row_axis, row_sign), (column_axis, column_sign) = _UPRIGHT[order[0]]
        rows, columns = order.index(row_axis), order.index(column_axis)
        return cls(
            transposed=rows > columns,
            flip_rows=bool(directions[row_axis, rows] * row_sign < 0),
            flip_columns=bool(directions[column_axis, columns] * column_sign < 0),
        )

    def apply(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Turn a stored slice ``[row, column]`` upright; a view."""
        turned = stored.T if self.transposed else stored
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def spacing(self, geometry: Geometry) -> tuple[float, float]:
        """Distance in mm between neighbours along row and column index of the upright slices of `geometry`."""
        _, rows, columns = geometry.spacing
        return (columns, rows) if self.transposed else (rows, columns)

    def undo(self, upright: NDArray[Any]) -> NDArray[Any]:
        """Turn an upright ``[..., row, column]`` back as it is stored; a view."""
        turned = upright[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return turned.swapaxes(-1, -2) if self.transposed else turned
