"""How images are predicted and what is kept of the answer: what a recipe may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from medseg_paddle.config import Recipe
from medseg_paddle.preprocess import InferencePlan

COMMON = {
    "labels": ["background", "liver", "tumour"],
    "batch_size": 1,
    "iters": 2,
    "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
    "optimizer": {"type": "AdamW"},
    "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
}


def pictures(**more: Any) -> Recipe:
    dataset = {"type": "Manifest", "dataset_root": "data", "transforms": [{"type": "Normalize"}]}
    return Recipe.model_validate(
        {
            **COMMON,
            "train_dataset": {**dataset, "mode": "train"},
            "model": {"type": "SimpleUNet"},
            **more,
        }
    )


def volumes(size: tuple[int, int, int] = (20, 48, 64), **more: Any) -> Recipe:
    dataset = {"type": "Manifest", "dataset_root": "data"}
    grid, patch = {"type": "VolumePreprocessing"}, {"type": "RandomVolumePatch", "size": list(size)}
    return Recipe.model_validate(
        {
            **COMMON,
            "train_dataset": {**dataset, "mode": "train", "transforms": [grid, patch], "img_channels": 1},
            "model": {"type": "UNet3D", "width": 2, "depth": 2},
            **more,
        }
    )


def plan_of(recipe: Recipe) -> InferencePlan:
    return InferencePlan(**recipe.inference.model_dump())


def refusal(make: Any, **more: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        make(**more)
    (error,) = refused.value.errors()
    return f"{error['msg']} {error['ctx'].get('hint', '')}"


def test_volumes_are_predicted_in_tiles_of_the_patch() -> None:
    recipe = volumes()
    assert plan_of(recipe) == InferencePlan("tiles", (20, 48, 64), 0.5, (4, 16, 64))
    # What a recipe says itself stays; a run's own recipe is read back as it was.
    assert plan_of(volumes(inference={"tile": [32, 32, 32], "mirror": [0, 2]})) == InferencePlan(
        "tiles", (32, 32, 32), 0.5, (32, 32, 32), (0, 2)
    )
    assert volumes(inference={"mode": "whole"}).inference.mode == "whole"
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_pictures_are_predicted_as_ever() -> None:
    assert plan_of(pictures()) == InferencePlan("whole", (512, 512), 0.5, 16)
    assert plan_of(pictures(inference={"mirror": [1], "rotate90": True})).mirror == (1,)


@pytest.mark.parametrize(
    ("make", "inference", "says"),
    [
        (volumes, {"tile": [64, 64]}, "the network is 3-D"),
        (pictures, {"tile": [64, 64, 64]}, "the network is 2-D"),
        (pictures, {"mirror": [2]}, "axes from 0 to 1"),
        (volumes, {"mirror": [0, 0]}, "each once"),
        (volumes, {"rotate90": True}, "2-D networks"),
        (pictures, {"skip_below": 0.1}, "3-D networks"),
        (pictures, {"divisor": [16, 16, 16]}, "one number for all axes"),
        (volumes, {"tile": [20, 48, 64], "divisor": 16}, "use [32, 48, 64]"),
    ],
)
def test_what_the_network_cannot_do_is_refused(make, inference, says) -> None:
    assert says in refusal(make, inference=inference)


@pytest.mark.parametrize(
    ("make", "rules", "says"),
    [
        (pictures, [{"type": "KeepLargest", "classes": ["lever"]}], "did you mean 'liver'"),
        (
            pictures,
            [{"type": "FillHoles"}, {"type": "Threshold", "classes": ["liver"], "at_least": 0.4}],
            "first",
        ),
        (
            pictures,
            [{"type": "Threshold", "classes": ["liver"], "at_least": one} for one in (0.4, 0.6)],
            "two thresholds",
        ),
        (volumes, [{"type": "RemoveSmall", "pixels": 3}], "write `ml: ...`"),
        (volumes, [{"type": "RemoveSmall"}], "one size"),
    ],
)
def test_rules_that_contradict_the_recipe_are_refused(make, rules, says) -> None:
    assert says in refusal(make, postprocessing=rules)


def test_rules_come_in_the_order_they_are_written() -> None:
    rules = [{"type": "RemoveSmall", "ml": 0.5}, {"type": "KeepLargest", "classes": ["liver"]}]
    assert [one["type"] for one in volumes(postprocessing=rules).postprocessing_specs] == [
        "RemoveSmall",
        "KeepLargest",
    ]
