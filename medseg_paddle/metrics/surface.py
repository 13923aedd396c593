"""How far two segmentations' surfaces lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

_PERCENTILE = 95
_QUERIED_AT_ONCE = 1 << 20  # points, 8 to 24 MB of coordinates
# A distance that is the tolerance but for rounding, such as three steps of 0.1 mm and 0.3 mm, is within it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SurfaceScores:
    """How well the surfaces of one class agree; all are NaN if it is absent in truth and prediction.

    The surface of a mask is its border voxels: those with a neighbour across a face (an edge of a pixel) outside the
    mask; what lies beyond the edge of the image is outside. A distance is that between two centres of voxels.

    If the class is in only one of the two, there is no distance. ``hd95`` and ``assd`` are then the diagonal of the
    image, which no distance in it reaches, and ``nsd`` is 0: the worst score, so that a mean is not better for what
    was missed (as infinity spoils it, and NaN leaves it out).

    Attributes
    ----------
    hd95 : float
        The greater of two 95th percentiles: of the distances from the truth's surface to the nearest point of the
        prediction's, and the other way round; between two ranks interpolated linearly. HD95 of Maier-Hein, Reinke et
        al., Metrics reloaded, Nat Methods 21:195, 2024. (MedPy takes one percentile of both together, in which
        the larger surface outweighs the other.)
    assd : float
        Average symmetric surface distance: the mean of both sets of distances together (Heimann et al., IEEE Trans Med
        Imaging 28:1251, 2009). ``hd95`` and ``assd`` are in the unit of the spacing.
    nsd : float
        Normalised surface Dice: the share of the points of both surfaces that are not farther from the other surface
        than the tolerance (Nikolov et al., J Med Internet Res 23:e26151, 2021, there with areas in place of points).
    """

    hd95: float
    assd: float
    nsd: float


ABSENT = SurfaceScores(math.nan, math.nan, math.nan)
"""Of a class that is in neither truth nor prediction."""


def surface_scores(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    *,
    num_classes: int,
    spacing: Sequence[float],
    tolerance: float,
) -> tuple[SurfaceScores, ...]:
    """Compare the surfaces of every foreground class.

    Memory beside the arguments grows with the box that holds a class in both, by a few bytes a voxel, and with its
    surface, by some hundred bytes a point.

    Parameters
    ----------
    truth, prediction : ndarray, of one shape, any number of dimensions, integer
        Class of every voxel.
    num_classes : int
        Background included; the scores are those of 1 to ``num_classes - 1``.
    spacing : sequence of float
        Distance between neighbours along each dimension.
    tolerance : float
        Of ``nsd``, in the unit of `spacing`.

    Returns
    -------
    tuple of SurfaceScores

    Raises
    ------
    ValueError
        Shapes differ, or `spacing` is not a positive number for each dimension.
    """
    if truth.shape != prediction.shape or len(spacing) != truth.ndim:
        raise ValueError(f"truth {truth.shape}, prediction {prediction.shape}, spacing {tuple(spacing)}")
    steps = np.asarray(spacing, np.float64)
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"spacing {tuple(spacing)}")
    diagonal = float(np.linalg.norm(truth.shape * steps))
    boxes = zip(find_objects(truth, num_classes - 1), find_objects(prediction, num_classes - 1), strict=True)
    found = []
    for label, (one, other) in enumerate(boxes, start=1):
        if one is None and other is None:
            found.append(ABSENT)
        elif one is None or other is None:
            found.append(SurfaceScores(diagonal, diagonal, 0.0))
        else:
            box = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
            )
            found.append(_compared(truth[box] == label, prediction[box] == label, steps, tolerance))
    return tuple(found)


def _compared(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], steps: NDArray[np.float64], tolerance: float
) -> SurfaceScores:
    """Scores of two masks with at least one voxel each."""
    one, other = _border(truth), _border(prediction)
    there, back = _distances(one, other, steps), _distances(other, one, steps)
    points = len(there) + len(back)
    near = sum(int(np.count_nonzero(far <= tolerance * (1 + _ROUNDING))) for far in (there, back))
    return SurfaceScores(
        hd95=max(float(np.percentile(far, _PERCENTILE)) for far in (there, back)),
        assd=float(there.sum() + back.sum()) / points,
        nsd=near / points,
    )


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without its erosion by the neighbours across faces; seven times as fast as ``binary_erosion``."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        left, whole = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        left[1:] &= whole[:-1]
        left[:-1] &= whole[1:]
        left[[0, -1]] = False  # beyond the box there is none of the mask
    border: NDArray[np.bool_] = mask & ~inner
    return border


def _distances(
    border: NDArray[np.bool_], other: NDArray[np.bool_], steps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of every point of a border to the nearest of another, in no order.

    A tree of the points takes a tenth of the time of a Euclidean distance transform of the box, and less memory.
    """
    targets = np.argwhere(other)
    sources = np.argwhere(border & ~other)  # of a point in both, the distance is 0
    found = np.zeros(int(np.count_nonzero(border)))
    tree = cKDTree(targets * steps)
    for start in range(0, len(sources), _QUERIED_AT_ONCE):
        points = sources[start : start + _QUERIED_AT_ONCE]
        nearest = tree.query(points * steps)[1]
        # From whole steps, so that the place in the image does not round the result in its own way.
        found[start : start + len(points)] = np.linalg.norm((points - targets[nearest]) * steps, axis=1)
    return found
