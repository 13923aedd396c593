"""Predicting an image of any size: in one piece, or in overlapping tiles that are blended smoothly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import ModelError, RecipeError
from medseg_paddle.preprocess import specs as spec_of

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A network: NCHW (NCDHW) float32 to probabilities NKHW (NKDHW) float32 of the same size."""

# Small tiles go through the network together, up to about this many pixels: fewer calls, bounded memory.
_PIXELS_PER_CALL = 1 << 18

_LARGEST_TILE = 1 << 31  # what 32 bits count

LARGEST_WHOLE = 1536 * 1536
"""Pixels beyond which an image goes through the network in tiles whatever the mode.

A U-Net of width 24 takes about 1.1 kB of memory a pixel (measured): 2.6 GB here, 40 GB for 6000 x 6000 pixels.
"""


@dataclass(frozen=True)
class InferencePlan:
    """How a whole image is put through the network.

    Attributes
    ----------
    mode : {"whole", "tiles"}
        ``whole`` up to :data:`LARGEST_WHOLE` pixels or voxels; larger images go in tiles all the same.
    tile : tuple of int
        Rows, columns of a tile; of a 3-D network slices, rows, columns.
    overlap : float
        Least share of a tile that its neighbour shows too, 0 <= overlap < 1.
    divisor : int, or tuple of int
        The network takes sizes that are multiples of this; of a 3-D network there may be one for each axis.
    mirror : tuple of int
        Axes of the tile along which images are mirrored: the answer is the mean over all combinations.
    rotate90 : bool
        The answer is the mean over turns by 0, 90, 180 and 270 degrees as well; pictures only.
    skip_below : float, optional
        A tile of a volume in which no value is above this counts as background and is not computed.

    Raises
    ------
    RecipeError
        A value is out of range.
    """

    mode: Literal["whole", "tiles"] = "whole"
    tile: tuple[int, ...] = (512, 512)
    overlap: float = 0.5
    divisor: int | tuple[int, ...] = 1
    mirror: tuple[int, ...] = ()
    rotate90: bool = False
    skip_below: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("whole", "tiles"):
            raise RecipeError(f"inference.mode '{self.mode}' is unknown", hint="use whole or tiles")
        tile = _whole_numbers(self.tile, "inference.tile")
        if len(tile) not in (2, 3):
            raise RecipeError(
                f"inference.tile must be two or three whole numbers, got {self.tile!r}",
                hint="write [rows, columns], or [slices, rows, columns] for a 3-D network",
            )
        if math.prod(tile) > _LARGEST_TILE:
            raise RecipeError(
                f"inference.tile {list(tile)} is more than any network takes at once",
                hint="write the size that the network was trained on",
            )
        object.__setattr__(self, "tile", tile)
        if spec_of.number(self.overlap, "inference.overlap", 0, 1) == 1:
            raise RecipeError("inference.overlap must be below 1", hint="0.5 is a good choice")
        if isinstance(self.divisor, Sequence):
            object.__setattr__(self, "divisor", _whole_numbers(self.divisor, "inference.divisor"))
            if len(tile) != 3 or len(self.divisors) != 3:
                raise RecipeError(
                    f"inference.divisor {list(self.divisors)} does not fit inference.tile {list(tile)}",
                    hint="write one number for all axes",
                )
        else:
            spec_of.whole_number(self.divisor, "inference.divisor")
        object.__setattr__(self, "mirror", tuple(self.mirror))
        if len(set(self.mirror)) < len(self.mirror) or not set(self.mirror) <= set(range(len(tile))):
            raise RecipeError(
                f"inference.mirror {list(self.mirror)} must name axes of the tile, each once",
                hint=f"write {list(range(len(tile)))} for all of them",
            )
        if self.skip_below is not None:
            spec_of.number(self.skip_below, "inference.skip_below")
        if len(tile) == 3 if self.rotate90 else len(tile) == 2 and self.skip_below is not None:
            raise RecipeError(
                "inference.rotate90 is for pictures, inference.skip_below for volumes", hint="remove the key"
            )
        pairs = list(zip(tile, self.divisors, strict=True))
        if self.mode == "tiles" and any(side % divisor for side, divisor in pairs):
            said = self.divisor if isinstance(self.divisor, int) else list(self.divisor)
            raise RecipeError(
                f"inference.tile {list(tile)} is no multiple of the network's {said}",
                hint=f"use {[_round_up(side, divisor) for side, divisor in pairs]}",
            )

    @property
    def divisors(self) -> tuple[int, ...]:
        """One for each axis of the tile."""
        return (self.divisor,) * len(self.tile) if isinstance(self.divisor, int) else self.divisor

    def tile_on(self, size: Sequence[int]) -> tuple[int, ...]:
        """The tile in which an image of `size` goes through the network: all of it, or :attr:`tile`."""
        if self.mode == "whole" and math.prod(size) <= LARGEST_WHOLE:
            return tuple(_round_up(side, divisor) for side, divisor in zip(size, self.divisors, strict=True))
        # In mode `whole` nobody has seen to it that the tile suits the network.
        return tuple(_round_up(side, divisor) for side, divisor in zip(self.tile, self.divisors, strict=True))


def tile_starts(length: int, side: int, overlap: float) -> list[int]:
    """Where tiles begin along one axis, evenly spread, the last one flush with the border.

    Parameters
    ----------
    length, side : int
        Of the image, at least that of the tile; of the tile.
    overlap : float
        Least share of a tile that its neighbour shows too.
    """
    if length < side:
        raise ValueError(f"a length of {length} holds no tile of {side}")
    stride = max(1, math.floor(side * (1 - overlap)))
    count = math.ceil((length - side) / stride) + 1
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def tile_origins(size: Sequence[int], tile: Sequence[int], overlap: float) -> list[tuple[int, ...]]:
    """First index of every tile along each axis, see :func:`tile_starts`; the last axis runs fastest."""
    starts = (tile_starts(length, side, overlap) for length, side in zip(size, tile, strict=True))
    return list(itertools.product(*starts))


def gaussian_window(tile: Sequence[int]) -> NDArray[np.float32]:
    """Weight of a tile's pixels, highest in its centre and nowhere zero, shape `tile`.

    A Gaussian whose standard deviation is an eighth of the side, as in nnU-Net (Isensee et al.,
    Nature Methods 2021): near its border a network sees less context and is less certain.
    """
    window = np.ones((), np.float64)
    for side in tile:
        window = np.multiply.outer(window, gaussian(side))
    return window.astype(np.float32)


def averaged(forward: Forward, plan: InferencePlan) -> Forward:
    """A network that answers with the mean over the image and its mirror images and turns that `plan` names.

    As nnU-Net mirrors: over all combinations of the axes, one after the other, so that memory does not grow.
    """
    flips = [axes for n in range(len(plan.mirror) + 1) for axes in itertools.combinations(plan.mirror, n)]
    # Turned by 180 degrees is mirrored along both axes: what is there already is not counted twice.
    ways: dict[tuple[int, tuple[int, ...]], tuple[int, tuple[int, ...]]] = {}
    for turns in range(4 if plan.rotate90 else 1):
        for axes in flips:
            both = set(axes) ^ ({0, 1} if turns >= 2 else set())
            ways.setdefault((turns % 2, tuple(sorted(both))), (turns, axes))
    if len(ways) == 1:
        return forward

    def mean(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        total: NDArray[np.float32] | None = None
        for turns, axes in ways.values():
            there = [axis + 2 for axis in axes]
            changed = np.rot90(np.flip(batch, there), turns, (2, 3)) if turns else np.flip(batch, there)
            answer = checked(forward, changed)
            back = np.rot90(answer, -turns, (2, 3)) if turns else answer
            part = np.flip(back, there)
            if total is None:
                total = np.array(part, np.float32)
            else:
                total += part
        if total is None:
            raise ValueError("nothing to average over")
        total /= np.float32(len(ways))
        return total

    return mean


def predict_tiled(forward: Forward, image: NDArray[np.float32], plan: InferencePlan) -> NDArray[np.float32]:
    """Probabilities of a whole image.

    Mode ``whole`` pads the image at the bottom and the right to a multiple of ``plan.divisor`` and
    crops the answer. Mode ``tiles``, and an image of more than :data:`LARGEST_WHOLE` pixels in any mode,
    blends overlapping tiles by :func:`gaussian_window`; an image smaller than a tile is padded to one.
    Padding reflects the image (a side of one pixel is repeated).

    Parameters
    ----------
    forward : callable
        NCHW float32 to probabilities NKHW float32 of the same height and width.
    image : ndarray, shape (C, H, W), float32
    plan : InferencePlan

    Returns
    -------
    ndarray, shape (K, H, W), float32
    """
    rows, columns = image.shape[1:]
    tile, forward = plan.tile_on((rows, columns)), averaged(forward, plan)
    padded = padded_to(image, tile)
    if padded.shape[1:] == tile:
        return np.ascontiguousarray(checked(forward, padded[None])[0, :, :rows, :columns])
    return np.ascontiguousarray(_blended(forward, padded, tile, plan.overlap)[:, :rows, :columns])


def _blended(
    forward: Forward, image: NDArray[np.float32], tile: tuple[int, ...], overlap: float
) -> NDArray[np.float32]:
    height, width = tile
    origins = tile_origins(image.shape[1:], tile, overlap)
    window = gaussian_window(tile)
    weight = np.zeros(image.shape[1:], np.float32)
    total: NDArray[np.float32] | None = None
    together = tiles_together(tile)
    for start in range(0, len(origins), together):
        group = origins[start : start + together]
        tiles = np.stack([image[:, row : row + height, column : column + width] for row, column in group])
        for (row, column), answer in zip(group, checked(forward, tiles), strict=True):
            if total is None:
                total = np.zeros((answer.shape[0], *image.shape[1:]), np.float32)
            total[:, row : row + height, column : column + width] += answer * window
            weight[row : row + height, column : column + width] += window
    if total is None:
        raise ValueError(f"no tile in an image of shape {image.shape}")
    total /= weight
    return total


def tiles_together(tile: Sequence[int]) -> int:
    """How many tiles go through the network in one call."""
    return max(1, _PIXELS_PER_CALL // math.prod(tile))


def checked(forward: Forward, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The answer of a network, whose size and number must be those of the batch.

    Raises
    ------
    ValueError
        They are not.
    """
    answer = forward(np.ascontiguousarray(batch))
    if answer.ndim != batch.ndim or answer.shape[0] != batch.shape[0] or answer.shape[2:] != batch.shape[2:]:
        raise ValueError(f"forward made {answer.shape} of {batch.shape}; size and number must stay")
    return answer.astype(np.float32, copy=False)


def require_numbers(probabilities: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    """See that a network returned numbers; `what` it was given, a picture or a volume, is for people.

    Raises
    ------
    ModelError
        It did not.
    """
    if not np.isfinite(probabilities).all():
        raise ModelError(
            "the model returns values that are not numbers (NaN)",
            hint=f"check that the {what}'s intensities are ordinary; if they are, train and export again",
        )
    return probabilities


def gaussian(side: int) -> NDArray[np.float64]:
    """Profile of :func:`gaussian_window` along one axis."""
    position = (np.arange(side) - (side - 1) / 2) / (side / 8)
    return np.asarray(np.exp(-0.5 * position**2))


def padded_to(image: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float32]:
    """An image ``[C, ...]`` of `size` at least: reflected at the end of each axis, one of a single pixel repeated."""
    for axis, target in enumerate(size, start=1):
        length = image.shape[axis]
        if target > length:
            widths = [(0, 0)] * image.ndim
            widths[axis] = (0, target - length)
            image = np.pad(image, widths, mode="reflect" if length > 1 else "edge")
    return image


def _whole_numbers(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RecipeError(f"{where} must be whole numbers, got {value!r}", hint="write it as [a, b]")
    return tuple(spec_of.whole_number(one, where) for one in value)


def _round_up(length: int, divisor: int) -> int:
    return math.ceil(length / divisor) * divisor
