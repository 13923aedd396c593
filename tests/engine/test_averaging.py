"""The moving average of the weights: against one worked by hand from the weights of every iteration."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from medseg_paddle.config import load_recipe
from medseg_paddle.engine.averaging import start_average, update_average
from medseg_paddle.engine.models import load_model
from medseg_paddle.errors import RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train


class Counting(nn.Layer):
    """A weight, a buffer of numbers, and one that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.create_parameter([1])
        self.register_buffer("mean", paddle.zeros([1]))
        self.register_buffer("steps", paddle.zeros([1], "int64"))

    def set(self, weight: float, mean: float, steps: int) -> None:
        for tensor, value in ((self.weight, weight), (self.mean, mean), (self.steps, steps)):
            tensor.set_value(np.full([1], value, tensor.numpy().dtype))

    @property
    def values(self) -> tuple[float, float, int]:
        return self.weight.item(), self.mean.item(), self.steps.item()


def test_three_iterations_by_hand() -> None:
    model, average = Counting(), Counting()
    model.set(8.0, 0.0, 1)
    start_average(average, model)
    assert average.values == (8.0, 0.0, 1)
    expected = [(4.0, 2.0, 5), (2.0, 4.0, 6), (1.4, 4.6, 7)]  # shares that stay: 1/2, 0.6, 0.6
    for iteration, (weight, mean, steps) in enumerate(
        [(0.0, 4.0, 5), (-1.0, 7.0, 6), (0.5, 5.5, 7)], start=1
    ):
        model.set(weight, mean, steps)
        update_average(average, model, iteration, 0.6)
        assert average.values == pytest.approx(expected[iteration - 1], rel=1e-6)
    assert model.values == (0.5, 5.5, 7)


def test_the_average_of_what_stands_still_stands_still() -> None:
    """Frozen layers: a weighted sum of two equal numbers is another number now and then, and adds up."""
    model, average = nn.Linear(40, 40), nn.Linear(40, 40)
    start_average(average, model)
    for iteration in range(1, 300):
        update_average(average, model, iteration, 0.99)
    np.testing.assert_array_equal(average.weight.numpy(), model.weight.numpy())


def state(path: Path) -> dict[str, np.ndarray]:
    found = paddle.load(str(path), return_numpy=True)
    return {name: value.astype(np.float64) for name, value in found.items() if isinstance(value, np.ndarray)}


@pytest.fixture
def run(disc_recipe_file: Path, tmp_path: Path) -> Run:
    overrides = ["iters=5", "save_interval=1", "keep_checkpoint_max=9", "use_ema=true", "ema_decay=0.7"]
    return train(disc_recipe_file, output=tmp_path / "run", overrides=overrides)


def test_a_training_keeps_the_average_of_its_weights(run: Run, disc_recipe_file: Path) -> None:
    from medseg_paddle.engine.models import build_model

    paddle.seed(run.recipe.seed)
    average = {n: v.numpy().astype(np.float64) for n, v in build_model(run.recipe).state_dict().items()}
    for iteration in range(1, 6):
        folder = run.checkpoints / f"iter_{iteration}"
        share = min(0.7, 1 - 1 / (iteration + 1))
        now, kept = state(folder / "model.pdparams"), state(folder / "ema_model.pdparams")
        for name, value in now.items():
            average[name] = share * average[name] + (1 - share) * value
            np.testing.assert_allclose(kept[name], average[name], atol=1e-6, err_msg=f"{name}, {iteration}")
    assert any(name.endswith("_mean") for name in average)


def test_the_average_is_evaluated_where_it_is_the_best(run: Run) -> None:
    entries = run.history()
    assert {entry["weights"] for entry in entries} == {"model", "ema"}
    assert len(entries) == 10
    for entry in entries:
        entry["score"] = 0.9 if (entry["weights"], entry["iter"]) == ("ema", 4) else 0.1
    run.set_history(entries)
    assert run.best_checkpoint.name == "ema_model.pdparams"
    model = load_model(run.recipe, run.best_checkpoint)
    saved = state(run.checkpoints / "iter_4" / "ema_model.pdparams")
    np.testing.assert_array_equal(model.head.weight.numpy(), saved["head.weight"])
    dice = evaluate(run.path, split="val").mean_foreground_dice
    assert dice == pytest.approx(
        next(e["dice"]["disc"] for e in entries if (e["weights"], e["iter"]) == ("ema", 4))
    )


def test_the_terminal_tells_scores_of_the_average_from_those_of_the_weights(
    disc_recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["iters=2", "save_interval=1", "use_ema=true"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=overrides)
    said = re.findall(r"^validation at (\d): (.*) (\d\.\d+)", capsys.readouterr().out, re.MULTILINE)
    names = {"model": "mean foreground Dice", "ema": "EMA mean foreground Dice"}
    assert said == [
        (str(entry["iter"]), names[entry["weights"]], f"{entry['score']:.4f}") for entry in run.history()
    ]


def test_a_decay_without_an_average_is_refused(disc_recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match="ema_decay without use_ema"):
        load_recipe(disc_recipe_file, ["ema_decay=0.9"])
