from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg_paddle.core import LabelSet
from medseg_paddle.io.overlay import (
    CORRECT,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    OTHER_CLASS,
    contact_sheet,
    draw_comparison,
    draw_overlay,
)

VESSEL = LabelSet.from_names(["background", "vessel"])
ORGANS = LabelSet.from_names(["background", "lung", "tumour"])
DRIVE = Path(__file__).parents[2].parent / "shared" / "data" / "drive" / "test"


def square(side: int = 400, low: int = 100, high: int = 300, value: int = 1) -> np.ndarray:
    labels = np.zeros((side, side), np.uint8)
    labels[low:high, low:high] = value
    return labels


def count(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((picture == color).all(axis=-1).sum())


def closest(picture: np.ndarray, rows: slice, columns: slice) -> tuple[int, int, int]:
    """Which of the agreement colours a region is painted in, by hue."""
    region = picture[rows, columns].reshape(-1, 3).mean(axis=0)
    unit = region / np.linalg.norm(region)
    colors = (CORRECT, FALSE_POSITIVE, FALSE_NEGATIVE, OTHER_CLASS)
    return max(colors, key=lambda color: float(unit @ np.array(color) / np.linalg.norm(color)))


@pytest.mark.parametrize("shape", [(400, 500), (400, 500, 1), (400, 500, 3)])
def test_any_picture_gives_rgb_with_a_legend_below(shape):
    image = np.full(shape, 90, np.uint8)
    picture = draw_overlay(image, np.zeros((400, 500), np.uint8), VESSEL)
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (500, 3)
    assert 410 < picture.shape[0] < 450
    assert (picture[:400] == 90).all()
    assert count(picture[400:], VESSEL.labels[1].color) > 50


def test_the_contour_lies_on_the_border_of_the_region_and_nowhere_else():
    picture = draw_overlay(np.zeros((400, 400, 3), np.uint8), square(), VESSEL)[:400]
    drawn = (picture == VESSEL.labels[1].color).all(axis=-1)
    expected = np.zeros_like(drawn)
    expected[100:300, 100:300] = True
    expected[101:299, 101:299] = False
    np.testing.assert_array_equal(drawn, expected)


def test_a_class_inside_another_is_outlined_from_both_sides():
    labels = square() + square(low=150, high=200)
    picture = draw_overlay(np.zeros((400, 400), np.uint8), labels, ORGANS)[:400]
    outer, hole, inner = 4 * 199, 4 * 50, 4 * 49
    assert count(picture, ORGANS.labels[1].color) == outer + hole
    assert count(picture, ORGANS.labels[2].color) == inner


def test_on_an_enlarged_picture_the_contour_is_enlarged_with_it():
    picture = draw_overlay(np.zeros((100, 100), np.uint8), square(100, 20, 50), VESSEL)[:400]
    rows, columns = np.nonzero((picture == VESSEL.labels[1].color).all(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 199, 80, 199)


def test_every_class_has_its_colour_and_the_truth_is_dashed_white():
    labels, truth = square() + square(low=150, high=200), square(low=120, high=320)
    picture = draw_overlay(np.zeros((400, 400), np.uint8), labels, ORGANS, truth=truth)[:400]
    assert count(picture, ORGANS.labels[1].color) > 700
    assert count(picture, ORGANS.labels[2].color) > 150
    border = 4 * 199
    white = count(picture, (255, 255, 255))
    assert 0.35 * border < white < 0.75 * border


def test_small_pictures_are_enlarged_and_large_ones_are_not():
    small = draw_overlay(np.zeros((128, 100), np.uint8), np.zeros((128, 100), np.uint8), VESSEL)
    assert small.shape[1] == 300
    assert small.shape[0] > 384
    large = draw_overlay(np.zeros((300, 900), np.uint8), np.zeros((300, 900), np.uint8), VESSEL)
    assert large.shape[1] == 900


def test_lines_are_thicker_on_large_pictures():
    def line_width(side: int) -> int:
        picture = draw_overlay(np.zeros((side, side), np.uint8), square(side, side // 4, side // 2), VESSEL)
        row = picture[side // 3, : side // 3 + 1]
        return count(row, VESSEL.labels[1].color)

    assert line_width(500) == 1
    assert 2 <= line_width(1500) <= 3


def test_inputs_are_not_drawn_upon():
    image, labels = np.zeros((400, 400, 3), np.uint8), square()
    draw_overlay(image, labels, VESSEL, truth=labels)
    draw_comparison(image, labels, labels, VESSEL)
    assert not image.any()
    np.testing.assert_array_equal(labels, square())


def panels(picture: np.ndarray, side: int) -> list[np.ndarray]:
    """The three panels of a comparison of one-coloured square images, found by their size."""
    gap = (picture.shape[1] - 3 * side) // 4
    lefts = [gap + number * (side + gap) for number in range(3)]
    top = next(
        row for row in range(picture.shape[0]) if (picture[row, lefts[0] : lefts[0] + side] == 80).all()
    )
    return [picture[top : top + side, left : left + side] for left in lefts]


def test_a_comparison_shows_image_truth_and_where_the_prediction_errs():
    truth, prediction = square(low=100, high=200), square(low=150, high=250)
    image, true, errors = panels(
        draw_comparison(np.full((400, 400, 3), 80, np.uint8), truth, prediction, VESSEL), 400
    )
    assert (image == 80).all()
    colored = np.ptp(true.astype(int), axis=-1) > 20
    np.testing.assert_array_equal(colored, truth > 0)
    assert closest(errors, slice(155, 195), slice(155, 195)) == CORRECT
    assert closest(errors, slice(105, 145), slice(105, 145)) == FALSE_NEGATIVE
    assert closest(errors, slice(205, 245), slice(205, 245)) == FALSE_POSITIVE
    np.testing.assert_array_equal(np.ptp(errors.astype(int), axis=-1) > 20, (truth > 0) | (prediction > 0))


def test_a_comparison_of_several_classes_shows_mix_ups_and_pixels_that_are_not_scored():
    truth, prediction = square(value=1), square(value=1)
    prediction[120:180, 120:180] = 2
    truth[:40] = 255
    prediction[:40] = 1
    errors = panels(draw_comparison(np.full((400, 400), 80, np.uint8), truth, prediction, ORGANS), 400)[2]
    assert closest(errors, slice(125, 175), slice(125, 175)) == OTHER_CLASS
    assert closest(errors, slice(200, 290), slice(200, 290)) == CORRECT
    not_scored, background = errors[5:35, 5:395], errors[60:90, 5:395]
    assert np.ptp(not_scored.astype(int)) == 0  # one grey, neither right nor wrong
    assert not_scored[0, 0, 0] > background[0, 0, 0] + 30


def test_the_legend_wraps_instead_of_leaving_the_picture():
    names = ["background", *(f"a structure with a long name {i}" for i in range(6))]
    labels = LabelSet.from_names(names)
    picture = draw_overlay(np.zeros((400, 400), np.uint8), np.zeros((400, 400), np.uint8), labels)
    assert picture.shape[1] == 400
    for label in labels.foreground:
        assert count(picture[400:], label.color) > 50
    assert picture.shape[0] > 400 + 3 * 20


def ink(picture) -> int:
    return int((picture > 150).all(axis=-1).sum())


def test_words_that_are_wider_than_a_picture_are_not_cut():
    """Half of a number is another number."""
    labels = LabelSet.from_names(["background", "left kidney 12.3 ml"])
    wide, narrow = (
        draw_overlay(np.zeros((400, width), np.uint8), np.zeros((400, width), int), labels)
        for width in (400, 40)
    )
    assert narrow.shape[1] > 100
    assert ink(narrow[400:]) == ink(wide[400:]) > 100
    title = "slice 2 of 3   contours: network 0123456789abcdef"
    blank = np.zeros((400, 400, 3), np.uint8)
    on_wide, on_narrow = (contact_sheet([one], titles=[title], columns=1) for one in (blank, blank[:, :40]))
    assert 100 < on_narrow.shape[1] < 250
    assert on_narrow.shape[0] > on_wide.shape[0] + 20  # in several lines
    assert ink(on_narrow) == pytest.approx(ink(on_wide), rel=0.05)


def test_a_sheet_holds_every_picture_untouched_in_rows():
    pictures = [np.full((50 + 10 * i, 60, 3), 100 + i, np.uint8) for i in range(5)]
    sheet = contact_sheet(pictures, titles=[f"slice {i}" for i in range(5)], columns=2)
    assert sheet.shape[0] > 3 * 90
    assert 120 < sheet.shape[1] < 160
    for i, picture in enumerate(pictures):
        assert count(sheet, (100 + i,) * 3) >= picture[..., 0].size
    rows = [int(np.flatnonzero((sheet == 100 + i).all(axis=-1).any(axis=1))[0]) for i in range(5)]
    columns = [int(np.flatnonzero((sheet == 100 + i).all(axis=-1).any(axis=0))[0]) for i in range(5)]
    assert columns[0] == columns[2] == columns[4] < columns[1] == columns[3]
    assert rows[1] < rows[3] < rows[4]


def test_titles_take_room_only_where_there_are_any():
    pictures = [np.zeros((50, 60), np.uint8)] * 3
    plain, titled = contact_sheet(pictures), contact_sheet(pictures, titles=["a", "b", "c"])
    assert titled.shape[0] > plain.shape[0] + 15
    assert (titled[: titled.shape[0] - 60] > 150).any()


def test_of_other_channels_than_grey_and_colour_the_first_is_shown():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 5), dtype=np.uint8)
    label = np.zeros((50, 60), int)
    np.testing.assert_array_equal(
        draw_overlay(image, label, VESSEL), draw_overlay(image[:, :, 0], label, VESSEL)
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: draw_overlay(np.zeros((4, 4), np.float32), np.zeros((4, 4), int), VESSEL),
        lambda: draw_overlay(np.zeros((4, 4, 2, 1), np.uint8), np.zeros((4, 4), int), VESSEL),
        lambda: draw_overlay(np.zeros((4, 4), np.uint8), np.zeros((4, 5), int), VESSEL),
        lambda: draw_comparison(
            np.zeros((4, 4), np.uint8), np.zeros((4, 4), int), np.zeros((5, 4), int), VESSEL
        ),
        lambda: contact_sheet([]),
        lambda: contact_sheet([np.zeros((4, 4), np.uint8)], titles=["a", "b"]),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match=r"shape|sheet|titles"):
        call()


@pytest.mark.skipif(not DRIVE.is_dir(), reason="DRIVE is not at ../shared/data/drive")
def test_a_second_observer_of_drive_agrees_with_the_first_on_most_vessels():
    from PIL import Image

    image = np.array(Image.open(DRIVE / "images" / "01_test.tif"))
    first = (np.array(Image.open(DRIVE / "1st_manual" / "01_manual1.gif")) > 0).astype(np.uint8)
    second = (np.array(Image.open(DRIVE / "2nd_manual" / "01_manual2.gif")) > 0).astype(np.uint8)
    picture = draw_comparison(image, first, second, VESSEL).astype(int)
    greenish = (picture[..., 1] > picture[..., 0] + 60) & (picture[..., 1] > picture[..., 2] + 20)
    assert greenish.sum() == pytest.approx((first & second).sum(), rel=0.05)
