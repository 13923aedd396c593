"""A recipe's transforms on real arrays: grey images, sizes that can be stacked, the ignored label, workers."""

from __future__ import annotations

import pickle
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from medseg_paddle.config import Recipe
from medseg_paddle.config.transforms import Transform
from medseg_paddle.engine.data import Survey, TrainingStream, require_stackable
from medseg_paddle.engine.paddleseg_adapter.transforms import TrainingTransform, sizes_after
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.preprocess import foreground_indices

WANTED: dict[str, dict[str, Any]] = {  # with settings under which each one does something
    "Resize": {"target_size": (40, 24)},
    "ResizeByLong": {"long_size": 50},
    "ResizeByShort": {"short_size": 30},
    "Padding": {"target_size": (90, 70)},
    "LimitLong": {"max_long": 40},
    "ResizeRangeScaling": {"min_value": 30, "max_value": 60},
    "RandomPaddingCrop": {"crop_size": (40, 24)},
    "ScalePadding": {"target_size": (40, 24)},
    "RandomAffine": {"size": (40, 24)},
    "RandomAffinePatch": {"size": (24, 40), "rotation": 20},
    "ElasticDeformation": {"alpha": 2, "sigma": 4, "prob": 1},
    "RandomIntensity": {"contrast": 0.5, "noise": 0.1},
    "RandomBlur": {"prob": 1},
    "RandomNoise": {"prob": 1},
    "RandomHorizontalFlip": {"prob": 1},
    "RandomVerticalFlip": {"prob": 1},
    "RandomDistort": {
        f"{key}_prob": 1 for key in ("brightness", "contrast", "saturation", "hue", "sharpness")
    },
}
TYPES = [get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(get_args(Transform)[0])]
SIZES = ((48, 64), (32, 32), (66, 50))


def specs(*steps: str | dict[str, Any]) -> tuple[Transform, ...]:
    full = [{"type": s, **WANTED.get(s, {})} if isinstance(s, str) else s for s in steps]
    return TypeAdapter(tuple[Transform, ...]).validate_python(full)


def drawn(transforms: tuple[Transform, ...], size: tuple[int, int], seed: int, channels: int = 3):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, channels)).astype(np.float32)
    label = np.zeros(size, np.uint8)
    label[8:20, 8:20] = 1
    return TrainingTransform(transforms)(image, label, rng, foreground_indices(label))


@pytest.mark.parametrize("name", TYPES)
def test_a_grey_image_passes_every_transform_between_two_that_need_its_channel(name):
    between = specs("RandomAffinePatch", name, "RandomIntensity", name, "RandomAffinePatch", "Normalize")
    image, label = drawn(between, (48, 64), seed=1, channels=1)
    assert (image.shape, image.dtype) == ((1, 24, 40), np.float32)
    assert (label.shape, label.dtype) == ((24, 40), np.int64)


@pytest.mark.parametrize("name", TYPES)
def test_the_sizes_foretold_are_the_sizes_drawn(name):
    steps = specs(name)
    shapes = {size: {drawn(steps, size, seed)[1].shape for seed in range(12)} for size in SIZES}
    foretold = sizes_after(steps, SIZES)
    if foretold is None:
        assert any(len(found) > 1 for found in shapes.values())
    else:
        assert foretold == set().union(*shapes.values())
    for size, found in shapes.items():
        alone = sizes_after(steps, [size])
        assert (len(found) > 1) if alone is None else (found == alone)


@pytest.mark.parametrize(
    ("steps", "sizes", "stackable"),
    [
        (["RandomPaddingCrop", "RandomRotation"], [(48, 64)], False),
        (["ResizeStepScaling"], [(48, 64)], False),
        (["ResizeStepScaling", "RandomPaddingCrop", "RandomHorizontalFlip"], SIZES, True),
        (["RandomRotation", "Resize", "RandomScaleAspect", "Normalize"], SIZES, True),
        (["RandomAffinePatch", "RandomCenterCrop"], [(48, 64)], False),
        (["Normalize"], [(48, 64)], True),
        (["Normalize"], SIZES, False),
        (["ResizeByLong"], [(48, 64)], True),
        (["ResizeByLong"], [(48, 64), (24, 32)], True),
        (["ResizeByLong"], SIZES, False),
        ([{"type": "ResizeByLong", "long_size": 50}, "Padding"], SIZES, True),
        ([{"type": "RandomRotation", "max_rotation": 0}], [(48, 64)], True),
        ([{"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 0.5}], [(48, 64)], True),
        ([{"type": "RandomPaddingCrop", "crop_size": (40, 24), "category_max_ratio": 0.5}], [(48, 64)], False),
    ],
)  # fmt: skip
def test_images_that_cannot_be_stacked_are_refused_before_the_training(
    disc_recipe: Recipe, steps, sizes, stackable
):
    data = disc_recipe.train_dataset.model_copy(update={"transforms": specs(*steps)})
    found = Survey((9, 9), frozenset(sizes))
    recipe = disc_recipe.model_copy(update={"train_dataset": data, "batch_size": 2})
    if stackable:
        require_stackable(recipe, found)
    else:
        with pytest.raises(RecipeError, match="cannot be stacked to a batch of 2") as caught:
            require_stackable(recipe, found)
        assert "batch_size: 1" in caught.value.hint
    require_stackable(recipe.model_copy(update={"batch_size": 1}), found)


def test_a_padding_smaller_than_an_image_is_refused_before_the_training():
    small = specs({"type": "Padding", "target_size": (64, 48)})  # width, height
    assert sizes_after(small, [(48, 64)]) == {(48, 64)}
    with pytest.raises(RecipeError, match="smaller than an image"):
        sizes_after(small, [(64, 48)])


def test_an_image_that_was_limited_does_not_shrink_the_next_one():
    transform = TrainingTransform(specs({"type": "ResizeByShort", "short_size": 30, "max_size": 40}))

    def shape(size: tuple[int, int]) -> tuple[int, ...]:
        rng, label = np.random.default_rng(0), np.zeros(size, np.uint8)
        return transform(np.zeros((*size, 3), np.float32), label, rng, foreground_indices(label))[1].shape

    assert [shape((20, 20)), shape((20, 40)), shape((20, 20))] == [(30, 30), (20, 40), (30, 30)]


@pytest.mark.parametrize("ignore_index", [255, 7, 300, -1])
def test_beyond_the_border_the_label_is_what_the_recipe_ignores(ignore_index):
    steps = specs({"type": "RandomAffinePatch", "size": (8, 10), "border": "ignore"}, "RandomHorizontalFlip")
    label = np.full((4, 4), 254, np.uint8)
    rng = np.random.default_rng(0)
    _, seen = TrainingTransform(steps, ignore_index)(
        np.zeros((4, 4, 3), np.float32), label, rng, foreground_indices(label, ignore_index)
    )
    values, counts = np.unique(seen, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {254: 16, ignore_index: 80 - 16}


@pytest.mark.parametrize("first", [(), ("RandomIntensity",)])
def test_the_recipes_ignored_value_is_no_foreground(first):
    steps = specs(*first, {"type": "RandomAffinePatch", "size": (3, 3), "foreground": 1.0})
    label = np.full((30, 30), 7, np.uint8)
    label[15, 20] = 1
    for seed in range(10):
        _, seen = TrainingTransform(steps, 7)(
            np.zeros((30, 30, 3), np.float32),
            label,
            np.random.default_rng(seed),
            foreground_indices(label, 7),
        )
        assert seen[1, 1] == 1


def test_the_stream_hands_on_the_recipes_ignored_value(disc_recipe: Recipe):
    class Ignoring(Recipe):
        @property
        def ignore_index(self) -> int:
            return 9

    from medseg_paddle.io.cases import load_cases

    patch = {"type": "RandomAffinePatch", "size": (64, 64), "border": "ignore"}
    data = disc_recipe.train_dataset.model_copy(update={"transforms": specs(patch)})
    fields = {name: getattr(disc_recipe, name) for name in Recipe.model_fields}
    recipe = Ignoring.model_construct(**{**fields, "train_dataset": data})
    label = TrainingStream(load_cases(disc_recipe.train_dataset), recipe)[0]["label"]
    assert set(np.unique(label)) == {0, 1, 9}


def test_an_error_made_from_text_alone_says_where_to_look():
    error = DataError("Traceback ...\nDataError: scan.png is cut off")
    assert "scan.png is cut off" in str(error)
    assert error.hint


def test_an_error_keeps_message_and_hint_when_pickled():
    error = pickle.loads(pickle.dumps(DataError("wrong", hint="right")))  # noqa: S301
    assert type(error) is DataError
    assert (error.message, error.hint, str(error)) == ("wrong", "right", "wrong\nhint: right")
