"""Layers that are frozen stay, to the last bit; what is thawed learns, also in a training that was resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.config.initialise import Freeze
from medseg_paddle.engine.freezing import Freezing
from medseg_paddle.engine.models import ScalableUNet, SimpleUNet
from medseg_paddle.engine.optimizers import build_optimizer
from medseg_paddle.errors import ModelError
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train

DECAYING = {
    "AdamW": "optimizer={type: AdamW, weight_decay: 0.1}",
    "Adam": "optimizer={type: Adam, weight_decay: 0.1}",
    "Momentum": "optimizer={type: Momentum, weight_decay: 0.1}",
    "SGD": "optimizer={type: SGD, weight_decay: 0.1}",
}


def arrays(model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def step(model: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, seed: int) -> None:
    """One step as `train()` makes it, on the square of the logits."""
    model.train()
    images = np.random.default_rng(seed).normal(2, 3, (2, 3, 8, 8)).astype(np.float32)
    (model(paddle.to_tensor(images))[0] ** 2).mean().backward()
    optimizer.step()
    model.clear_gradients()


def moved(before: dict[str, np.ndarray], model: paddle.nn.Layer) -> set[str]:
    return {name for name, array in arrays(model).items() if not np.array_equal(array, before[name])}


@pytest.mark.parametrize("optimizer", DECAYING)
def test_what_is_frozen_does_not_move_nor_do_its_statistics(optimizer: str, disc_recipe_file: Path) -> None:
    recipe = load_recipe(disc_recipe_file, [DECAYING[optimizer]])
    model = SimpleUNet(2, width=4)
    Freezing(model, Freeze(layers=("encoder", "up.0.1"))).begin(0)
    updater, before = build_optimizer(recipe, model), arrays(model)
    for seed in range(3):
        step(model, updater, seed)
    frozen = {name for name in before if name.startswith(("down.", "up.0.1."))}
    assert {name.rpartition(".")[2] for name in frozen} == {"weight", "bias", "_mean", "_variance"}
    assert moved(before, model) == set(before) - frozen


def test_a_frozen_norm_answers_the_same_in_training_and_in_use() -> None:
    model = SimpleUNet(2, width=4)
    Freezing(model, Freeze(layers=("down",))).begin(0)
    model.train()
    images = paddle.to_tensor(np.random.default_rng(1).normal(5, 2, (2, 3, 8, 8)).astype(np.float32))
    first = model.down[0](images).numpy()
    model.eval()
    np.testing.assert_array_equal(first, model.down[0](images).numpy())


def test_a_norm_of_which_a_part_learns_follows_its_batches() -> None:
    model = SimpleUNet(2, width=4)
    Freezing(model, Freeze(layers=("*.weight",))).begin(0)
    model.train()
    before = model.down[0][1]._mean.numpy().copy()
    model(paddle.ones([1, 3, 8, 8]) * 4)
    assert not np.array_equal(before, model.down[0][1]._mean.numpy())


@pytest.mark.parametrize("optimizer", ["AdamW", "Momentum"])
def test_what_is_thawed_learns_also_after_a_pause_before(optimizer: str, disc_recipe_file: Path) -> None:
    recipe = load_recipe(disc_recipe_file, [DECAYING[optimizer]])
    spec = Freeze(layers=("down",), until=2)
    states = []
    for pause in (None, 1, 2, 3):
        with paddle.utils.unique_name.guard():
            paddle.seed(1)
            model = SimpleUNet(2, width=4)
            before = arrays(model)
            freezing = Freezing(model, spec)
            freezing.begin(0)
            updater = build_optimizer(recipe, model)
            freezing.make_room(updater)
        for iteration in (1, 2, 3, 4):
            step(model, updater, iteration)
            updater._learning_rate.step()
            freezing.follow(iteration)
            if iteration == 2:
                assert not any(name.startswith("down") for name in moved(before, model))
            if iteration == pause:  # another process goes on
                saved = [
                    {name: _copied(value) for name, value in one.state_dict().items()}
                    for one in (model, updater)
                ]
                with paddle.utils.unique_name.guard():
                    model = SimpleUNet(2, width=4)
                    freezing = Freezing(model, spec)
                    freezing.begin(iteration)
                    updater = build_optimizer(recipe, model)
                    freezing.make_room(updater)
                model.set_state_dict(saved[0])
                updater.set_state_dict(saved[1])
        assert moved(before, model) == set(before), "everything learned in the end"
        states.append(arrays(model))
    for state in states[1:]:
        for name, array in states[0].items():
            np.testing.assert_array_equal(state[name], array)


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, paddle.Tensor) else dict(value)  # type: ignore[call-overload]


def test_a_resumed_training_thaws_where_it_would_have(disc_recipe_file: Path, tmp_path: Path) -> None:
    overrides = [
        "freeze={layers: [encoder], until: 4}",
        "iters=6",
        "save_interval=2",
        "keep_checkpoint_max=3",
    ]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=overrides)
    weights = {
        n: paddle.load(str(whole.weights_in(whole.checkpoints / f"iter_{n}")), return_numpy=True)
        for n in (2, 4, 6)
    }
    encoder = [name for name in weights[2] if name.startswith("down.")]
    for name in encoder:
        np.testing.assert_array_equal(weights[2][name], weights[4][name])
        assert not np.array_equal(weights[4][name], weights[6][name]), name
    # As a process leaves it that was killed after iteration 2, while the encoder was frozen.
    shutil.copytree(whole.path, tmp_path / "parts")
    parts = Run.open(tmp_path / "parts")
    for later in ("iter_4", "iter_6"):
        shutil.rmtree(parts.checkpoints / later)
    parts.set_history(whole.history()[:1])
    train(disc_recipe_file, output=parts.path, overrides=overrides, resume=True)
    again = paddle.load(str(parts.weights_in(parts.checkpoints / "iter_6")), return_numpy=True)
    for name, array in weights[6].items():
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize("layers", [("decode",), ("encoder", "down.7"), ("*.conv.*",)])
def test_a_name_that_is_not_there_is_refused_with_those_that_are(layers: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=layers[-1].replace("*", r"\*")) as caught:
        Freezing(ScalableUNet(2, width=4, depth=2), Freeze(layers=layers))
    assert "encoder, decoder, down, up, head" in caught.value.hint
    assert "down.0.0.weight" in caught.value.hint


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(ModelError, match="nothing is left to learn"):
        Freezing(SimpleUNet(2, width=4), Freeze(layers=("*",)))
