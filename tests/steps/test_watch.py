"""Who watches a training's scores, and may end it."""

from __future__ import annotations

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


@pytest.fixture
def whole(disc_recipe_file: Path, tmp_path: Path) -> Run:
    return train(disc_recipe_file, output=tmp_path / "whole", overrides=["save_interval=4"])


@pytest.mark.parametrize("at", [4, 12])
def test_a_training_that_is_ended_can_be_read_and_goes_on_as_if_it_had_not_been(
    disc_recipe_file: Path, whole: Run, tmp_path: Path, at: int
) -> None:
    seen = []

    def watch(iteration: int, score: float) -> None:
        seen.append((iteration, score))
        if iteration == at:
            raise EnoughError(f"at {iteration}")

    with pytest.raises(EnoughError, match=f"at {at}"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=["save_interval=4"], watch=watch)
    run = Run.open(tmp_path / "run")
    assert run.last_checkpoint is not None
    assert run.iteration_of(run.last_checkpoint) == at
    assert seen == [(entry["iter"], entry["score"]) for entry in run.history()]
    assert run.history() == whole.history()[: at // 4]
    assert run.best_checkpoint.is_file()
    again = train(disc_recipe_file, output=run.path, overrides=["save_interval=4"], resume=True)
    assert again.history() == whole.history()
    first, second = weights(again), weights(whole)
    assert all(np.array_equal(first[name], second[name]) for name in second)


def test_a_validation_that_a_resumed_run_makes_up_for_is_watched(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["save_interval=4"])
    run.set_history(run.history()[:-1])  # killed before the score of the last checkpoint was noted
    before = len(run.history())

    def watch(iteration: int, _score: float) -> None:
        raise EnoughError(f"at {iteration}")

    with pytest.raises(EnoughError, match="at 12"):
        train(disc_recipe_file, output=run.path, overrides=["save_interval=4"], resume=True, watch=watch)
    assert len(run.history()) == before + 1
