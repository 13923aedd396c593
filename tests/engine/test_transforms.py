"""A recipe's transforms on real arrays: grey images, sizes that can be stacked, the ignored label, workers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from pydantic_core import PydanticCustomError

from medseg_paddle.config import Recipe
from medseg_paddle.config.agreement import require_agreement
from medseg_paddle.config.transforms import Transform
from medseg_paddle.engine.data import Survey, TrainingStream, require_stackable, survey
from medseg_paddle.engine.paddleseg_adapter.transforms import TrainingTransform, sizes_after
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.preprocess import foreground_indices
from medseg_paddle.preprocess.augment.volume_augmentation import VOLUME_TRANSFORMS

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
    "RandomGaussianBlur": {"prob": 1},
    "RandomLowResolution": {"prob": 1},
    "RandomChannelDrop": {"prob": 1},
    "RandomCutout": {"prob": 1, "label": "ignore"},
    "RandomHistogramMatch": {"prob": 1, "styles": "styles"},  # `drawn` puts a picture there
    "RandomFourierStyle": {"prob": 1, "styles": "styles"},
    "RandomBlur": {"prob": 1},
    "RandomNoise": {"prob": 1},
    "RandomHorizontalFlip": {"prob": 1},
    "RandomVerticalFlip": {"prob": 1},
    "RandomDistort": {
        f"{key}_prob": 1 for key in ("brightness", "contrast", "saturation", "hue", "sharpness")
    },
}
OF_VOLUMES = {"VolumePreprocessing", *VOLUME_TRANSFORMS}
TYPES = [
    name
    for kind in get_args(get_args(Transform)[0])
    if (name := get_args(kind.model_fields["type"].annotation)[0]) not in OF_VOLUMES
]
TAKE_FOUR_CHANNELS = (
    "Padding", "PaddingByAspectRatio", "RandomPaddingCrop", "RandomRotation", "RandomAffine", "RandomBlur",
)  # fmt: skip
SIZES = ((48, 64), (32, 32), (66, 50))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """The working directory, which paths of a recipe are relative to."""
    monkeypatch.chdir(tmp_path)


def specs(*steps: str | dict[str, Any]) -> tuple[Transform, ...]:
    full = [{"type": s, **WANTED.get(s, {})} if isinstance(s, str) else s for s in steps]
    return TypeAdapter(tuple[Transform, ...]).validate_python(full)


def drawn(
    transforms: tuple[Transform, ...],
    size: tuple[int, int],
    seed: int,
    channels: int = 3,
    kind: type = np.uint8,
):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, channels)).astype(kind)
    label = np.zeros(size, np.uint8)
    label[8:20, 8:20] = 1
    image.setflags(write=False)  # as what is kept in memory
    label.setflags(write=False)
    _put_style(channels)
    apply = TrainingTransform(transforms, channels=channels)
    return apply(image, label, rng, foreground_indices(label))


def _put_style(channels: int) -> None:
    Path("styles").mkdir(exist_ok=True)
    pixels = np.random.default_rng(5).integers(30, 90, (40, 50, channels), np.uint8)
    if channels == 1:
        Image.fromarray(pixels[:, :, 0]).save("styles/picture.png")
    else:
        np.save("styles/picture.npy", pixels)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("name", TYPES)
def test_a_grey_image_passes_every_transform_between_two_that_need_its_channel(name, kind):
    between = specs("RandomAffinePatch", name, "RandomIntensity", name, "RandomAffinePatch", "Normalize")
    image, label = drawn(between, (48, 64), seed=1, channels=1, kind=kind)
    assert (image.shape, image.dtype) == ((1, 24, 40), np.float32)
    assert (label.shape, label.dtype) == ((24, 40), np.int64)


@pytest.mark.parametrize("channels", [2, 4, 5, 32])
@pytest.mark.parametrize("name", TYPES)
def test_any_number_of_channels_passes_every_transform_that_recipes_may_name_for_it(
    name, channels, disc_recipe
):
    steps = specs(name)
    model = disc_recipe.model.model_copy(update={"in_channels": channels})
    data = disc_recipe.train_dataset.model_copy(update={"transforms": steps})
    recipe = disc_recipe.model_copy(update={"model": model, "train_dataset": data, "val_dataset": None})
    if name == "RandomDistort" or (name in TAKE_FOUR_CHANNELS and channels > 4):
        with pytest.raises(PydanticCustomError, match=name):
            require_agreement(recipe)
        return
    require_agreement(recipe)
    image, label = drawn(steps, (48, 64), seed=1, channels=channels)
    assert image.shape == (channels, *label.shape)


@pytest.mark.parametrize("name", TYPES)
def test_eight_bit_images_give_what_float_gives_within_rounding(name):
    steps = specs(name)
    whole, label = drawn(steps, (48, 64), seed=3)
    fine, same = drawn(steps, (48, 64), seed=3, kind=np.float32)
    # Two roundings at most; OpenCV's Gaussian blur of 8 bits also has narrower weights, in 1/256.
    assert np.abs(whole - fine).max() <= (2.5 if name == "RandomGaussianBlur" else 1.01)
    np.testing.assert_array_equal(label, same)


@pytest.mark.parametrize(
    "steps", [(), ("Normalize",), ("RandomHorizontalFlip",), ("RandomChannelDrop", "Normalize")]
)
def test_what_a_recipe_does_not_change_is_not_shared_with_the_cache(steps):
    image, label = np.full((8, 8, 1), 9, np.float32), np.ones((8, 8), np.int64)
    image.setflags(write=False)
    label.setflags(write=False)
    out, mask = TrainingTransform(specs(*steps))(
        image, label, np.random.default_rng(0), foreground_indices(label)
    )
    assert not np.shares_memory(out, image)
    assert not np.shares_memory(mask, label)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                                           ((0.1, 0.2, 0.3), (0.7,))])  # fmt: skip
def test_the_last_normalisation_is_paddlesegs(mean, std):
    from paddleseg.transforms.functional import normalize

    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (32, 30, 3)).astype(np.uint8), np.zeros((32, 30), np.uint8)
    transform = TrainingTransform(specs({"type": "Normalize", "mean": mean, "std": std}))
    expected = normalize(image.astype(np.float32), np.array(mean), np.array(std)).transpose(2, 0, 1)
    np.testing.assert_array_equal(transform(image, label, rng, label)[0], expected)
    fine = image + rng.uniform(0, 1, image.shape).astype(np.float32)
    expected = normalize(fine, np.array(mean), np.array(std)).transpose(2, 0, 1)
    np.testing.assert_allclose(transform(fine, label, rng, label)[0], expected, atol=1e-6)


def test_labels_that_are_padded_to_a_square_stay_labels():
    label = np.zeros((40, 60), np.uint8)
    label[10:30, 20:40] = 2
    step = specs({"type": "ScalePadding", "target_size": (30, 30)})
    _, seen = TrainingTransform(step)(np.zeros((40, 60, 3), np.uint8), label, np.random.default_rng(0), label)
    assert set(np.unique(seen)) == {0, 2, 255}
    np.testing.assert_array_equal(seen[5:25], np.repeat(np.repeat(label, 1, 0), 1, 1)[1::2, 1::2])


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


@pytest.mark.parametrize("first", [[], ["RandomHorizontalFlip"]], ids=["alone", "after another"])
def test_patches_by_class_show_the_small_class_as_often(first):
    """Class 2 has one pixel beside 400 of class 1, and 3 is what the recipe ignores."""
    label = np.zeros((30, 30), np.uint8)
    label[5:25, 5:25], label[28, 28], label[28, 1] = 1, 2, 3
    seen, found = {}, foreground_indices(label, 3)
    for by in ("pixel", "class"):
        patch = {"type": "RandomAffinePatch", "size": (3, 3), "foreground": 1, "foreground_by": by}
        transform = TrainingTransform(specs(*first, patch), ignore_index=3)
        centres = [
            transform(np.zeros((30, 30, 1), np.uint8), label, np.random.default_rng(seed), found)[1][1, 1]
            for seed in range(400)
        ]
        seen[by] = np.bincount(centres, minlength=4)
    assert seen["pixel"][2] < 10
    assert seen["class"].tolist() == pytest.approx([0, 200, 200, 0], abs=50)


def test_the_stream_hands_on_the_recipes_ignored_value(disc_recipe: Recipe):
    class Ignoring(Recipe):
        @property
        def ignore_index(self) -> int:
            return 9

    patch = {"type": "RandomAffinePatch", "size": (64, 64), "border": "ignore"}
    data = disc_recipe.train_dataset.model_copy(update={"transforms": specs(patch)})
    fields = {name: getattr(disc_recipe, name) for name in Recipe.model_fields}
    recipe = Ignoring.model_construct(**{**fields, "train_dataset": data})
    label = TrainingStream(load_cases(disc_recipe.train_dataset), recipe)[0]["label"]
    assert set(np.unique(label)) == {0, 1, 9}


def test_the_survey_counts_no_ignored_pixel(disc_recipe: Recipe):
    class Ignoring(Recipe):
        @property
        def ignore_index(self) -> int:
            return 1

    fields = {name: getattr(disc_recipe, name) for name in Recipe.model_fields}
    cases = load_cases(disc_recipe.train_dataset)
    background, disc = survey(cases, disc_recipe).pixels
    assert disc > 0
    assert survey(cases, Ignoring.model_construct(**fields)).pixels == (background, 0)


def test_an_error_made_from_text_alone_says_where_to_look():
    error = DataError("Traceback ...\nDataError: scan.png is cut off")
    assert "scan.png is cut off" in str(error)
    assert error.hint


def test_an_error_keeps_message_and_hint_when_pickled():
    error = pickle.loads(pickle.dumps(DataError("wrong", hint="right")))  # noqa: S301
    assert type(error) is DataError
    assert (error.message, error.hint, str(error)) == ("wrong", "right", "wrong\nhint: right")
