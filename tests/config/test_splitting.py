"""What a recipe says about splits: every contradiction is told when the recipe is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from medseg_paddle.config import load_recipe
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.errors import RecipeError

AUTO = {"images": "img/*", "labels": "lab/*"}
TABLE = {"file": "participants.tsv", "id": "participant_id"}


def spec(*splits: str, **changes: Any) -> PrepareSpec:
    sets = [{**AUTO, "split": split} for split in splits or ("auto",)]
    return PrepareSpec.model_validate({"sets": sets, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"folds": 5},
        {"folds": 5, "test_fraction": 0.2, "stratify": True},
        {"folds": "centers", "center": "^(.+)/"},
        {"folds": "centers", "table": {**TABLE, "center": "site"}},
        {"table": {**TABLE, "split": "split"}},
        {"table": {**TABLE, "split": "split"}, "val_fraction": 0.1},
        {"table": {**TABLE, "patient": "family"}, "center": "^(.+)/", "val_fraction": 0.1},
    ],
)
def test_what_fits_is_taken(changes):
    spec(**changes)


@pytest.mark.parametrize(
    ("splits", "changes", "words"),
    [
        ((), {}, "`split: auto` needs"),
        ((), {"folds": 1}, "greater than or equal to 2"),
        ((), {"folds": "sites"}, "'centers'"),
        ((), {"folds": True}, "takes no true or false"),
        ((), {"folds": 5, "val_fraction": 0.1}, "`val_fraction` must be 0"),
        ((), {"folds": "centers"}, "needs to know the centres"),
        ((), {"folds": "centers", "table": {**TABLE, "patient": "p"}}, "needs to know the centres"),
        ((), {"folds": "centers", "center": "^(.+)/", "stratify": True}, "nothing to deal out"),
        (("train",), {"stratify": True}, "nothing to deal out"),
        (("train", "val"), {"folds": 5}, "a set has `split: val`"),
        (("test",), {"folds": 5}, "need a set with `split: auto` or `train`"),
        ((), {"table": TABLE, "val_fraction": 0.1}, "names no column"),
        (("train",), {"table": {**TABLE, "split": "split"}}, "the sets must have `split: auto`"),
        (
            (),
            {"table": {**TABLE, "center": "c"}, "center": "(x)", "val_fraction": 0.1},
            "`center` is said twice",
        ),
        (
            (),
            {"table": {**TABLE, "patient": "c"}, "patient": "(x)", "val_fraction": 0.1},
            "`patient` is said twice",
        ),
        ((), {"table": {**TABLE, "file": "../p.tsv", "split": "s"}}, "below the source folder"),
        ((), {"center": "no group", "val_fraction": 0.1}, "needs a group"),
    ],
)
def test_what_contradicts_itself_is_refused(splits, changes, words):
    with pytest.raises(ValidationError) as caught:
        spec(*splits, **changes)
    assert words in str(caught.value)


# --- the fold of the data sets ----------------------------------------------------------------------------

MANIFEST = {"type": "Manifest", "dataset_root": "data/x", "transforms": [{"type": "Normalize"}]}


def loaded(folder: Path, **changes: Any) -> Any:
    data = {
        "batch_size": 2,
        "iters": 10,
        "train_dataset": {**MANIFEST, "mode": "train"},
        "val_dataset": {**MANIFEST, "mode": "val"},
        "optimizer": {"type": "SGD"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "model": {"type": "SimpleUNet", "num_classes": 2},
    }
    for key, value in changes.items():
        data[key] = {**data.get(key, {}), **value}
    path = folder / "mine.yml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return load_recipe(path)


def test_one_fold_is_picked_for_training_and_validation(tmp_path):
    recipe = loaded(tmp_path, train_dataset={"fold": 2}, val_dataset={"fold": 2})
    assert [recipe.dataset(split).fold for split in ("train", "val")] == [2, 2]
    assert loaded(tmp_path).train_dataset.fold is None


@pytest.mark.parametrize(
    ("changes", "words", "line"),
    [
        (
            {"train_dataset": {"fold": 1}, "val_dataset": {"fold": 2}},
            "leaves out fold 1, val_dataset validates on fold 2",
            "fold: 2",
        ),
        (
            {"train_dataset": {"fold": 1}},
            "leaves out fold 1, val_dataset validates on no named fold",
            "val_dataset:",
        ),
        (
            {"val_dataset": {"fold": 0}},
            "leaves out no named fold, val_dataset validates on fold 0",
            "fold: 0",
        ),
        (
            {"train_dataset": {"fold": 1}, "val_dataset": {"fold": 1, "dataset_root": "data/y"}},
            "validates on fold 1 of other data",
            "fold: 1",
        ),
        ({"test_dataset": {**MANIFEST, "mode": "test", "fold": 1}}, "test cases are in none", "fold: 1"),
        (
            {
                "train_dataset": {"fold": 5},
                "val_dataset": {"fold": 5},
                "prepare": {"sets": [AUTO], "folds": 5},
            },
            "there is no fold 5: `prepare` makes 5",
            "fold: 5",
        ),
        (
            {"train_dataset": {"fold": -1}, "val_dataset": {"fold": -1}},
            "greater than or equal to 0",
            "fold: -1",
        ),
    ],
)
def test_folds_that_do_not_fit_are_refused_with_the_line(tmp_path, changes, words, line):
    with pytest.raises(RecipeError) as caught:
        loaded(tmp_path, **changes)
    text = str(caught.value)
    assert words in text
    lines = (tmp_path / "mine.yml").read_text().splitlines()
    named = re.search(r", line (\d+)", text)
    assert named is not None
    assert lines[int(named[1]) - 1].strip() == line


def test_the_data_folder_may_be_written_in_two_ways(tmp_path):
    changes = {"fold": 1, "dataset_root": "./data//x"}
    assert loaded(tmp_path, train_dataset={"fold": 1}, val_dataset=changes).val_dataset.fold == 1
