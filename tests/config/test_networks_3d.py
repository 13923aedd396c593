"""The words for networks of volumes: what fits together, and what is refused with a hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter
from pydantic_core import PydanticCustomError

from medseg_paddle.config import load_recipe
from medseg_paddle.config.alignment import Alignment
from medseg_paddle.config.networks import Model
from medseg_paddle.config.networks_3d import UNet3D, blocks_of, kernels_of, strides_of
from medseg_paddle.config.training_agreement import require_trainable
from medseg_paddle.errors import RecipeError

RECIPE: dict[str, Any] = {
    "batch_size": 2,
    "iters": 10,
    "train_dataset": {
        "type": "Dataset",
        "dataset_root": "data",
        "train_path": "data/train.txt",
        "num_classes": 2,
        "transforms": [{"type": "Normalize"}],
        "mode": "train",
    },
    "optimizer": {"type": "SGD"},
    "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
    "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
}


def test_each_network_says_how_many_dimensions_it_sees() -> None:
    seen = {spec.__name__: spec.dimensions for spec in get_args(get_args(Model)[0])}
    assert {name for name, dimensions in seen.items() if dimensions == 3} == {
        "UNet3D", "ResUNet3D", "AttentionUNet3D",
    }  # fmt: skip
    assert set(seen.values()) == {2, 3}


def test_what_is_not_given_is_nnu_nets() -> None:
    spec: Any = TypeAdapter(Model).validate_python({"type": "ResUNet3D", "depth": 5})
    assert (spec.max_width, spec.norm, spec.strides, spec.kernels, spec.blocks) == (
        320,
        "instance",
        None,
        None,
        None,
    )
    assert strides_of(None, 2) == ((2, 2, 2), (2, 2, 2))
    assert kernels_of(None, 1) == ((3, 3, 3), (3, 3, 3))
    assert [blocks_of(None, depth) for depth in (1, 5)] == [(1, 3), (1, 3, 4, 6, 6, 6)]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"type": "UNet3D", "strides": [[2, 2, 2]] * 3, "depth": 4}, ["strides has 3", "needed are 4", "depth"]),
        ({"type": "UNet3D", "kernels": [[3, 3, 3]] * 4, "depth": 4}, ["kernels has 4", "needed are 5"]),
        ({"type": "ResUNet3D", "blocks": [1, 2], "depth": 2}, ["blocks has 2", "needed are 3"]),
        ({"type": "UNet3D", "strides": [[1, 1, 1], [2, 2, 2]], "depth": 2}, ["strides.0", "[1, 2, 2]"]),
        ({"type": "UNet3D", "strides": [[4, 2, 2]], "depth": 1}, ["[4, 2, 2]", "[3, 3, 3]", "passes over"]),
        (
            {"type": "UNet3D", "strides": [[2, 2, 2]], "kernels": [[1, 3, 3], [1, 3, 3]], "depth": 1},
            ["[2, 2, 2]", "[1, 3, 3]", "smaller stride"],
        ),
        ({"type": "UNet3D", "kernels": [[3, 3, 2], [3, 3, 3]], "depth": 1}, ["kernels.0.2"]),
        ({"type": "UNet3D", "strides": [[2, 2]], "depth": 1}, ["strides.0"]),
        ({"type": "UNet3D", "deep_supervision": 2, "depth": 2}, ["deep_supervision 2", "at most 1"]),
        ({"type": "AttentionUNet3D", "depth": 1}, ["no gate", "UNet3D"]),
        ({"type": "UNet3D", "norm": "layer"}, ["norm"]),
        ({"type": "UNet3D", "dropout": 0.1}, ["dropout"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_key(tmp_path: Path, model: dict, words: list[str]) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump({**RECIPE, "model": model}, sort_keys=False))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    said = str(caught.value)
    assert ", line " in said
    assert all(word in said for word in words), said


def test_features_of_volumes_are_not_aligned(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump({**RECIPE, "model": {"type": "SimpleUNet"}}, sort_keys=False))
    changes = {"model": UNet3D(type="UNet3D", in_channels=3), "alignment": Alignment(target="data/other")}
    with pytest.raises(PydanticCustomError, match="UNet3D sees volumes"):
        require_trainable(load_recipe(path).model_copy(update=changes))
