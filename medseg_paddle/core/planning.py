"""What a U-Net for volumes should be like for a data set: nnU-Net's published rules, as plain functions.

Isensee et al. 2021, Nature Methods 18, 203 (https://doi.org/10.1038/s41592-020-01008-z), online methods and
supplementary note 2, and the planner of nnU-Net v2 where that went on. Axes are slices, rows and columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Triple = tuple[int, int, int]
Millimetres = tuple[float, float, float]

THICK = 3.0
"""An axis is coarse from so many times the spacing of the others on, and shallow from so many times fewer voxels on."""
CUBE = 256
"""The first patch has as many voxels as a cube of this side: larger than what fits."""
LEAST_SIDE = 4
"""Voxels that the deepest level has at least along an axis that was made smaller."""
LEAST_BATCH = 2
MOST_OF_DATA = 0.05
"""Of all voxels of the training set, a batch holds no more."""
MASKED_BELOW = 0.75
"""Share of its voxels that a crop leaves, below which only voxels that are not 0 are normalised."""
LARGE_PATCH = 0.25
"""A patch of this share of a volume sees enough of it for a Dice of each patch by itself."""
_DEEPEST = 8  # what a recipe's networks take
_COARSE_PERCENTILE = 10
# Words of names that tell a side of the body.
_SIDES = re.compile(
    r"(?<![a-z])(left|right|l|r|lt|rt|lh|rh|sinist(er|ra|rum)|dext(er|ra|rum))(?![a-z])", re.IGNORECASE
)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Topology:
    """How a network goes down: what each step divides the sides by, and the kernels of each level, the finest first."""

    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]

    @property
    def depth(self) -> int:
        """Steps down."""
        return len(self.strides)

    @property
    def divisors(self) -> Triple:
        """What the sides of a patch are multiples of."""
        return _triple(math.prod(step[axis] for step in self.strides) for axis in range(3))

    def padded(self, patch: Triple) -> Triple:
        """The smallest sides that it takes and that are no smaller than those of `patch`."""
        return _triple(-(-side // by) * by for side, by in zip(patch, self.divisors, strict=True))


@dataclass(frozen=True)
class PatchPlan:
    """A patch and the network for it.

    Attributes
    ----------
    patch : three ints
    topology : Topology
    first : three ints
        The patch before it was made smaller until it fitted.
    """

    patch: Triple
    topology: Topology
    first: Triple


def target_spacing(
    spacings: Sequence[Millimetres], shapes: Sequence[Triple]
) -> tuple[Millimetres, int | None]:
    """The spacing that all volumes are brought to: the median along each axis, but for a coarse one.

    An axis is coarse whose median spacing is more than three times, and whose median number of voxels less than a third
    of, those of both others. Its spacing is the 10th percentile, though no finer than the others: the median would
    make slices up in the volumes that have more of them.

    Parameters
    ----------
    spacings, shapes : sequence
        mm and voxels of each case.

    Returns
    -------
    tuple
        mm along the three axes; the coarse axis, or None.
    """
    target, sides = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = target[worst] > THICK * target[others].max() and sides[worst] * THICK < sides[others].min()
    if coarse:
        percentile = np.percentile([one[worst] for one in spacings], _COARSE_PERCENTILE)
        target[worst] = max(percentile, target[others].max())
    one, two, three = (_rounded(float(mm)) for mm in target)
    return (one, two, three), worst if coarse else None


def median_shape(spacings: Sequence[Millimetres], shapes: Sequence[Triple], target: Millimetres) -> Triple:
    """Voxels along each axis of the median volume once it has the spacing `target`."""
    brought = np.round(np.asarray(shapes) * np.asarray(spacings) / np.asarray(target))
    return _triple(max(1, int(side)) for side in np.median(brought, axis=0))


def topology(spacing: Millimetres, patch: Triple) -> Topology:
    """How a network goes down from a patch.

    Each step halves every axis whose spacing is by then less than twice the least one, until fewer than 8 voxels are
    left of it; a single axis is halved from 12 voxels on. A kernel has 3 voxels along an axis from the level on where
    its spacing is less than twice the least one, and 1 before; at the deepest level always 3.
    """
    current, sides = list(spacing), list(patch)
    strides: list[Triple] = []
    kernels: list[Triple] = []
    kernel = [1, 1, 1]
    while len(strides) < _DEEPEST:
        large = [axis for axis in range(3) if sides[axis] >= 2 * LEAST_SIDE]
        finest = min((current[axis] for axis in large), default=0.0)
        halved = [axis for axis in large if current[axis] < 2 * finest]
        if not halved or (len(halved) == 1 and sides[halved[0]] < 3 * LEAST_SIDE):
            break
        # Along an axis of one voxel there are no neighbours, however near they would be.
        least = min(current[axis] for axis in range(3) if sides[axis] > 1)
        kernel = [3 if current[axis] < 2 * least else kernel[axis] for axis in range(3)]
        kernels.append(_triple(kernel))
        for axis in halved:
            sides[axis] = -(-sides[axis] // 2)
            current[axis] *= 2
            # A step over voxels that its kernel does not see would lose them.
            kernel[axis] = 3
        strides.append(_triple(2 if axis in halved else 1 for axis in range(3)))
    return Topology(tuple(strides), (*kernels, (3, 3, 3)))


def largest_patch(
    spacing: Millimetres, shape: Triple, fits: Callable[[Triple, Topology], bool]
) -> PatchPlan | None:
    """The largest patch that fits, in the proportions of the median volume, and its network.

    It begins as long in mm along all axes, no longer than the median volume along any, and loses the smallest
    possible step of the axis that is the longest in comparison to the median volume until it fits.

    Parameters
    ----------
    spacing : three floats
        mm.
    shape : three ints
        The median volume's, at this spacing.
    fits : callable
        Whether a batch of patches and its network fit the memory.

    Returns
    -------
    PatchPlan or None
        None where not even the smallest patch with a step down fits.
    """
    edge = CUBE * math.prod(spacing) ** (1 / 3)
    patch = _triple(min(side, max(1, round(edge / mm))) for side, mm in zip(shape, spacing, strict=True))
    network = topology(spacing, patch)
    patch = first = network.padded(patch)
    while network.depth:
        if fits(patch, network):
            return PatchPlan(patch, network, first)
        longest = max(range(3), key=lambda axis: patch[axis] / shape[axis])
        # Of a smaller patch the steps are smaller, too: 224 follows 256, and not 192.
        tried = _shorter(patch, longest, network.divisors[longest])
        if min(tried) < 1:
            return None
        patch = _shorter(patch, longest, topology(spacing, tried).divisors[longest])
        network = topology(spacing, patch)
        patch = network.padded(patch)
    return None


def batch_size(fitting: int, patch: Triple, shape: Triple, cases: int) -> tuple[int, bool]:
    """Patches in a batch: as many as fit, two at least, and no more than 5 % of the training set's voxels.

    Parameters
    ----------
    fitting : int
        How many fit the memory.
    patch, shape : three ints
        Of a patch, and of the median volume.
    cases : int
        Volumes of the training set.

    Returns
    -------
    tuple of int and bool
        The number, and whether more would fit.
    """
    of_data = round(MOST_OF_DATA * cases * math.prod(shape) / math.prod(patch))
    size = max(LEAST_BATCH, min(fitting, of_data))
    return size, size < fitting


def supervision_weights(depth: int) -> tuple[float, ...]:
    """Weights of the losses of a decoder's levels, the finest first: halved at each level, and 1 together.

    The deepest level of the decoder has none: one weight less than `depth`, but one at least.
    """
    halves = [0.5**level for level in range(max(1, depth - 1))]
    return tuple(round(half / sum(halves), 4) for half in halves)


def names_a_side(names: Sequence[str]) -> str | None:
    """The first of some names of classes that tells a side of the body, as `left kidney`, `lung_R`, `LeftEye` do."""
    return next((name for name in names if _SIDES.search(_HUMP.sub(" ", name.replace("_", " ")))), None)


def more_than_seen(cases: int) -> float:
    """Upper bound, with 95 % confidence, of the share of patients with what none of some cases had.

    The exact one of Clopper and Pearson, which is close to 3 / cases ("rule of three").
    """
    return float(1 - 0.05 ** (1 / cases))


def _shorter(patch: Triple, axis: int, by: int) -> Triple:
    return _triple(side - by if other == axis else side for other, side in enumerate(patch))


def _rounded(mm: float) -> float:
    """Four significant digits, which a person can read: 0.7031 of 0.703125 mm."""
    return float(f"{mm:.4g}")


def _triple(values: Iterable[int]) -> Triple:
    one, two, three = values
    return one, two, three
