"""What a training looks at before it starts, what a resumed one may change, and what it notes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.core import LabelSet, Manifest
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps import provenance
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.profile_advice import waiting_advice
from medseg_paddle.steps.train import train

SHORT = ["iters=2", "save_interval=2"]


def scored(root: Path) -> str:
    return f"{{type: OpticDiscSeg, dataset_root: {root}, mode: test, transforms: [{{type: Normalize}}]}}"


def test_recipe_and_folder_may_be_given_as_text(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(str(disc_recipe_file), output=str(tmp_path / "run"), overrides=SHORT)
    assert run.path == tmp_path / "run"


def test_a_resumed_run_notes_what_it_goes_on_with(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=SHORT)
    first = run.provenance
    assert "resumed" not in first
    for iters, commit in ((4, "one"), (6, "two")):
        state = {"commit": commit, "changed": False}
        monkeypatch.setattr(provenance, "git_state", lambda state=state: state)
        longer = [f"iters={iters}", "save_interval=2"]
        run = train(disc_recipe_file, output=run.path, overrides=longer, resume=True)
    noted = run.provenance
    resumed = noted.pop("resumed")
    assert noted == first
    assert [(entry["iteration"], entry["git"]["commit"]) for entry in resumed] == [(2, "one"), (4, "two")]
    for entry in resumed:
        assert entry["machine"]["device"] == "cpu"
        assert entry["versions"] == first["versions"]
        assert entry["started"] >= first["started"]


def test_resuming_a_finished_run_notes_its_later_use(
    disc_recipe_file: Path, discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=SHORT)
    changes = ["export.tolerance=0.01", f"test_dataset={scored(discs)}", "log_iters=1"]
    capsys.readouterr()
    again = train(disc_recipe_file, output=run.path, overrides=[*SHORT, *changes], resume=True)
    assert "noted in its recipe: test_dataset, export\n" in capsys.readouterr().out
    for recipe in (again.recipe, Run.open(run.path).recipe):
        assert recipe.export.tolerance == 0.01
        assert recipe.test_dataset is not None
        assert recipe.log_iters == run.recipe.log_iters
    assert "resumed" not in again.provenance


@pytest.mark.parametrize("iters", [2, 4])
def test_the_plan_that_validated_a_run_stays(disc_recipe_file: Path, tmp_path: Path, iters: int) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=SHORT)
    before = (run.path / "recipe.yml").read_bytes()
    changes = [f"iters={iters}", "save_interval=2", "inference.mode=tiles", "inference.tile=[32, 32]"]
    with pytest.raises(RecipeError, match="validated with another inference") as caught:
        train(disc_recipe_file, output=run.path, overrides=changes, resume=True)
    assert "`medseg export` with --set" in caught.value.hint
    assert (run.path / "recipe.yml").read_bytes() == before


WINDOW = (
    "prepare={reader: nifti, sets: [{images: '*.nii', labels: '*.nii'}], val_fraction: 0.1, "
    "window: {level: 40, width: 400}}"
)


def prepared(root: Path, level: float) -> None:
    """Let `root`, a data set with lists, say with which window it was prepared."""
    source = {"prepare": {"window": {"level": level, "width": 400.0}}}
    made = Manifest("discs", LabelSet.from_names(["background", "disc"]), {}, root, source=source)
    (root / "manifest.json").write_text(made.to_json())


def test_lists_of_a_prepared_folder_need_the_window_it_was_prepared_with(
    disc_recipe_file: Path, discs: Path, tmp_path: Path
) -> None:
    prepared(discs, -600)
    with pytest.raises(DataError, match="was prepared with window") as caught:
        train(disc_recipe_file, output=tmp_path / "run", overrides=[*SHORT, WINDOW])
    assert str(discs) in caught.value.message
    assert not (tmp_path / "run").exists()
    prepared(discs, 40)
    assert train(disc_recipe_file, output=tmp_path / "run", overrides=[*SHORT, WINDOW]).history()


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_every_set_s_window_is_looked_at(
    disc_recipe_file: Path, discs: Path, tmp_path: Path, name: str
) -> None:
    other = Path(shutil.copytree(discs, tmp_path / "other"))
    prepared(discs, 40)
    prepared(other, -600)
    where = f"test_dataset={scored(other)}" if name == "test" else f"{name}_dataset.dataset_root={other}"
    with pytest.raises(DataError, match="was prepared with window") as caught:
        train(disc_recipe_file, output=tmp_path / "run", overrides=[*SHORT, WINDOW, where])
    assert str(other) in caught.value.message


def test_a_window_that_is_changed_after_the_training_is_refused(
    disc_recipe_file: Path, discs: Path, tmp_path: Path
) -> None:
    prepared(discs, 40)
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*SHORT, WINDOW])
    other = WINDOW.replace("40,", "-600,")
    with pytest.raises(DataError, match="was prepared with window"):
        train(disc_recipe_file, output=run.path, overrides=[*SHORT, other], resume=True)
    recipe = run.path / "recipe.yml"
    recipe.write_text(recipe.read_text().replace("level: 40", "level: -600"))
    for step in (evaluate, export):
        with pytest.raises(DataError, match="was prepared with window"):
            step(run.path)


def test_a_training_says_that_it_waits_for_images_and_what_to_do(
    disc_recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pace: Callable[..., None],
) -> None:
    for cache, waits in ((0, True), (1024, False)):
        pace(slow_loading=waits, longer=0.05)
        overrides = [f"train_dataset.cache_mb={cache}", "save_interval=12"]
        train(disc_recipe_file, output=tmp_path / f"run{cache}", overrides=overrides)
        said = capsys.readouterr().out
        shares = [int(share) for share in re.findall(r"(\d+)% waiting for images", said)]
        assert (shares[-1] > 30) == waits, said
        assert (
            bool(re.search(r"\d+% of the time goes into waiting for images: num_workers: \d", said)) == waits
        )
        assert ("0 of 6 images are kept decoded (cache_mb is 0)" in said) == waits


@pytest.mark.parametrize(
    ("workers", "cores", "words"),
    [
        (0, 1, "num_workers: 1 in the recipe loads faster (now 0)"),
        (0, 16, "num_workers: 2 in the recipe loads faster (now 0)"),
        (3, 16, "num_workers: 6 in the recipe loads faster (now 3)"),
        (3, 4, "num_workers: 4 in the recipe loads faster (now 3)"),
        (4, 4, "4 processes have 4 cores, and more would not help: keep more images decoded (cache_mb)"),
    ],
)
def test_the_advice_asks_for_no_more_processes_than_there_are_cores(
    workers: int, cores: int, words: str
) -> None:
    assert words in waiting_advice(0.42, workers, cores)
    assert waiting_advice(0.42, workers, cores).startswith("42% of the time")


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_that_hold_the_ignored_value_and_no_class_are_told(
    disc_recipe_file: Path, discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    labels = sorted((discs / "labels").glob(f"{split}*.png"))
    half = np.asarray(Image.open(labels[2])).copy()
    half[0, 0] = 255  # a part is ignored, but a class is there
    Image.fromarray(half).save(labels[2])
    train(disc_recipe_file, output=tmp_path / "one", overrides=["iters=2"])
    assert "warning" not in capsys.readouterr().out
    for path in labels[:2]:
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(255)).save(path)
    train(disc_recipe_file, output=tmp_path / "two", overrides=["iters=2"])
    said = capsys.readouterr().out
    which = {"train": "training", "val": "validation"}[split]
    assert (
        f"warning: 2 of the {which} labels hold the ignored value 255 and no class: {labels[0]}, {labels[1]}."
        in said
    )
    assert "label_map: {255: 1}" in said
