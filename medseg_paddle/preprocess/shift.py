"""How far a mask lies beside what it outlines: outlines laid over the image's edges.

The outline of a class has a direction at every point, from outside to inside, and so has the image's gradient.
Where a mask fits, both agree: all along a bright disc the image gets brighter inwards, along both sides of a dark
vessel it gets darker. The mean cosine between the two, for every displacement of the mask up to :data:`REACH`
pixels, has its peak where the mask belongs. Noise and texture have no preferred direction and cancel; a vessel
two pixels wide works like a disc, since its two sides point at each other (the sum over both is what a ridge
filter gives); a mask drawn somewhat too large all around moves no peak, since opposite sides pull in opposite
directions.

How certain the peak's place is, is found by resampling the squares that the image is cut into (block bootstrap;
Künsch, Annals of Statistics 17, 1989): where the squares disagree, the peak wanders.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess.reduction import smaller, smaller_labels, smaller_mask

REACH = 15
"""Farthest displacement that is looked at, measured pixels along rows and along columns."""

LARGEST = 600
"""Long side, pixels, of the picture that is measured; larger ones are reduced to it. A border that is drawn half a
pixel too high at 512 pixels is two pixels too high at 2048: what is far, is far by the picture's size."""

REPLICATES = 200
"""Resamplings behind every statement of certainty."""

_SIDE = 2 * REACH + 1
_IMAGE_BLUR = 1.5  # pixels, standard deviation: noise goes, an edge of usual sharpness stays
_MASK_BLUR = 1.0
_LEAST_OUTLINE = 0.05  # of a smoothed mask's slope; below, a pixel is not part of the outline
_LEAST_BLOCK_WEIGHT = 2.0  # about four pixels of outline
_SMALLEST_BLOCK, _LARGEST_BLOCK = 24, 64
_MOST_BLOCKS = 256
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)

_TURN_REACH = 3
_TURN_SIZE = 256
_LEAST_TURNED_BLOCKS = 4
_LEAST_TURNED_SCORE = 0.35
_MOST_BY_CHANCE = 0.8
_FEW_BLOCKS = 12
_LEAST_LEAD = 0.15
_LEAST_RATIO = 1.5
_SEED = 20240229  # any; the same for all, so that the same files give the same figures

Surface = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Fit:
    """How well outlines fit an image, displaced by every step up to :data:`REACH` both ways.

    Attributes
    ----------
    surfaces : ndarray, shape (1 + REPLICATES, 31, 31), float32
        Mean cosine between outline and image gradient, -1..1, by displacement in rows and columns of the mask;
        ``[15, 15]`` is where it lies. The first is of all blocks, the others of blocks drawn with replacement.
    blocks : int
        Squares of the image that hold outline.
    scale : float
        Pixels of the picture that one measured pixel is: 1, and more for those larger than :data:`LARGEST`.
    """

    surfaces: NDArray[np.float32]
    blocks: int
    scale: float = 1.0


@dataclass(frozen=True)
class Shift:
    """Where a mask lies, measured from where it belongs.

    Attributes
    ----------
    down, right : float
        Pixels by which the mask lies too low and too far to the right; negative: too high, too far left.
    margin : float
        Half width of the interval that holds 95 % of the replicates, pixels; the larger of the two axes'.
    deviation : tuple of float
        Standard deviation of the replicates, pixels along rows and columns.
    least : float
        The distance that 97.5 % of the replicates exceed.
    score : float
        Mean cosine at the peak: 1 where every outline point lies on an edge of the image in its direction.
    inside : bool
        Whether the peak lies within the reach, not at its rim.
    blocks : int
        See :class:`Fit`; 0 for a set of cases.
    scale : float
        See :class:`Fit`; all lengths here are of the picture, so this is what a threshold is multiplied by.
    """

    down: float
    right: float
    margin: float
    deviation: tuple[float, float]
    least: float
    score: float
    inside: bool
    blocks: int = 0
    scale: float = 1.0

    @property
    def distance(self) -> float:
        """Length in pixels."""
        return float(np.hypot(self.down, self.right))

    def __str__(self) -> str:
        vertical = f"{abs(self.down):.1f} px {'up' if self.down < 0 else 'down'}"
        horizontal = f"{abs(self.right):.1f} px {'left' if self.right < 0 else 'right'}"
        return f"{horizontal}, {vertical} (± {max(self.margin, 0.05):.1f}, 95 %)"


def fit(image: NDArray[np.generic], labels: NDArray[np.generic], classes: Sequence[int]) -> Fit | None:
    """Lay the outlines of a label map over its image.

    Parameters
    ----------
    image : ndarray, shape (H, W) or (H, W, C)
        Of colour the luminance is taken, of other numbers of channels their mean.
    labels : ndarray, shape (H, W), integer
    classes : sequence of int
        Label values whose outlines count, each as bright on dark or dark on bright as fits best.

    Returns
    -------
    Fit or None
        None where there is no outline: no such value, or nothing else.
    """
    scale = max(1.0, max(labels.shape) / LARGEST)
    insides = [smaller_mask(labels == value, scale) for value in classes]
    evidence = _evidence(_grey(smaller(image, scale)), insides, REACH)
    return None if evidence is None else Fit(_resampled(*evidence), len(evidence[1]), scale)


def mean_fit(fits: Sequence[Fit]) -> Fit:
    """The fit of several slices of one volume together; blocks count alike."""
    weights = np.array([one.blocks for one in fits], np.float32)
    surfaces = np.tensordot(weights / weights.sum(), np.stack([one.surfaces for one in fits]), axes=1)
    scale = float(np.average([one.scale for one in fits], weights=weights))
    return Fit(surfaces.astype(np.float32), int(weights.sum()), scale)


def shift_of(found: Fit) -> Shift:
    """Where the outlines fit best, and how certain that is."""
    return _shift(found.surfaces, found.blocks, found.scale)


class SetFit:
    """The fits of many cases added up; memory does not grow with their number.

    Cases are resampled as well as the blocks within each (Poisson bootstrap: in each replicate a case counts
    0, 1, 2 ... times), so that the certainty is that of a set with other cases of the same kind. Pictures of
    several sizes are added up as they were measured, and the result is in pixels of their mean size.
    """

    def __init__(self) -> None:
        self._sum = np.zeros((1 + REPLICATES, _SIDE, _SIDE))
        self._weight = np.zeros(1 + REPLICATES)
        self._random = np.random.default_rng(_SEED)
        self._scales = 0.0
        self.cases = 0

    def add(self, found: Fit) -> None:
        """Count one case."""
        counts = np.concatenate([[1.0], self._random.poisson(1.0, REPLICATES)])
        self._sum += counts[:, None, None] * found.surfaces
        self._weight += counts
        self._scales += found.scale
        self.cases += 1

    def shift(self) -> Shift | None:
        """The displacement that all cases have in common; None without cases."""
        if self.cases == 0:
            return None
        drawn = self._weight > 0
        surfaces = (self._sum[drawn] / self._weight[drawn, None, None]).astype(np.float32)
        return _shift(surfaces, 0, self._scales / self.cases)


Turn = Callable[[NDArray[np.generic]], NDArray[np.generic]]

TURNS: Mapping[str, Turn] = {
    "mirrored left to right": lambda a: a[:, ::-1],
    "upside down (mirrored top to bottom)": lambda a: a[::-1],
    "turned by 180 degrees": lambda a: a[::-1, ::-1],
    "transposed (rows and columns exchanged)": lambda a: a.T,
    "turned by 90 degrees counter-clockwise": np.rot90,
    "turned by 90 degrees clockwise": lambda a: np.rot90(a, -1),
    "transposed along the other diagonal": lambda a: a[::-1, ::-1].T,
}
"""What may have been done to a mask, and the function that does it to an array."""

UNDO: Mapping[str, Turn] = {
    **TURNS,
    "turned by 90 degrees counter-clockwise": lambda a: np.rot90(a, -1),
    "turned by 90 degrees clockwise": np.rot90,
}


def turn_of(image: NDArray[np.generic], labels: NDArray[np.generic], classes: Sequence[int]) -> str | None:
    """What was done to a mask that fits its image only when turned or mirrored; None where that is not certain.

    Parameters
    ----------
    image, labels, classes
        As for :func:`fit`. Looked at in reduced size, about 256 pixels.

    Returns
    -------
    str or None
        A key of :data:`TURNS`.
    """
    scale = max(1.0, max(labels.shape) / LARGEST)
    image, labels = smaller(image, scale), smaller_labels(labels, scale)
    factor = max(1, round(max(labels.shape) / _TURN_SIZE))
    small, image = _reduced_labels(labels, factor), _reduced(_grey(image), factor)
    evidence = _turned_scores(image, small, classes)
    if evidence is None:
        return None
    as_it_is, blocks = evidence
    found: dict[str, NDArray[np.float32]] = {}
    for name, undo in UNDO.items():
        turned = np.ascontiguousarray(undo(small))
        turned_evidence = None if turned.shape != small.shape else _turned_scores(image, turned, classes)
        if turned_evidence is not None:
            found[name], _ = turned_evidence
    if not found:
        return None
    best = max(found, key=lambda name: float(found[name][0]))
    scores = found[best]
    certain = (
        scores[0] >= _score_of_chance(blocks)
        and scores[0] > _LEAST_RATIO * as_it_is[0]
        and scores[0] - as_it_is[0] > _LEAST_LEAD
        and bool((scores > as_it_is).all())
    )
    return best if certain else None


def _score_of_chance(blocks: int) -> float:
    """Mean cosine that a mask may reach at a wrong place: one small object's more than a whole vessel tree's.

    Set on 381 optic discs, where atrophy beside 2 of the discs fits a turned mask with 0.49 and 0.70.
    """
    return min(_MOST_BY_CHANCE, max(_LEAST_TURNED_SCORE, _MOST_BY_CHANCE * math.sqrt(_FEW_BLOCKS / blocks)))


def _turned_scores(
    image: NDArray[np.float32], labels: NDArray[np.generic], classes: Sequence[int]
) -> tuple[NDArray[np.float32], int] | None:
    """Best mean cosine near displacement 0, of all blocks and of each replicate; and how many blocks."""
    insides = [(labels == value).astype(np.float32) for value in classes]
    evidence = _evidence(image, insides, _TURN_REACH)
    if evidence is None or len(evidence[1]) < _LEAST_TURNED_BLOCKS:
        return None
    return np.asarray(_resampled(*evidence).max(axis=(1, 2))), len(evidence[1])


def _evidence(
    image: NDArray[np.float32], insides: Sequence[NDArray[np.float32]], reach: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Agreement of outlines and gradient by block and displacement, and how much outline each block holds.

    `insides` holds a mask of each class, 0..1: the share of a pixel that is inside.
    """
    gradient = _normalised_gradient(image, insides)
    if gradient is None:
        return None
    blocks = [block for inside in insides for block in _signed(_blocks(gradient, _outline(inside), reach))]
    if not blocks:
        return None
    return np.stack([surface for surface, _ in blocks]), np.array(
        [weight for _, weight in blocks], np.float32
    )


def _resampled(sums: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean cosine by displacement: of all blocks, then of each replicate."""
    counts = np.vstack([np.ones(len(weights), np.float32), _draws(len(weights))])
    total = np.maximum(counts @ weights, _LEAST_BLOCK_WEIGHT)
    surfaces = (counts @ sums.reshape(len(weights), -1)) / total[:, None]
    return np.asarray(surfaces.reshape(-1, *sums.shape[1:]), dtype=np.float32)


def _grey(image: NDArray[np.generic]) -> NDArray[np.float32]:
    plain = image.astype(np.float32)
    if plain.ndim == 3:
        plain = plain @ _LUMINANCE if plain.shape[2] == 3 else plain.mean(axis=2)
    return np.ascontiguousarray(plain)


def _reduced(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    height, width = (length // factor for length in image.shape)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _reduced_labels(labels: NDArray[np.generic], factor: int) -> NDArray[np.generic]:
    height, width = (length // factor for length in labels.shape)
    start = factor // 2
    return np.ascontiguousarray(labels[start::factor, start::factor][:height, :width])


def _slopes(array: NDArray[np.float32], blur: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Derivatives along columns and rows of the smoothed array, per pixel."""
    smooth = cv2.GaussianBlur(array, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
    along_columns, along_rows = (
        cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
        for order in ((1, 0), (0, 1))
    )
    return np.asarray(along_columns), np.asarray(along_rows)


def _normalised_gradient(
    image: NDArray[np.float32], insides: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Gradient of an image, of length near 1 at what is an edge here, and near 0 at noise.

    What an edge is follows from the median slope in the mask's surroundings; so one bright artefact counts for
    no more than a faint border of the same length.
    """
    columns, rows = _slopes(image, _IMAGE_BLUR)
    steep = _lengths(columns, rows)
    inside = np.sum(insides, axis=0, dtype=np.float32)
    if not inside.any() or inside.min() >= 1:
        return None
    top, bottom, left, right = _box(np.asarray(inside > 0), 2 * REACH)
    usual = max(float(np.median(steep[top:bottom, left:right])), 1e-3 * float(steep.max()), 1e-12)
    length = np.sqrt(steep**2 + usual**2)
    return columns / length, rows / length


def _box(inside: NDArray[np.bool_], margin: int) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return (
        max(0, int(rows[0]) - margin),
        int(rows[-1]) + 1 + margin,
        max(0, int(columns[0]) - margin),
        int(columns[-1]) + 1 + margin,
    )


def _lengths(columns: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengths of vectors; not by `cv2.magnitude`, which on AVX-512 rounds by where an array lies in memory."""
    return np.asarray(np.sqrt(columns * columns + rows * rows))


def _outline(inside: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors from outside to inside along a mask's border, 0 elsewhere; their sum over the border's width is 1."""
    columns, rows = _slopes(inside, _MASK_BLUR)
    flat = _lengths(columns, rows) < _LEAST_OUTLINE
    columns[flat] = rows[flat] = 0
    return columns, rows


def _blocks(
    gradient: tuple[NDArray[np.float32], NDArray[np.float32]],
    outline: tuple[NDArray[np.float32], NDArray[np.float32]],
    reach: int,
) -> list[tuple[Surface, float]]:
    """Per square of the image: the agreement of outline and gradient by displacement, and the outline's length."""
    length = _lengths(*outline)
    if not length.any():
        return []
    top, bottom, left, right = _box(length > 0, 0)
    side = round(min(max(np.sqrt((bottom - top) * (right - left)) / 6, _SMALLEST_BLOCK), _LARGEST_BLOCK))
    corners = [(row, column) for row in range(top, bottom, side) for column in range(left, right, side)]
    weights = [
        float(length[row : row + side, column : column + side][: bottom - row, : right - column].sum())
        for row, column in corners
    ]
    kept = [number for number, weight in enumerate(weights) if weight >= _LEAST_BLOCK_WEIGHT]
    if len(kept) > _MOST_BLOCKS:
        kept = sorted(np.random.default_rng(_SEED).choice(kept, _MOST_BLOCKS, replace=False).tolist())
    fields = [
        cv2.copyMakeBorder(part, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
        for part in gradient
    ]
    found = []
    for number in kept:
        row, column = corners[number]
        surface = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        for field, part in zip(fields, outline, strict=True):
            piece = np.ascontiguousarray(
                part[row : min(row + side, bottom), column : min(column + side, right)]
            )
            height, width = piece.shape
            around = field[row : row + height + 2 * reach, column : column + width + 2 * reach]
            surface += cv2.matchTemplate(np.ascontiguousarray(around), piece, cv2.TM_CCORR)
        found.append((surface, weights[number]))
    return found


def _signed(blocks: list[tuple[Surface, float]]) -> list[tuple[Surface, float]]:
    """Turn the sign so that the best displacement is positive: the class may be bright on dark or the reverse."""
    if not blocks:
        return []
    total = np.sum([surface for surface, _ in blocks], axis=0)
    sign = np.float32(-1 if -total.min() > total.max() else 1)
    return [(sign * surface, weight) for surface, weight in blocks]


@functools.lru_cache(maxsize=256)
def _draws(blocks: int) -> NDArray[np.float32]:
    """How often each block counts in each replicate; the same whenever there are as many blocks."""
    random = np.random.default_rng((_SEED, blocks))
    return random.multinomial(blocks, np.full(blocks, 1 / blocks), REPLICATES).astype(np.float32)


def _shift(surfaces: NDArray[np.float32], blocks: int, scale: float) -> Shift:
    peaks = np.array([_peak(surface) for surface in surfaces])
    here, drawn = -peaks[0], -peaks[1:]  # the mask lies off by the opposite of what brings it home
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    least = float(np.percentile(np.linalg.norm(drawn, axis=1), 2.5))
    first = surfaces[0]
    return Shift(
        down=scale * float(here[0]),
        right=scale * float(here[1]),
        margin=scale * float(((high - low) / 2).max()),
        deviation=(scale * float(drawn[:, 0].std()), scale * float(drawn[:, 1].std())),
        least=scale * least,
        score=float(first.max()),
        inside=bool(np.abs(here).max() < REACH - 1),
        blocks=blocks,
        scale=scale,
    )


def _peak(surface: Surface) -> tuple[float, float]:
    """Displacement of the largest value, between the pixels by a parabola along each axis."""
    row, column = (int(place) for place in np.unravel_index(int(surface.argmax()), surface.shape))
    return (
        row - REACH + _vertex(surface[:, column], row),
        column - REACH + _vertex(surface[row], column),
    )


def _vertex(line: NDArray[np.float32], place: int) -> float:
    if not 0 < place < len(line) - 1:
        return 0.0
    before, here, after = (float(value) for value in line[place - 1 : place + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else min(max((before - after) / (2 * bend), -0.5), 0.5)
