"""Searches on a small data set: real trainings, a real database, real processes."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner
from visualdl import LogReader

from medseg_paddle.cli import app
from medseg_paddle.config import load_recipe
from medseg_paddle.config.selection import Selection
from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.files import locked
from medseg_paddle.run import Run
from medseg_paddle.steps.search import _importances, search
from medseg_paddle.steps.search_results import SearchResult, TrialResult
from medseg_paddle.steps.search_study import database_errors, open_study
from medseg_paddle.steps.train import train

RATES = "lr_scheduler.learning_rate: {low: 1.0e-6, high: 0.05, log: true}"


def with_search(path: Path, text: str, parameters: str, *, iters: int = 6, **options: Any) -> Path:
    text = text.replace("iters: 12\nsave_interval: 6\n", f"iters: {iters}\nsave_interval: {iters // 3}\n")
    text = text.replace(
        "learning_rate: 0.01\n", "learning_rate: 0.01\n  end_lr: 0\n"
    )  # below all that are tried
    lines = "".join(f"  {key}: {value}\n" for key, value in options.items())
    path.write_text(f"{text}search:\n  parameters: {{{parameters}}}\n{lines}")
    return path


def told(result: SearchResult) -> list[tuple[Any, ...]]:
    return [(one.number, one.state, one.score, one.values, one.iteration, one.note) for one in result.trials]


@pytest.fixture(scope="module")
def recipe(kept_disc_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "discs.yml"
    parameters = f"{RATES}, batch_size: [2, 3]"
    return with_search(path, kept_disc_recipe, parameters, trials=5, startup_trials=1, seed=1)


@pytest.fixture(scope="module")
def found(recipe: Path) -> SearchResult:
    """A search that went through in one call; a test may add to it, but not change it."""
    return search(recipe, output=recipe.parent / "found")


def test_a_search_finds_the_best_and_writes_it_down(found: SearchResult) -> None:
    complete = [one for one in found.trials if one.state == "complete"]
    assert found.best is not None
    assert found.best.score == max(one.score for one in complete if one.score is not None)
    best = load_recipe(found.path / "best.yml")
    assert best.search is None
    assert best.lr_scheduler.learning_rate == found.best.values["lr_scheduler.learning_rate"]
    assert best.batch_size == found.best.values["batch_size"]
    rows = list(csv.DictReader((found.path / "trials.csv").open()))
    for row, one in zip(rows, found.trials, strict=True):
        assert float(row["lr_scheduler.learning_rate"]) == one.values["lr_scheduler.learning_rate"]
        assert (row["state"], int(row["iteration"])) == (one.state, one.iteration)
    said = json.loads((found.path / "search.json").read_text())
    assert said["best"] == found.best.number
    assert "too good" in said["notes"][-1]


def test_a_trial_is_an_ordinary_run_that_says_what_it_is(found: SearchResult) -> None:
    for one in found.trials:
        run = Run.open(found.path / f"trial_{one.number:04}")
        assert one.score == max(entry["score"] for entry in run.history())
        assert run.recipe.searched == one.values
        assert run.provenance["search"]["state"] == one.state
        # the dashboard compares trials by what was searched
        reader = LogReader(file_path=str(run.path / "vdlrecords.train.log"))
        record = reader.get_data("hyper_parameters", "hparam")[0]
        shown = {info.name: info.float_value for info in record.hparam.hparamInfos}
        assert "Validation/mean foreground Dice" in {info.name for info in record.hparam.metricInfos}
        assert shown["lr_scheduler.learning_rate"] == pytest.approx(one.values["lr_scheduler.learning_rate"])


def test_a_search_that_is_stopped_again_and_again_finds_the_same(
    recipe: Path, found: SearchResult, tmp_path: Path
) -> None:
    calls = 0
    while True:
        calls += 1
        # Over with the first validation that ends a second later: most often amid a trial.
        part = search(recipe, output=tmp_path / "found", overrides=["search.time_budget=1s"])
        if len(part.trials) == 5 and not any(one.state == "unfinished" for one in part.trials):
            break
        assert calls < 30
    assert calls > 1
    assert told(part) == told(found)


def test_a_pruned_trial_ended_early_and_can_go_on(found: SearchResult, tmp_path: Path) -> None:
    pruned = next(one for one in found.trials if one.state == "pruned")  # the seed sees to one
    run = Run.open(shutil.copytree(found.path / f"trial_{pruned.number:04}", tmp_path / "run"))
    assert run.last_checkpoint is not None
    assert run.iteration_of(run.last_checkpoint) == pruned.iteration < 6
    assert found.best is not None
    assert found.best.score > pruned.score
    assert train(run.recipe, output=run.path, resume=True).history()[-1]["iter"] == 6


def test_values_that_do_not_go_together_fail_alone(kept_disc_recipe: str, tmp_path: Path) -> None:
    parameters = "batch_size: [1, 2], train_dataset.mixup: [null, {alpha: 0.2}]"
    path = with_search(tmp_path / "r.yml", kept_disc_recipe, parameters, iters=3, trials=8, startup_trials=8)
    result = search(path, output=tmp_path / "found")
    for one in result.trials:
        wrong = one.values == {"batch_size": 1, "train_dataset.mixup": {"alpha": 0.2}}
        assert one.state == ("failed" if wrong else "complete")
        assert ("mixup mixes the images of a batch" in one.note) == wrong
    first: dict[str, TrialResult] = {}
    assert any(one.state == "failed" for one in result.trials)
    for one in result.trials:
        if one.state == "complete":
            before = first.setdefault(str(one.values), one)
            assert (before is one) == (
                not one.note
            )  # a training with the same seed and values is not repeated
            assert one.score == before.score


def test_another_recipe_is_no_part_of_a_search(recipe: Path, found: SearchResult) -> None:
    again = search(recipe, output=found.path, overrides=["num_workers=1", "search.trials=4"])
    assert told(again) == told(found)
    with pytest.raises(RecipeError, match="was begun with another iters, search"):
        search(recipe, output=found.path, overrides=["iters=4", "search.seed=3"])


def test_nothing_is_begun_with_a_value_that_the_recipe_does_not_take(
    kept_disc_recipe: str, tmp_path: Path
) -> None:
    path = with_search(tmp_path / "r.yml", kept_disc_recipe, "model.width: [4, wide]")
    with pytest.raises(RecipeError, match=r"line \d+: model.width"):
        search(path, output=tmp_path / "found")
    assert not (tmp_path / "found").exists()
    with pytest.raises(RecipeError, match="does not say what to search for"):
        search(path, overrides=["search=null"])


def test_the_smallest_score_is_the_best_where_that_is_better(kept_disc_recipe: str, tmp_path: Path) -> None:
    text = f"selection: {{metric: volume_error}}\n{kept_disc_recipe}"
    path = with_search(tmp_path / "r.yml", text, RATES, iters=3, trials=2, startup_trials=2, pruner="none")
    said = CliRunner().invoke(app, ["search", "-c", str(path), "-o", str(tmp_path / "found")])
    assert said.exit_code == 0, said.output
    result = search(path, output=tmp_path / "found")
    scores = [one.score for one in result.trials]
    for one in result.trials:
        history = Run.open(result.path / f"trial_{one.number:04}").history()
        assert one.score == min(entry["score"] for entry in history) > 0
    assert result.best is not None
    assert (result.best.score, result.best_first[-1].score) == (min(scores), max(scores))
    assert f"trial 0 complete: mean foreground volume error {scores[0]:.4f}" in said.output
    assert re.search(rf"{result.best.number} +complete +{result.best.score:.4f}", said.output)
    noted = json.loads((result.path / "search.json").read_text())
    assert (noted["score"], noted["smaller_is_better"]) == ("mean foreground volume error", True)
    assert "The score is mean foreground volume error, of which the smallest is the best." in result.notes


def test_a_trial_without_a_score_is_never_the_best(tmp_path: Path) -> None:
    for metric, better, worse in (("dice", 0.9, 0.1), ("volume_error", 0.1, 0.9)):
        found = [TrialResult(n, "complete", s, {}, 6, 1.0) for n, s in enumerate((None, worse, better))]
        result = SearchResult(tmp_path, "found", Selection(metric=metric), (), tuple(found))
        assert [one.number for one in result.best_first] == [2, 1, 0]
        assert SearchResult(tmp_path, "found", Selection(metric=metric), (), tuple(found[:1])).best is None


def test_a_trial_of_another_machine_is_left_to_it(recipe: Path, tmp_path: Path) -> None:
    base = load_recipe(recipe)
    assert base.search is not None
    storage = f"sqlite:///{tmp_path}/shared.db"
    with database_errors(storage):
        here, there = (
            open_study(tmp_path / machine / "found", storage, base, base.search)
            for machine in ("here", "there")
        )
        with here.claimed(3) as first:
            pass  # its process was killed, and the machine is there again later
        with there.claimed(3) as other, here.claimed(3) as again:
            numbers = [one.number for one in (first, other, again) if one is not None]
    assert numbers == [0, 1, 0]


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql://me:secret@nowhere.invalid/db",
        "postgresql://nowhere.invalid/db?user=me&password=secret",
        "no url, secret",
    ],
)
def test_a_database_that_cannot_be_used_keeps_its_password(
    recipe: Path, tmp_path: Path, storage: str
) -> None:
    with pytest.raises(SetupError) as caught:
        search(recipe, output=tmp_path / "found", storage=storage)
    assert "secret" not in str(caught.value)


def test_two_processes_share_a_search_and_one_takes_over_what_the_other_was_killed_at(
    kept_disc_recipe: str, tmp_path: Path
) -> None:
    path = with_search(tmp_path / "r.yml", kept_disc_recipe, RATES, iters=60, trials=3, pruner="none")
    found = tmp_path / "found"
    command = [sys.executable, "-m", "medseg_paddle", "search", "--config", str(path), "-o", str(found)]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    both = []
    for log in logs:
        with log.open("w") as stream:
            both.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream))

    def begun(log: Path) -> list[str]:
        return re.findall(r"^trial (\d) \(", log.read_text(), re.MULTILINE)

    def amid(log: Path) -> bool:
        """Whether the last trial in the log has a checkpoint, and is not at its end."""
        last = begun(log)[-1:]
        checkpoints = found / f"trial_000{last[0]}" / "checkpoints" if last else found
        return (checkpoints / "iter_20" / "model.pdopt").exists() and not (checkpoints / "iter_60").exists()

    try:
        end = time.monotonic() + 120
        while not (amid(logs[0]) and begun(logs[1])):
            assert all(one.poll() is None for one in both), logs[0].read_text() + logs[1].read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.1)  # until the checkpoint is whole
        both[0].send_signal(signal.SIGKILL)
        both[1].wait(120)
    finally:
        for one in both:
            one.kill()
            one.wait()
    said = logs[1].read_text()
    assert both[1].returncode == 0, said
    killed = begun(logs[0])[-1]
    assert killed in begun(logs[1])
    assert re.search(r"resuming at iteration [24]0", said)
    result = search(path, output=found)  # nothing is left to do
    assert [(one.number, one.state) for one in result.trials] == [(number, "complete") for number in range(3)]
    ends = [line for log in logs for line in re.findall(r"^trial \d complete", log.read_text(), re.MULTILINE)]
    assert sorted(ends) == [f"trial {number} complete" for number in range(3)]


def test_the_command_prints_a_table(recipe: Path, found: SearchResult) -> None:
    said = CliRunner().invoke(app, ["search", "-c", str(recipe), "-o", str(found.path)])
    assert said.exit_code == 0, said.output
    assert found.best is not None
    assert re.search(rf"{found.best.number} +complete +{found.best.score:.4f}", said.stdout)
    assert f"search: {found.path}" in said.stdout


def test_hyperband_ends_trials_and_importances_name_what_matters(
    kept_disc_recipe: str, tmp_path: Path
) -> None:
    """Without trainings: a score that grows with the rate and the iteration, and knows no batch size."""
    parameters = f"{RATES}, batch_size: [2, 3]"
    options = {"trials": 26, "startup_trials": 26, "pruner": "hyperband"}
    base = load_recipe(with_search(tmp_path / "r.yml", kept_disc_recipe, parameters, iters=27, **options))
    assert base.search is not None
    memory = "sqlite://"
    with database_errors(memory):
        shared = open_study(tmp_path, memory, base, base.search)
        for _ in range(26):
            trial = shared.study.ask()
            rate = trial.suggest_float("lr_scheduler.learning_rate", 1e-6, 0.05, log=True)
            trial.suggest_categorical("batch_size", [2, 3])
            for iteration in (9, 18, 27):
                trial.report(math.log10(rate) + iteration / 27, iteration)
                if iteration < 27 and trial.should_prune():
                    shared.study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                shared.study.tell(trial, math.log10(rate) + 1)
        trials = shared.study.get_trials()
        shares = _importances(shared.study, trials)
    pruned = [one for one in trials if one.state == TrialState.PRUNED]
    assert 0 < len(pruned) <= 16
    assert shares["lr_scheduler.learning_rate"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


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
