"""Where PaddleSeg's own transforms put image and label: images whose channels say where a pixel came from."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from medseg_paddle.config.transforms import Transform
from medseg_paddle.engine.paddleseg_adapter.transforms import TrainingTransform

ROWS, COLUMNS = 60, 84


def differences(spec: dict, seed: int, size: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    """Place that the image shows less place that the label names, along rows and columns, in source pixels."""
    row, column = np.mgrid[: size[0], : size[1]].astype(np.float32)
    # PaddleSeg makes some labels 8 bits: the label is the row, then the column
    found = []
    for coordinate in (row, column):
        image = np.stack([row, column, np.full_like(row, 200)], axis=-1)
        steps = TypeAdapter(tuple[Transform, ...]).validate_python([spec])
        seen, named = TrainingTransform(steps)(
            image, coordinate.astype(np.uint8), np.random.default_rng(seed), np.empty((0, 2), int)
        )
        inside = seen[2] == 200  # nothing of the padding
        r, c = seen[0], seen[1]
        inside &= (r > 2) & (c > 2) & (r < size[0] - 3) & (c < size[1] - 3) & (named != 255)
        found.append(((r if coordinate is row else c) - named)[inside])
    return np.concatenate(found)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "RandomHorizontalFlip", "prob": 1},
        {"type": "RandomVerticalFlip", "prob": 1},
        {"type": "Padding", "target_size": (90, 70)},
        {"type": "PaddingByAspectRatio", "aspect_ratio": 2},
        {"type": "RandomPaddingCrop", "crop_size": (40, 70)},
        {"type": "RandomCenterCrop"},
    ],
    ids=lambda spec: spec["type"],
)
def test_flips_pads_and_crops_are_exact(spec):
    for seed in range(10):
        assert not differences(spec, seed).any()


@pytest.mark.parametrize("kind", ["RandomRotation", "RandomAffine", "ScalePadding", "RandomScaleAspect"])
def test_turns_and_enlargements_agree_within_half_a_pixel(kind):
    spec = {
        "RandomRotation": {"max_rotation": 45},
        "RandomAffine": {"size": (84, 60), "max_rotation": 45, "translation_offset": 8},
        "ScalePadding": {"target_size": (50, 50)},
        "RandomScaleAspect": {},
    }[kind]
    rounding = 0.5 if kind in ("RandomAffine", "ScalePadding") else 0.0  # these make the image 8 bits
    for seed in range(10):
        away = differences({"type": kind, **spec}, seed)
        assert np.abs(away).max() <= 0.5 + 1 / 16 + rounding
        assert abs(away.mean()) <= 0.3


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrunk_labels_are_of_the_first_pixel_and_images_of_the_middle(factor):
    """OpenCV's nearest neighbour, which PaddleSeg uses, takes the first of the pixels that become one."""
    spec = {"type": "Resize", "target_size": (COLUMNS // factor, ROWS // factor)}
    away = differences(spec, 0)
    np.testing.assert_allclose(away, (factor - 1) / 2, atol=1e-3)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "Resize", "target_size": (200, 130)},
        {"type": "ResizeByLong", "long_size": 120},
        {"type": "ResizeByShort", "short_size": 120},
        {"type": "LimitLong", "min_long": 160},
        {"type": "ResizeRangeScaling", "min_value": 90, "max_value": 160},
        {"type": "ResizeStepScaling", "min_scale_factor": 1.25, "max_scale_factor": 2},
    ],
    ids=lambda spec: spec["type"],
)
def test_enlarging_agrees_within_half_a_pixel(spec):
    for seed in range(5):
        assert np.abs(differences(spec, seed)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "ResizeByLong", "long_size": 40},
        {"type": "ResizeByShort", "short_size": 25},
        {"type": "LimitLong", "max_long": 40},
        {"type": "ResizeRangeScaling", "min_value": 30, "max_value": 60},
        {"type": "ResizeStepScaling", "min_scale_factor": 0.4, "max_scale_factor": 0.9},
    ],
    ids=lambda spec: spec["type"],
)
def test_shrinking_agrees_within_a_pixel_of_the_result(spec):
    """Half a pixel of the result between label and image, and half a source pixel of the nearest neighbour."""
    for seed in range(5):
        away = differences(spec, seed)
        assert away.min() >= -0.5
        assert away.max() <= 0.5 * 84 / 30 + 0.5
