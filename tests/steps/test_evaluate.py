"""What `evaluate` looks at before it scores, what may be changed for it, and what it notes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.provenance import fingerprint_of
from medseg_paddle.steps.train import train


@pytest.fixture
def run(disc_recipe_file: Path, tmp_path: Path) -> Run:
    return train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=2", "save_interval=2"])


def summary(run: Run, split: str = "test") -> dict[str, Any]:
    return json.loads((run.evaluation_folder(split) / "summary.json").read_text())


def apart(run: Run, discs: Path, tmp_path: Path) -> Run:
    """The run with its training set in a folder of its own."""
    shutil.copytree(discs, tmp_path / "learned")
    recipe = run.recipe.train_dataset.model_copy(update={"dataset_root": str(tmp_path / "learned")})
    return run.with_recipe(run.recipe.model_copy(update={"train_dataset": recipe}))


def test_a_folder_may_be_given_as_text(run: Run, tmp_path: Path) -> None:
    evaluate(str(run.path), output=str(tmp_path / "scores"))
    assert (tmp_path / "scores" / "summary.json").is_file()


def test_the_summary_names_what_was_scored_and_how(run: Run) -> None:
    from medseg_paddle.io.cases import load_cases

    evaluate(run.path)
    said = summary(run)
    assert said["sha256"] == fingerprint_of(load_cases(run.recipe.dataset("test")))
    assert said["inference"] == run.recipe.inference.model_dump(mode="json")
    assert said["inference_as_in_validation"] is True
    assert (said["device"], said["changed"]) == ("cpu", [])
    evaluate(run.path, split="val")
    assert summary(run, "val")["sha256"] == run.provenance["data"]["val"]["sha256"]


def test_inference_may_be_changed_for_an_evaluation(run: Run) -> None:
    before = (run.path / "recipe.yml").read_bytes()
    changes = ["inference.mode=tiles", "inference.tile=[32, 32]"]
    evaluate(run.path, overrides=changes)
    said = summary(run)
    assert (said["inference"]["mode"], said["inference"]["tile"]) == ("tiles", [32, 32])
    assert said["inference_as_in_validation"] is False
    assert said["changed"] == changes
    assert (run.path / "recipe.yml").read_bytes() == before


def test_without_a_validation_there_is_no_inference_to_compare_with(run: Run) -> None:
    run.set_history([])
    evaluate(run.path)
    assert summary(run)["inference_as_in_validation"] is None


def test_another_test_set_may_be_named(run: Run, discs: Path, tmp_path: Path) -> None:
    shutil.copytree(discs, tmp_path / "other")
    (tmp_path / "other" / "test_list.txt").write_text("images/test1.png labels/test1.png\n")
    words = f"{{type: OpticDiscSeg, dataset_root: {tmp_path / 'other'}, mode: test, transforms: [{{type: Normalize}}]}}"
    evaluate(run.path, overrides=[f"test_dataset={words}"])
    assert summary(run)["images"] == 1


@pytest.mark.parametrize(
    ("split", "override", "words"),
    [
        ("test", "model.width=8", "`model` cannot be changed here"),
        ("test", "val_dataset.mode=test", "`val_dataset` cannot be changed here"),
        ("val", "test_dataset.mode=test", "`test_dataset` cannot be changed here"),
        ("test", "inference.tiles=[32, 32]", "did you mean 'tile'"),
        ("test", "inference", "no '='"),
    ],
)
def test_what_belongs_to_the_training_cannot_be_changed(
    run: Run, split: Any, override: str, words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        evaluate(run.path, split=split, overrides=[override])
    assert words in str(caught.value)
    assert f"--set {override}" in caught.value.message
    if "cannot be changed" in words:
        assert "train again" in caught.value.hint
    assert not (run.path / "evaluation").exists()


def test_training_data_that_is_elsewhere_is_said(
    run: Run, discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = apart(run, discs, tmp_path)
    evaluate(run)
    assert summary(run)["compared_with_training_data"] is True
    assert capsys.readouterr().err == ""
    (tmp_path / "learned").rename(tmp_path / "archive")
    evaluate(run)
    assert summary(run)["compared_with_training_data"] is False
    said = capsys.readouterr().err
    assert said.startswith(f"warning: the train set {tmp_path / 'learned'} is not on this machine")
    assert said.count("\n") == 1


def test_validation_images_are_compared_where_training_images_are_elsewhere(
    run: Run, discs: Path, tmp_path: Path
) -> None:
    run = apart(run, discs, tmp_path)
    shutil.rmtree(tmp_path / "learned")
    (discs / "test_list.txt").write_text((discs / "val_list.txt").read_text())
    with pytest.raises(DataError, match="are in the val and the test set"):
        evaluate(run)


@pytest.mark.parametrize("spoilt", ["list", "image"])
def test_training_data_that_is_there_but_spoilt_is_an_error(
    run: Run, discs: Path, tmp_path: Path, spoilt: str
) -> None:
    run = apart(run, discs, tmp_path)
    name = "train_list.txt" if spoilt == "list" else "images/train1.png"
    (tmp_path / "learned" / name).unlink()
    with pytest.raises(DataError, match=name.rpartition("/")[2]):
        evaluate(run)


def test_without_a_test_set_the_hint_names_the_validation_set(run: Run, discs: Path) -> None:
    (discs / "test_list.txt").unlink()
    with pytest.raises(DataError) as caught:
        evaluate(run.path)
    assert "test_list.txt is not there" in caught.value.message
    assert "--split val" in caught.value.hint
    assert evaluate(run.path, split="val").rows


def test_a_hint_shows_a_test_set_that_can_be_set(run: Run, discs: Path) -> None:
    """The words between the quotes of the hint, with values in place of the dots."""
    (discs / "test_list.txt").rename(discs / "val_list.txt")
    with pytest.raises(DataError) as caught:
        evaluate(run.path)
    words = caught.value.hint.partition("'")[2].rpartition("'")[0]
    for value in ("OpticDiscSeg", str(discs), "{type: Normalize}"):
        words = words.replace("...", value, 1)
    assert load_recipe(run.path / "recipe.yml", [words]).test_dataset is not None
