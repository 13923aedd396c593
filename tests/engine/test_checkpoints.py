"""Checkpoints that were damaged, that earlier versions wrote, and what trainings that go on from them end like."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from visualdl import LogReader, LogWriter

from medseg_paddle.engine import training
from medseg_paddle.engine.checkpoints import latest_whole
from medseg_paddle.engine.event_log import Reached, cut_curves, cut_log
from medseg_paddle.engine.paddleseg_adapter.loop import Hooks
from medseg_paddle.engine.running_loss import RunningLoss
from medseg_paddle.errors import ModelError, SetupError
from medseg_paddle.io.sealed import seal
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train

# Dropout draws random numbers, the average has weights of its own, and no line of the log ends with a checkpoint.
HARD = [
    "model={type: ScalableUNet, width: 4, depth: 2, dropout: 0.4}",
    "loss.types.0={type: MixedLoss, losses: [{type: CrossEntropyLoss}, {type: DiceLoss}], coef: [1, 1]}",
    "use_ema=true",
    "log_iters=4",
    "save_interval=3",
    "iters=12",
]
IN_SECONDS = ("Train/images per second", "Train/reader_cost")


def curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    reader = LogReader(file_path=str(run.path / "vdlrecords.train.log"))
    return {
        tag: [
            (record.id, 0.0 if tag in IN_SECONDS else record.value)
            for record in reader.get_data("scalar", tag)
        ]
        for tag in reader.get_tags()["scalar"]
    }


def files(run: Run) -> dict[str, bytes]:
    """Weights and optimiser states of the checkpoints that are kept."""
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for path in run.checkpoints.rglob("*")
        if path.suffix in {".pdparams", ".pdopt"}
    }


def lines(run: Run) -> list[str]:
    """What the text log says of iterations and scores, without times."""
    log = run.log.read_text()
    return re.findall(r"\[TRAIN\] .* lr: \S+,", log) + re.findall(r"\[EVAL\] .*", log)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let a training get SIGTERM amid an iteration."""
    run_train = training.run_train

    def at(wanted: int) -> None:
        def replaced(*words: Any, hooks: Hooks, **options: Any) -> bool:
            def step(iteration: int) -> None:
                hooks.after_step(iteration)
                if iteration == wanted:
                    os.kill(os.getpid(), signal.SIGTERM)

            return run_train(*words, hooks=replace(hooks, after_step=step), **options)

        monkeypatch.setattr(training, "run_train", replaced)

    return at


def test_dropout_average_curves_and_log_of_a_resumed_run_are_those_of_one_that_was_not_stopped(
    disc_recipe_file: Path, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=HARD)
    for iteration in (6, 7):
        stop_at(iteration)
        with pytest.raises(SystemExit, match="143"):
            train(disc_recipe_file, output=tmp_path / "run", overrides=HARD, resume=True)
        assert (tmp_path / "run" / "checkpoints" / f"iter_{iteration}" / "ema_model.pdparams").is_file()
    stop_at(0)
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=HARD, resume=True)
    assert run.history() == whole.history()
    assert len(whole.history()) == 8
    assert curves(run) == curves(whole)
    assert [step for step, _ in curves(whole)["Train/loss"]] == [4, 8, 12]
    assert lines(run) == lines(whole)
    assert len(lines(whole)) == 3 + 8
    assert files(run) == files(whole)
    assert {Path(name).name for name in files(whole)} == {
        "model.pdparams",
        "model.pdopt",
        "ema_model.pdparams",
    }


def test_an_average_that_is_no_better_than_before_a_resumption_is_not_kept(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    length = ["use_ema=true", "save_interval=2", "lr_scheduler.decay_steps=4"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*length, "iters=2"])
    run.set_history([{**entry, "score": 2.0} for entry in run.history()])  # better than anything to come
    before = {name: content for name, content in files(run).items() if "best" in name}
    assert len(before) == 2
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*length, "iters=4"], resume=True)
    assert {name: content for name, content in files(run).items() if "best" in name} == before


def test_dropout_differs_between_iterations_and_follows_the_seed(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    import paddle

    from medseg_paddle.engine.randomness import seed_iteration

    def draw(seed: int, iteration: int) -> list[float]:
        seed_iteration(seed, iteration)
        return [float(value) for value in paddle.rand([4])]

    assert draw(1, 5) == draw(1, 5)
    assert len({tuple(draw(seed, iteration)) for seed in (1, 2) for iteration in (1, 2, 3)}) == 6


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("model.pdparams", flip, "model.pdparams is not as it was written"),
        ("model.pdopt", cut, r"model.pdopt has 100 bytes, not [\d,]+"),
        ("ema_model.pdparams", Path.unlink, "ema_model.pdparams is missing"),
        ("model.pdstate", flip, "model.pdstate is not as it was written"),
        ("checksums.json", lambda path: path.write_text("{"), "checksums.json cannot be read"),
        ("checksums.json", lambda path: path.write_text("{}"), "checksums.json names no model.pdparams"),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    short_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], Any],
    said: str,
) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    assert latest_whole(run) == run.checkpoints / "iter_6"
    damage(run.checkpoints / "iter_6" / name)
    assert latest_whole(run) == run.checkpoints / "iter_3"
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"checkpoint iter_6 is damaged \({said}\), going back to the one before; kept as iter_6.damaged",
        line,
    )
    assert run.log.read_text().endswith(line + "\n")
    assert not (run.checkpoints / "iter_6").exists()
    damage(run.checkpoints / "iter_3" / name)
    for _ in range(2):  # it stays so: nothing begins anew in silence
        with pytest.raises(ModelError, match=rf"no checkpoint of .* is whole: iter_3 \({said}\)"):
            latest_whole(run)
    assert (run.checkpoints / "iter_3").is_dir()


def test_a_checkpoint_of_which_too_little_is_left_is_set_aside_and_said(
    short_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    for name in ("checksums.json", "model.pdparams"):
        (run.checkpoints / "iter_6" / name).unlink()
    assert latest_whole(run) == run.checkpoints / "iter_3"
    said = (
        "checkpoint iter_6 has no checksums, and weights or optimiser are missing; kept as iter_6.damaged\n"
    )
    assert capsys.readouterr().err == said
    assert (run.checkpoints / "iter_6.damaged" / "model.pdopt").exists()
    # How many images are kept decoded changes nothing that is learned: it may differ from here on.
    recipe = run.path / "recipe.yml"
    again = train(recipe, output=run.path, resume=True, overrides=["train_dataset.cache_mb=0"])
    assert again.recipe.train_dataset.cache_mb == 0
    assert (
        again.weights_in(again.checkpoints / "iter_6").read_bytes()
        == (short_run / "checkpoints" / "iter_6" / "model.pdparams").read_bytes()
    )


def test_a_finished_run_whose_last_checkpoint_is_damaged_is_trained_to_its_end_again(
    short_run: Path, tmp_path: Path
) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    before = files(run)
    flip(run.checkpoints / "iter_6" / "model.pdopt")
    train(run.path / "recipe.yml", output=run.path, resume=True)
    shutil.rmtree(run.checkpoints / "iter_6.damaged")
    assert files(run) == before
    assert run.provenance["resumed"][0]["iteration"] == 3


def test_a_run_that_was_killed_before_its_last_weights_were_kept_as_the_best_is_not_finished(
    short_run: Path, tmp_path: Path
) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    run.set_history([{**entry, "score": entry["iter"] / 10} for entry in run.history()])
    for kind in ("best_model", "ema_best_model"):
        shutil.rmtree(run.checkpoints / kind)
    assert run.unkept(6) == dict.fromkeys(("model", "ema"), run.checkpoints / "iter_6")
    assert run.unkept(3) == dict.fromkeys(("model", "ema"), run.checkpoints / "iter_3")
    train(run.path / "recipe.yml", output=run.path, resume=True)
    kept = files(run)
    assert kept["checkpoints/best_model/model.pdparams"] == kept["checkpoints/iter_6/model.pdparams"]
    assert (
        kept["checkpoints/ema_best_model/ema_model.pdparams"] == kept["checkpoints/iter_6/ema_model.pdparams"]
    )
    assert run.unkept(6) == {}


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    length = ["iters=12", "save_interval=3", "lr_scheduler.decay_steps=12"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=length)
    train(disc_recipe_file, output=tmp_path / "run", overrides=[*length, "iters=6"])
    for name in ("checksums.json", "model.pdstate"):
        (tmp_path / "run" / "checkpoints" / "iter_6" / name).unlink()
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=length, resume=True)
    assert "checkpoint iter_6 has no checksums: an earlier version wrote it" in capsys.readouterr().err
    assert run.history() == whole.history()
    assert files(run)["checkpoints/iter_12/model.pdopt"] == files(whole)["checkpoints/iter_12/model.pdopt"]
    assert run.is_sealed(run.checkpoints / "iter_12")


def test_a_checkpoint_of_an_earlier_version_without_its_moving_average_is_not_gone_on_from(
    short_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    for name in ("checksums.json", "model.pdstate", "ema_model.pdparams"):
        (run.checkpoints / "iter_6" / name).unlink()
    assert latest_whole(run) == run.checkpoints / "iter_3"
    assert "iter_6 is damaged (it has no moving average)" in capsys.readouterr().err


def test_a_checkpoint_that_nobody_may_look_into_is_named(
    short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    is_file = Path.is_file

    def refused(path: Path) -> bool:  # as without the right to enter the folder; the superuser always may
        if path.parent.name == "iter_6":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    with pytest.raises(SetupError, match=r"checkpoint .*iter_6 cannot be read: .*Permission denied"):
        latest_whole(run)
    assert (run.checkpoints / "iter_6").is_dir()


@pytest.mark.parametrize("name", ["model.pdparams", "model.pdopt", "ema_model.pdparams", "model.pdstate"])
def test_code_in_a_checkpoint_is_not_run(short_run: Path, tmp_path: Path, name: str) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "run-by-pickle"),)

    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    checkpoint = run.checkpoints / "iter_6"
    (checkpoint / name).write_bytes(pickle.dumps({"weight": Code()}))
    (checkpoint / "checksums.json").unlink()
    seal(checkpoint)
    with pytest.raises(
        ModelError, match=rf"{name} is not loaded: it holds more than numbers \(posix\.mkdir\)"
    ):
        train(run.path / "recipe.yml", output=run.path, overrides=["iters=7"], resume=True)
    assert not (tmp_path / "run-by-pickle").exists()


def test_a_checkpoint_of_another_network_is_refused(
    disc_recipe_file: Path, short_run: Path, tmp_path: Path
) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    other = train(
        disc_recipe_file,
        output=tmp_path / "other",
        overrides=["iters=9", "model.width=6", "use_ema=true", "save_interval=9"],
    )
    shutil.copytree(other.checkpoints / "iter_9", run.checkpoints / "iter_9")
    with pytest.raises(ModelError, match=r"iter_9/model\.pdparams is of another model"):
        train(run.path / "recipe.yml", output=run.path, overrides=["iters=12"], resume=True)


def test_checksums_are_those_of_the_files(short_run: Path) -> None:
    import hashlib

    for folder in (short_run / "checkpoints").glob("iter_*"):
        sums = json.loads((folder / "checksums.json").read_text())
        others = [path for path in folder.iterdir() if path.name != "checksums.json"]
        assert {path.name for path in others} == set(sums)
        for path in others:
            assert sums[path.name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@given(
    written=st.lists(st.integers(1, 30), unique=True).map(sorted),
    lost=st.lists(st.integers(1, 30), unique=True).map(sorted),
    iteration=st.integers(0, 30),
)
def test_curves_are_cut_back_to_an_iteration(
    tmp_path_factory: pytest.TempPathFactory, written: list[int], lost: list[int], iteration: int
) -> None:
    folder = tmp_path_factory.mktemp("curves")
    file = folder / "vdlrecords.train.log"
    with LogWriter(str(folder), file_name=file.name) as writer:
        for step in written:
            writer.add_scalar("Train/loss", float(step), step)
    kept = file.read_bytes()
    before = [step for step in written if step <= iteration]
    cut_curves(file, Reached(iteration))
    reader = LogReader(file_path=str(file))
    found = [record.id for record in reader.get_data("scalar", "Train/loss")] if before else []
    assert found == before
    assert kept.startswith(file.read_bytes())


def test_the_curves_of_a_validation_that_was_cut_short_are_made_again(tmp_path: Path) -> None:
    file = tmp_path / "vdlrecords.train.log"
    with LogWriter(str(tmp_path), file_name=file.name) as writer:
        for tag, step in (
            ("Train/loss", 4), ("Validation/Dice disc", 6), ("Validation/EMA Dice disc", 6), ("Train/loss", 8),
        ):  # fmt: skip
            writer.add_scalar(tag, 1.0, step)
    for reached, tags in (
        (Reached(6), ["Train/loss", "Validation/Dice disc", "Validation/EMA Dice disc"]),
        (Reached(6, ["ema"]), ["Train/loss", "Validation/Dice disc"]),
        (Reached(6, ["model", "ema"]), ["Train/loss"]),
    ):
        cut_curves(file, reached)
        reader = LogReader(file_path=str(file))
        assert sorted(reader.get_tags()["scalar"]) == tags
        assert [record.id for record in reader.get_data("scalar", "Train/loss")] == [4]


def test_a_log_loses_the_lines_of_iterations_that_come_again_and_no_others(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    text = (
        "computing on cpu\n"
        "2026-01-01 00:00:00 [INFO]\t[TRAIN] epoch: 1, iter: 4/12, loss: 0.5, lr: 0.1\n"
        "[EVAL] iter: 6/12, mean foreground Dice: 0.1\n"
        "[EVAL] iter: 6/12, EMA mean foreground Dice: 0.2\n"
        "2026-01-01 00:00:00 [INFO]\t[TRAIN] epoch: 2, iter: 8/12, loss: 0.5, lr: 0.1\n"
        "a warning\n"
        "2026-01-01 00:00:00 [INFO]\t[TRAI"
    )
    first, train_4, eval_6, average_6, _, warning, _ = text.splitlines(keepends=True)
    for reached, kept in (
        (Reached(7), [first, train_4, eval_6, average_6, warning]),
        (Reached(6, ["ema"]), [first, train_4, eval_6, warning]),
        (Reached(6, ["model", "ema"]), [first, train_4, warning]),
        (Reached(0), [first, warning]),
    ):
        log.write_text(text)
        cut_log(log, reached)
        assert log.read_text().splitlines(keepends=True) == kept
    cut_log(tmp_path / "absent.log", Reached(0))


@given(
    losses=st.lists(st.floats(0, 100, width=32), min_size=1, max_size=30),
    log_iters=st.integers(1, 7),
    cut=st.integers(0, 30),
)
def test_the_mean_of_a_line_does_not_depend_on_a_stop(losses: list[float], log_iters: int, cut: int) -> None:
    def means(stopped_after: int) -> list[float]:
        running, found = RunningLoss(log_iters), []
        for iteration, loss in enumerate(losses, start=1):
            running.add(iteration, loss, [loss / 3, loss])
            if iteration % log_iters == 0:
                found += [running.mean, *running.parts]
            if iteration == stopped_after:
                saved = json.loads(json.dumps(running.state_dict()))
                running = RunningLoss(log_iters)
                running.set_state_dict(saved)
        return found

    assert means(cut) == means(0)
    first = losses[:log_iters]
    if len(first) == log_iters:
        assert means(0)[0] == pytest.approx(sum(first) / log_iters)


def test_a_line_of_a_run_that_now_logs_more_seldom_has_the_mean_of_what_was_noted() -> None:
    running = RunningLoss(2)
    running.add(1, 4.0, [])
    again = RunningLoss(3)
    again.set_state_dict(running.state_dict())
    again.add(2, 2.0, [])
    again.add(3, 6.0, [])
    assert (again.mean, again.sum, again.parts) == (4.0, 12.0, [])
