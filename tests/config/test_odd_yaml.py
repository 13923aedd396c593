"""Recipes that are odd as YAML: each loads, or is refused in a user's words; nothing else comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.config import dump_recipe, load_recipe, shipped
from medseg_paddle.errors import RecipeError

FULL = """\
description: everything a recipe may hold
labels: [background, vessel]
prepare:
  reader: pairs
  key: '(\\d+)_'
  sets:
    - {split: train, images: images/*.png, labels: labels/*.png}
  label_map: {0: 0, 255: 1}
  val_fraction: 0.1
batch_size: 2
iters: 10
train_dataset:
  type: Manifest
  dataset_root: data
  transforms:
    - {type: RandomAffinePatch, size: [64, 64], scale: [0.9, 1.1]}
    - {type: Padding, target_size: [64, 64], im_padding_value: 0}
    - {type: Normalize, mean: [0.5]}
val_dataset: &scored
  type: Manifest
  dataset_root: data
  mode: val
  transforms:
    - {type: Normalize, mean: [0.5]}
optimizer:
  type: AdamW
  weight_decay: null
  grad_clip_cfg: {name: ClipGradByNorm, clip_norm: 1.0}
lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
loss:
  types:
    - type: MixedLoss
      losses:
        - {type: CrossEntropyLoss, weight: [1, 2]}
        - {type: DiceLoss, ignore_index: 255}
      coef: [1, 1]
  coef: [1]
model:
  type: ScalableUNet
inference: {mode: tiles, tile: [64, 64], divisor: 16}
export: {tolerance: 0.001}
"""


@pytest.fixture
def full(tmp_path: Path) -> Path:
    path = tmp_path / "full.yml"
    path.write_text(FULL)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def replaced(path: Path, old: str, new: str) -> Path:
    assert FULL.count(old) == 1
    path.write_text(FULL.replace(old, new))
    return path


def test_null_where_it_is_not_the_default_survives_the_round_trip(full: Path, tmp_path: Path) -> None:
    recipe = load_recipe(full)
    assert recipe.optimizer.weight_decay is None
    again = tmp_path / "again.yml"
    again.write_text(dump_recipe(recipe))
    assert load_recipe(again) == recipe.model_copy(update={"name": recipe.name})
    assert "weight_decay: null" in again.read_text()
    assert "test_dataset" not in again.read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("labels: [background, vessel]", "labels: 5", "labels = 5"),
        ("labels: [background, vessel]", "_base_: 5", "`_base_` must name"),
        ("labels: [background, vessel]", "_base_:", "`_base_` must name"),
        ("labels: [background, vessel]", "_base_: [[a]]", "`_base_` must name"),
        ("labels: [background, vessel]", "description: 2024-02-30", "given twice"),
        ("description: everything a recipe may hold", "description: 2024-02-30", "'2024-02-30' is no valid"),
        ("batch_size: 2", "batch_size: !!int many", "'many' is no valid int"),
        ("batch_size: 2", "batch_size: !!bool many", "'many' is no valid bool"),
        ("batch_size: 2", "batch_size: !!set {many}", "tag !!set is not known"),
        ("batch_size: 2", "batch_size: !!python/name:os.system x", "python/name:os.system is not known"),
        ("batch_size: 2", f"batch_size: 0x{'f' * 5000}", "too large"),
        ("batch_size: 2", "batch_size: &a [*a]", "repeat without end"),
        ("batch_size: 2", '"\\ud800": 2', "half of a character"),
        ("batch_size: 2", "? [a, b]\n: 2", "cannot be a key"),
        ("batch_size: 2", "2024-02-30: 2", "unknown key '2024-02-30'"),
        ("  type: ScalableUNet", "  <<: {width: 4}\n  type: ScalableUNet", "merge keys"),
        ("  type: ScalableUNet", "  - type", "model"),
        ("  type: ScalableUNet", "  type: [ScalableUNet]", "model"),
        ("  type: ScalableUNet", "  type: ScalableUNet\n  _inherited_: perhaps", "must be true or false"),
    ],
)
def test_odd_yaml_is_refused_with_its_line(full: Path, old: str, new: str, words: str) -> None:
    error = refusal(replaced(full, old, new))
    assert words in error
    assert f"{full}, line " in error


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("iters=true", "iters"),
        ("batch_size=yes", "batch_size"),
        ("lr_scheduler.learning_rate=on", "learning_rate"),
        ("export.tolerance=true", "tolerance"),
        ("loss.coef=[true]", "coef"),
        ("inference.tile=[64, on]", "tile"),
        ("optimizer.grad_clip_cfg.clip_norm=true", "clip_norm"),
        ("prepare.label_map={0: 0, 255: yes}", "label_map"),
        ("train_dataset.transforms.0.flip_horizontal=true", "flip_horizontal"),
        ("train_dataset.transforms.1.im_padding_value=no", "im_padding_value"),
        ("labels=[no, yes]", "labels"),
        ("description=off", "description"),
        ("model_graph=true", None),
        ("train_dataset.edge=false", None),
        ("loss.types.0.losses.1.background=no", None),
    ],
)
def test_true_and_false_are_no_numbers_and_no_words(full: Path, override: str, key: str | None) -> None:
    if key is None:
        assert load_recipe(full, [override])
        return
    error = refusal(full, override)
    assert f"--set {override}: `{key}` takes no true or false" in error
    assert "yes, no, on and off" in error


def test_text_that_is_nested_without_end_is_refused(full: Path) -> None:
    assert "nested too deeply" in refusal(replaced(full, "batch_size: 2", f"batch_size: {'[' * 700}"))


def test_aliases_that_grow_exponentially_are_refused(full: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    full.write_text("\n".join(lines))
    assert "repeat without end" in refusal(full)


def test_an_alias_stands_for_its_anchor(full: Path) -> None:
    replaced(full, "mean: [0.5]}\noptimizer", "mean: *m}\noptimizer")
    full.write_text(full.read_text().replace("mean: [0.5]", "mean: &m [0.25]"))
    recipe = load_recipe(full)
    assert recipe.val_dataset.transforms[0].mean == recipe.train_dataset.transforms[2].mean == (0.25,)


def test_a_base_of_an_impossible_name_is_refused(full: Path) -> None:
    assert "cannot be read" in refusal(replaced(full, "batch_size: 2", 'batch_size: 2\n_base_: "a\\0.yml"'))


@pytest.mark.parametrize(
    "override", ["iters=2024-02-30", "iters=!!int x", "iters=[", "iters=&a [*a]", "a..b=1"]
)
def test_odd_overrides_are_refused_by_name(full: Path, override: str) -> None:
    assert f"--set {override}" in refusal(full, override)


def test_an_error_inside_the_value_of_an_override_names_the_override(full: Path) -> None:
    assert "--set model={type: UNet, wide: 3}:" in refusal(full, "model={type: UNet, wide: 3}")


def test_a_digit_in_another_script_is_no_item_of_a_list(full: Path) -> None:
    assert "is not an item" in refusal(full, "train_dataset.transforms.\u00b2.size=1")


@pytest.mark.parametrize("says", ["true", "false"])
def test_inherited_without_anything_to_inherit_is_as_if_absent(full: Path, says: str) -> None:
    expected = load_recipe(full)
    text = FULL.replace("  type: ScalableUNet", f"  type: ScalableUNet\n  _inherited_: {says}")
    text = text.replace("name: ClipGradByNorm", f"_inherited_: {says}, name: ClipGradByNorm")
    full.write_text(f"_inherited_: {says}\n{text}")
    assert load_recipe(full) == expected

    (full.parent / "base.yml").write_text("seed: 5\n")
    full.write_text(f"_base_: base.yml\n{text}")
    assert load_recipe(full) == expected.model_copy(update={"seed": 5})


def test_inherited_false_holds_against_every_base(full: Path) -> None:
    for name, width in (("one", 4), ("two", 8)):
        (full.parent / f"{name}.yml").write_text(f"model: {{width: {width}}}\n")
    replaced(full, "  type: ScalableUNet", "  type: ScalableUNet\n  _inherited_: false")
    full.write_text(f"_base_: [one.yml, two.yml]\n{full.read_text()}")
    assert load_recipe(full).model.width == 32


def test_a_checkout_below_a_folder_with_an_underscore_has_its_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "_work" / "checkout"
    (root / "configs" / "_base_").mkdir(parents=True)
    (root / "configs" / "mine.yml").touch()
    (root / "configs" / "_base_" / "part.yml").touch()
    monkeypatch.setattr(shipped, "__file__", str(root / "medseg_paddle" / "config" / "shipped.py"))
    assert [path.name for path in shipped.shipped_recipes()] == ["mine.yml"]


def test_membranes_are_what_the_em_recipe_scores() -> None:
    path = next(path for path in shipped.shipped_recipes() if path.stem == "unet_isbi2012")
    recipe = load_recipe(path)
    assert recipe.labels == ("interior", "membrane")
    assert recipe.prepare is not None
    assert recipe.prepare.label_map == {0: 1, 255: 0}  # the files store membranes as 0


def paths(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from paths(item, (*at, key))


ODD = (
    "", "~", "2024-02-30", "2024-02-01", "0x1F", "1_000", "1:30", ".nan", "-.inf", "1e400", "!!int x", "!!float x",
    "!!binary x", "!!timestamp x", "!!set {a}", "!!map x", "&a [*a]", "*nobody", "{<<: {a: 1}}", "{? [a]: 1}",
    "{2024-01-01: 1}", "{_inherited_: 3}", "{type: [1]}", "{type: ~}", "[",
    "'", '"\\ud800"', '"\\0"', "yes", "1" * 5000,
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
WORDS = st.sampled_from(["type", "mode", "transforms", "_inherited_", "_base_", "UNet", "Normalize", "train"])
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | SCALARS, inner, max_size=3),
    max_leaves=5,
)
FRAGMENTS = st.sampled_from(ODD) | VALUES.map(
    lambda value: yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.sampled_from(list(paths(yaml.safe_load(FULL)))), FRAGMENTS, st.booleans())
def test_a_recipe_loads_or_is_refused_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, at: tuple[str | int, ...], fragment: str, override: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.yml"
    if override:
        path.write_text(FULL)
        with contextlib.suppress(RecipeError):
            load_recipe(path, [f"{'.'.join(map(str, at))}={fragment}"])
        return
    data = yaml.safe_load(FULL)
    inner = data
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = "PLACE"
    path.write_text(
        yaml.safe_dump(data, default_flow_style=True).replace("PLACE", fragment), encoding="utf-8"
    )
    with contextlib.suppress(RecipeError):
        load_recipe(path)
