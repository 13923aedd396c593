"""Random changes of place: a patch that is turned, scaled, shifted and flipped, and elastic deformation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.augment.arrays import IGNORE, Image, LabelArray, happens, in_groups
from medseg_paddle.preprocess.foreground import Foreground, ForegroundClasses

_FLIPS = {(-1, 1): 0, (1, -1): 1, (-1, -1): -1}  # cv2.flip's codes, by the signs along rows and columns
_OPENCV_MOVES = (np.uint8, np.uint16, np.int16, np.float32)
_OPENCV_PIXELS = frozenset({1, 2, 3, 4, 6, 8, 12, 16, 24, 32})  # bytes of those that cv2.transpose moves


def foreground_indices(label: LabelArray, ignore_index: int = IGNORE) -> NDArray[np.int64]:
    """Row and column of all pixels that are neither background nor ignored, shape (n, 2).

    Find them once for a case and hand them to every draw of :class:`RandomAffinePatch`.
    """
    return np.argwhere((label != 0) & (label != ignore_index))


@dataclass(frozen=True)
class RandomAffinePatch:
    """Cut a patch, turned, scaled and flipped, in one interpolation from the source.

    Attributes
    ----------
    size : tuple of int
        Rows, columns of the patch.
    rotation : float
        Largest angle in degrees, either way.
    scale : tuple of float
        Smallest and largest magnification; drawn evenly on a logarithmic scale.
    shift : int
        Largest shift along each axis, either way, in pixels of the patch; whole pixels, so that a patch
        that is not turned or scaled stays a plain copy.
    flip_horizontal, flip_vertical, rotate90 : float
        Probability of a mirror image, and of a turn by 90, 180 or 270 degrees.
    foreground : float
        Share of patches with a random foreground pixel in the centre (before the shift); the others
        lie anywhere inside the image.
    foreground_by : {"pixel", "class"}
        Every foreground pixel alike, or every class that the label holds alike and then its pixels: a small one is
        else as rare among the patches as its pixels are.
    border : {"reflect", "ignore"}
        Beyond the image: its reflection, or black with label 255 (ignored by loss and scores).
    rotation_prob, scale_prob, shift_prob : float
        Probability that the patch is rotated, scaled, shifted at all. At 1 no coin is tossed.
    """

    size: tuple[int, int]
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    rotate90: float = 0.0
    foreground: float = 0.0
    border: Literal["reflect", "ignore"] = "reflect"
    shift: int = 0
    rotation_prob: float = 1.0
    scale_prob: float = 1.0
    shift_prob: float = 1.0
    foreground_by: Literal["pixel", "class"] = "pixel"

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "size", spec_of.whole_pair(self.size, f"{name}.size"))
        scale = spec_of.numbers(self.scale, f"{name}.scale")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise RecipeError(
                f"{name}.scale must be [lowest, highest] above 0, got {list(scale)}", hint="correct it"
            )
        object.__setattr__(self, "scale", scale)
        spec_of.number(self.rotation, f"{name}.rotation", 0, 180)
        if self.shift:
            spec_of.whole_number(self.shift, f"{name}.shift")
        for key in ("flip_horizontal", "flip_vertical", "rotate90", "foreground"):
            spec_of.number(getattr(self, key), f"{name}.{key}", 0, 1)
        for key in ("rotation_prob", "scale_prob", "shift_prob"):
            spec_of.number(getattr(self, key), f"{name}.{key}", 0, 1)
        if self.border not in ("reflect", "ignore"):
            raise RecipeError(f"{name}.border '{self.border}' is unknown", hint="use reflect or ignore")
        if self.foreground_by not in ("pixel", "class"):
            raise RecipeError(
                f"{name}.foreground_by '{self.foreground_by}' is unknown", hint="use pixel or class"
            )

    def __call__(
        self,
        image: Image,
        label: LabelArray,
        rng: np.random.Generator,
        foreground: NDArray[np.integer] | Foreground | ForegroundClasses | None = None,
    ) -> tuple[Image, LabelArray]:
        """Draw a patch; `foreground`, found once for a case, is else looked for in `label`.

        With ``foreground_by="class"`` only :class:`ForegroundClasses` spares the search.
        """
        turns = int(rng.integers(1, 4)) if rng.random() < self.rotate90 else 0
        rows, columns = self.size if turns % 2 == 0 else self.size[::-1]
        magnification, angle = 1.0, 0.0
        if happens(self.scale_prob, rng):
            magnification = math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        if happens(self.rotation_prob, rng):
            angle = math.radians(rng.uniform(-self.rotation, self.rotation))
        centre = self._foreground_centre(label, rng, foreground)
        if centre is None:
            centre = (
                _inside(label.shape[0], rows, magnification, rng),
                _inside(label.shape[1], columns, magnification, rng),
            )
        to_source = _affine(centre, (rows, columns), magnification, angle)
        if self.shift and happens(self.shift_prob, rng):
            down, right = rng.integers(-self.shift, self.shift + 1, 2)
            to_source = to_source @ np.array([[1, 0, right], [0, 1, down], [0, 0, 1]], dtype=float)
        to_source = to_source @ _turned((rows, columns), turns)
        if rng.random() < self.flip_horizontal:
            to_source = to_source @ np.array([[-1, 0, self.size[1] - 1], [0, 1, 0], [0, 0, 1]], dtype=float)
        if rng.random() < self.flip_vertical:
            to_source = to_source @ np.array([[1, 0, 0], [0, -1, self.size[0] - 1], [0, 0, 1]], dtype=float)
        plain = _plain_copy(label.shape, to_source, self.size) if magnification == 1 and angle == 0 else None
        if plain is not None:
            return plain(image), plain(label)
        return self._warped(image, label, to_source[:2])

    def _foreground_centre(
        self,
        label: LabelArray,
        rng: np.random.Generator,
        foreground: NDArray[np.integer] | Foreground | ForegroundClasses | None,
    ) -> tuple[int, int] | None:
        if rng.random() >= self.foreground:
            return None
        if self.foreground_by == "class" and not isinstance(foreground, ForegroundClasses):
            foreground = ForegroundClasses(label, IGNORE)
        if isinstance(foreground, ForegroundClasses):
            return foreground.draw(rng)
        foreground = Foreground(label, IGNORE) if foreground is None else foreground
        if len(foreground) == 0:
            return None
        row, column = foreground[int(rng.integers(len(foreground)))]
        return int(row), int(column)

    def _warped(
        self, image: Image, label: LabelArray, matrix: NDArray[np.float64]
    ) -> tuple[Image, LabelArray]:
        border = cv2.BORDER_REFLECT_101 if self.border == "reflect" else cv2.BORDER_CONSTANT
        size = (self.size[1], self.size[0])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patch = in_groups(
            lambda part: cv2.warpAffine(part, matrix, size, flags=flags, borderMode=border), image
        )
        mask = cv2.warpAffine(
            _for_opencv(label),
            matrix,
            size,
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=border,
            borderValue=IGNORE,
        )
        return patch, np.asarray(mask).astype(label.dtype, copy=False)


@dataclass(frozen=True)
class ElasticDeformation:
    """Shift pixels along a smooth random field (Simard et al., ICDAR 2003), reflecting at the border.

    Attributes
    ----------
    alpha : float
        Root mean square of the shift along each axis, in pixels.
    sigma : float
        Smoothness of the field: standard deviation of the Gaussian, in pixels.
    prob : float
        Probability that anything happens.
    """

    alpha: float
    sigma: float
    prob: float = 0.5

    def __post_init__(self) -> None:
        spec_of.number(self.alpha, "ElasticDeformation.alpha", 0)
        spec_of.number(self.sigma, "ElasticDeformation.sigma", 0.001)
        spec_of.number(self.prob, "ElasticDeformation.prob", 0, 1)

    def __call__(self, image: Image, label: LabelArray, rng: np.random.Generator) -> tuple[Image, LabelArray]:
        """Move image (linear) and label (nearest neighbour) along one and the same field."""
        if rng.random() >= self.prob:
            return image, label
        rows, columns = label.shape
        x = self._field((rows, columns), rng) + np.arange(columns, dtype=np.float32)
        y = self._field((rows, columns), rng) + np.arange(rows, dtype=np.float32)[:, None]
        reflect = cv2.BORDER_REFLECT_101
        moved = in_groups(lambda part: cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=reflect), image)
        mask = cv2.remap(_for_opencv(label), x, y, cv2.INTER_NEAREST, borderMode=reflect)
        return moved, np.asarray(mask).astype(label.dtype, copy=False)

    def _field(self, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
        noise = rng.standard_normal(size, dtype=np.float32)
        smooth = np.asarray(
            cv2.GaussianBlur(noise, (0, 0), self.sigma, borderType=cv2.BORDER_REFLECT), np.float32
        )
        deviation = float(np.sqrt(np.mean(np.square(smooth))))
        smooth *= np.float32(self.alpha / max(deviation, 1e-12))
        return smooth


def _inside(length: int, side: int, magnification: float, rng: np.random.Generator) -> int:
    """Where the pixel ``side // 2`` of a patch may lie so that the patch (unturned) stays in the image."""
    first = math.ceil(side // 2 / magnification)
    last = math.floor(length - 1 - (side - 1 - side // 2) / magnification)
    # Whole pixels: without turning and scaling, a patch is a plain copy and stays sharp.
    return int(rng.integers(first, last + 1)) if first <= last else length // 2


def _affine(
    centre: tuple[int, int], size: tuple[int, int], magnification: float, angle: float
) -> NDArray[np.float64]:
    """Patch (x, y, 1) to source (x, y, 1): the patch's pixel ``size // 2`` shows the source's `centre`."""
    cos, sin = math.cos(angle) / magnification, math.sin(angle) / magnification
    x, y = size[1] // 2, size[0] // 2
    return np.array(
        [[cos, -sin, centre[1] - cos * x + sin * y], [sin, cos, centre[0] - sin * x - cos * y], [0, 0, 1]]
    )


def _turned(size: tuple[int, int], turns: int) -> NDArray[np.float64]:
    """Patch (x, y, 1) after `turns` quarter turns to (x, y, 1) before them, when it had `size`; exact."""
    matrix = np.eye(3)
    rows, columns = size
    for _ in range(turns):
        matrix = matrix @ np.array([[0, -1, columns - 1], [1, 0, 0], [0, 0, 1]], dtype=float)
        rows, columns = columns, rows
    return matrix


def _for_opencv(label: LabelArray) -> LabelArray:
    """Return the label in a type OpenCV can warp; float32 holds every integer up to 2**24."""
    return label if label.dtype in (np.uint8, np.uint16, np.int16) else label.astype(np.float32)


def _plain_copy(
    source: tuple[int, ...], to_source: NDArray[np.float64], size: tuple[int, int]
) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """How to copy what a matrix of whole shifts, turns and flips points to; None where a part lies outside."""
    matrix = np.rint(to_source).astype(int)
    rows, columns = size
    (left, right), (top, bottom) = np.sort(matrix[:2] @ [[0, columns - 1], [0, rows - 1], [1, 1]])
    if left < 0 or top < 0 or right >= source[1] or bottom >= source[0]:
        return None
    turned = matrix[0, 0] == 0
    down, across = (matrix[0, 1], matrix[1, 0]) if turned else (matrix[1, 1], matrix[0, 0])

    def copied(array: NDArray[Any]) -> NDArray[Any]:
        region = array[top : bottom + 1, left : right + 1]
        if not turned and down == across == 1:
            return np.ascontiguousarray(region)
        if array.dtype in _OPENCV_MOVES and array[0, 0].nbytes in _OPENCV_PIXELS:
            region = np.asarray(cv2.transpose(region)) if turned else region
            if (down, across) != (1, 1):
                region = np.asarray(cv2.flip(region, _FLIPS[down, across]))
            return region.reshape(*size, *array.shape[2:])
        region = region.swapaxes(0, 1) if turned else region
        return np.ascontiguousarray(region[::down, ::across])

    return copied
