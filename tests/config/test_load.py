"""Recipes as a user writes them: inheritance, overrides, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_paddle.config import dump_recipe, load_recipe
from medseg_paddle.config.shipped import shipped_recipes
from medseg_paddle.errors import RecipeError

MINIMAL = """\
batch_size: 2
iters: 10
train_dataset:
  type: Dataset
  dataset_root: somewhere
  train_path: somewhere/train.txt
  num_classes: 2
  transforms:
    - type: RandomPaddingCrop
      crop_size: [64, 64]
    - type: Normalize
  mode: train
val_dataset:
  type: Dataset
  dataset_root: somewhere
  val_path: somewhere/val.txt
  num_classes: 2
  transforms:
    - type: Normalize
  mode: val
optimizer:
  type: SGD
  momentum: 0.9
  weight_decay: 4.0e-5
lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
  end_lr: 0
  power: 0.9
loss:
  types:
    - type: CrossEntropyLoss
  coef: [1]
model:
  type: UNet
  num_classes: 2
  use_deconv: False
  pretrained: Null
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yml"
    path.write_text(MINIMAL)
    return path


def refusal(path: Path, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value


def test_a_paddleseg_file_loads_with_its_own_words(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    assert recipe.name == "mine"
    assert recipe.model.type == "UNet"
    assert (recipe.num_classes, recipe.in_channels, recipe.ignore_index) == (2, 3, 255)
    assert recipe.optimizer.momentum == 0.9
    assert recipe.lr_scheduler.end_lr == 0


def test_every_shipped_recipe_loads_and_says_what_it_is_for() -> None:
    names = [path.stem for path in shipped_recipes()]
    assert {
        "unet_medical",
        "unet_drive",
        "unet_optic_disc",
        "unet_lung_ct",
        "unet_isbi2012",
        "unet_nuclei",
        "unet3d_hippocampus",
        "unet3d_left_atrium",
        "unet3d_phantom",
        "simple_unet",
    } <= set(names)
    for path in shipped_recipes():
        assert load_recipe(path).description


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda p: p.stem)
def test_the_resolved_recipe_loads_to_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    resolved = tmp_path / "resolved.yml"
    resolved.write_text(dump_recipe(recipe))
    assert load_recipe(resolved) == recipe


def test_base_merges_mappings_and_replaces_lists(recipe_file: Path) -> None:
    child = recipe_file.with_name("child.yml")
    child.write_text(
        "_base_: mine.yml\niters: 99\nlr_scheduler:\n  power: 2.0\n"
        "train_dataset:\n  transforms:\n    - type: Resize\n    - type: Normalize\n"
    )
    recipe = load_recipe(child)
    assert recipe.iters == 99
    assert recipe.lr_scheduler.power == 2.0
    assert recipe.lr_scheduler.learning_rate == 0.01
    assert [t.type for t in recipe.train_dataset.transforms] == ["Resize", "Normalize"]


def test_inherited_false_starts_a_mapping_anew(recipe_file: Path) -> None:
    child = recipe_file.with_name("child.yml")
    child.write_text("_base_: mine.yml\noptimizer:\n  _inherited_: false\n  type: AdamW\n")
    assert load_recipe(child).optimizer.weight_decay == 0.01


def test_several_bases_the_later_one_gives_way_to_the_file(recipe_file: Path) -> None:
    other = recipe_file.with_name("other.yml")
    other.write_text("seed: 7\niters: 1\n")
    child = recipe_file.with_name("child.yml")
    child.write_text("_base_: [mine.yml, other.yml]\nbatch_size: 5\n")
    recipe = load_recipe(child)
    assert (recipe.seed, recipe.batch_size) == (7, 5)


def test_a_circle_of_bases_is_refused(recipe_file: Path) -> None:
    recipe_file.write_text("_base_: mine.yml\n")
    assert "inherits from itself" in refusal(recipe_file).message


def test_overrides_reach_mappings_and_list_items(recipe_file: Path) -> None:
    recipe = load_recipe(
        recipe_file,
        [
            "iters=77",
            "lr_scheduler.learning_rate=1e-3",
            "train_dataset.transforms.0.crop_size=[32, 16]",
            "model.type=UNetPlusPlus",
        ],
    )
    assert recipe.iters == 77
    assert recipe.lr_scheduler.learning_rate == 0.001
    assert recipe.train_dataset.transforms[0].crop_size == (32, 16)
    assert recipe.model.type == "UNetPlusPlus"


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        ("itters: 5", 1, ["unknown key 'itters'", "did you mean 'iters'?"]),
        ("seed: many", 1, ["seed = 'many'", "integer"]),
        ("batch_size: 0", 1, ["batch_size", "greater than 0"]),
    ],
)
def test_a_wrong_line_is_named_with_file_line_and_remedy(
    recipe_file: Path, change: str, line: int, words: list[str]
) -> None:
    text = MINIMAL if not change.startswith("batch_size") else MINIMAL.replace("batch_size: 2\n", "")
    recipe_file.write_text(f"{change}\n{text}")
    error = refusal(recipe_file)
    assert f"{recipe_file}, line {line}:" in error.message
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("test:\n  auc_roc: True\n", "`test_config: {auc_roc: true}`"),
        ("global:\n  device: gpu\n", "`device:`"),
        ("train:\n  save_interval: 1000\n", "`save_interval:`"),
    ],
)
def test_sections_of_later_paddleseg_files_are_named_with_what_to_write(
    recipe_file: Path, section: str, words: str
) -> None:
    recipe_file.write_text(MINIMAL + section)
    error = refusal(recipe_file)
    key = section.partition(":")[0]
    assert f"{recipe_file}, line {MINIMAL.count(chr(10)) + 1}: unknown key '{key}'" in error.message
    assert words in error.hint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("type: UNet\n", "type: Unet\n", ["model", "unknown type 'Unet'", "did you mean 'UNet'?"]),
        ("use_deconv: False", "use_deconvv: False", ["model.use_deconvv", "did you mean 'use_deconv'?"]),
        ("power: 0.9", "powder: 0.9", ["lr_scheduler.powder", "did you mean 'power'?"]),
        ("crop_size: [64, 64]", "crop_size: 64", ["train_dataset.transforms.0.crop_size"]),
        ("type: CrossEntropyLoss", "type: RMILoss", ["unknown type 'RMILoss'"]),
    ],
)
def test_a_wrong_word_deep_inside_is_named_with_its_line(
    recipe_file: Path, old: str, new: str, words: list[str]
) -> None:
    recipe_file.write_text(MINIMAL.replace(old, new))
    error = refusal(recipe_file)
    for word in words:
        assert word in str(error)
    line = next(n for n, text in enumerate(recipe_file.read_text().splitlines(), 1) if new.strip() in text)
    assert f"line {line}:" in error.message


def test_an_error_in_the_base_names_the_base_file(recipe_file: Path) -> None:
    child = recipe_file.with_name("child.yml")
    child.write_text("_base_: mine.yml\n")
    recipe_file.write_text(MINIMAL.replace("iters: 10", "iters: ten"))
    assert "mine.yml, line 2:" in refusal(child).message


def test_an_error_of_an_override_names_the_override(recipe_file: Path) -> None:
    assert "--set iters=-4" in refusal(recipe_file, "iters=-4").message
    assert "no '='" in refusal(recipe_file, "iters").message
    assert "holds a value" in refusal(recipe_file, "iters.deep=3").message


def test_a_key_given_twice_is_refused(recipe_file: Path) -> None:
    recipe_file.write_text(MINIMAL + "iters: 20\n")
    assert "'iters' is given twice" in refusal(recipe_file).message


def test_broken_yaml_names_the_line(recipe_file: Path) -> None:
    recipe_file.write_text("batch_size: [1,\niters: 2\n")
    assert "not valid YAML" in refusal(recipe_file).message


def test_a_missing_file_suggests_its_neighbour(recipe_file: Path) -> None:
    assert "did you mean" in refusal(recipe_file.with_name("mime.yml")).hint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  num_classes: 2\n  use_deconv", "  num_classes: 3\n  use_deconv", "num_classes disagree"),
        ("coef: [1]", "coef: [1, 1]", "1 output(s)"),
        (
            "    - type: Normalize\n  mode: val",
            "    - type: Normalize\n      mean: [0.3]\n  mode: val",
            "normalise differently",
        ),
        ("  mode: val", "  mode: train", "mode train"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(
    recipe_file: Path, old: str, new: str, words: str
) -> None:
    assert old in MINIMAL
    recipe_file.write_text(MINIMAL.replace(old, new))
    assert words in refusal(recipe_file).message


def test_the_model_takes_classes_and_channels_from_the_data(recipe_file: Path) -> None:
    recipe_file.write_text(MINIMAL.replace("  num_classes: 2\n  use_deconv: False\n  pretrained: Null\n", ""))
    assert load_recipe(recipe_file).num_classes == 2
