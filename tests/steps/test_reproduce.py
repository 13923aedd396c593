"""A run is trained again from its folder: the same bits, or a report of what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import paddle
import pytest

from medseg_paddle.cli import main
from medseg_paddle.config import change_recipe
from medseg_paddle.engine.dashboard import curve
from medseg_paddle.errors import DataError, ModelError, RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps.reproduce import compare_runs, reproduce
from medseg_paddle.steps.train import train


@pytest.fixture
def run(finished_runs: Path, tmp_path: Path) -> Run:
    """A run of 40 iterations with checkpoints at 20 and 40."""
    return Run.open(shutil.copytree(finished_runs / "first", tmp_path / "run"))


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def medseg(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


def test_a_run_that_was_resumed_is_reproduced_bit_for_bit(
    disc_recipe_file: Path, discs: Path, tmp_path: Path
) -> None:
    # It is resumed at 6, amid the four iterations that a point of its curve is the mean of.
    overrides = ["lr_scheduler.decay_steps=12", "log_iters=4"]
    train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=6"])
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=overrides, resume=True)
    before = files(run.path)
    found = reproduce(run)
    assert found.lines()[-1] == "reproduced, bit for bit"
    assert found.surroundings == ()
    assert found.path == run.path.with_name("run-reproduced")
    assert (found.iteration, found.curves["validation score"].compared) == (12, 2)
    assert found.curves["loss"].compared == 3, "4, 8 amid which it was resumed, 12"
    assert found.compared > 1000
    assert files(run.path) == before

    # The same folder with other weights and scores than those that were trained.
    other = Run.open(shutil.copytree(found.path, run.path.with_name("other")))
    (weights,) = other.checkpoints.glob("iter_12/model.pdparams")
    state = paddle.load(str(weights))
    name = next(iter(state))
    state[name] = state[name] + 0.25
    paddle.save(state, str(weights))
    *entries, last = other.history()
    other.set_history([*entries, {**last, "score": last["score"] + 0.125}])
    compared = compare_runs(run, other, iteration=12)
    assert [(one.name, one.greatest) for one in compared.arrays] == [(name, pytest.approx(0.25))]
    assert compared.curves["validation score"].first == 12
    assert compared.curves["loss"].first is None
    best = max(entry["score"] for entry in run.history())
    apart = max(last["score"] + 0.125, best) - best
    assert compared.reproduced is (apart <= 0.01)
    assert compare_runs(run, other, iteration=12, tolerance=0.2).reproduced
    assert "within the tolerance" in compare_runs(run, other, iteration=12, tolerance=0.2).lines()[-1]

    # Data that is not what it was is no repetition.
    label = discs / "labels" / "train3.png"
    label.write_bytes((discs / "labels" / "train2.png").read_bytes())
    with pytest.raises(DataError, match=r"train3\.png changed or new"):
        reproduce(run, output=run.path.with_name("third"))
    assert not run.path.with_name("third").exists()


def test_the_first_iterations_are_compared_with_their_checkpoint_and_changes_are_said_first(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = json.loads((run.path / "provenance.json").read_text())
    noted["versions"]["numpy"] = "1.0"
    # Threads are taken from the run, each number by itself; those of the running process stay what they are.
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("MKL_NUM_THREADS")
    noted["machine"]["settings"] |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3"}
    (run.path / "provenance.json").write_text(json.dumps(noted))
    capsys.readouterr()
    assert medseg("reproduce", run.path, "--output", run.path.with_name("part"), "--iters", 20) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("not as it was: numpy 1.0 then, ")
    assert not any("NUM_THREADS" in line for line in said)
    assert "reproduced, bit for bit" in said
    assert any(line.startswith("weights and optimiser at 20: ") for line in said)
    assert "validation score: 1 points the same, bit for bit" in said
    part = Run.open(run.path.with_name("part"))
    assert set(curve(part.path, "Train/loss")) >= set(range(1, 21))
    assert part.recipe.iters == 40, "the schedule stays that of the whole training"
    for fact in ("pixels_per_class", "class_weights", "files"):
        assert part.provenance[fact] == run.provenance[fact]


def test_the_best_score_is_the_smallest_where_that_is_best_and_may_be_missing(
    run: Run, tmp_path: Path
) -> None:
    run = run.with_recipe(change_recipe(run.recipe, ["selection.metric=volume_error"]))
    other = Run.open(shutil.copytree(run.path, tmp_path / "other"))
    first, last = run.history()

    def best(then: tuple[float | None, float | None], now: tuple[float | None, float | None]) -> object:
        for one, (a, b) in ((run, then), (other, now)):
            one.set_history([{**first, "score": a}, {**last, "score": b}])
        return compare_runs(run, other, iteration=40).best

    assert best((0.5, 0.3), (0.5, 0.31)) == (0.3, 0.31)
    assert best((None, 0.3), (None, 0.2)) == (0.3, 0.2)
    assert best((None, None), (None, None)) is None
    assert best((None, 0.3), (None, None)) is None


def test_a_run_is_trained_as_long_as_it_was_whatever_its_recipe_says_now(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    """With a patience that was given to it when it went on, and would have ended it before."""
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=3", "save_interval=1"])
    run = run.with_recipe(change_recipe(run.recipe, ["early_stopping={patience: 1, min_delta: 0.99}"]))
    found = reproduce(run)
    assert found.compared > 1000
    assert not found.arrays


def test_other_weights_to_start_from_are_no_repetition(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source.pdparams"
    shutil.copyfile(run.best_checkpoint, source)
    run.note_initial_weights({"source": str(source), "sha256": "of others"})
    with pytest.raises(DataError, match=r"source\.pdparams, which .* started from, has other weights"):
        reproduce(run)
    assert not run.path.with_name("run-reproduced").exists()


def test_what_cannot_be_compared_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="trained for 40 iterations"):
        reproduce(run, iterations=41)
    for folder in run.checkpoints_newest_first():
        shutil.rmtree(folder)
    with pytest.raises(ModelError, match="no checkpoint"):
        reproduce(run)
    with pytest.raises(ModelError, match="is not a run"):
        reproduce(tmp_path)
