"""Real trainings of a few steps, and what they leave behind."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.engine import training
from medseg_paddle.engine.data import TrainingStream
from medseg_paddle.engine.models import ScalableUNet
from medseg_paddle.errors import DataError, ModelError, RecipeError, SetupError
from medseg_paddle.io import sealed
from medseg_paddle.io.cases import load_cases
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train


def weights_digest(checkpoint: Path) -> str:
    state = paddle.load(str(checkpoint))
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


def test_a_training_leaves_a_complete_run(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["model_graph=true"])
    again = Run.open(run.path)
    assert again.recipe == run.recipe
    assert [entry["iter"] for entry in again.history()] == [6, 12]
    assert again.best_checkpoint.is_file()
    assert again.last_checkpoint is not None
    assert again.last_checkpoint.name == "iter_12"
    facts = again.provenance
    assert facts["versions"]["paddleseg"] == "2.8.0"
    assert facts["data"]["train"]["images"] == 6
    assert len(facts["data"]["train"]["sha256"]) == 64
    assert "[TRAIN] epoch" in again.log.read_text()
    assert any(path.stat().st_size for path in run.path.glob("*vdlrecords*"))
    assert list(run.path.glob("*vdlgraph*")), "the model's graph is on the dashboard"


def test_the_dashboard_holds_curves_pictures_and_settings(disc_recipe_file: Path, tmp_path: Path) -> None:
    from visualdl import LogReader

    run = train(disc_recipe_file, output=tmp_path / "run")
    (event_file,) = run.path.glob("vdlrecords*")
    reader = LogReader(file_path=str(event_file))
    tags = reader.get_tags()
    assert {"Train/loss", "Train/lr", "Train/images per second"} <= set(tags["scalar"])
    assert {"Validation/Dice disc", "Validation/IoU disc", "Validation/mean foreground Dice"} <= set(
        tags["scalar"]
    )
    assert not [tag for tag in tags["scalar"] if "mIoU" in tag], "a Dice is not an mIoU"
    assert [record.id for record in reader.get_data("scalar", "Train/loss")] == [2, 4, 6, 8, 10, 12]
    assert tags["image"]
    assert "hyper_parameters" in tags


def test_the_parts_of_a_loss_have_their_names_on_the_dashboard(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    from visualdl import LogReader

    mixed = "{type: MixedLoss, losses: [{type: CrossEntropyLoss}, {type: DiceLoss}], coef: [1, 1]}"
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[f"loss.types.0={mixed}", "iters=2"])
    (event_file,) = run.path.glob("vdlrecords*")
    reader = LogReader(file_path=str(event_file))
    names = ("Train/loss", "Train/CrossEntropyLoss", "Train/DiceLoss")
    total, *parts = (reader.get_data("scalar", name)[0].value for name in names)
    assert total == pytest.approx(sum(parts), rel=1e-5)


def test_gradients_of_a_step_hold_no_memory_in_the_next(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    forward = ScalableUNet.forward

    def note(self: ScalableUNet, x: paddle.Tensor) -> object:
        if self.training:
            held.append(sum(parameter.grad is not None for parameter in self.parameters()))
        return forward(self, x)

    monkeypatch.setattr(ScalableUNet, "forward", note)
    train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=3"])
    assert held == [0, 0, 0]


def test_it_learns(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=120", "save_interval=60"])
    report = evaluate(run)
    assert report.mean_foreground_dice > 0.9
    folder = run.evaluation_folder("test")
    assert json.loads((folder / "summary.json").read_text())["number_of_cases"] == 2
    assert (folder / "cases.csv").read_text().count("\n") == 3
    assert len(list((folder / "overlays").glob("**/*.png"))) == 2


def test_the_best_checkpoint_is_the_one_with_the_best_score(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(
        disc_recipe_file,
        output=tmp_path / "run",
        overrides=["iters=24", "save_interval=4", "keep_checkpoint_max=6"],
    )
    best = max(run.history(), key=lambda entry: entry["score"])
    assert weights_digest(run.best_checkpoint) == weights_digest(
        run.checkpoints / f"iter_{best['iter']}" / "model.pdparams"
    )
    assert evaluate(run, split="val").mean_foreground_dice == pytest.approx(best["score"], abs=1e-9)


def test_same_seed_same_weights_other_seed_others(disc_recipe_file: Path, tmp_path: Path) -> None:
    digests = [
        weights_digest(
            train(
                disc_recipe_file, output=tmp_path / f"{n}", overrides=[f"seed={seed}", "iters=6"]
            ).best_checkpoint
        )
        for n, seed in enumerate((1, 1, 2))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(disc_recipe_file: Path, tmp_path: Path) -> None:
    schedule = "lr_scheduler.decay_steps=12"
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=[schedule])
    train(disc_recipe_file, output=tmp_path / "parts", overrides=[schedule, "iters=6"])
    parts = train(disc_recipe_file, output=tmp_path / "parts", overrides=[schedule], resume=True)
    for run in (whole, parts):
        assert [entry["iter"] for entry in run.history()] == [6, 12]
    last = [run.checkpoints / "iter_12" / "model.pdparams" for run in (whole, parts)]
    assert weights_digest(last[0]) == weights_digest(last[1])
    assert whole.history() == parts.history()


def test_a_resumed_run_keeps_a_better_checkpoint_from_before(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=6"])
    run.set_history([{**run.history()[0], "score": 2.0}])  # better than anything to come
    kept = weights_digest(run.best_checkpoint)
    train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=12"], resume=True)
    assert weights_digest(run.best_checkpoint) == kept


def test_resuming_a_finished_run_says_so_and_leaves_it_as_it_is(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def files(run: Run) -> dict[Path, tuple[int, bytes]]:
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.path.rglob("*") if p.is_file()}

    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=6"])
    before = files(run)
    capsys.readouterr()
    again = train(
        disc_recipe_file,
        output=run.path,
        overrides=["iters=6", "save_interval=3", "log_iters=3"],
        resume=True,
    )
    assert again == run
    assert capsys.readouterr().out == f"{run.path} is finished: 6 of 6 iterations\n"
    assert files(run) == before


def test_resuming_with_another_model_is_refused(disc_recipe_file: Path, tmp_path: Path) -> None:
    train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=6"])
    with pytest.raises(RecipeError, match="another model"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=["model.width=8"], resume=True)
    with pytest.raises(SetupError, match="holds a run already"):
        train(disc_recipe_file, output=tmp_path / "run")


def test_resuming_falls_back_from_a_damaged_checkpoint(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["keep_checkpoint_max=5", "save_interval=3", "lr_scheduler.decay_steps=12"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=overrides)
    train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=6"])
    newest = tmp_path / "run" / "checkpoints" / "iter_6" / "model.pdopt"
    damaged = newest.read_bytes()[:50]
    newest.write_bytes(damaged)
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=overrides, resume=True)
    (said,) = [line for line in run.log.read_text().splitlines() if "iter_6 is damaged" in line]
    assert said in capsys.readouterr().err.splitlines()
    assert "kept as iter_6.damaged" in said
    assert (run.checkpoints / "iter_6.damaged" / "model.pdopt").read_bytes() == damaged
    last = [r.checkpoints / "iter_12" / "model.pdparams" for r in (whole, run)]
    assert weights_digest(last[0]) == weights_digest(last[1])


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle"),
        (MemoryError(), "not enough memory"),
    ],
    ids=["disk", "memory"],
)
def test_a_checkpoint_that_cannot_be_read_just_now_is_left_as_it_is(
    disc_recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: Exception,
    words: str,
) -> None:
    overrides = ["keep_checkpoint_max=5", "save_interval=3", "lr_scheduler.decay_steps=12"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=6"])
    before = sorted(run.checkpoints.rglob("*"))

    def failing(*_: object, **__: object) -> None:
        raise reason

    with monkeypatch.context() as broken:
        broken.setattr(sealed, "sha256", failing)
        with pytest.raises(SetupError, match=words) as caught:
            train(disc_recipe_file, output=run.path, overrides=overrides, resume=True)
    assert "iter_6" in caught.value.message
    assert "--resume" in caught.value.hint
    assert sorted(run.checkpoints.rglob("*")) == before
    run = train(disc_recipe_file, output=run.path, overrides=overrides, resume=True)
    assert [entry["iter"] for entry in run.history()] == [3, 6, 9, 12]


def test_the_best_weights_of_a_lost_iteration_are_not_taken_for_an_earlier_one_s(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    overrides = ["keep_checkpoint_max=9", "save_interval=2", "lr_scheduler.decay_steps=12"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=6"])
    scores = {2: 2.0, 4: 0.4, 6: 3.0}  # better than anything to come
    run.set_history([{**entry, "score": scores[entry["iter"]]} for entry in run.history()])
    run.best.keep(run.checkpoints / "iter_6")
    assert run.best_checkpoint.parent.name == "best_model"
    # As after going back past a damaged iter_6: the best that is known is of iteration 2.
    run.set_history([entry for entry in run.history() if entry["iter"] < 6])
    assert run.best_checkpoint == run.checkpoints / "iter_2" / "model.pdparams"
    shutil.rmtree(run.checkpoints / "iter_2")
    assert run.best_checkpoint == run.checkpoints / "iter_4" / "model.pdparams"
    newest = run.checkpoints / "iter_6" / "model.pdopt"
    newest.write_bytes(newest.read_bytes()[:50])
    run = train(disc_recipe_file, output=run.path, overrides=[*overrides, "iters=7"], resume=True)
    best, second, *_ = sorted(run.history(), key=lambda entry: entry["score"], reverse=True)
    assert best["iter"] == 2
    assert run.best_checkpoint == run.checkpoints / f"iter_{second['iter']}" / "model.pdparams"


def test_the_best_weights_come_back_after_those_of_a_lost_iteration(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    overrides = ["keep_checkpoint_max=3", "save_interval=2", "lr_scheduler.decay_steps=12"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=6"])
    scores = {2: 2.0, 4: 0.4, 6: 3.0}  # better than anything to come
    run.set_history([{**entry, "score": scores[entry["iter"]]} for entry in run.history()])
    run.best.keep(run.checkpoints / "iter_6")
    second = weights_digest(run.checkpoints / "iter_2" / "model.pdparams")
    (run.checkpoints / "iter_6" / "model.pdopt").write_bytes(b"")
    run = train(disc_recipe_file, output=run.path, overrides=[*overrides, "iters=12"], resume=True)
    assert not (run.checkpoints / "iter_2").exists()
    assert run.best_checkpoint == run.checkpoints / "best_model" / "model.pdparams"
    assert weights_digest(run.best_checkpoint) == second


def test_best_weights_whose_replacement_was_cut_short_are_nobody_s(short_run: Path, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    run.set_history([{**entry, "score": 0.1 * entry["iter"]} for entry in run.history()])
    run.best.keep(run.checkpoints / "iter_3")
    kept = run.checkpoints / "best_model" / "model.pdparams"
    with pytest.raises(KeyboardInterrupt), run.best.replaced(kept, 6):
        raise KeyboardInterrupt
    assert run.best_checkpoint == run.checkpoints / "iter_6" / "model.pdparams"
    run.set_history([entry for entry in run.history() if entry["iter"] == 3])
    assert run.best_checkpoint == run.checkpoints / "iter_3" / "model.pdparams"


def test_a_replaced_run_that_was_killed_amid_its_removal_begins_anew(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=2"])

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            Run.create(run.path, run.recipe, {}, overwrite=True)
    run = train(disc_recipe_file, output=run.path, overrides=["iters=1"], resume=True)
    assert [entry["iter"] for entry in run.history()] == [1]


def test_a_damaged_history_is_an_error_that_names_it(short_run: Path, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(short_run, tmp_path / "run"))
    file = run.path / "validation.jsonl"
    for content in (file.read_bytes()[:-20], b"[]\n", b"\xff\n", b"{}\n"):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"validation\.jsonl is damaged"):
            run.history()


def test_the_best_weights_know_their_iteration(disc_recipe_file: Path, tmp_path: Path) -> None:
    overrides = ["keep_checkpoint_max=9", "save_interval=4", "iters=24"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=overrides)
    *others, best = sorted(run.history(), key=lambda entry: entry["score"])
    assert others[-1]["score"] < best["score"]
    assert run.best_checkpoint.parent.name == "best_model"
    run.set_history(others)
    assert run.best_checkpoint == run.checkpoints / f"iter_{others[-1]['iter']}" / "model.pdparams"


def test_weights_of_a_run_without_notes_are_the_best(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=2", "save_interval=1"])
    for note in (run.checkpoints / "best_model").glob("iteration"):
        note.unlink()
    assert run.best_checkpoint == run.checkpoints / "best_model" / "model.pdparams"


def test_what_is_resumed_is_what_is_evaluated(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(training.Validation, "__call__", fails)
        with pytest.raises(MemoryError):
            train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=12"])
    changes = ["iters=12", "inference.mode=tiles", "inference.tile=[32, 32]"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=changes, resume=True)
    assert Run.open(run.path).recipe == run.recipe
    assert Run.open(run.path).recipe.inference.mode == "tiles"


def test_a_refused_training_leaves_a_former_run_as_it_was(
    disc_recipe_file: Path, discs: Path, tmp_path: Path
) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=1"])
    before = weights_digest(run.best_checkpoint)
    (discs / "images" / "val1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"val1\.png"):
        train(disc_recipe_file, output=tmp_path / "run", overwrite=True)
    assert weights_digest(Run.open(run.path).best_checkpoint) == before


def test_scores_on_learned_images_or_changed_data_are_refused(
    disc_recipe_file: Path, discs: Path, tmp_path: Path
) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=1"])
    held_out = (discs / "test_list.txt").read_text()
    (discs / "test_list.txt").write_text(held_out + (discs / "val_list.txt").read_text())
    with pytest.raises(DataError, match="are in the val and the test set"):
        evaluate(run)
    (discs / "test_list.txt").write_text(held_out)
    (discs / "train_list.txt").write_text("images/train0.png labels/train0.png\n")
    with pytest.raises(DataError, match="has changed since the training"):
        evaluate(run)


def test_evaluation_replaces_only_an_evaluation(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=1"])
    for folder in (run.path, tmp_path):
        with pytest.raises(SetupError, match="holds something else"):
            evaluate(run, output=folder)
    assert run.best_checkpoint.is_file()
    for _ in range(2):
        evaluate(run, output=tmp_path / "scores")


def test_a_set_smaller_than_a_batch_trains(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(
        disc_recipe_file, output=tmp_path / "run", overrides=["batch_size=8", "iters=2", "log_iters=1"]
    )
    assert run.best_checkpoint.is_file()


def test_the_moving_average_is_evaluated_and_used(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["use_ema=true", "iters=6"])
    assert [entry["weights"] for entry in run.history()] == ["model", "ema"]
    scores = {entry["weights"]: entry["score"] for entry in run.history()}
    wanted = "ema_model.pdparams" if scores["ema"] > scores["model"] else "model.pdparams"
    assert run.best_checkpoint.name == wanted


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("UNet", 1),
        ("UNetPlusPlus", 1),
        ("UNet3Plus", 1),
        ("AttentionUNet", 1),
        ("U2Netp", 7),
        ("ScalableUNet", 1),
    ],
)
def test_every_model_trains_and_predicts(
    disc_recipe_file: Path, tmp_path: Path, kind: str, outputs: int
) -> None:
    text = disc_recipe_file.read_text().replace("SimpleUNet\n  width: 4", kind)
    disc_recipe_file.write_text(text.replace("coef: [1]", f"coef: {[1] * outputs}"))
    run = train(
        disc_recipe_file,
        output=tmp_path / "run",
        overrides=["iters=1", "log_iters=1", "inference.divisor=32"],
    )
    assert run.best_checkpoint.is_file()


def test_a_stream_depends_on_seed_and_position_alone(disc_recipe_file: Path) -> None:
    theirs = "[{type: RandomPaddingCrop, crop_size: [32, 32]}, {type: RandomDistort}, {type: Normalize}]"
    for overrides in ((), (f"train_dataset.transforms={theirs}",)):
        recipe = load_recipe(disc_recipe_file, overrides)
        one, other = (TrainingStream(load_cases(recipe.train_dataset), recipe) for _ in range(2))
        later = other[17]
        np.random.default_rng().random()
        for position in range(17):
            one[position]
        for key in ("img", "label"):
            np.testing.assert_array_equal(one[17][key], later[key])
        assert not np.array_equal(one[17]["img"], one[18]["img"])


def test_every_pass_of_the_stream_shows_every_case_once(disc_recipe_file: Path) -> None:
    recipe = load_recipe(disc_recipe_file)
    stream = TrainingStream(load_cases(recipe.train_dataset), recipe)
    passes = [[stream.case_at(position).id for position in range(start, start + 6)] for start in (0, 6)]
    assert sorted(passes[0]) == sorted(passes[1])
    assert len(set(passes[0])) == 6
    assert passes[0] != passes[1]


def test_loading_in_workers_gives_the_same_weights(disc_recipe_file: Path, tmp_path: Path) -> None:
    digests = [
        weights_digest(
            train(
                disc_recipe_file, output=tmp_path / str(n), overrides=[f"num_workers={n}", "iters=4"]
            ).best_checkpoint
        )
        for n in (0, 4)
    ]
    assert digests[0] == digests[1]


def test_fp16_on_cpu_is_refused(disc_recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="fp16 works on GPU only"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=["precision=fp16"])
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_is_refused(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=1"])
    recipe = run.path / "recipe.yml"
    recipe.write_text(recipe.read_text().replace("width: 4", "width: 8"))
    with pytest.raises(ModelError, match="another model"):
        evaluate(run.path)


def test_data_that_teaches_nothing_is_refused(disc_recipe_file: Path, discs: Path, tmp_path: Path) -> None:
    from PIL import Image

    for label in (discs / "labels").glob("train*.png"):
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(label)
    with pytest.raises(DataError, match="no foreground pixel in the training set"):
        train(disc_recipe_file, output=tmp_path / "run")


def test_real_fundus_images_train(real_data: Path, tmp_path: Path) -> None:
    recipe = Path(__file__).resolve().parents[2] / "configs" / "unet_optic_disc.yml"
    root = real_data / "optic_disc_seg"
    short = tmp_path / "short"
    short.mkdir()
    for split, count in (("train", 8), ("val", 2), ("test", 2)):
        lines = (root / f"{split}_list.txt").read_text().splitlines()[:count]
        (short / f"{split}_list.txt").write_text("\n".join(lines))
    (short / "JPEGImages").symlink_to(root / "JPEGImages")
    (short / "Annotations").symlink_to(root / "Annotations")
    overrides = [
        f"train_dataset.dataset_root={short}",
        f"val_dataset.dataset_root={short}",
        "train_dataset.transforms.0.size=[64, 64]",
        "iters=12",
        "save_interval=12",
        "log_iters=2",
        "model.width=8",
    ]
    run = train(recipe, output=tmp_path / "run", overrides=overrides)
    losses = [
        float(line.split("loss: ")[1].split(",")[0])
        for line in run.log.read_text().splitlines()
        if "[TRAIN]" in line
    ]
    assert losses[-1] < losses[0]
