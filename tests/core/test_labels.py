"""Colours of labels, and what a label map may hold."""

import json

import numpy as np
import pytest

from medseg_paddle.core import Geometry, Label, LabelMap, LabelSet
from medseg_paddle.core.concepts import concept_of
from medseg_paddle.errors import DataError, RecipeError

LABELS = LabelSet.from_names(["background", "liver"])
# Gamma of sRGB and its matrix to CIE XYZ (IEC 61966-2-1).
TO_XYZ = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])


def lab(colors) -> np.ndarray:
    """CIELAB of sRGB colours, daylight D65."""
    rgb = np.array(colors) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = (linear @ TO_XYZ.T / [0.9505, 1, 1.089]).T
    x, y, z = (np.where(one > 0.008856, np.cbrt(one), 7.787 * one + 16 / 116) for one in (x, y, z))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def test_twenty_four_labels_are_told_apart_by_colour():
    colors = [label.color for label in LabelSet.generic(25).foreground]
    assert colors[0] == (230, 159, 0)  # of Okabe and Ito
    assert colors[6] == (204, 121, 167)
    apart = np.linalg.norm(lab(colors)[:, None] - lab(colors)[None], axis=-1)
    assert apart[~np.eye(24, dtype=bool)].min() > 20  # 2.3 are seen side by side
    assert LabelSet.generic(26).labels[25].color == colors[0]


@pytest.mark.parametrize("dtype", [bool, np.int16, np.int64, np.uint32, np.float32])
def test_a_label_map_holds_integers_of_8_or_16_bits_without_a_sign(dtype):
    geometry = Geometry((1, 2, 3), np.eye(4))
    for fine in (np.uint8, np.uint16):
        LabelMap(np.ones((1, 2, 3), fine), geometry, LABELS)
    with pytest.raises(DataError, match=np.dtype(dtype).name):
        LabelMap(np.ones((1, 2, 3), dtype), geometry, LABELS)


def test_labels_are_the_same_after_a_file_and_those_of_earlier_files_have_no_codes():
    concept = concept_of("cyst of the left kidney")
    labels = LABELS.described({"liver": concept}, {"liver": (1, 2, 3)})
    written = json.loads(json.dumps([label.to_json() for label in labels]))
    assert LabelSet(tuple(map(Label.from_json, written))) == labels
    assert [label.to_json() for label in LABELS] == [
        {"index": 0, "name": "background", "color": (0, 0, 0)},
        {"index": 1, "name": "liver", "color": (230, 159, 0)},
    ]
    for wrong in (
        {**written[1], "concept": {}},
        {**written[1], "concept": {"category": None, "type": None}},
        {**written[1], "concept": {**written[1]["concept"], "x": None}},
        {**written[1], "concept": [1]},
        {
            **written[1],
            "concept": {**written[1]["concept"], "type": {"value": "1", "meaning": "x", "scheme": "SCT"}},
        },
    ):
        with pytest.raises((KeyError, TypeError, AttributeError, RecipeError)):
            Label.from_json(wrong)
