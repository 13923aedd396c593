"""Pictures for people: contours over an image, errors in colour, sheets of many pictures.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), told apart by colour-blind readers too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medseg_paddle.core import LabelSet

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

CORRECT: Color = (0, 158, 115)
FALSE_POSITIVE: Color = (213, 94, 0)
FALSE_NEGATIVE: Color = (86, 180, 233)
OTHER_CLASS: Color = (204, 121, 167)
"""Colours of :func:`draw_comparison`."""

_WHITE: Color = (255, 255, 255)
_NOT_SCORED: Color = (120, 120, 120)
_PAPER: Color = (22, 24, 28)
INK: Color = (232, 232, 232)
_LEAST_SIDE = 384
_FILL = 0.85
_LINE = 14  # tenths of the font's size, from a title's line to the next


@dataclass(frozen=True)
class LegendEntry:
    """A line of a legend."""

    text: str
    color: Color
    dashed: bool = False


def with_square_pixels(
    plane: NDArray[Any], spacing: tuple[float, float], *, nearest: bool = False
) -> NDArray[Any]:
    """A slice whose pixels are as high as they are wide, so that a patient looks like one: coarser sides get more.

    Parameters
    ----------
    plane : ndarray, shape (H, W), uint8 or uint16
    spacing : tuple of float
        mm along rows and columns; less than a twentieth of difference is left as it is.
    nearest : bool
        Repeat pixels, as labels need it, in place of interpolating.
    """
    finer = min(spacing)
    if max(spacing) < 1.05 * finer:
        return plane
    height, width = (max(1, round(side * mm / finer)) for side, mm in zip(plane.shape, spacing, strict=True))
    way = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane, (width, height), interpolation=way), dtype=plane.dtype)


def draw_overlay(
    image: NDArray[np.uint8],
    labels: NDArray[Any],
    label_set: LabelSet,
    *,
    truth: NDArray[Any] | None = None,
) -> Picture:
    """Draw the contours of a segmentation on its image, with a legend below.

    Small pictures are enlarged by a whole factor, to 384 pixels or more along the longer side. Beside one that is
    narrower than an entry of its legend, there is empty paper on the right.

    Parameters
    ----------
    image : ndarray, shape (H, W) or (H, W, C), uint8
        Grey or RGB; of other numbers of channels the first is shown.
    labels : ndarray, shape (H, W), integer
        Drawn as solid lines in the colours of the classes.
    label_set : LabelSet
    truth : ndarray, shape (H, W), integer, optional
        Drawn as dashed white lines.

    Returns
    -------
    ndarray, shape (H', W', 3), uint8, RGB
    """
    _require_size(image, labels, truth)
    factor = _factor(labels.shape)
    picture, labels = _enlarged(as_rgb(image), factor), _enlarged_labels(labels, factor)
    entries = []
    for label in label_set.foreground:
        draw_contours(picture, labels == label.index, label.color)
        entries.append(LegendEntry(label.name, label.color))
    if truth is not None:
        truth = _enlarged_labels(truth, factor)
        for label in label_set.foreground:
            draw_contours(picture, truth == label.index, _WHITE, dashed=True)
        entries.append(LegendEntry("truth", _WHITE, dashed=True))
    size = _font_size(picture)
    margin = size // 2
    height, width = picture.shape[:2]
    legend = draw_legend(entries, width - margin, size)
    drawn = paper(height + legend.shape[0], max(width, margin + legend.shape[1]))
    drawn[:height, :width] = picture
    drawn[height:, margin : margin + legend.shape[1]] = legend
    return drawn


def draw_comparison(
    image: NDArray[np.uint8], truth: NDArray[Any], prediction: NDArray[Any], label_set: LabelSet
) -> Picture:
    """Draw three panels: the image, the truth, and the prediction with its errors.

    In the third panel a pixel is green where truth and prediction agree on a class, vermilion where only
    the prediction has one (false positive), blue where only the truth has one (false negative), and
    pink where they name different classes; with several classes, white contours surround the predicted ones.
    Pixels whose truth is none of the classes (ignored ones) are grey.

    Parameters
    ----------
    image : ndarray, shape (H, W) or (H, W, C), uint8
        Grey or RGB; of other numbers of channels the first is shown.
    truth, prediction : ndarray, shape (H, W), integer
    label_set : LabelSet

    Returns
    -------
    ndarray, shape (H', W', 3), uint8, RGB
    """
    _require_size(image, truth, prediction)
    factor = _factor(truth.shape)
    picture = _enlarged(as_rgb(image), factor)
    # On a dimmed grey picture the colours mean the same on a red fundus and a grey slice.
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.float32)
    dimmed = np.repeat((grey * 0.7).astype(np.uint8)[..., None], 3, axis=2)
    truth, prediction = _enlarged_labels(truth, factor), _enlarged_labels(prediction, factor)
    ignored = truth >= len(label_set)

    true_panel, classes = dimmed.copy(), []
    for label in label_set.foreground:
        _fill(true_panel, truth == label.index, label.color)
        classes.append(LegendEntry(label.name, label.color))

    has_truth, has_prediction = (truth > 0) & ~ignored, (prediction > 0) & ~ignored
    agreement = [
        (LegendEntry("correct", CORRECT), has_truth & (truth == prediction)),
        (LegendEntry("false positive", FALSE_POSITIVE), has_prediction & ~has_truth),
        (LegendEntry("false negative", FALSE_NEGATIVE), has_truth & ~has_prediction),
    ]
    several = len(label_set.foreground) > 1
    if several:
        confused = has_truth & has_prediction & (truth != prediction)
        agreement.append((LegendEntry("other class", OTHER_CLASS), confused))
    error_panel = dimmed.copy()
    for entry, mask in agreement:
        _fill(error_panel, mask, entry.color)
    errors = [entry for entry, _ in agreement]
    if several:
        errors.append(LegendEntry("prediction", _WHITE))
        for label in label_set.foreground:
            draw_contours(error_panel, prediction == label.index, _WHITE)
    if ignored.any():
        for panel in (true_panel, error_panel):
            _fill(panel, ignored, _NOT_SCORED)
        errors.append(LegendEntry("not scored", _NOT_SCORED))

    size = _font_size(picture)
    legends = [draw_legend(entries, picture.shape[1], size) for entries in ([], classes, errors)]
    height, width = (max(legend.shape[axis] for legend in legends) for axis in (0, 1))
    panels = []
    for panel, legend in zip((picture, true_panel, error_panel), legends, strict=True):
        whole = paper(panel.shape[0] + height, width)
        whole[: panel.shape[0], : panel.shape[1]] = panel
        whole[panel.shape[0] : panel.shape[0] + legend.shape[0], : legend.shape[1]] = legend
        panels.append(whole)
    return _sheet(panels, ("image", "truth", "prediction against truth"), 3, size)


def contact_sheet(
    images: Sequence[Picture], *, titles: Sequence[str] | None = None, columns: int = 3
) -> Picture:
    """Lay pictures out in rows, each under its title, which takes as many lines as it needs.

    Parameters
    ----------
    images : sequence of ndarray, shape (H, W, 3) or (H, W), uint8
        May differ in size; every one is centred in a cell of the largest.
    titles : sequence of str, optional
        One for every picture.
    columns : int
        Pictures in a row.

    Returns
    -------
    ndarray, shape (H', W', 3), uint8, RGB
    """
    if not images or columns < 1:
        raise ValueError(f"a sheet needs a picture and a column, got {len(images)} and {columns}")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} pictures")
    pictures = [as_rgb(image) for image in images]
    return _sheet(
        pictures, titles, min(columns, len(pictures)), max(_font_size(picture) for picture in pictures)
    )


def _sheet(
    pictures: Sequence[Picture], titles: Sequence[str] | None, columns: int, font_size: int
) -> Picture:
    gap = max(4, font_size // 2)
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    font = ImageFont.load_default(font_size)
    words = [word for title in titles or () for word in title.split()]
    width = max([width, *(math.ceil(font.getlength(word)) for word in words)])
    lines = [in_lines(title, width, font_size) for title in titles or ()]
    head = 0 if titles is None else 2 * font_size + _LINE * font_size * (max(map(len, lines)) - 1) // 10
    rows = math.ceil(len(pictures) / columns)
    sheet = paper(rows * (head + height + gap) + gap, columns * (width + gap) + gap)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = gap + row * (head + height + gap), gap + column * (width + gap)
        if titles is not None:
            sheet[top : top + head, left : left + width] = _title(lines[number], (head, width), font_size)
        top += head + (height - picture.shape[0]) // 2
        left += (width - picture.shape[1]) // 2
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def _title(lines: Sequence[str], size: tuple[int, int], font_size: int) -> Picture:
    strip = Image.fromarray(paper(*size))
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(font_size)
    for number, line in enumerate(lines):
        middle = size[0] * (2 * number + 1) // (2 * len(lines))
        pen.text((0, middle), line, fill=INK, font=font, anchor="lm")
    return np.array(strip)


def in_lines(text: str, width: int, font_size: int) -> list[str]:
    """A text in lines of at most `width` pixels, broken between words."""
    font = ImageFont.load_default(font_size)
    if font.getlength(text) <= width:
        return [text]
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def draw_legend(entries: Sequence[LegendEntry], width: int, font_size: int) -> Picture:
    """Swatches and names side by side, in as many lines as `width` needs; empty without entries.

    Wider than `width` where one entry is: half a number is another number.
    """
    font = ImageFont.load_default(font_size)
    line, swatch = 2 * font_size, round(1.4 * font_size)
    places, x, y = [], 0, 0
    lengths = [swatch + font_size // 2 + math.ceil(font.getlength(entry.text)) for entry in entries]
    width = max([width, *lengths])
    for length in lengths:
        if x and x + length > width:
            x, y = 0, y + line
        places.append((x, y + line // 2))
        x += length + font_size
    strip = Image.fromarray(paper(y + line if entries else 0, width))
    pen = ImageDraw.Draw(strip)
    for entry, (left, middle) in zip(entries, places, strict=True):
        half = font_size // 3
        if entry.dashed:
            for start in (left, left + swatch - swatch * 2 // 5):
                pen.line(
                    (start, middle, start + swatch * 2 // 5, middle),
                    fill=entry.color,
                    width=max(1, half // 2),
                )
        else:
            pen.rectangle((left, middle - half, left + swatch, middle + half), fill=entry.color)
        pen.text((left + swatch + font_size // 2, middle), entry.text, fill=INK, font=font, anchor="lm")
    return np.array(strip)


def draw_contours(picture: Picture, mask: NDArray[np.bool_], color: Color, *, dashed: bool = False) -> None:
    """Outline `mask`; the line lies on the mask's own outermost pixels."""
    thickness = max(1, round(min(picture.shape[:2]) / 700))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not dashed:
        cv2.drawContours(picture, contours, -1, color, thickness)
        return
    dash = 5 * thickness
    for contour in contours:
        for start in range(0, len(contour), 2 * dash):
            cv2.polylines(picture, [contour[start : start + dash]], False, color, thickness)


def _fill(picture: Picture, mask: NDArray[np.bool_], color: Color) -> None:
    picture[mask] = np.rint((1 - _FILL) * picture[mask] + _FILL * np.array(color)).astype(np.uint8)


def as_rgb(image: NDArray[np.uint8]) -> Picture:
    """Grey or colour as RGB; of any other number of channels the first, in grey."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"a picture is uint8 HW or HWC, got {image.dtype} of shape {image.shape}")
    colored = image if image.ndim == 3 else image[..., None]
    colored = colored if colored.shape[2] in (1, 3) else colored[:, :, :1]
    return colored.repeat(3 // colored.shape[2], axis=2)


def _enlarged(picture: Picture, factor: int) -> Picture:
    height, width = picture.shape[:2]
    size = (width * factor, height * factor)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _enlarged_labels(labels: NDArray[Any], factor: int) -> NDArray[Any]:
    return labels.repeat(factor, axis=0).repeat(factor, axis=1)


def _factor(shape: tuple[int, ...]) -> int:
    return math.ceil(_LEAST_SIDE / max(shape))


def _font_size(picture: Picture) -> int:
    shorter: int = min(picture.shape[:2])
    return max(13, round(shorter / 36))


def paper(height: int, width: int) -> Picture:
    """An empty sheet."""
    return np.full((height, width, 3), _PAPER, np.uint8)


def _require_size(image: NDArray[np.uint8], *labels: NDArray[Any] | None) -> None:
    for array in labels:
        if array is not None and array.shape != image.shape[:2]:
            raise ValueError(f"labels of shape {array.shape} on a picture of shape {image.shape}")
