"""Where PaddleSeg's own transforms put image and label: images whose channels say where a pixel came from."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from medseg_paddle.config.transforms import Transform
from medseg_paddle.engine.paddleseg_adapter.transforms import TrainingTransform
from medseg_paddle.preprocess.augment.arrays import resized_label

ROWS, COLUMNS = 60, 84


def differences(spec: dict, seed: int) -> list[tuple[np.ndarray, float]]:
    """Along rows and columns: the place that the image shows less the place that the label names, in source pixels.

    And with it, how many source pixels became one, were it a resize of the whole.
    """
    row, column = np.mgrid[:ROWS, :COLUMNS].astype(np.float32)
    steps = TypeAdapter(tuple[Transform, ...]).validate_python([spec])
    found = []
    for axis, coordinate in enumerate((row, column)):  # one at a time: some labels become 8 bits
        image = np.stack([row, column, np.full_like(row, 200)], axis=-1)
        seen, named = TrainingTransform(steps)(
            image, coordinate.astype(np.uint8), np.random.default_rng(seed), np.empty((0, 2), int)
        )
        inside = (seen[2] == 200) & (named != 255)  # nothing of the padding
        for place, length in zip(seen[:2], (ROWS, COLUMNS), strict=True):
            inside &= (place > 3) & (place < length - 4)
        found.append(((seen[axis] - named)[inside], coordinate.shape[axis] / named.shape[axis]))
    return found


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
        assert all(len(away) and not away.any() for away, _ in differences(spec, seed))


@pytest.mark.parametrize("kind", ["RandomRotation", "RandomAffine", "ScalePadding"])
def test_turns_agree_within_half_a_pixel(kind):
    spec = {
        "RandomRotation": {"max_rotation": 45},
        "RandomAffine": {"size": (84, 60), "max_rotation": 45, "translation_offset": 8},
        "ScalePadding": {"target_size": (50, 50)},
    }[kind]
    rounding = 0.0 if kind == "RandomRotation" else 0.5  # the others make the image 8 bits
    for seed in range(10):
        for away, _ in differences({"type": kind, **spec}, seed):
            assert np.abs(away).max() <= 0.5 + 1 / 16 + rounding
            assert abs(away.mean()) <= 0.1


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "Resize", "target_size": (28, 20)},
        {"type": "Resize", "target_size": (21, 15)},
        {"type": "Resize", "target_size": (42, 30)},
        {"type": "Resize", "target_size": (42, 30), "interp": "CUBIC"},
        {"type": "Resize", "target_size": (42, 30), "interp": "AREA"},
        {"type": "Resize", "target_size": (200, 130)},
        {"type": "ResizeByLong", "long_size": 120},
        {"type": "ResizeByLong", "long_size": 40},
        {"type": "ResizeByShort", "short_size": 120},
        {"type": "ResizeByShort", "short_size": 25},
        {"type": "LimitLong", "min_long": 160},
        {"type": "LimitLong", "max_long": 40},
        {"type": "ResizeRangeScaling", "min_value": 90, "max_value": 160},
        {"type": "ResizeRangeScaling", "min_value": 30, "max_value": 60},
        {"type": "ResizeStepScaling", "min_scale_factor": 1.25, "max_scale_factor": 2},
        {"type": "ResizeStepScaling", "min_scale_factor": 0.4, "max_scale_factor": 0.9},
    ],
    ids=lambda spec: spec["type"],
)
def test_resized_labels_lie_where_their_image_lies(spec):
    """Each pixel takes the nearest one, and on the whole nothing moves by a tenth of a pixel of the result."""
    for seed in range(5):
        for away, s in differences(spec, seed):
            assert np.abs(away).max() <= 0.5 + 1e-3
            assert abs(away.mean()) / s < 0.1


def test_a_crop_that_is_enlarged_again_is_resized_likewise():
    for seed in range(20):
        for away, _ in differences({"type": "RandomScaleAspect"}, seed):
            assert np.abs(away).max() <= 0.5 + 1e-3
            assert abs(away.mean()) < 0.1


@pytest.mark.parametrize("factor", [2, 3, 4, 6, 8, 1.5, 4 / 3, 0.5, 2 / 3, 0.75])
def test_discs_keep_their_centre_and_their_area_at_every_factor(factor):
    """Of one disc its few border pixels say where it is; of 40 nothing is left of their chance."""
    side, again, rng = 240, round(240 / factor), np.random.default_rng(0)
    steps = TypeAdapter(tuple[Transform, ...]).validate_python(
        [{"type": "Resize", "target_size": (again, again)}]
    )
    transform, moved, grown = TrainingTransform(steps), [], []
    for _ in range(40):
        rows, columns = np.mgrid[:side, :side] + rng.random((2, 1, 1)) * 10 - 120
        disc = (rows**2 + columns**2 < (55 + rng.random() * 10) ** 2).astype(np.uint8)
        _, label = transform(disc[:, :, None], disc, rng, np.empty((0, 2), int))
        before, after = ((np.argwhere(one).mean(axis=0) + 0.5) for one in (disc, label))
        moved.append(after - before / factor)
        grown.append(label.sum() * factor**2 / disc.sum())
    np.testing.assert_allclose(np.mean(moved, axis=0), 0, atol=0.03)
    assert np.mean(grown) == pytest.approx(1, abs=0.005)


def test_a_line_of_two_pixels_is_not_lost_at_half_the_size():
    for place in range(4, 9):
        label = np.zeros((40, 40), np.uint8)
        label[place : place + 2] = 1
        assert resized_label(label, (20, 20)).sum() == 20
        assert resized_label(label.T, (20, 20)).sum() == 20


def test_nearest_images_stay_with_their_labels():
    for away, _ in differences({"type": "Resize", "target_size": (21, 15), "interp": "NEAREST"}, 0):
        assert not away.any()
