"""Pictures of any number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray


def picture_suffix(channels: int) -> str:
    """Ending of a prepared picture's file: ``".png"`` for 1 and 3 channels, ``".npy"`` else."""
    return ".png" if channels in (1, 3) else ".npy"


def read_channels(paths: Sequence[Path]) -> NDArray[Any]:
    """Read the channels of one picture: from one file per channel, or all from one file.

    Parameters
    ----------
    paths : sequence of Path
        Several: one grey picture each, in the order of the channels. One: a picture, a multi-page TIFF
        (a page is a channel), a TIFF of several samples per pixel, or ``.npy`` of shape (height,
        width, channels).

    Returns
    -------
    ndarray, shape (height, width, channels), uint8 or uint16
        As stored.

    Raises
    ------
    DataError
        Channels of several sizes or depths, a file in colour among several, an array of another dtype
        or shape, or one that is larger or smaller than its header says; and as for
        :func:`~medseg_paddle.io.images.read_samples`.
    """
    raise NotImplementedError


def write_channels(path: Path, array: NDArray[Any]) -> None:
    """Write a picture ``(height, width, channels)``, uint8 or uint16; atomic.

    Parameters
    ----------
    path : Path
        ``.png`` for 1 or 3 channels, ``.npy`` for any number.

    Raises
    ------
    DataError
        The array is of another shape or dtype, or does not fit the ending.
    """
    raise NotImplementedError
