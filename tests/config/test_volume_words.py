"""Words for volumes: those of the preprocessing they stand for, and what belongs to networks of 3 dimensions."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml

from medseg_paddle.config import Recipe, change_recipe, dump_recipe, load_recipe
from medseg_paddle.config import volume_preprocessing as words
from medseg_paddle.config.base import Spec
from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import NORMALIZATIONS, Interpolation, VolumePreprocessing
from tests.conftest import VOLUME_RECIPE


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    path = tmp_path / "volumes.yml"
    path.write_text(VOLUME_RECIPE.format(root="data/none"))
    return load_recipe(path)


@pytest.mark.parametrize(
    ("spec", "ours"),
    [
        (words.VolumePreprocessing, VolumePreprocessing),
        (words.VolumeInterpolation, Interpolation),
        *((getattr(words, name), kind) for name, kind in NORMALIZATIONS.items()),
    ],
)
def test_keys_and_defaults_are_those_of_what_they_stand_for(spec: type[Spec], ours: Any) -> None:
    fields = {name: field for name, field in spec.model_fields.items() if name != "type"}
    expected = {field.name: field.default for field in dataclasses.fields(ours)}
    assert set(fields) == set(expected)
    for name, field in fields.items():
        if expected[name] is dataclasses.MISSING:
            assert field.is_required(), name
        elif isinstance(field.default, Spec):
            assert field.default.model_dump() == dataclasses.asdict(expected[name])
        else:
            assert field.default == expected[name], name


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{axes: LPI, spacing: [1.5, null, 2], crop: body, margin_mm: 10}",
        "{normalization: {type: HuWindow, level: 40, width: 400}}",
        "{normalization: {type: ZScore, region: nonzero, percentiles: [0.5, 99.5]}, interpolation: {kind: linear}}",
        "{normalization: {type: ForegroundRange, low: -100, high: 300, mean: 80, std: 60}, crop: nonzero}",
    ],
)
def test_what_a_recipe_says_is_what_is_done(recipe: Recipe, text: str) -> None:
    said = yaml.safe_load(text)
    values = yaml.safe_dump(
        {"type": "VolumePreprocessing", **said}, default_flow_style=True, width=1000
    ).strip()
    changed = change_recipe(recipe, [f"{name}_dataset.transforms.0={values}" for name in ("train", "val")])
    (spec,) = changed.preprocessing_specs
    assert VolumePreprocessing.from_spec(spec) == VolumePreprocessing.from_spec(said)


def test_a_recipe_is_as_it_was_once_it_was_written(recipe: Recipe, tmp_path) -> None:
    (tmp_path / "again.yml").write_text(dump_recipe(recipe))
    again = load_recipe(tmp_path / "again.yml")
    assert again == recipe
    assert again.dimensions == 3


def test_without_a_validation_the_preprocessing_is_the_trainings(recipe: Recipe) -> None:
    alone = change_recipe(recipe, ["val_dataset=null"])
    assert alone.preprocessing_specs == recipe.preprocessing_specs


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("train_dataset.transforms.0.axes=SPX", "does not name the directions", "for example SPL"),
        ("train_dataset.transforms.0.spacing=[1, 1, 0]", "greater than or equal to 0.001", ""),
        ("train_dataset.transforms.0.margin_mm=5", "crop is none", "name a `crop`"),
        (
            "train_dataset.transforms.0.normalization={type: ZScore, percentiles: [99, 1]}",
            "is above the upper",
            "write [1, 99]",
        ),
        ("train_dataset.transforms.0.normalization.type=Window", "unknown type 'Window'", "HuWindow"),
        ("val_dataset.transforms.0.spacing=[1, 1, 1]", "different VolumePreprocessing", "the same values"),
        ("val_dataset.transforms=[{type: Normalize}]", "Normalize is for pictures", "VolumePreprocessing first"),
        ("val_dataset.transforms=[]", "has no VolumePreprocessing", "begin with one"),
        (
            "train_dataset.transforms=[{type: VolumePreprocessing, spacing: [2, 1, 1], normalization: {type: ZScore}}]",
            "RandomVolumePatch stands nowhere",
            "right after",
        ),
        (
            "train_dataset.transforms.2={type: RandomVolumePatch, size: [8, 8, 8]}",
            "elsewhere, or twice",
            "write one RandomVolumePatch",
        ),
        ("train_dataset.transforms.1.size=[8, 18, 16]", "has 18 rows", "multiples of [4, 4, 4], such as [8, 20, 16]"),
        ("train_dataset.transforms.1.size=[4, 4, 4]", "leaves one", "a larger patch"),
        ("model={type: ScalableUNet}", "ScalableUNet sees pictures", "use UNet3D"),
        (
            "val_dataset={type: Dataset, dataset_root: d, num_classes: 2, img_channels: 1, mode: val, transforms: []}",
            "which holds pictures",
            "write `type: Manifest`",
        ),
        (
            "prepare={reader: dicom, sets: [{split: train, images: a, labels: b}], window: {level: 0, width: 1}}",
            "`prepare` makes slices",
            "`volumes: whole`",
        ),
        ("train_dataset.mixup={}", "mixup mixes pictures", "remove `mixup`"),
        ("train_dataset.cache_mb=100", "kept on the disk", "remove `cache_mb`"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(recipe: Recipe, override: str, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        change_recipe(recipe, [override])
    assert message in error.value.message
    assert hint in error.value.hint


def test_a_patch_that_one_axis_is_not_halved_of(recipe: Recipe) -> None:
    thick = "model={type: UNet3D, depth: 2, strides: [[1, 2, 2], [2, 2, 2]]}"
    patch = "train_dataset.transforms.1.size=[{}, 16, 16]".format
    assert change_recipe(recipe, [thick, patch(6)]).train_dataset.transforms[1].size == (6, 16, 16)
    with pytest.raises(RecipeError, match="has 7 slices"):
        change_recipe(recipe, [thick, patch(7)])
