"""What may be changed for an export, and what a user sees of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_paddle.bundle import ParityError
from medseg_paddle.errors import RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps.export import export


@pytest.fixture
def run(finished_runs: Path, tmp_path: Path) -> Run:
    return Run.open(Path(shutil.copytree(finished_runs / "first", tmp_path / "run")))


def test_a_folder_may_be_given_as_text(run: Run, tmp_path: Path) -> None:
    assert export(str(run.path), output=str(tmp_path / "bundle")).path == tmp_path / "bundle"


def test_the_bundle_says_which_settings_it_was_exported_with(run: Run) -> None:
    before = (run.path / "recipe.yml").read_bytes()
    changes = ["inference.mode=tiles", "inference.tile=[32, 48]", "export.tolerance=1e-3", "export.samples=1"]
    said = export(run.path, overrides=changes).description
    assert (said.plan.mode, said.plan.tile, said.tolerance) == ("tiles", (32, 48), 0.001)
    assert said.recipe["inference"]["mode"] == "tiles"
    assert said.recipe["export"] == {"tolerance": 0.001, "samples": 1}
    assert (run.path / "recipe.yml").read_bytes() == before


def test_codes_and_colours_can_be_given_after_the_training(run: Run) -> None:
    codes = "{category: [91723000, SCT, Anatomical Structure], type: [81016008, SCT, Optic nerve head]}"
    (disc,) = export(run.path, overrides=[f"codes.disc={codes}", "colors.disc=[1, 2, 3]"]).labels.foreground
    assert (disc.meaning.type.value, disc.color) == ("81016008", (1, 2, 3))
    with pytest.raises(RecipeError, match="81016080"):
        export(run.path, overrides=[f"codes.disc={codes.replace('81016008', '81016080')}"])


def test_the_tolerance_that_is_set_holds(run: Run) -> None:
    with pytest.raises(ParityError, match="1e-12 is allowed"):
        export(run, overrides=["export.tolerance=1e-12"])


@pytest.mark.parametrize("override", ["model.width=8", "test_dataset.mode=test", "seed=3", "labels.1=spot"])
def test_what_belongs_to_the_training_cannot_be_changed(run: Run, override: str) -> None:
    with pytest.raises(RecipeError, match="cannot be changed here") as caught:
        export(run, overrides=[override])
    allowed = "inference, postprocessing, codes, colors, export, device can; for anything else train again"
    assert allowed in caught.value.hint
    assert not run.bundle_folder.exists()


def test_the_command_says_one_line(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medseg_paddle", "export", str(run.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"bundle: {run.bundle_folder} (id ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
