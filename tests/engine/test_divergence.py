"""Trainings whose numbers become infinite or NaN."""

from __future__ import annotations

import math
import re
from pathlib import Path

import paddle
import pytest

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.engine.data import TrainingStream
from medseg_paddle.engine.divergence import DivergenceGuard
from medseg_paddle.errors import DivergenceError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train


def test_a_loss_that_is_no_number_ends_the_training_before_anything_of_it_is_saved(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    good = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=4", "save_interval=2"])
    recipe = good.path / "recipe.yml"
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.01", "learning_rate: 1.0e+36"))
    with pytest.raises(DivergenceError) as caught:
        train(recipe, output=good.path, overrides=["iters=12"], resume=True)
    found = re.fullmatch(
        r"the loss is (?:nan|inf) at iteration (\d+) \(learning rate ([\d.e+]+)\), with the images (.*); "
        r"the step before it had (.*); no checkpoint holds it",
        caught.value.message,
    )
    assert found is not None, caught.value.message
    iteration, rate, images = int(found[1]), float(found[2]), found[3].split(", ")
    assert rate == pytest.approx(1e36 * (1 - (iteration - 1) / 12), rel=0.01)
    stream_recipe = load_recipe(recipe)
    stream = TrainingStream(load_cases(stream_recipe.train_dataset), stream_recipe)
    assert images == stream.names([2 * iteration - 2, 2 * iteration - 1])
    assert found[4].split(", ") == stream.names([2 * iteration - 4, 2 * iteration - 3])
    assert "learning_rate" in caught.value.hint
    assert caught.value.exit_code == 4
    run = Run.open(good.path)
    last = run.last_checkpoint
    assert last is not None
    assert run.iteration_of(last) < iteration
    for path in run.checkpoints.rglob("*.pdparams"):
        for value in paddle.load(str(path)).values():
            assert bool(paddle.isfinite(value.astype("float32")).all()), path
    assert all(entry["iter"] < iteration for entry in run.history())
    # The way on that the hint names: a new run with a lower rate, from the last good weights.
    assert "`initialise: {source: THIS RUN}`" in caught.value.hint
    on = train(
        disc_recipe_file, output=tmp_path / "on", overrides=[f"initialise={{source: {run.path}}}", "iters=2"]
    )
    assert on.last_checkpoint is not None


def test_weights_that_are_no_numbers_are_neither_scored_nor_saved(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    overrides = ["optimizer={type: SGD}", "lr_scheduler.learning_rate=1e39", "save_interval=1"]
    with pytest.raises(DivergenceError, match=r"is infinite or NaN at iteration 1 \(learning rate 1e\+39\)"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=overrides)
    run = Run.open(tmp_path / "run")
    assert run.history() == []
    assert not list(run.checkpoints.rglob("*.pd*"))


def test_fp16_may_skip_ten_steps_in_a_row_and_other_precisions_none(disc_recipe: Recipe) -> None:
    def of(precision: str) -> Recipe:
        return disc_recipe.model_copy(update={"precision": precision})

    model = paddle.nn.Linear(2, 1)
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    fp16 = DivergenceGuard(model, optimizer, of("fp16"), lambda iteration: [f"scan{iteration}.png"])
    for iteration in range(1, 11):
        fp16.look_at_loss(iteration, math.inf)
    fp16.look_at_loss(11, 0.5)
    for iteration in range(12, 22):
        fp16.look_at_loss(iteration, math.nan)
    with pytest.raises(
        DivergenceError, match=r"the loss is nan at iteration 22 .* scan22\.png; .* scan21\.png;"
    ):
        fp16.look_at_loss(22, math.nan)
    for precision in ("fp32", "bf16"):
        with pytest.raises(DivergenceError, match="the loss is inf at iteration 1"):
            DivergenceGuard(model, optimizer, of(precision), lambda _: ["scan.png"]).look_at_loss(1, math.inf)


def test_the_hint_names_the_rate_of_the_schedule(disc_recipe_file: Path) -> None:
    model = paddle.nn.Linear(2, 1)
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    cycle = "lr_scheduler={type: OneCycleLR, max_learning_rate: 0.1}"
    for overrides, key in (([], "learning_rate"), ([cycle], "max_learning_rate")):
        guard = DivergenceGuard(
            model, optimizer, load_recipe(disc_recipe_file, overrides), lambda _: ["a.png"]
        )
        with pytest.raises(DivergenceError) as caught:
            guard.look_at_loss(1, math.nan)
        assert f"a lower lr_scheduler.{key} or" in caught.value.hint


def test_moments_of_the_optimizer_are_looked_at_too(disc_recipe: Recipe) -> None:
    model = paddle.nn.Linear(2, 1)
    optimizer = paddle.optimizer.AdamW(0.1, parameters=model.parameters())
    guard = DivergenceGuard(
        model, optimizer, disc_recipe, lambda _: [f"scan{number}.png" for number in range(10)]
    )
    model(paddle.ones([1, 2])).sum().backward()
    optimizer.step()
    guard.look_at_weights(3)
    state = optimizer.state_dict()
    name = next(name for name in state if "moment1" in name)
    state[name].set_value(paddle.full_like(state[name], math.nan))
    with pytest.raises(
        DivergenceError, match=rf"{name} is infinite or NaN at iteration 3.*scan7\.png and 2 more"
    ):
        guard.look_at_weights(3)
