"""Which part of a volume a network learns from next: drawn, turned, magnified, deformed and mirrored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.augment.arrays import happens
from medseg_paddle.preprocess.augment.volume_elastic import Triple, elastic_shift
from medseg_paddle.preprocess.augment.volume_foreground import ForegroundVoxels
from medseg_paddle.preprocess.augment.volume_sampling import Placement


@dataclass(frozen=True)
class RandomVolumePatch:
    """Draw a patch of a volume.

    Axes are 0 for slices, 1 for rows and 2 for columns. Ranges and probabilities are nnU-Net's (Isensee et al. 2021,
    https://doi.org/10.1038/s41592-020-01008-z, version 2), but for the mirror images: it mirrors all axes.

    A patch lies within the volume; along an axis where the volume is the smaller one, the volume lies anywhere within
    the patch. What a turned or enlarged patch shows beyond the volume is 0 in the image, ignored in the label.

    Attributes
    ----------
    size : tuple of int
        Slices, rows and columns.
    foreground : float
        Share of patches with a voxel of a class in the middle, or as near to it as the volume's border allows. The
        class is drawn evenly among those that the volume holds. All other patches lie anywhere.
    rotation : three floats
        Largest angle about each axis, in degrees, either way. Angles are those in the patient: with voxels of 5 x 1 x 1
        mm a turn about the rows' axis moves a structure by as many mm along the slices as across them. (In nnU-Net
        voxels are cubes, and such a turn is a shear.)
    rotation_prob : float
        Probability of a turn, about all axes at once.
    scale : tuple of float
        Smallest and largest magnification, drawn evenly on a logarithmic scale; one for all `scale_axes`.
    scale_axes : tuple of int
        Axes that are magnified. Where slices are thick, leave them out.
    scale_prob : float
    elastic_alpha, elastic_sigma : three floats
        Along each axis, in voxels: root mean square of a smooth displacement, and how smooth it is; see
        :func:`~medseg_paddle.preprocess.augment.volume_elastic.elastic_shift`.
    elastic_prob : float
    mirror : tuple of int
        Axes along which every other patch is mirrored. None by default: left and right are not the same in a body, nor
        are head and feet, and a network is to tell them apart where their labels differ.
    """

    size: tuple[int, int, int]
    foreground: float = 0.33
    rotation: Triple = (30.0, 30.0, 30.0)
    rotation_prob: float = 0.2
    scale: tuple[float, float] = (0.7, 1.4)
    scale_axes: tuple[int, ...] = (0, 1, 2)
    scale_prob: float = 0.2
    elastic_alpha: Triple = (2.0, 2.0, 2.0)
    elastic_sigma: Triple = (10.0, 10.0, 10.0)
    elastic_prob: float = 0.0
    mirror: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        name = type(self).__name__
        size = tuple(spec_of.whole_number(side, f"{name}.size") for side in _list(self.size, f"{name}.size"))
        if len(size) != 3:
            raise RecipeError(
                f"{name}.size must be three whole numbers, got {list(size)}",
                hint="write it as [slices, rows, columns]",
            )
        object.__setattr__(self, "size", size)
        for key in ("foreground", "rotation_prob", "scale_prob", "elastic_prob"):
            spec_of.number(getattr(self, key), f"{name}.{key}", 0, 1)
        for key, low, high in (
            ("rotation", 0, 180),
            ("elastic_alpha", 0, 1000),
            ("elastic_sigma", 0.1, 1e6),
        ):
            object.__setattr__(self, key, _triple(getattr(self, key), f"{name}.{key}", low, high))
        object.__setattr__(self, "scale", spec_of.interval(self.scale, f"{name}.scale", 0.01, 100))
        for key in ("scale_axes", "mirror"):
            object.__setattr__(self, key, axes(getattr(self, key), f"{name}.{key}"))

    def draw(
        self,
        shape: Sequence[int],
        foreground: ForegroundVoxels,
        rng: np.random.Generator,
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> Placement:
        """Where the next patch of a volume of `shape` lies; `spacing` is its voxel's, in mm."""
        magnification, turn = np.ones(3), np.eye(3)
        if happens(self.scale_prob, rng):
            factor = math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
            magnification[list(self.scale_axes)] = factor
        if any(self.rotation) and happens(self.rotation_prob, rng):
            turn = rotation_matrix(rng.uniform(-1, 1, 3) * np.radians(self.rotation))
        voxel = foreground.draw(rng) if happens(self.foreground, rng) else None
        centre = [
            _middle(length, side, factor, None if voxel is None else voxel[axis], rng)
            for axis, (length, side, factor) in enumerate(zip(shape, self.size, magnification, strict=True))
        ]
        shift = None
        if any(self.elastic_alpha) and happens(self.elastic_prob, rng):
            shift = elastic_shift(self.size, self.elastic_alpha, self.elastic_sigma, rng)
        mirror = tuple(axis for axis in self.mirror if happens(0.5, rng))
        mm = np.asarray(spacing, np.float64)
        matrix = turn * mm / mm[:, None] / magnification
        return Placement(self.size, np.array(centre), matrix, shift, mirror)


def rotation_matrix(angles: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn by angles in radians about axes 2, 1 and 0 in this order, each from the lower other axis to the higher."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = math.cos(angle)
        turn[other, one], turn[one, other] = math.sin(angle), -math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _middle(
    length: int, side: int, magnification: float, voxel: int | None, rng: np.random.Generator
) -> float:
    """Where in a volume the middle of a patch lies, so that it sees nothing beyond, or all of the volume.

    That of a patch that is not magnified is such that its voxels are the volume's.
    """
    half = (
        side / magnification - 1
    ) / 2  # from the middle of the patch to the middle of the last voxel it covers
    least, most = sorted((half, length - 1 - half))
    if magnification != 1:
        return float(rng.uniform(least, most)) if voxel is None else min(max(float(voxel), least), most)
    first, last = round(least - half), round(most - half)
    start = int(rng.integers(first, last + 1)) if voxel is None else min(max(voxel - side // 2, first), last)
    return start + half


def axes(value: Any, where: str) -> tuple[int, ...]:
    """`value` as different axes in order, or RecipeError naming `where`."""
    found = _list(value, where)
    if any(isinstance(axis, bool) or axis not in (0, 1, 2) for axis in found) or len(set(found)) < len(found):
        raise RecipeError(
            f"{where} must be different ones of 0, 1 and 2, got {found}",
            hint="0 is along the slices, 1 along the rows, 2 along the columns",
        )
    return tuple(sorted(int(axis) for axis in found))


def _triple(value: Any, where: str, low: float, high: float) -> Triple:
    found = tuple(spec_of.number(one, where, low, high) for one in _list(value, where))
    if len(found) != 3:
        raise RecipeError(
            f"{where} must be three numbers, got {list(found)}", hint="write it as [slices, rows, columns]"
        )
    return found


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RecipeError(f"{where} must be a list, got {value!r}", hint="write it as [a, b, ...]")
    return list(value)
