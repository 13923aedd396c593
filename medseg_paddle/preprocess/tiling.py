"""Predicting an image of any size: in one piece, or in overlapping tiles that are blended smoothly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A network: NCHW float32 to probabilities NKHW float32 of the same height and width."""

# Small tiles go through the network together, up to about this many pixels: fewer calls, bounded memory.
_PIXELS_PER_CALL = 1 << 18

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
        ``whole`` up to :data:`LARGEST_WHOLE` pixels; larger images go in tiles all the same.
    tile : tuple of int
        Rows, columns of a tile.
    overlap : float
        Least share of a tile that its neighbour shows too, 0 <= overlap < 1.
    divisor : int
        The network takes sizes that are multiples of this.

    Raises
    ------
    RecipeError
        A value is out of range.
    """

    mode: Literal["whole", "tiles"] = "whole"
    tile: tuple[int, int] = (512, 512)
    overlap: float = 0.5
    divisor: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("whole", "tiles"):
            raise RecipeError(f"inference.mode '{self.mode}' is unknown", hint="use whole or tiles")
        object.__setattr__(self, "tile", spec_of.whole_pair(self.tile, "inference.tile"))
        if spec_of.number(self.overlap, "inference.overlap", 0, 1) == 1:
            raise RecipeError("inference.overlap must be below 1", hint="0.5 is a good choice")
        spec_of.whole_number(self.divisor, "inference.divisor")
        if self.mode == "tiles" and any(side % self.divisor for side in self.tile):
            fitting = [_round_up(side, self.divisor) for side in self.tile]
            raise RecipeError(
                f"inference.tile {list(self.tile)} is no multiple of the network's {self.divisor}",
                hint=f"use {fitting}",
            )


def tile_origins(size: tuple[int, int], tile: tuple[int, int], overlap: float) -> list[tuple[int, int]]:
    """First row and column of every tile, evenly spread, the last ones flush with the border.

    Parameters
    ----------
    size : tuple of int
        Rows, columns of the image, at least those of the tile.
    tile : tuple of int
        Rows, columns of a tile.
    overlap : float
        Least share of a tile that its neighbour shows too.
    """
    rows, columns = (_starts(length, side, overlap) for length, side in zip(size, tile, strict=True))
    return [(row, column) for row in rows for column in columns]


def gaussian_window(tile: tuple[int, int]) -> NDArray[np.float32]:
    """Weight of a tile's pixels, highest in its centre and nowhere zero, shape `tile`.

    A Gaussian whose standard deviation is an eighth of the side, as in nnU-Net (Isensee et al.,
    Nature Methods 2021): near its border a network sees less context and is less certain.
    """
    rows, columns = (_gaussian(side) for side in tile)
    return np.outer(rows, columns).astype(np.float32)


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
    if plan.mode == "whole" and rows * columns <= LARGEST_WHOLE:
        padded = _padded(image, (_round_up(rows, plan.divisor), _round_up(columns, plan.divisor)))
        return np.ascontiguousarray(_checked(forward, padded[None])[0, :, :rows, :columns])
    # In mode `whole` nobody has seen to it that the tile suits the network.
    tile = (_round_up(plan.tile[0], plan.divisor), _round_up(plan.tile[1], plan.divisor))
    padded = _padded(image, (max(rows, tile[0]), max(columns, tile[1])))
    return np.ascontiguousarray(_blended(forward, padded, tile, plan.overlap)[:, :rows, :columns])


def _blended(
    forward: Forward, image: NDArray[np.float32], tile: tuple[int, int], overlap: float
) -> NDArray[np.float32]:
    height, width = tile
    origins = tile_origins((image.shape[1], image.shape[2]), tile, overlap)
    window = gaussian_window(tile)
    weight = np.zeros(image.shape[1:], np.float32)
    total: NDArray[np.float32] | None = None
    together = max(1, _PIXELS_PER_CALL // (height * width))
    for start in range(0, len(origins), together):
        group = origins[start : start + together]
        tiles = np.stack([image[:, row : row + height, column : column + width] for row, column in group])
        for (row, column), answer in zip(group, _checked(forward, tiles), strict=True):
            if total is None:
                total = np.zeros((answer.shape[0], *image.shape[1:]), np.float32)
            total[:, row : row + height, column : column + width] += answer * window
            weight[row : row + height, column : column + width] += window
    if total is None:
        raise ValueError(f"no tile in an image of shape {image.shape}")
    total /= weight
    return total


def _checked(forward: Forward, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    answer = forward(np.ascontiguousarray(batch))
    if answer.ndim != 4 or answer.shape[0] != batch.shape[0] or answer.shape[2:] != batch.shape[2:]:
        raise ValueError(f"forward made {answer.shape} of {batch.shape}; height, width and number must stay")
    return answer.astype(np.float32, copy=False)


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length < side:
        raise ValueError(f"a length of {length} holds no tile of {side}")
    stride = max(1, math.floor(side * (1 - overlap)))
    count = math.ceil((length - side) / stride) + 1
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def _gaussian(side: int) -> NDArray[np.float64]:
    position = (np.arange(side) - (side - 1) / 2) / (side / 8)
    return np.asarray(np.exp(-0.5 * position**2))


def _round_up(length: int, divisor: int) -> int:
    return math.ceil(length / divisor) * divisor


def _padded(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    for axis, target in ((1, size[0]), (2, size[1])):
        length = image.shape[axis]
        if target > length:
            widths = [(0, 0)] * 3
            widths[axis] = (0, target - length)
            image = np.pad(image, widths, mode="reflect" if length > 1 else "edge")
    return image
