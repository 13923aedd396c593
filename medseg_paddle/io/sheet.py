"""Sheets of small pictures in titled rows, each picture with its labels and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medseg_paddle.core import LabelSet
from medseg_paddle.io.overlay import (
    INK,
    LegendEntry,
    Picture,
    as_rgb,
    draw_contours,
    draw_legend,
    in_lines,
    paper,
)

TILE_SIDE = 232
"""Width of a tile, and its greatest height, in pixels."""

_GAP = 12
_SPACE = 4
_MARGIN = 24
_SMALL, _PLAIN, _LARGE = 13, 15, 22
_FAINT = (150, 154, 160)
_WHITE = (255, 255, 255)
_HATCHED = (146, 146, 152)
_HATCH_STEP, _HATCH_WIDTH = 9, 2
_SHADE = 0.6  # left of the picture beside an outline


@dataclass(frozen=True)
class Tile:
    """A picture of a row, and the words below it."""

    picture: Picture
    caption: str


@dataclass(frozen=True)
class Row:
    """A line of a sheet: a title, a fainter word on it, and tiles from the left to the right."""

    title: str
    note: str
    tiles: tuple[Tile, ...]


def draw_small(
    image: NDArray[np.uint8],
    labels: NDArray[Any],
    label_set: LabelSet,
    *,
    ignore_index: int,
    second: NDArray[Any] | None = None,
) -> Picture:
    """Draw an image to the size of a tile, its classes outlined, what is ignored greyed and hatched.

    Beside the outlines the picture is darkened, so that they are seen on whatever colour it has.

    Parameters
    ----------
    image : ndarray, shape (H, W), (H, W, 1) or (H, W, 3), uint8
        Grey or RGB.
    labels : ndarray, shape (H, W), integer
        Solid lines in the colours of the classes.
    label_set : LabelSet
    ignore_index : int
        Label value that is neither learned nor scored.
    second : ndarray, shape (H, W), integer, optional
        Another image's labels, for dashed lines in the same colours.

    Returns
    -------
    ndarray, shape (h, w, 3), uint8, RGB
        The longer side is that of a tile.
    """
    rows, columns = labels.shape
    scale = TILE_SIDE / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = np.ascontiguousarray(cv2.resize(as_rgb(image), size, interpolation=smooth))
    lines = np.zeros_like(picture)
    for array, dashed in ((labels, False), (second, True)):
        if array is None:
            continue
        # Labels have no more than 16 bits, and OpenCV has no kernel for 64.
        shown = cv2.resize(array.astype(np.int32), size, interpolation=cv2.INTER_NEAREST_EXACT)
        if not dashed:
            _hatch(picture, shown == ignore_index)
        for label in label_set.foreground:
            draw_contours(lines, shown == label.index, label.color, dashed=dashed)
    drawn = lines.any(axis=-1)
    beside = cv2.dilate(drawn.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    picture[beside] = (picture[beside] * _SHADE).astype(np.uint8)
    picture[drawn] = lines[drawn]
    return picture


def draw_sheet(
    title: str,
    notes: Sequence[str],
    rows: Sequence[Row],
    label_set: LabelSet,
    *,
    mixed: bool = False,
) -> Picture:
    """Lay rows of tiles out under a title, with a legend at the end.

    Parameters
    ----------
    title : str
    notes : sequence of str
        Lines below the title; long ones are broken.
    rows : sequence of Row
    label_set : LabelSet
        For the legend.
    mixed : bool
        Whether the legend has a word on dashed lines.

    Returns
    -------
    ndarray, shape (H, W, 3), uint8, RGB
    """
    most = max(len(row.tiles) for row in rows)
    width = 2 * _MARGIN + most * TILE_SIDE + (most - 1) * _GAP
    parts = [paper(_MARGIN, width), _text_line(title, width, _LARGE, INK)]
    for note in notes:
        parts += [
            _text_line(line, width, _PLAIN, _FAINT) for line in in_lines(note, width - 2 * _MARGIN, _PLAIN)
        ]
    for row in rows:
        parts += [paper(_GAP, width), *_row(row, width)]
    parts += [paper(_GAP, width), _legend(label_set, width, mixed=mixed), paper(_GAP, width)]
    return np.vstack(parts)


def _row(row: Row, width: int) -> list[Picture]:
    lines = [_text_line(row.title, width, _PLAIN, INK)]
    lines += [
        _text_line(line, width, _SMALL, _FAINT) for line in in_lines(row.note, width - 2 * _MARGIN, _SMALL)
    ]
    height = max(tile.picture.shape[0] for tile in row.tiles)
    strip = paper(_SPACE + height + 2 * _SMALL, width)
    for number, tile in enumerate(row.tiles):
        left = _MARGIN + number * (TILE_SIDE + _GAP)
        rows, columns = tile.picture.shape[:2]
        strip[_SPACE : _SPACE + rows, left : left + columns] = tile.picture
        caption = _text_line(tile.caption, TILE_SIDE, _SMALL, _FAINT, margin=0)
        strip[-caption.shape[0] :, left : left + TILE_SIDE] = caption
    return [*lines, strip]


def _legend(label_set: LabelSet, width: int, *, mixed: bool) -> Picture:
    entries = [LegendEntry(label.name, label.color) for label in label_set.foreground]
    entries.append(LegendEntry("ignored (hatched)", _HATCHED))
    if mixed:
        entries.append(LegendEntry("mixed in", _WHITE, dashed=True))
    legend = draw_legend(entries, width - 2 * _MARGIN, _PLAIN)[:, : width - 2 * _MARGIN]
    strip = paper(legend.shape[0], width)
    strip[:, _MARGIN : _MARGIN + legend.shape[1]] = legend
    return strip


def _hatch(picture: Picture, mask: NDArray[np.bool_]) -> None:
    """Grey the masked pixels and draw oblique lines over them."""
    if not mask.any():
        return
    rows, columns = np.indices(mask.shape)
    picture[mask] = picture[mask] // 3 + np.uint8(30)
    picture[mask & ((rows + columns) % _HATCH_STEP < _HATCH_WIDTH)] = _HATCHED


def _text_line(
    text: str, width: int, font_size: int, color: tuple[int, int, int], *, margin: int = _MARGIN
) -> Picture:
    height = round(1.6 * font_size)
    strip = Image.fromarray(paper(height, width))
    font = ImageFont.load_default(font_size)
    text = _fitted(text, width - 2 * margin, font)
    ImageDraw.Draw(strip).text((margin, height // 2), text, fill=color, font=font, anchor="lm")
    return np.array(strip)


def _fitted(text: str, width: int, font: Any) -> str:
    """The text, its middle left out where it does not fit: names tell apart by both ends."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return ""
