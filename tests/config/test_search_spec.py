"""The search section of a recipe: what it may say, and what an error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_paddle.config import draft_recipe, dump_recipe, load_recipe
from medseg_paddle.config.search import Range
from medseg_paddle.errors import RecipeError


def with_search(path: Path, *lines: str) -> Path:
    path.write_text(
        path.read_text() + "search:\n  parameters:\n" + "".join(f"    {line}\n" for line in lines)
    )
    return path


def line_of(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


def test_a_search_is_read_and_written(disc_recipe_file: Path) -> None:
    path = with_search(
        disc_recipe_file,
        "lr_scheduler.learning_rate: {low: 1e-4, high: 0.1, log: true}",
        "batch_size: [2, 4]",
        "model.width: {low: 4, high: 8, step: 2}",
        "train_dataset.transforms.0.size: [[32, 32], [16, 16]]",
        "to_static_training: [true, false]",
    )
    recipe = load_recipe(path)
    assert recipe.search is not None
    rate, width = (recipe.search.parameters[key] for key in ("lr_scheduler.learning_rate", "model.width"))
    assert rate == Range(low=1e-4, high=0.1, log=True)
    assert isinstance(width, Range)
    assert width.whole
    assert recipe.searched["train_dataset.transforms.0.size"] == [32, 32]
    again = path.with_name("again.yml")
    again.write_text(dump_recipe(recipe))
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (
            "lr_scheduler.learning_rat: [0.1, 0.2]",
            "no value at 'lr_scheduler.learning_rat'",
            "'learning_rate'",
        ),
        ("loss.types.1.type: [DiceLoss, BCELoss]", "no value at 'loss.types.1.type'", "known here: 0"),
        ("batch_size: {low: 4, high: 2}", "`low` 4 is not below `high` 2", "needs no search"),
        ("batch_size: {low: 2, high: 8, log: true, step: 2}", "takes no `step`", "without `log`"),
        ("batch_size: {low: 2, high: 8, step: 0.5}", "a `step` of 0.5 between whole numbers", "whole `step`"),
        ("batch_size: {low: 2, hihg: 8}", "unknown key 'search.parameters.batch_size.hihg'", "'high'"),
        ("batch_size: [4]", "at least 2 items", ""),
        ("device: [cpu, gpu]", "`device` does not change what is learned", "remove it"),
        ("save_interval: [100, 200]", "`save_interval` does not change what is learned", "remove it"),
        ("selection.metric: [dice, iou]", "`selection.metric` changes what the score is of", "one value"),
        ("val_dataset.dataset_root: [a, b]", "`val_dataset.dataset_root` changes what", "one value"),
    ],
)
def test_a_wrong_search_is_an_error_of_its_line(
    disc_recipe_file: Path, line: str, message: str, hint: str
) -> None:
    path = with_search(disc_recipe_file, line)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in caught.value.message
    assert caught.value.message.startswith(f"{path}, line {line_of(path, line)}: ")
    assert hint in caught.value.hint


def test_a_value_that_the_recipe_does_not_take_is_an_error_of_the_parameter_s_line(
    disc_recipe_file: Path,
) -> None:
    path = with_search(disc_recipe_file, "batch_size: [2, many]", "optimizer.type: [AdamW, Adan]")
    draft = draft_recipe(path)
    assert draft.recipe({"batch_size": 2}).batch_size == 2
    with pytest.raises(RecipeError) as caught:
        draft.recipe({"batch_size": "many"})
    assert caught.value.message.startswith(
        f"{path}, line {line_of(path, 'batch_size: [2, many]')}: batch_size"
    )
    with pytest.raises(RecipeError, match="unknown type 'Adan'"):
        draft.recipe({"optimizer.type": "Adan"})


def test_a_search_needs_scores(disc_recipe_file: Path) -> None:
    text = disc_recipe_file.read_text()
    start = text.index("val_dataset:")
    disc_recipe_file.write_text(text[:start] + text[text.index("optimizer:") :])
    with pytest.raises(RecipeError, match="there is no val_dataset"):
        load_recipe(with_search(disc_recipe_file, "batch_size: [2, 4]"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("1h30m", 5400), ("2d", 172800), ("90", 90)]
)
def test_a_time_budget_is_a_length_of_time(disc_recipe_file: Path, text: str, seconds: int) -> None:
    path = with_search(disc_recipe_file, "batch_size: [2, 4]")
    recipe = load_recipe(path, [f"search.time_budget={text}"])
    assert recipe.search is not None
    assert recipe.search.seconds == seconds
    with pytest.raises(RecipeError, match="is '8 hours', which is no length of time") as caught:
        load_recipe(path, ["search.time_budget=8 hours"])
    assert "1h30m" in caught.value.hint
