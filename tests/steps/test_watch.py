"""Who watches a training's scores, and may end it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg_paddle.run import Run
from medseg_paddle.steps.train import train


class EnoughError(Exception):
    pass


def weights(run: Run) -> dict[str, np.ndarray]:
    import paddle

    return {name: value.numpy() for name, value in paddle.load(str(run.weights("last"))).items()}


@pytest.fixture(scope="module")
def recipe(kept_disc_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watch") / "discs.yml"
    path.write_text(kept_disc_recipe.replace("iters: 12\nsave_interval: 6\n", "iters: 6\nsave_interval: 2\n"))
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Run:
    return train(recipe, output=recipe.parent / "whole")


@pytest.mark.parametrize("at", [2, 6])
def test_a_training_that_is_ended_can_be_read_and_goes_on_as_if_it_had_not_been(
    recipe: Path, whole: Run, tmp_path: Path, at: int
) -> None:
    seen = []

    def watch(iteration: int, score: float) -> None:
        seen.append((iteration, score))
        if iteration == at:
            raise EnoughError(f"at {iteration}")

    with pytest.raises(EnoughError, match=f"at {at}"):
        train(recipe, output=tmp_path / "run", watch=watch)
    run = Run.open(tmp_path / "run")
    assert run.last_checkpoint is not None
    assert run.iteration_of(run.last_checkpoint) == at
    assert seen == [(entry["iter"], entry["score"]) for entry in run.history()]
    assert run.history() == whole.history()[: at // 2]
    assert run.best_checkpoint.is_file()
    again = train(recipe, output=run.path, resume=True)
    assert again.history() == whole.history()
    first, second = weights(again), weights(whole)
    assert all(np.array_equal(first[name], second[name]) for name in second)


def test_a_validation_that_a_resumed_run_makes_up_for_is_watched(
    recipe: Path, whole: Run, tmp_path: Path
) -> None:
    run = Run.open(shutil.copytree(whole.path, tmp_path / "run"))
    run.set_history(run.history()[:-1])  # killed before the score of the last checkpoint was noted
    before = len(run.history())

    def watch(iteration: int, _score: float) -> None:
        raise EnoughError(f"at {iteration}")

    with pytest.raises(EnoughError, match="at 6"):
        train(recipe, output=run.path, resume=True, watch=watch)
    assert len(run.history()) == before + 1
