from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import Preprocessing

NORMALIZE = {"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
INTERPOLATIONS = ("NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4")
AS_PADDLESEG = [
    [{"type": "Normalize"}],
    [NORMALIZE],
    [{"type": "Resize", "target_size": [64, 48]}, NORMALIZE],
    *([{"type": "Resize", "target_size": [31, 90], "interp": interp}] for interp in INTERPOLATIONS),
    [{"type": "ResizeByLong", "long_size": 77}, {"type": "Padding", "target_size": [80, 96]}, NORMALIZE],
    [{"type": "ResizeByShort", "short_size": 40}, NORMALIZE],
    [{"type": "ResizeByShort", "short_size": 40, "max_size": 50}],
    [NORMALIZE, {"type": "Padding", "target_size": [80, 96], "im_padding_value": 3.5}],
]  # fmt: skip


def picture(rows: int, columns: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(rows * columns).uniform(0, 255, (rows, columns, channels)).astype(np.float32)


@pytest.fixture(scope="module")
def paddleseg_transforms(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        # PaddleSeg makes a folder in SEG_HOME when it is imported.
        patch.setenv("SEG_HOME", str(tmp_path_factory.mktemp("seg")))
        try:
            from paddleseg.transforms import transforms
        except ImportError as error:
            pytest.skip(f"PaddleSeg cannot be imported: {error}")
    return transforms


@pytest.mark.parametrize("specs", AS_PADDLESEG, ids=lambda specs: "+".join(s["type"] for s in specs))
@pytest.mark.parametrize("size", [(70, 53), (41, 66)])
def test_forward_gives_the_numbers_of_paddleseg(paddleseg_transforms, specs, size):
    steps = [
        getattr(paddleseg_transforms, spec["type"])(
            **{k: copy.copy(v) for k, v in spec.items() if k != "type"}
        )
        for spec in specs
    ]
    image = picture(*size)
    theirs = paddleseg_transforms.Compose(steps, to_rgb=False)({"img": image.copy()})["img"]
    ours = Preprocessing.from_specs(specs).forward(image)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


def test_resize_by_short_treats_every_image_by_itself():
    prep = Preprocessing.from_specs([{"type": "ResizeByShort", "short_size": 40, "max_size": 50}])
    assert prep.forward(picture(20, 200)).shape == (3, 5, 50)
    assert prep.forward(picture(20, 20)).shape == (3, 40, 40)


def test_normalize_by_hand():
    prep = Preprocessing.from_specs([{"type": "Normalize", "mean": [0.2], "std": [0.4]}])
    image = np.array([[[0.0], [51.0], [255.0]]], np.float32)
    np.testing.assert_allclose(prep.forward(image), [[[-0.5, 0.0, 2.0]]], atol=1e-6)


def test_padding_takes_a_value_per_channel():
    prep = Preprocessing.from_specs(
        [{"type": "Padding", "target_size": [3, 2], "im_padding_value": [1, 2, 3]}]
    )
    padded = prep.forward(np.zeros((1, 1, 3), np.float32))
    assert padded[:, 1, 2].tolist() == [1, 2, 3]
    assert padded[:, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("specs", AS_PADDLESEG, ids=lambda specs: "+".join(s["type"] for s in specs))
def test_one_channel_pictures_keep_their_axis(specs):
    grey = [
        {**spec, **({"mean": [0.5], "std": [0.5]} if spec["type"] == "Normalize" else {})} for spec in specs
    ]
    output = Preprocessing.from_specs(grey).forward(picture(40, 30, 1))
    assert output.ndim == 3
    assert output.shape[0] == 1


def test_forward_leaves_its_input_alone():
    image = picture(20, 20)
    before = image.copy()
    output = Preprocessing.from_specs([NORMALIZE]).forward(image)
    output[:] = 0
    Preprocessing.from_specs([]).forward(image)
    np.testing.assert_array_equal(image, before)


def test_restore_crops_what_was_padded_to_the_pixel():
    prep = Preprocessing.from_specs([{"type": "Padding", "target_size": [50, 60]}])
    image = picture(41, 33)
    np.testing.assert_array_equal(prep.restore(prep.forward(image), (41, 33)), image.transpose(2, 0, 1))


def test_restore_undoes_resizing_in_the_reverse_order():
    prep = Preprocessing.from_specs(
        [
            {"type": "ResizeByLong", "long_size": 120},
            {"type": "Padding", "target_size": [128, 128]},
            {"type": "Resize", "target_size": [256, 64]},
        ]
    )
    # A linear ramp goes unharmed through linear resizing, but for the border that has no neighbour.
    rows, columns = np.mgrid[0:60, 0:45].astype(np.float32)
    image = np.stack([rows, columns], axis=-1)
    back = prep.restore(prep.forward(image), (60, 45))
    assert back.shape == (2, 60, 45)
    np.testing.assert_allclose(back[:, 3:-3, 3:-3], image.transpose(2, 0, 1)[:, 3:-3, 3:-3], atol=0.05)


def test_restored_probabilities_still_sum_to_one():
    prep = Preprocessing.from_specs([{"type": "Resize", "target_size": [33, 17]}])
    raw = np.random.default_rng(0).random((4, 17, 33)).astype(np.float32)
    back = prep.restore(raw / raw.sum(0), (50, 20))
    np.testing.assert_allclose(back.sum(0), 1, atol=1e-5)
    assert back.min() >= 0


def test_restore_refuses_probabilities_of_another_picture():
    prep = Preprocessing.from_specs([{"type": "Padding", "target_size": [50, 60]}])
    with pytest.raises(ValueError, match="do not belong"):
        prep.restore(np.zeros((2, 50, 60), np.float32), (40, 40))


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 60), st.integers(5, 60), st.sampled_from(AS_PADDLESEG))
def test_restore_returns_every_size(rows: int, columns: int, specs: list[dict[str, Any]]):
    prep = Preprocessing.from_specs([s for s in specs if s["type"] != "Padding"])
    output = prep.forward(picture(rows, columns))
    assert prep.restore(output, (rows, columns)).shape == (3, rows, columns)


@pytest.mark.parametrize("specs", AS_PADDLESEG, ids=lambda specs: "+".join(s["type"] for s in specs))
def test_the_specs_carry_all_there_is_through_json(specs):
    prep = Preprocessing.from_specs(specs)
    again = Preprocessing.from_specs(json.loads(json.dumps(prep.specs)))
    assert again == prep
    np.testing.assert_array_equal(again.forward(picture(40, 60)), prep.forward(picture(40, 60)))


def test_an_unsupported_transform_is_named_and_the_supported_are_listed():
    with pytest.raises(RecipeError, match="RandomDistort") as caught:
        Preprocessing.from_specs([{"type": "RandomDistort"}])
    for name in ("Normalize", "Padding", "Resize", "ResizeByLong", "ResizeByShort"):
        assert name in caught.value.hint


def test_a_near_miss_gets_a_suggestion():
    with pytest.raises(RecipeError) as caught:
        Preprocessing.from_specs([{"type": "Normalise"}])
    assert "did you mean 'Normalize'" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "no 'type'"),
        ({"type": "Resize", "size": [1, 2]}, "no parameter 'size'"),
        ({"type": "ResizeByLong"}, "needs 'long_size'"),
        ({"type": "ResizeByLong", "long_size": 0}, "at least 1"),
        ({"type": "ResizeByLong", "long_size": 2.5}, "whole number"),
        ({"type": "Resize", "target_size": 512}, "two whole numbers"),
        ({"type": "Resize", "interp": "RANDOM"}, "RANDOM"),
        ({"type": "Padding", "target_size": [512]}, "two whole numbers"),
        ({"type": "Normalize", "std": [0.0]}, "above 0"),
        ({"type": "Normalize", "mean": 0.5}, "list of numbers"),
        ({"type": "Normalize", "mean": [float("nan")]}, "must be a number"),
        ({"type": "Normalize", "mean": [True]}, "must be a number"),
    ],
)
def test_wrong_parameters_are_recipe_errors(spec: dict[str, Any], words: str):
    with pytest.raises(RecipeError, match=words):
        Preprocessing.from_specs([spec])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Preprocessing.from_specs([NORMALIZE]).forward(picture(9, 9, 1)), "3 numbers, .* 1 channels"),
        (
            lambda: Preprocessing.from_specs([{"type": "Padding", "target_size": [8, 20]}]).forward(
                picture(9, 9)
            ),
            "does not fit",
        ),
        (
            lambda: Preprocessing.from_specs([{"type": "ResizeByLong", "long_size": 2}]).forward(
                picture(99, 9)
            ),
            "resized to",
        ),
    ],
)
def test_a_picture_that_does_not_suit_the_transform_is_a_recipe_error(make: Callable[[], Any], words: str):
    with pytest.raises(RecipeError, match=words):
        make()
