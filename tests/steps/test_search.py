"""Searches on a small data set: real trainings, a real database, real processes."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner
from visualdl import LogReader

from medseg_paddle.cli import app
from medseg_paddle.cli.experiment_tables import trial_table
from medseg_paddle.config import load_recipe
from medseg_paddle.config.selection import Selection
from medseg_paddle.errors import RecipeError, SetupError
from medseg_paddle.io.files import locked
from medseg_paddle.run import Run
from medseg_paddle.steps.search import _importances, search
from medseg_paddle.steps.search_results import SearchResult, TrialResult
from medseg_paddle.steps.search_storage import open_storage, storage_errors
from medseg_paddle.steps.search_study import open_study
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


@pytest.mark.parametrize("address", ["sqlite:///{}", "journal://{}"])
def test_a_trial_of_another_machine_is_left_to_it(recipe: Path, tmp_path: Path, address: str) -> None:
    base = load_recipe(recipe)
    assert base.search is not None
    storage = address.format(tmp_path / "shared")
    with storage_errors(storage):
        here, there = (
            open_study(tmp_path / machine / "found", storage, base, base.search)
            for machine in ("here", "there")
        )
        with here.claimed(3) as first:
            pass  # its process was killed, and the machine is there again later
        with there.claimed(3) as other, here.claimed(3) as again:
            numbers = [one.number for one in (first, other, again) if one is not None]
    assert numbers == [0, 1, 0]


def test_a_search_kept_in_a_journal_finds_what_one_in_a_database_does(
    kept_disc_recipe: str, tmp_path: Path
) -> None:
    options = {"iters": 3, "trials": 2, "startup_trials": 1, "pruner": "median"}
    path = with_search(tmp_path / "r.yml", kept_disc_recipe, RATES, **options)
    journal = f"journal://{tmp_path}/shared.log"
    begun = search(path, output=tmp_path / "found", storage=journal, overrides=["search.trials=1"])
    assert len(begun.trials) == 1
    with (tmp_path / "shared.log").open("a") as stream:
        stream.write('{"op_code":4,"worker')  # of a process that was killed amid its writing
    kept = search(path, output=tmp_path / "found", storage=journal)
    assert told(kept) == told(search(path, output=tmp_path / "again" / "found"))
    assert not (tmp_path / "found" / "search.db").exists()


WORK = """
import sys
from pathlib import Path
import optuna
from medseg_paddle.steps.search_storage import open_storage
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(storage=open_storage(sys.argv[1], Path()), study_name="s", load_if_exists=True)
for _ in range(30):
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", 0, 1))
"""


def test_processes_that_write_into_one_journal_lose_nothing(tmp_path: Path) -> None:
    journal = f"journal://{tmp_path}/shared.log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [subprocess.Popen([sys.executable, "-c", WORK, journal], env=environment) for _ in range(2)]
    assert [one.wait() for one in workers] == [0, 0]
    study = optuna.load_study(study_name="s", storage=open_storage(journal, tmp_path))
    trials = study.get_trials()
    assert [one.number for one in trials] == list(range(60))
    assert all(one.state == TrialState.COMPLETE and one.value == one.params["x"] for one in trials)


def test_what_is_no_journal_is_left_as_it_is(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine\n")
    for storage, words in (
        (f"journal://{tmp_path}/notes.txt", r"notes\.txt is no journal of Optuna"),
        ("journal://shared.log", "journal://shared.log names no file by its whole path"),
        (f"journal://{tmp_path}", "names no file"),
        (
            f"journal://{tmp_path}/missing/shared.log",
            r"missing/shared.log cannot be used \(FileNotFoundError",
        ),
    ):
        with pytest.raises(SetupError, match=words):
            search(recipe, output=tmp_path / "found", storage=storage)
    assert (tmp_path / "notes.txt").read_text() == "mine\n"
    # What another program has written into a journal is not passed over.
    (tmp_path / "shared.log").write_text('{"op_code":0,\n{"op_code":0,\n')
    with pytest.raises(SetupError, match="JSONDecodeError"):
        search(recipe, output=tmp_path / "found", storage=f"journal://{tmp_path}/shared.log")


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql://me:secret@nowhere.invalid/db",
        "postgresql://nowhere.invalid/db?user=me&password=secret",
        "redis://:secret@nowhere.invalid:6379/0",
        "redis://me:secret@nowhere.invalid:no/0",
        "redis://me:sec/secret@nowhere.invalid",
        "no url, secret",
    ],
)
def test_a_database_that_cannot_be_used_keeps_its_password(
    recipe: Path, tmp_path: Path, storage: str
) -> None:
    with pytest.raises(SetupError) as caught:
        search(recipe, output=tmp_path / "found", storage=storage)
    assert "secret" not in str(caught.value)


def test_a_batch_that_memory_does_not_hold_is_the_failure_of_its_trial(
    kept_disc_recipe: str, tmp_path: Path
) -> None:
    path = with_search(
        tmp_path / "r.yml",
        kept_disc_recipe,
        "batch_size: [2, 100000000]",
        iters=3,
        trials=6,
        startup_trials=6,
    )
    result = search(path, output=tmp_path / "found", overrides=["num_workers=1"])
    ends = {(one.values["batch_size"], one.state) for one in result.trials}
    assert ends == {(2, "complete"), (100000000, "failed")}
    notes = [one.note for one in result.trials if one.state == "failed"]
    assert all("MiB of memory" in note for note in notes), notes


# Searches, and waits in its first trial for a line before it goes on.
SEARCH = """
import sys
from optuna.trial import Trial
from medseg_paddle.steps.search import search
report, waited = Trial.report, []
def waiting(self, value, step):
    report(self, value, step)
    if step == 4 and not waited:
        waited.append(self.number)
        print("amid trial", self.number, file=sys.__stdout__, flush=True)  # the log has the other one
        sys.stdin.readline()
Trial.report = waiting
search(sys.argv[1], output=sys.argv[2])
"""


def test_two_processes_share_a_search_and_one_takes_over_what_the_other_was_killed_at(
    kept_disc_recipe: str, tmp_path: Path
) -> None:
    path = with_search(tmp_path / "r.yml", kept_disc_recipe, RATES, trials=3, pruner="none")
    found = tmp_path / "found"
    command = [sys.executable, "-c", SEARCH, str(path), str(found)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    both = [
        subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=out, text=True)
        for _ in range(2)
    ]

    def amid(process: subprocess.Popen[str]) -> int:
        """The trial that a process waits in."""
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("amid trial"):
                return int(line.split()[-1])
        raise AssertionError(said)

    try:
        killed, own = (amid(one) for one in both)
        both[0].kill()
        both[0].wait()
        said, _ = both[1].communicate("\n")
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert both[1].returncode == 0, said
    assert {killed, own} == {0, 1}
    assert re.findall(r"^trial (\d) \(", said, re.MULTILINE) == [str(killed), "2"]
    assert re.search(r"resuming at iteration [24]", said)
    assert re.findall(r"^trial (\d) complete", said, re.MULTILINE) == [str(own), str(killed), "2"]
    result = search(path, output=found)  # nothing is left to do
    assert [(one.number, one.state) for one in result.trials] == [(number, "complete") for number in range(3)]


def test_the_command_prints_a_table(recipe: Path, found: SearchResult) -> None:
    said = CliRunner().invoke(app, ["search", "-c", str(recipe), "-o", str(found.path)])
    assert said.exit_code == 0, said.output
    assert found.best is not None
    assert re.search(rf"{found.best.number} +complete +{found.best.score:.4f}", said.stdout)
    assert f"search: {found.path}" in said.stdout


def test_a_table_names_parameters_as_briefly_as_they_differ(tmp_path: Path) -> None:
    keys = ("lr_scheduler.learning_rate", "batch_size", "model.width", "loss.coef.0", "optimizer.custom_cfg.0.lr_mult",
            "optimizer.custom_cfg.1.lr_mult", "loss.types.0.losses.1.coef.0")  # fmt: skip
    table = trial_table(SearchResult(tmp_path, "s", Selection(), keys, (), {}))
    assert [str(column.header) for column in table.columns][3:] == [
        "learning_rate", "batch_size", "width", "loss.coef.0", "custom_cfg.0.lr_mult", "custom_cfg.1.lr_mult",
        "losses.1.coef.0",
    ]  # fmt: skip


def test_hyperband_ends_trials_and_importances_name_what_matters(
    kept_disc_recipe: str, tmp_path: Path
) -> None:
    """Without trainings: a score that grows with the rate and the iteration, and knows no batch size."""
    parameters = f"{RATES}, batch_size: [2, 3]"
    options = {"trials": 26, "startup_trials": 26, "pruner": "hyperband"}
    base = load_recipe(with_search(tmp_path / "r.yml", kept_disc_recipe, parameters, iters=27, **options))
    assert base.search is not None
    memory = "sqlite://"
    with storage_errors(memory):
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
