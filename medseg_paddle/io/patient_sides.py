"""Which side of the patient is where in the picture of a slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medseg_paddle.core import Geometry

# Of the patient axis across the slices (0: left, 1: back, 2: head): where rows and columns of an upright slice run to.
_TOWARDS = {2: ("P", "L"), 1: ("F", "L"), 0: ("F", "P")}
_OPPOSITE = {"P": "A", "L": "R", "F": "H"}
_INK, _SHADOW = (255, 255, 255), (0, 0, 0)


def towards(geometry: Geometry) -> tuple[str, str]:
    """Where rows and columns of an upright slice run to, nearest: P(osterior), F(eet), L(eft)."""
    return _TOWARDS[geometry.patient_axes[0]]


def side_letters(geometry: Geometry) -> tuple[str, str]:
    """What lies at the upper and at the left edge of an upright slice, nearest: A(nterior), H(ead), R(ight)."""
    rows, columns = towards(geometry)
    return _OPPOSITE[rows], _OPPOSITE[columns]


def mark_sides(picture: NDArray[np.uint8], letters: tuple[str, str]) -> NDArray[np.uint8]:
    """The picture with a letter at its upper and its left edge.

    Parameters
    ----------
    picture : ndarray, shape (H, W, 3), uint8, RGB
    letters : tuple of str
        Upper edge, left edge.
    """
    height, width = picture.shape[:2]
    size = max(14, round(min(height, width) / 28))
    marked = Image.fromarray(picture)
    pen, font = ImageDraw.Draw(marked), ImageFont.load_default(size)
    for text, place, anchor in (
        (letters[0], (width // 2, size // 3), "ma"),
        (letters[1], (size // 3, height // 2), "lm"),
    ):
        pen.text(
            place,
            text,
            fill=_INK,
            font=font,
            anchor=anchor,
            stroke_width=max(1, size // 12),
            stroke_fill=_SHADOW,
        )
    return np.array(marked)
