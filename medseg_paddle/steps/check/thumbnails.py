"""Pictures of suspects: the image, the mask's outline on it, and where it would fit."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config.prepare import IGNORE_INDEX
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_samples
from medseg_paddle.preprocess.shift import UNDO, Shift
from medseg_paddle.steps.check.facts import Facts
from medseg_paddle.steps.check.inputs import Look, Unit

AS_STORED = (230, 159, 0)
WHERE_IT_FITS = (86, 180, 233)
"""Okabe and Ito's orange and sky blue: told apart by colour-blind readers, and seen on grey and on red."""

_SIDE = 560
_MARGIN, _LARGEST_WINDOW = 28, 200  # measured pixels
_LARGEST_ENLARGEMENT = 6
_QUALITY = 84
_CROWDED = 6.0  # outline, in half circumferences of the picture

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Thumbnail:
    """A picture for a page.

    Attributes
    ----------
    case : str
    split : str
    caption : str
    source : str
        ``data:`` address of a JPEG.
    width, height : int
        Pixels.
    """

    case: str
    split: str
    caption: str
    source: str
    width: int
    height: int


def thumbnail(facts: Facts, home: Shift | None = None) -> Thumbnail | None:
    """Draw a case anew from its files; None where not even its image can be read.

    Parameters
    ----------
    facts : Facts
        Of a volume, the slice with most foreground is drawn.
    home : Shift, optional
        Where its mask lies; then the mask's surroundings are cut out, so that a pixel can be seen, and it is drawn
        where it fits as well.
    """
    look = _telling_look(facts.unit)
    if look is None:
        return None
    picture = _as_rgb(look.image)
    outlines: list[tuple[NDArray[np.bool_], tuple[int, int, int]]] = []
    if look.label is not None and look.label.shape == picture.shape[:2]:
        inside = _foreground(look.label)
        if home is not None:
            outlines.append((_moved(inside, home), WHERE_IT_FITS))
        if facts.turn is not None and (undone := UNDO[facts.turn](inside)).shape == inside.shape:
            outlines.append((np.ascontiguousarray(undone), WHERE_IT_FITS))
        outlines.append((inside, AS_STORED))
    top, bottom, left, right = 0, picture.shape[0], 0, picture.shape[1]
    if home is not None and outlines and outlines[-1][0].any():
        top, bottom, left, right = _surroundings(outlines[-1][0], home.scale)
    picture = picture[top:bottom, left:right]
    scale = min(_SIDE / max(picture.shape[:2]), _LARGEST_ENLARGEMENT)
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    drawn = np.ascontiguousarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=how))
    for inside, color in outlines:
        _outline(drawn, inside[top:bottom, left:right], color)
    source = _jpeg(drawn)
    caption = "" if home is None else str(home)
    return Thumbnail(facts.unit.id, facts.unit.split, caption, source, size[0], size[1])


def _telling_look(unit: Unit) -> Look | None:
    best: Look | None = None
    most = -1
    for part in unit.parts:
        try:
            for look in part.read():
                foreground = 0 if look.label is None else int(_foreground(look.label).sum())
                if foreground > most:
                    best, most = look, foreground
        except DataError:
            continue
    return best or _image_alone(unit)


def _image_alone(unit: Unit) -> Look | None:
    for part in unit.parts:
        try:
            return Look(part.id, read_samples(part.image), None)
        except DataError:
            continue
    return None


def _foreground(label: NDArray[Any]) -> NDArray[np.bool_]:
    inside = label > 0
    usual = inside & (label != IGNORE_INDEX)
    return np.asarray(usual if usual.any() else inside)


def _moved(inside: NDArray[np.bool_], shift: Shift) -> NDArray[np.bool_]:
    """Bring the mask home, by whole pixels."""
    home = np.array([[1, 0, -round(shift.right)], [0, 1, -round(shift.down)]], np.float32)
    height, width = inside.shape
    moved = cv2.warpAffine(inside.astype(np.uint8), home, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(moved > 0)


def _surroundings(inside: NDArray[np.bool_], scale: float) -> tuple[int, int, int, int]:
    """A square window: all of a small mask, of a large one the middle."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    margin, most = round(_MARGIN * scale), round(_LARGEST_WINDOW * scale)
    side = min(max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 2 * margin, most)
    places = []
    for middle, length in zip(
        (int(rows[0] + rows[-1]) // 2, int(columns[0] + columns[-1]) // 2), inside.shape, strict=True
    ):
        start = min(max(0, middle - side // 2), max(0, length - side))
        places += [start, min(start + side, length)]
    return places[0], places[1], places[2], places[3]


def _as_rgb(image: NDArray[Any]) -> Rgb:
    """Eight bits for a screen; 16 bits and other channels stretched to what they hold."""
    plain = image if image.ndim == 2 or image.shape[2] == 3 else image[:, :, 0]
    if plain.dtype != np.uint8:
        low, high = np.percentile(plain, [0.5, 99.5])
        plain = np.clip((plain - low) * (255.0 / max(high - low, 1.0)), 0, 255).astype(np.uint8)
    return np.asarray(plain if plain.ndim == 3 else np.repeat(plain[..., None], 3, axis=2), dtype=np.uint8)


def _outline(picture: Rgb, inside: NDArray[np.bool_], color: tuple[int, int, int]) -> None:
    """Draw the border between inside and outside over a dark seam; thin and bare where vessels fill the picture."""
    height, width = picture.shape[:2]
    large = cv2.resize(inside.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    contours, _ = cv2.findContours(large.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    crowded = sum(len(contour) for contour in contours) > _CROWDED * (height + width)
    if not crowded:
        cv2.drawContours(picture, contours, -1, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.drawContours(picture, contours, -1, color, 1 if crowded else 2, cv2.LINE_AA)


def _jpeg(picture: Rgb) -> str:
    _, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(picture[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"
