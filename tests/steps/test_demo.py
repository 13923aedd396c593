"""The demo in a folder whose name YAML, a shell and rich would each read in their own way."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.core import LabelSet
from medseg_paddle.metrics.overlap import CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.steps import demo as module
from medseg_paddle.steps.demo import demo


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Stand-ins for the steps, which have tests of their own; the recipes that are trained are noted."""
    counts = CaseCounts(2)
    counts.add(np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8), None, None)
    report = Report.from_counts({"patient": counts}, LabelSet.generic(2))
    recipes: list[Recipe] = []

    def train(recipe: Recipe, output: Path, **_: Any) -> Any:
        recipes.append(recipe)
        return SimpleNamespace(path=output)

    steps = {
        "phantom": lambda folder, **_: (folder / "PHANTOM-001").mkdir(parents=True),
        "prepare": lambda *_, **__: SimpleNamespace(splits={}),
        "train": train,
        "evaluate": lambda _: report,
        "export": lambda run, **_: SimpleNamespace(path=run / "bundle"),
        "predict": lambda *_, **__: None,
    }
    for name, step in steps.items():
        monkeypatch.setattr(module, name, step)
    return recipes


def test_it_works_in_any_folder(
    trained: list[Recipe],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    folder = tmp_path / "my #1: [bold]"
    demo(folder)
    (recipe,) = trained
    assert recipe.train_dataset.dataset_root == recipe.val_dataset.dataset_root == str(folder / "dataset")
    out = capsys.readouterr().out
    commands = [
        shlex.split(line.strip().removeprefix("$ ")) for line in out.splitlines() if "$ medseg" in line
    ]
    assert " ".join(words[1] for words in commands) == "phantom prepare train evaluate export predict"
    assert commands[0][2] == str(folder / "cohort")
    training = commands[2]
    overrides = [word for before, word in itertools.pairwise(training) if before == "--set"]
    assert load_recipe(training[training.index("--config") + 1], overrides) == recipe
    assert commands[3][2] == commands[4][2] == str(folder / "run")
    assert f" {folder / 'run' / 'evaluation' / 'test' / 'overlays'} " in out
