"""Pictures that are nearly the same: re-encoded, resized, brightened, mirrored or turned copies.

A hash of 64 bits per picture proposes pairs, the correlation of small pictures of their details confirms them.
Pictures of one kind (a fundus, a slice through a chest) look alike as a whole: their coarse shape and brightness
say nothing about being copies. So both stages look at details only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 64  # pixels of the small picture
_BAND = slice(1, 9)  # frequencies of the hash, in half periods per picture side
_DETAIL_PIXELS = 4.0  # standard deviation of the blur that is taken off
_LEAST_CONTRAST = (
    0.5  # standard deviation of the details, of 255 grey values; below it there is nothing to compare
)
_LEVELS = 24  # stored steps per standard deviation of the details
_MOST_BITS = 12
_LEAST_CORRELATION = 0.8
_ROWS = 256  # pictures compared with all others at a time


@dataclass(frozen=True, eq=False)
class Appearance:
    """How a picture looks, small enough to be kept for every picture of a data set.

    Attributes
    ----------
    hash : int
        64 bits: the signs of the discrete cosine transform's coefficients 1 to 8 in both directions.
    details : ndarray, (64, 64), int8
        The picture at this size less its blurred self, by its standard deviation.
    flat : bool
        Nothing to compare: the picture has no details.
    """

    hash: int
    details: NDArray[np.int8]
    flat: bool


@dataclass(frozen=True)
class NearDuplicate:
    """Two pictures that are nearly the same.

    Attributes
    ----------
    first, second : int
        Their positions, ``first < second``.
    correlation : float
        Of their details, at most 1.
    turned : bool
        One is a mirrored or turned copy.
    """

    first: int
    second: int
    correlation: float
    turned: bool


def appearance(image: NDArray[Any]) -> Appearance:
    """Describe a picture for :func:`near_duplicates`.

    Parameters
    ----------
    image : ndarray, (height, width) or (height, width, channels)
        Any real type; 16-bit integers are 0..65535, other values 0..255. Channels are averaged.

    Returns
    -------
    Appearance
        The same, but for rounding, for the picture in another size, brightness or contrast.
    """
    small = cv2.resize(_grey(image), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    details = small - cv2.GaussianBlur(small, (0, 0), _DETAIL_PIXELS)
    spread = float(details.std())
    steps = details * (_LEVELS / max(spread, _LEAST_CONTRAST))
    return Appearance(
        hash=_hash(small),
        details=np.clip(np.rint(steps), -127, 127).astype(np.int8),
        flat=spread < _LEAST_CONTRAST,
    )


def perceptual_hash(image: NDArray[Any]) -> int:
    """64 bits that nearly the same pictures share but for a few; see :class:`Appearance`.

    After Zauner, *Implementation and Benchmarking of Perceptual Image Hash Functions*, 2010, without the lowest
    frequencies, which all pictures of one kind share.
    """
    return appearance(image).hash


def near_duplicates(
    pictures: Sequence[Appearance], *, groups: Sequence[Hashable] | None = None, turned: bool = False
) -> list[NearDuplicate]:
    """Find pictures that are nearly the same.

    Parameters
    ----------
    pictures : sequence of Appearance
    groups : sequence of hashable, optional
        As many; two pictures of one group (a split, a patient) are not compared.
    turned : bool
        Also find mirrored copies and copies turned by 90, 180 or 270 degrees.

    Returns
    -------
    list of NearDuplicate
        By position. For each picture that is like one of another group, the pair with the picture it is most
        like; so every such picture is named, and there are at most as many pairs as pictures.
    """
    count = len(pictures)
    if count < 2:
        return []
    hashes = np.array([one.hash for one in pictures], dtype=np.uint64)
    details = np.stack([one.details for one in pictures])
    flat = np.array([one.flat for one in pictures])
    codes = np.arange(count)
    if groups is not None:
        numbers: dict[Hashable, int] = {}
        codes = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    best = _Best(count)
    for turn in _turns() if turned else [(False, False, False)]:
        turned_hashes = _turned_hashes(hashes, turn)
        for start in range(0, count, _ROWS):
            rows = slice(start, start + _ROWS)
            # a pair is seen once: its other order comes with the turn the other way round
            distance = np.bitwise_count(turned_hashes[rows, None] ^ hashes[None, start:])
            proposed = (distance <= _MOST_BITS) & (codes[rows, None] != codes[None, start:])
            proposed &= ~(flat[rows, None] | flat[None, start:])
            if not proposed.any():
                continue
            of_rows, of_columns = np.flatnonzero(proposed.any(axis=1)), np.flatnonzero(proposed.any(axis=0))
            mine = _unit(_turned(details[start + of_rows], turn))
            correlation = mine @ _unit(details[start + of_columns]).T
            correlation[~proposed[np.ix_(of_rows, of_columns)]] = -1
            best.take(start + of_rows, start + of_columns, correlation, turned=any(turn))
    return best.pairs()


class _Best:
    """For each picture the one it is most like."""

    def __init__(self, count: int) -> None:
        self._correlation = np.full(count, _LEAST_CORRELATION, dtype=np.float32)
        self._other = np.full(count, -1)
        self._turned = np.zeros(count, dtype=bool)

    def take(
        self, rows: NDArray[Any], columns: NDArray[Any], correlation: NDArray[np.float32], *, turned: bool
    ) -> None:
        """Look at the correlations of pictures `rows` with pictures `columns`."""
        for mine, others, values in ((rows, columns, correlation), (columns, rows, correlation.T)):
            place = values.argmax(axis=1)
            found = values[np.arange(len(mine)), place]
            better = found > self._correlation[mine]
            at = mine[better]
            self._correlation[at] = found[better]
            self._other[at] = others[place[better]]
            self._turned[at] = turned

    def pairs(self) -> list[NearDuplicate]:
        """Each pair once, by position."""
        found = {}
        for one in np.flatnonzero(self._other >= 0):
            first, second = sorted((int(one), int(self._other[one])))
            correlation = min(1.0, float(self._correlation[one]))
            found[first, second] = NearDuplicate(first, second, correlation, bool(self._turned[one]))
        return [found[pair] for pair in sorted(found)]


def _grey(image: NDArray[Any]) -> NDArray[np.float32]:
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    elif image.ndim == 3:
        grey = image.mean(axis=2, dtype=np.float32)
    else:
        grey = image.astype(np.float32)
    return np.asarray(grey / 257 if image.dtype == np.uint16 else grey, dtype=np.float32)


def _hash(small: NDArray[np.float32]) -> int:
    signs = cv2.dct(small)[_BAND, _BAND] > 0
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


def _unit(details: NDArray[np.int8]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1, so that a product of two is their correlation."""
    rows = details.reshape(len(details), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return rows


def _turns() -> Iterator[tuple[bool, bool, bool]]:
    """The eight ways to put a square down: transposed or not, then flipped down, then across."""
    for transposed in (False, True):
        for down in (False, True):
            for across in (False, True):
                yield transposed, down, across


def _turned(details: NDArray[np.int8], turn: tuple[bool, bool, bool]) -> NDArray[np.int8]:
    transposed, down, across = turn
    result = details.transpose(0, 2, 1) if transposed else details
    return result[:, :: -1 if down else 1, :: -1 if across else 1]


def _turned_hashes(hashes: NDArray[np.uint64], turn: tuple[bool, bool, bool]) -> NDArray[np.uint64]:
    """Hashes of the turned pictures: a flip changes the sign of the odd frequencies of its direction."""
    transposed, down, across = turn
    signs = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1).reshape(-1, 8, 8)
    if transposed:
        signs = signs.transpose(0, 2, 1)
    odd = (np.arange(_BAND.start, _BAND.stop) % 2).astype(np.uint8)
    signs = signs ^ (odd[:, None] * down) ^ (odd[None, :] * across)
    packed = np.packbits(signs.reshape(-1, 64), axis=1)
    return np.asarray(np.ascontiguousarray(packed).view(">u8").reshape(-1).astype(np.uint64))
