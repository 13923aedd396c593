"""Rules for the answer: what each keeps, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg_paddle.core import LabelSet
from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import labels_of, rules_from_specs
from medseg_paddle.preprocess.postprocessing import classes_of, cleaned

LABELS = LabelSet.from_names(["background", "liver", "tumour"])


def picture(text: str) -> np.ndarray:
    return np.array(
        [[0 if letter == "." else int(letter) for letter in line] for line in text.split()], np.uint8
    )


def after(array: np.ndarray, *specs: dict, spacing=None) -> np.ndarray:
    rules = rules_from_specs([json.loads(json.dumps(spec)) for spec in specs], LABELS)
    return cleaned(array, LABELS, rules, spacing)


def test_the_largest_part_of_each_class_is_kept():
    found = after(picture("11.22. 11...2 ....22 1.1..2"), {"type": "KeepLargest"})
    # By corners, the tumour is one part.
    np.testing.assert_array_equal(found, picture("11.22. 11...2 ....22 .....2"))


def test_parts_that_meet_at_corners_are_two_where_faces_count():
    found = after(picture("11.22. 11...2 ....22 1.1..2"), {"type": "KeepLargest", "connectivity": "faces"})
    np.testing.assert_array_equal(found, picture("11.... 11...2 ....22 .....2"))


def test_a_number_of_parts_and_of_some_classes():
    drawn = picture("111.11.1 22.2.1.1")
    found = after(drawn, {"type": "KeepLargest", "classes": ["liver"], "parts": 2})
    # Of two parts of one size the first stays; the tumour is not looked at.
    np.testing.assert_array_equal(found, picture("111.11.. 22.2.1.."))


def test_classes_together_are_one_part():
    drawn = picture("1122.1 11....")
    together = {"type": "KeepLargest", "classes": ["liver", "tumour"], "together": True}
    np.testing.assert_array_equal(after(drawn, together), picture("1122.. 11...."))
    np.testing.assert_array_equal(after(picture("11.22 .1.22 .1.22"), together), picture("...22 ...22 ...22"))


def test_small_parts_go_by_pixels():
    found = after(picture("11.2 11.. ...1"), {"type": "RemoveSmall", "pixels": 2})
    np.testing.assert_array_equal(found, picture("11.. 11.. ...."))
    found = after(picture("11.2 11.. ...1"), {"type": "RemoveSmall", "pixels": 2, "classes": ["tumour"]})
    np.testing.assert_array_equal(found, picture("11.. 11.. ...1"))


def test_small_parts_go_by_ml_of_the_true_spacing():
    volume = np.zeros((4, 5, 6), np.uint8)
    volume[0, 0, :2] = 1  # 2 voxels of 0.6 mm3 x 1000
    volume[3, 3:, 3:] = 1  # 6
    spacing = (10.0, 6.0, 10.0)
    assert np.count_nonzero(after(volume, {"type": "RemoveSmall", "ml": 1.21}, spacing=spacing)) == 6
    assert np.count_nonzero(after(volume, {"type": "RemoveSmall", "ml": 1.2}, spacing=spacing)) == 8
    assert np.count_nonzero(after(volume, {"type": "RemoveSmall", "ml": 3.61}, spacing=spacing)) == 0


def test_holes_are_background_that_a_class_encloses():
    drawn = picture("11111. 1.2.1. 11111. 1...1. 1.111.")
    # The tumour in the liver stays; the lower gap is open.
    np.testing.assert_array_equal(
        after(drawn, {"type": "FillHoles"}), picture("11111. 11211. 11111. 1...1. 1.111.")
    )


def test_what_two_classes_enclose_together_is_no_hole_of_either():
    drawn = picture("111 1.2 111")
    np.testing.assert_array_equal(after(drawn, {"type": "FillHoles"}), drawn)


def test_in_a_volume_a_hole_is_closed_on_all_sides():
    volume = np.ones((3, 5, 5), np.uint8)
    volume[1, 2, 2] = 0
    volume[:, 1, 1] = 0  # a tube from the bottom to the top
    found = after(volume, {"type": "FillHoles", "classes": ["liver"]}, spacing=(1, 1, 1))
    assert found[1, 2, 2] == 1
    assert (found[:, 1, 1] == 0).all()


def test_rules_apply_in_their_order():
    drawn = picture("11111 1...1 11111 ..... 22222")
    drawn[1, 2] = 1  # a speck in the hole, met at corners by nothing
    fill, keep = {"type": "FillHoles"}, {"type": "KeepLargest", "connectivity": "faces", "classes": ["liver"]}
    wide = picture("1111111 1.....1 1..1..1 1.....1 1111111")
    assert np.count_nonzero(after(wide, fill, keep) == 1) == 35
    assert np.count_nonzero(after(wide, keep) == 1) == 20
    drawn_before = drawn.copy()
    after(drawn, keep, fill)
    np.testing.assert_array_equal(drawn, drawn_before)  # what is given is not changed


def test_more_parts_than_sixteen_bits_can_number():
    dots = np.zeros((700, 700), np.uint8)
    dots[::2, ::2] = 1
    dots[0, :2] = 1
    found = after(dots, {"type": "KeepLargest"})
    assert np.count_nonzero(found) == 3
    assert found[0, :3].tolist() == [1, 1, 1]


def test_an_empty_answer_stays_empty():
    empty = np.zeros((4, 4), np.uint8)
    for rule in ({"type": "KeepLargest"}, {"type": "RemoveSmall", "pixels": 3}, {"type": "FillHoles"}):
        assert not after(empty, rule).any()


def probabilities(*voxels: tuple[float, float, float]) -> np.ndarray:
    return np.array(voxels, np.float32).T[:, None]


def test_a_threshold_is_enough_and_needed():
    rules = rules_from_specs([{"type": "Threshold", "classes": ["tumour"], "at_least": 0.3}], LABELS)
    found = classes_of(
        probabilities((0.6, 0.1, 0.3), (0.71, 0.0, 0.29), (0.2, 0.5, 0.3), (0.35, 0.36, 0.29)), LABELS, rules
    )
    assert found.tolist() == [[2, 0, 2, 1]]
    strict = rules_from_specs([{"type": "Threshold", "classes": ["tumour"], "at_least": 0.8}], LABELS)
    found = classes_of(probabilities((0.1, 0.2, 0.7), (0.1, 0.1, 0.8), (0.2, 0.1, 0.7)), LABELS, strict)
    assert found.tolist() == [[1, 2, 0]]


def test_of_several_that_reach_their_threshold_the_most_probable():
    rules = rules_from_specs(
        [
            {"type": "Threshold", "classes": ["tumour"], "at_least": 0.2},
            {"type": "Threshold", "classes": ["liver"], "at_least": 0.3},
        ],
        LABELS,
    )
    voxels = ((0.4, 0.35, 0.25), (0.5, 0.25, 0.25), (0.81, 0.0, 0.19), (0.2, 0.4, 0.4))
    assert classes_of(probabilities(*voxels), LABELS, rules).tolist() == [[1, 2, 0, 1]]


def test_without_rules_the_most_probable_the_first_of_equals():
    noise = np.random.default_rng(0).integers(0, 4, (3, 9, 8)).astype(np.float32)
    np.testing.assert_array_equal(labels_of(noise, LABELS), noise.argmax(axis=0))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"type": "KeepLargest", "classes": ["spleen"]}, "'spleen' is no class"),
        ({"type": "KeepLargest", "classes": ["background"]}, "'background' is no class"),
        ({"type": "KeepSmallest"}, "not supported"),
        ({"type": "FillHoles", "size": 3}, "no parameter 'size'"),
    ],
)
def test_rules_that_make_no_sense_are_refused(spec, says):
    with pytest.raises(RecipeError, match=says):
        rules_from_specs([spec], LABELS)


def test_ml_of_a_picture_and_pixels_of_a_volume_are_refused():
    with pytest.raises(RecipeError, match="ml"):
        after(picture("11"), {"type": "RemoveSmall", "ml": 1})
    with pytest.raises(RecipeError, match="volume"):
        after(np.ones((2, 2, 2), np.uint8), {"type": "RemoveSmall", "pixels": 1}, spacing=(1, 1, 1))
