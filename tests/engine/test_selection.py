"""Trainings that choose their checkpoint by a score of the recipe's, and that end before their last iteration."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from PIL import Image

from medseg_paddle.cli import main
from medseg_paddle.engine import training
from medseg_paddle.engine.course import Course
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train

SHORT = ["iters=24", "save_interval=3", "keep_checkpoint_max=8"]
# No score is better by more than 1: after the first one, nothing is.
NEVER_BETTER = [*SHORT, "early_stopping={patience: 2, min_delta: 1}"]


def weights(path: Path) -> str:
    state = paddle.load(str(path))
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


def tags(run: Run) -> list[str]:
    from visualdl import LogReader

    (event_file,) = run.path.glob("vdlrecords*")
    return list(LogReader(file_path=str(event_file)).get_tags()["scalar"])


def files(run: Run) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.path.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("metric", "label", "name", "best_of"),
    [
        ("auc", "mean", "mean foreground AUC", max),
        ("hd95", "disc", "HD95 disc (pixels)", min),
    ],
)
def test_the_best_checkpoint_is_the_one_of_the_recipe_s_score(
    disc_recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    metric: str,
    label: str,
    name: str,
    best_of: Callable[..., Any],
) -> None:
    chosen = [f"selection.metric={metric}", f"selection.label={label}"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*SHORT, "iters=12", *chosen])
    said = capsys.readouterr().out
    history = run.history()
    best = best_of(history, key=lambda entry: entry["score"])
    assert len({entry["score"] for entry in history}) > 2, "there is something to choose from"
    assert {(entry["metric"], entry["label"]) for entry in history} == {(metric, label)}
    assert weights(run.best_checkpoint) == weights(run.checkpoints / f"iter_{best['iter']}/model.pdparams")
    assert run.best_checkpoint.parent.name == "best_model"
    # As an evaluation of the same cases has it.
    measured = evaluate(run, split="val").summary[label][metric].mean
    assert measured == pytest.approx(best["score"], abs=1e-9)
    assert f"validation at {best['iter']}: {name} {best['score']:.4f}  best so far, saved" in said
    assert "mean foreground Dice" not in said
    assert f"Validation/{name}" in tags(run)
    chosen_by = json.loads((run.evaluation_folder("val") / "summary.json").read_text())[
        "checkpoint_chosen_by"
    ]
    assert chosen_by == run.recipe.selection.name == name.removesuffix(" (pixels)")


def test_a_smaller_score_is_kept_as_the_best_by_a_resumed_run(disc_recipe_file: Path, tmp_path: Path) -> None:
    chosen = ["selection.metric=volume_error", "save_interval=3"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*chosen, "iters=3"])
    run.set_history([{**run.history()[0], "score": 0.0}])  # nothing to come is better
    kept = weights(run.best_checkpoint)
    train(disc_recipe_file, output=run.path, overrides=[*chosen, "iters=9"], resume=True)
    assert weights(run.best_checkpoint) == kept
    run.set_history([{**entry, "score": 9.0 - entry["iter"]} for entry in run.history()])
    train(disc_recipe_file, output=run.path, overrides=[*chosen, "iters=12"], resume=True)
    assert weights(run.best_checkpoint) == weights(
        run.checkpoints / f"iter_{run.best_first()[0]['iter']}/model.pdparams"
    )


def test_a_score_that_is_undefined_is_said_and_chooses_nothing(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Only the background is learned, so the disc is predicted nowhere, and there is no precision.
    blind = ["loss.types.0={type: CrossEntropyLoss, weight: [1, 0]}", "lr_scheduler.learning_rate=0.1"]
    run = train(
        disc_recipe_file,
        output=tmp_path / "run",
        overrides=[*blind, "iters=20", "save_interval=10", "selection.metric=precision"],
    )
    assert [entry["score"] for entry in run.history()] == [None, None]
    said = capsys.readouterr().out
    assert "validation at 20: no mean foreground precision, it is undefined in every case" in said
    assert "best so far" not in said
    assert run.best_checkpoint == run.checkpoints / "iter_20" / "model.pdparams"
    assert run.best_first() == []


def test_a_class_that_no_validation_case_has_cannot_choose(
    disc_recipe_file: Path, discs: Path, tmp_path: Path
) -> None:
    three = ["labels=[background, disc, scar]", "selection.label=scar", *SHORT]
    for split in ("train", "val"):
        three += [f"{split}_dataset.type=Dataset", f"{split}_dataset.num_classes=3"]
        three += [f"{split}_dataset.{split}_path={discs / split}_list.txt"]
    with pytest.raises(DataError, match="'scar' is in no label of the validation set") as caught:
        train(disc_recipe_file, output=tmp_path / "run", overrides=three)
    assert "label: mean" in caught.value.hint
    assert not (tmp_path / "run").exists()
    label = discs / "labels" / "val0.png"
    scarred = np.asarray(Image.open(label)).copy()
    scarred[0, :4] = 2
    Image.fromarray(scarred).save(label)
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*three, "iters=3"])
    assert [entry["label"] for entry in run.history()] == ["scar"]


def test_a_run_keeps_its_selection(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=2", "save_interval=2"])
    with pytest.raises(RecipeError, match="another selection"):
        train(
            disc_recipe_file,
            output=run.path,
            overrides=["iters=4", "save_interval=2", "selection.metric=iou"],
            resume=True,
        )


def test_who_asks_hears_each_score(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[int, float]] = []
    monkeypatch.setattr(training, "score_followers", lambda *_: [lambda *words: heard.append(words)])
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["use_ema=true"])
    assert heard == [(e["iter"], e["score"]) for e in run.history() if e["weights"] == "model"]
    assert [step for step, _ in heard] == [6, 12]


def test_a_training_that_gets_no_better_ends_and_is_finished(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=NEVER_BETTER)
    why = (
        "stopped early at iteration 9 of 24, mean foreground Dice did not get better by more than 1 "
        "in 2 evaluations"
    )
    assert f"{why}\n" in capsys.readouterr().out
    assert [entry["iter"] for entry in run.history()] == [3, 6, 9]
    assert run.last_checkpoint == run.checkpoints / "iter_9"
    best = max(run.history(), key=lambda entry: entry["score"])
    assert weights(run.best_checkpoint) == weights(run.checkpoints / f"iter_{best['iter']}/model.pdparams")

    before = files(run)
    train(disc_recipe_file, output=run.path, overrides=NEVER_BETTER, resume=True)
    said = capsys.readouterr().out
    assert said == (
        f"{run.path} is finished: {why}; to go on, raise early_stopping.patience or remove early_stopping\n"
    )
    assert files(run) == before


def test_with_more_patience_it_goes_on_like_a_training_that_had_it_from_the_start(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    patient = [*SHORT, "early_stopping={patience: 4, min_delta: 1}"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=patient)
    train(disc_recipe_file, output=tmp_path / "run", overrides=NEVER_BETTER)
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=patient, resume=True)
    assert run.recipe.early_stopping is not None
    assert run.recipe.early_stopping.patience == 4
    assert [entry["iter"] for entry in whole.history()] == [3, 6, 9, 12, 15]
    assert run.history() == whole.history()
    for name in ("iter_15/model.pdparams", "best_model/model.pdparams"):
        assert weights(run.checkpoints / name) == weights(whole.checkpoints / name)


def test_a_training_in_many_pieces_ends_where_one_in_a_piece_does(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    often = [*NEVER_BETTER, "save_interval=2"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=often)
    reached = []
    for _ in range(6):  # an iteration each: there is no time for a second one
        run = train(disc_recipe_file, output=tmp_path / "run", overrides=often, resume=True, max_time=1e-6)
        assert run.last_checkpoint is not None
        reached.append(run.last_checkpoint.name)
    said = capsys.readouterr().out
    assert reached == [f"iter_{n}" for n in range(1, 7)]
    for step in range(1, 6):
        assert f"time is up: stopped at iteration {step} of 24; go on with --resume" in said
    assert said.count("stopped early at iteration 6 of 24") == 2
    assert (run.path / "validation.jsonl").read_bytes() == (whole.path / "validation.jsonl").read_bytes()
    for name in ("iter_6/model.pdparams", "best_model/model.pdparams"):
        assert weights(run.checkpoints / name) == weights(whole.checkpoints / name)


def test_a_validation_made_up_for_can_be_the_one_that_ends_it(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step = Course._after_step

    def stopped_at_9(course: Course, iteration: int) -> None:
        if iteration == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        after_step(course, iteration)

    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=NEVER_BETTER)
    monkeypatch.setattr(Course, "_after_step", stopped_at_9)
    with pytest.raises(SystemExit, match="143"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=NEVER_BETTER)
    monkeypatch.undo()
    assert [entry["iter"] for entry in Run.open(tmp_path / "run").history()] == [3, 6]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=NEVER_BETTER, resume=True)
    assert run.history() == whole.history()
    assert run.last_checkpoint == run.checkpoints / "iter_9"


def test_the_better_of_weights_and_their_average_counts(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*NEVER_BETTER, "use_ema=true"])
    assert [(entry["iter"], entry["weights"]) for entry in run.history()] == [
        (step, kind) for step in (3, 6, 9) for kind in ("model", "ema")
    ]
    scores = {"model": (0.5, 0.4, 0.3), "ema": (0.1, 0.2, 2.0)}
    run.set_history(
        [{**entry, "score": scores[entry["weights"]][entry["iter"] // 3 - 1]} for entry in run.history()]
    )
    assert run.patience_spent_at(9) is None
    assert run.patience_spent_at(6) is None
    run.set_history([entry for entry in run.history() if entry["weights"] == "model"])
    assert run.patience_spent_at(9) == 9


def test_when_the_time_is_up_the_command_has_done_what_it_was_asked(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--config", str(disc_recipe_file), "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as left:
        main([*words, "--max-time", "1.5s", "--set", "iters=100000", "--set", "save_interval=50000"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "time is up: stopped at iteration " in said
    run = Run.open(tmp_path / "run")
    assert run.last_checkpoint is not None
    assert f"stopped at iteration {run.iteration_of(run.last_checkpoint)} of 100000; go on" in said
    with pytest.raises(SystemExit) as left:
        main([*words, "--max-time", "soon"])
    assert left.value.code == 2
    assert "--max-time" in capsys.readouterr().err


def test_the_time_counts_from_the_call_and_a_due_validation_is_made(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    # To look at the data takes longer: the time is up before the first iteration, which is made all the same.
    run = train(
        disc_recipe_file,
        output=tmp_path / "run",
        overrides=["iters=100000", "save_interval=1", "keep_checkpoint_max=1"],
        max_time=0.001,
    )
    assert run.last_checkpoint == run.checkpoints / "iter_1"
    assert [entry["iter"] for entry in run.history()] == [1]
    assert not math.isnan(run.history()[-1]["score"])
