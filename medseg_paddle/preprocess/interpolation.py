"""Interpolation along one axis: which values of a line make a value of the new one, and with what weights.

Everything here is linear in the values, so that a line's resampling is a matrix with a few numbers in a row. The
weights are worked out in float64 and hold to float32 rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of

Kind = Literal["nearest", "linear", "cubic"]

# Full width at half maximum of a Gaussian is 2.355 standard deviations.
_DEVIATION_OF_WIDTH = 1 / (2 * math.sqrt(2 * math.log(2)))
_NEGLIGIBLE = (
    2e-8  # of a value: a third of float32's rounding; a spline's weights fall to it within 14 voxels
)
_DECIMALS = 9  # of an index: what is left of a whole number after matrices in float64 is one again


@dataclass(frozen=True)
class Interpolation:
    """How intensities are resampled.

    Attributes
    ----------
    kind : {"cubic", "linear", "nearest"}
        ``cubic`` is the interpolating cubic B-spline (Unser 1999, IEEE Signal Processing Magazine 16(6):22-38) with
        mirrored ends, as SimpleITK's ``sitkBSpline`` and scipy's order 3 with ``mode="mirror"``: not the cubic
        convolution of Keys, which is blurrier. It overshoots beside sharp edges; clip first what must not be exceeded.
    across : {"linear", "nearest", "cubic"}
        In place of `kind` along the axis of thick slices. nnU-Net takes ``nearest`` there, which moves every
        structure by up to half a slice; ``linear`` moves nothing and does not overshoot either.
    anisotropy : float
        An axis has thick slices where its spacing is more than this times the least one of the image, or of the
        target if the image has none: nnU-Net's rule (Isensee et al. 2021), and its 3.
    antialias : bool
        Smooth along axes that get coarser, before values are taken. Without, a value of the coarse grid is the
        source's at a point: noise stays as strong as it was and fine structures come out by chance. The smoothing is a
        Gaussian that widens a voxel to the new size, as a scanner of that resolution would have measured it (Cardoso
        et al. 2015, MICCAI, "Scale factor point spread function matching"): ``sigma = sqrt(s**2 - 1) / 2.355`` voxels
        where s voxels become one.
    """

    kind: Kind = "cubic"
    across: Kind = "linear"
    anisotropy: float = 3.0
    antialias: bool = True

    def __post_init__(self) -> None:
        for where, value in (("kind", self.kind), ("across", self.across)):
            if value not in get_args(Kind):
                raise RecipeError(
                    f"interpolation.{where} '{value}' is unknown",
                    hint=f"use one of {', '.join(get_args(Kind))}",
                )
        spec_of.number(self.anisotropy, "interpolation.anisotropy", 1)
        if not isinstance(self.antialias, bool):
            raise RecipeError(
                f"interpolation.antialias must be true or false, got {self.antialias!r}", hint="correct it"
            )

    def kinds(self, spacing: Sequence[float], target: Sequence[float]) -> tuple[Kind, Kind, Kind]:
        """What holds along each axis, for spacings in mm along the same axes before and after."""
        thick = _thick_axis(spacing, self.anisotropy)
        if thick is None:
            thick = _thick_axis(target, self.anisotropy)
        one, two, three = (self.across if axis == thick else self.kind for axis in range(3))
        return one, two, three


def _thick_axis(spacing: Sequence[float], anisotropy: float) -> int | None:
    """The one axis of the greatest spacing, if that is more than `anisotropy` times the least."""
    greatest = max(spacing)
    thick = [axis for axis, one in enumerate(spacing) if math.isclose(one, greatest, rel_tol=1e-3)]
    return thick[0] if len(thick) == 1 and greatest > anisotropy * min(spacing) else None


def deviation(shrink: float) -> float:
    """Standard deviation in voxels of the smoothing before `shrink` voxels become one; 0 where they become more."""
    return math.sqrt(max(shrink**2 - 1, 0)) * _DEVIATION_OF_WIDTH


def weights(
    length: int, index: NDArray[np.float64], kind: Kind, smoothing: float = 0.0
) -> scipy.sparse.csr_array | None:
    """The matrix that takes a line of values to those at `index`.

    Parameters
    ----------
    length : int
        Values of the line.
    index : ndarray, shape (m,), float64
        Places between and beside the values, which lie at 0, 1, ... The line reaches from -0.5 to ``length - 0.5``,
        the outer edges of its voxels; beyond, the row is 0 (:func:`inside`).
    kind : {"nearest", "linear", "cubic"}
        Up to half a voxel before the first value and after the last, ``nearest`` and ``linear`` take that value and
        ``cubic`` mirrors the line about it. Halfway, ``nearest`` takes the later value.
    smoothing : float
        Standard deviation in voxels of a Gaussian that goes before, the ends repeated, to 4 deviations.

    Returns
    -------
    csr_array, shape (m, length), float32, or None
        None where the values are taken as they are, one after another.
    """
    index = np.round(index, _DECIMALS)
    if not smoothing and len(index) == length and np.array_equal(index, np.arange(length)):
        return None
    matrix = _TAKE[kind](np.clip(index, -0.5, length - 0.5), length)
    blur = _gaussian(length, smoothing)
    if blur is not None:
        matrix = matrix @ blur
    matrix = scipy.sparse.csr_array(matrix)
    matrix.data[np.abs(matrix.data) < _NEGLIGIBLE] = 0
    matrix.eliminate_zeros()
    # What was dropped is given back: the row of an evenly grey line is even.
    within = np.where(inside(index, length), 1.0, 0.0)
    matrix = scipy.sparse.diags_array(within / np.asarray(matrix.sum(axis=1)).ravel()) @ matrix
    result = scipy.sparse.csr_array(matrix, dtype=np.float32)
    result.eliminate_zeros()
    result.sort_indices()
    return result


def inside(index: NDArray[np.float64], length: int) -> NDArray[np.bool_]:
    """Which places lie on a line of `length` values, its outer edges with it."""
    index = np.round(index, _DECIMALS)
    return np.asarray((index >= -0.5) & (index <= length - 0.5))


def nearest(index: NDArray[np.float64], length: int) -> NDArray[np.intp]:
    """The value nearest to each place, of places halfway the later one."""
    taken = np.floor(np.round(index, _DECIMALS) + 0.5).astype(np.intp)
    return np.clip(taken, 0, length - 1)


def spline_coefficients(length: int) -> NDArray[np.float64]:
    """The matrix from the values of a line to its cubic B-spline coefficients, the ends mirrored."""
    if length == 1:
        return np.ones((1, 1))
    bands = np.full((3, length), 1 / 6)
    bands[1] = 4 / 6
    bands[0, 1] = bands[2, -2] = 2 / 6  # the first and the last value have the same neighbour on both sides
    return np.asarray(scipy.linalg.solve_banded((1, 1), bands, np.eye(length)))


def _nearest(index: NDArray[np.float64], length: int) -> Any:
    return _rows(nearest(index, length)[:, None], np.ones((len(index), 1)), length)


def _linear(index: NDArray[np.float64], length: int) -> Any:
    index = np.clip(index, 0, length - 1)
    first = np.minimum(np.floor(index).astype(np.intp), max(length - 2, 0))
    share = index - first
    taken = np.stack([first, np.minimum(first + 1, length - 1)], axis=1)
    return _rows(taken, np.stack([1 - share, share], axis=1), length)


def _cubic(index: NDArray[np.float64], length: int) -> Any:
    first = np.floor(index).astype(np.intp)
    t = index - first
    pieces = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    taken = first[:, None] + np.arange(-1, 3)
    period = max(2 * (length - 1), 1)
    taken = np.abs(taken) % period
    taken = np.where(taken >= length, period - taken, taken)
    return _rows(taken, np.stack(pieces, axis=1) / 6, length) @ spline_coefficients(length)


_TAKE = {"nearest": _nearest, "linear": _linear, "cubic": _cubic}


def _gaussian(length: int, sigma: float) -> Any:
    reach = math.floor(4 * sigma + 0.5)
    if not reach:
        return None
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    taken = np.clip(np.arange(length)[:, None] + offsets, 0, length - 1)
    return _rows(taken, np.broadcast_to(kernel / kernel.sum(), taken.shape), length)


def _rows(taken: NDArray[np.intp], shares: NDArray[np.float64], length: int) -> Any:
    """A matrix with `shares` at the columns `taken`, added up where a row names one twice."""
    rows = np.repeat(np.arange(len(taken)), taken.shape[1])
    return scipy.sparse.coo_array((shares.ravel(), (rows, taken.ravel())), shape=(len(taken), length)).tocsr()
