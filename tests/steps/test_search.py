"""Searches on a small data set: real trainings, a real database, real processes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.files import locked
from medseg_paddle.run import Run
from medseg_paddle.steps.search import search
from medseg_paddle.steps.search_results import SearchResult
from medseg_paddle.steps.train import train

RATES = "lr_scheduler.learning_rate: {low: 1.0e-6, high: 0.05, log: true}"
SHORT = "iters: 6\nsave_interval: 2\n"


def with_search(path: Path, parameters: str, **options: Any) -> Path:
    text = path.read_text().replace("iters: 12\nsave_interval: 6\n", SHORT)
    lines = "".join(f"  {key}: {value}\n" for key, value in options.items())
    path.write_text(f"{text}search:\n  parameters: {{{parameters}}}\n{lines}")
    return path


def told(result: SearchResult) -> list[tuple[Any, ...]]:
    return [(one.number, one.state, one.score, one.values, one.iteration, one.note) for one in result.trials]


def test_a_search_finds_the_best_and_writes_it_down(disc_recipe_file: Path, tmp_path: Path) -> None:
    path = with_search(disc_recipe_file, f"{RATES}, batch_size: [2, 3]", trials=3, pruner="none")
    result = search(path, output=tmp_path / "found")
    assert [one.state for one in result.trials] == ["complete"] * 3
    for one in result.trials:
        run = Run.open(result.path / f"trial_{one.number:04}")
        assert one.score == max(entry["score"] for entry in run.history())
        assert run.recipe.searched == one.values
        assert run.provenance["search"]["state"] == "complete"
    assert result.best is not None
    assert result.best.score == max(one.score for one in result.trials if one.score is not None)
    best = load_recipe(result.path / "best.yml")
    assert best.search is None
    assert best.lr_scheduler.learning_rate == result.best.values["lr_scheduler.learning_rate"]
    assert best.batch_size == result.best.values["batch_size"]
    rows = list(csv.DictReader((result.path / "trials.csv").open()))
    assert [float(row["lr_scheduler.learning_rate"]) for row in rows] == [
        one.values["lr_scheduler.learning_rate"] for one in result.trials
    ]
    said = json.loads((result.path / "search.json").read_text())
    assert said["best"] == result.best.number
    assert "too good" in said["notes"][-1]


def test_the_dashboard_shows_what_was_searched(disc_recipe_file: Path, tmp_path: Path) -> None:
    from visualdl import LogReader

    path = with_search(disc_recipe_file, "model.width: [4, 6]", trials=2)
    search(path, output=tmp_path / "found")
    shown = set()
    for number in (0, 1):
        run = Run.open(tmp_path / "found" / f"trial_{number:04}")
        reader = LogReader(file_path=str(run.path / "vdlrecords.train.log"))
        record = reader.get_data("hyper_parameters", "hparam")[0]
        infos = {info.name: info for info in record.hparam.hparamInfos}
        shown.add(int(infos["model.width"].int_value or infos["model.width"].float_value))
        assert shown <= {4, 6}
        assert (
            int(infos["model.width"].int_value or infos["model.width"].float_value) == run.recipe.model.width
        )


@pytest.fixture
def pruning(disc_recipe_file: Path) -> Path:
    return with_search(disc_recipe_file, RATES, trials=5, startup_trials=1, seed=1)


def test_a_search_that_is_stopped_again_and_again_finds_the_same(pruning: Path, tmp_path: Path) -> None:
    whole = search(pruning, output=tmp_path / "one" / "found")
    states = [one.state for one in whole.trials]
    assert states[0] == "complete"
    assert "pruned" in states, "the seed must make a trial that is worse than the median"
    calls = 0
    while True:
        calls += 1
        # Over after the first validation that ends a second later: most often amid a trial.
        part = search(pruning, output=tmp_path / "two" / "found", overrides=["search.time_budget=1s"])
        if len(part.trials) == 5 and not any(one.state == "unfinished" for one in part.trials):
            break
        assert calls < 30
    assert calls > 1
    assert told(part) == told(whole)


def test_a_pruned_trial_ended_early_and_is_an_ordinary_run(pruning: Path, tmp_path: Path) -> None:
    result = search(pruning, output=tmp_path / "found")
    pruned = next(one for one in result.trials if one.state == "pruned")
    run = Run.open(result.path / f"trial_{pruned.number:04}")
    assert run.last_checkpoint is not None
    assert run.iteration_of(run.last_checkpoint) == pruned.iteration < 6
    assert run.provenance["search"]["state"] == "pruned"
    assert result.best is not None
    assert result.best.score > pruned.score
    assert train(run.recipe, output=run.path, resume=True).history()[-1]["iter"] == 6


def test_values_that_do_not_go_together_fail_alone(disc_recipe_file: Path, tmp_path: Path) -> None:
    parameters = "batch_size: [1, 2], train_dataset.mixup: [null, {alpha: 0.2}]"
    path = with_search(disc_recipe_file, parameters, trials=8, startup_trials=8, pruner="none")
    result = search(path, output=tmp_path / "found")
    for one in result.trials:
        wrong = one.values == {"batch_size": 1, "train_dataset.mixup": {"alpha": 0.2}}
        assert one.state == ("failed" if wrong else "complete")
        assert ("mixup mixes the images of a batch" in one.note) == wrong
    first: dict[str, SearchResult] = {}
    assert any(one.state == "failed" for one in result.trials)
    for one in result.trials:
        if one.state == "complete":
            before = first.setdefault(str(one.values), one)  # type: ignore[arg-type]
            assert (before is one) == (
                not one.note
            )  # a training with the same seed and values is not repeated
            assert one.score == before.score  # type: ignore[attr-defined]


def test_another_recipe_is_no_part_of_a_search(disc_recipe_file: Path, tmp_path: Path) -> None:
    path = with_search(disc_recipe_file, "batch_size: [2, 3]", trials=1)
    search(path, output=tmp_path / "found")
    assert len(search(path, output=tmp_path / "found", overrides=["num_workers=1"]).trials) == 1
    with pytest.raises(RecipeError, match="was begun with another iters, search"):
        search(path, output=tmp_path / "found", overrides=["iters=4", "search.seed=3"])


def test_nothing_is_begun_with_a_value_that_the_recipe_does_not_take(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    path = with_search(disc_recipe_file, "model.width: [4, wide]")
    with pytest.raises(RecipeError, match=r"line \d+: model.width"):
        search(path, output=tmp_path / "found")
    assert not (tmp_path / "found").exists()
    with pytest.raises(RecipeError, match="does not say what to search for"):
        search(path, overrides=["search=null"])


@pytest.mark.parametrize("storage", ["postgresql://me:secret@nowhere.invalid/db", "no url, secret"])
def test_a_database_that_cannot_be_used_keeps_its_password(
    disc_recipe_file: Path, tmp_path: Path, storage: str
) -> None:
    path = with_search(disc_recipe_file, "batch_size: [2, 3]")
    with pytest.raises(SetupError) as caught:
        search(path, output=tmp_path / "found", storage=storage)
    assert "secret" not in str(caught.value)


def test_two_processes_share_a_search_and_take_over_what_was_killed(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    path = with_search(disc_recipe_file, RATES, trials=6, startup_trials=6)
    path.write_text(path.read_text().replace(SHORT, "iters: 60\nsave_interval: 20\n"))
    found = tmp_path / "found"
    command = [sys.executable, "-m", "medseg_paddle", "search", "--config", str(path), "-o", str(found)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    both = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    try:
        end = time.monotonic() + 90
        while len(list(found.glob("trial_*/checkpoints/iter_20"))) < 2:
            assert time.monotonic() < end
            assert all(one.poll() is None for one in both)
            time.sleep(0.05)
        both[0].send_signal(signal.SIGKILL)
        said = both[1].communicate(timeout=120)[0]
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert both[1].returncode == 0, said
    result = search(path, output=found)  # nothing is left to do
    assert [one.number for one in result.trials] == list(range(6))
    assert all(one.state in ("complete", "pruned") for one in result.trials)
    assert "resuming at iteration" in said


HOLD = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_ends_with_its_process_and_not_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with locked(tmp_path / "lock", wait=False) as held:
            assert not held
    finally:
        holder.kill()
        holder.wait()
    with locked(tmp_path / "lock") as held:
        assert held
