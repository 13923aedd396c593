"""Pictures that are nearly the same: re-encoded, resized, brightened, mirrored or turned copies.

A hash of 256 bits per picture proposes pairs, the correlation of small pictures of their details confirms them.
Pictures of one kind (eyes, slices through chests) share their shape, brightness and strongest edges, so that these
say nothing about being copies. Both stages therefore look at details whose contrast is made equal everywhere: a
vessel counts as much as the rim of the picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 64  # pixels of the small picture
_BAND = slice(1, 17)  # frequencies of the hash, in half periods per side
_BITS = (_BAND.stop - _BAND.start) ** 2
_DETAIL_PIXELS = 2.0  # standard deviation of the blurs that take off the mean and equal the contrast
_NOISE = 2.0  # of 255 grey values; contrast below it is not made equal: it is what encoding adds and removes
_STEPS = 40  # stored steps per unit of equal contrast, which is at most about 3
_LEAST_CONTRAST = 0.1  # standard deviation of the small picture, of 255; below it there is nothing to compare
_MOST_BITS = 40
_LEAST_CORRELATION = 0.8
_ROWS = 256  # pictures compared with all others at a time


@dataclass(frozen=True, eq=False)
class Appearance:
    """How a picture looks, small enough to be kept for every picture of a data set.

    Attributes
    ----------
    hash : int
        256 bits that nearly the same pictures share but for a few, after Zauner, *Implementation and Benchmarking of
        Perceptual Image Hash Functions*, 2010: the signs of the discrete cosine transform's coefficients 1 to 16 in
        both directions, of the details in place of the picture itself.
    details : ndarray, (64, 64), int8
        The picture at this size less its blurred self, by the root of its blurred square.
    flat : bool
        The picture has one value; there is nothing to compare.
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
    fine = small - _blurred(small)
    details = fine / (np.sqrt(_blurred(fine * fine)) + _NOISE)
    return Appearance(
        hash=_hash(details),
        details=np.clip(np.rint(details * _STEPS), -127, 127).astype(np.int8),
        flat=float(small.std()) < _LEAST_CONTRAST,
    )


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
    signs = _signs([one.hash for one in pictures])
    columns = signs.reshape(count, -1)
    details = np.stack([one.details for one in pictures])
    flat = np.array([one.flat for one in pictures])
    codes = np.arange(count)
    if groups is not None:
        numbers: dict[Hashable, int] = {}
        codes = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    best = _Best(count)
    for turn in _turns() if turned else [(False, False, False)]:
        turned_signs = _turned_signs(signs, turn).reshape(count, -1)
        for start in range(0, count, _ROWS):
            rows = slice(start, start + _ROWS)
            # a pair is seen once: its other order comes with the turn the other way round
            proposed = turned_signs[rows] @ columns[start:].T >= _BITS - 2 * _MOST_BITS
            if proposed.any():  # rarely
                proposed &= codes[rows, None] != codes[None, start:]
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
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    elif image.ndim == 3:
        grey = image.mean(axis=2, dtype=np.float32)
    else:
        grey = image.astype(np.float32)
    return np.asarray(grey / 257 if image.dtype == np.uint16 else grey, dtype=np.float32)


def _blurred(small: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _DETAIL_PIXELS, borderType=cv2.BORDER_REFLECT))


def _hash(details: NDArray[np.float32]) -> int:
    signs = cv2.dct(details)[_BAND, _BAND] > 0
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


def _signs(hashes: Sequence[int]) -> NDArray[np.float32]:
    """Hashes as squares of 1 and -1; the product of two is their number of bits less twice those that differ."""
    packed = b"".join(one.to_bytes(_BITS // 8, "big") for one in hashes)
    side = _BAND.stop - _BAND.start
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8)).reshape(-1, side, side)
    return bits.astype(np.float32) * 2 - 1


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


def _turned_signs(signs: NDArray[np.float32], turn: tuple[bool, bool, bool]) -> NDArray[np.float32]:
    """Signs of the turned pictures: a flip changes the sign of the odd frequencies of its direction."""
    transposed, down, across = turn
    alternating = np.where(np.arange(_BAND.start, _BAND.stop) % 2, np.float32(-1), np.float32(1))
    result = signs.transpose(0, 2, 1) if transposed else signs
    if down:
        result = result * alternating[:, None]
    return result * alternating[None, :] if across else result
