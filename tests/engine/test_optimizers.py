"""Optimisers: one or two steps worked by hand, and what a group of parameters gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.engine.optimizers import build_optimizer
from medseg_paddle.engine.paddleseg_adapter import manager
from medseg_paddle.errors import RecipeError
from medseg_paddle.steps.train import train

RATE = 0.1
CONSTANT = f"lr_scheduler={{type: StepDecay, learning_rate: {RATE}, step_size: 1000}}"


class Line(nn.Layer):
    """A weight and a bias; the loss below gives each the gradient that the test names."""

    def __init__(self, weight: float = 1.0, bias: float = 1.0) -> None:
        super().__init__()
        value = nn.initializer.Constant
        self.weight = self.create_parameter([1, 1], default_initializer=value(weight))
        self.bias = self.create_parameter([1], default_initializer=value(bias))


def stepped(recipe: Recipe, gradients: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Weight and bias after each step with these gradients."""
    model = Line()
    optimizer = build_optimizer(recipe, model)
    found = []
    for of_weight, of_bias in gradients:
        (model.weight.sum() * of_weight + model.bias.sum() * of_bias).backward()
        optimizer.step()
        optimizer._learning_rate.step()
        model.clear_gradients()
        found.append((model.weight.item(), model.bias.item()))
    return found


@pytest.fixture
def recipe_with(disc_recipe_file: Path) -> Callable[[str], Recipe]:
    return lambda words: load_recipe(disc_recipe_file, [CONSTANT, f"optimizer={{{words}}}"])


def by_sgd(w: float, gradients: list[float], decay: float = 0.0) -> list[float]:
    found = []
    for g in gradients:
        w -= RATE * (g + decay * w)
        found.append(w)
    return found


def by_momentum(w: float, gradients: list[float], mu: float = 0.9, *, nesterov: bool = False) -> list[float]:
    velocity, found = 0.0, []
    for g in gradients:
        velocity = mu * velocity + g
        w -= RATE * (g + mu * velocity if nesterov else velocity)
        found.append(w)
    return found


def by_adam(w: float, gradients: list[float], *, decay: float = 0.0, coupled: bool = True) -> list[float]:
    """Kingma & Ba 2015, algorithm 1; decoupled as Loshchilov & Hutter 2019, algorithm 2."""
    m = v = 0.0
    found = []
    for t, gradient in enumerate(gradients, start=1):
        g = gradient + (decay * w if coupled else 0.0)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        update = m / (1 - 0.9**t) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w -= RATE * (update + (0.0 if coupled else decay * w))
        found.append(w)
    return found


def by_rmsprop(
    w: float, gradients: list[float], rho: float, momentum: float, *, centered: bool
) -> list[float]:
    square = mean = moved = 0.0
    found = []
    for g in gradients:
        square, mean = rho * square + (1 - rho) * g * g, rho * mean + (1 - rho) * g
        moved = momentum * moved + RATE * g / math.sqrt(square - (mean * mean if centered else 0.0) + 1e-6)
        w -= moved
        found.append(w)
    return found


KNOWN: dict[str, Callable[[float, list[float]], list[float]]] = {
    "type: SGD": by_sgd,
    "type: SGD, weight_decay: 0.5": lambda w, g: by_sgd(w, g, 0.5),
    "type: SGD, momentum: 0.8": lambda w, g: by_momentum(w, g, 0.8),
    "type: Momentum": by_momentum,
    "type: Momentum, use_nesterov: true": lambda w, g: by_momentum(w, g, nesterov=True),
    "type: Adam": by_adam,
    "type: Adam, weight_decay: 0.5": lambda w, g: by_adam(w, g, decay=0.5),
    "type: AdamW, weight_decay: 0.5": lambda w, g: by_adam(w, g, decay=0.5, coupled=False),
    "type: AdamW, weight_decay: null": by_adam,
    "type: RMSProp": lambda w, g: by_rmsprop(w, g, 0.95, 0.0, centered=False),
    "type: RMSProp, rho: 0.8, momentum: 0.5, centered: true": lambda w, g: by_rmsprop(
        w, g, 0.8, 0.5, centered=True
    ),
}


@pytest.mark.parametrize("words", KNOWN)
def test_steps_are_those_worked_by_hand(words: str, recipe_with: Callable[[str], Recipe]) -> None:
    gradients = [0.25, -1.5, 0.5]
    found = stepped(recipe_with(words), [(g, 2 * g) for g in gradients])
    assert [w for w, _ in found] == pytest.approx(KNOWN[words](1.0, gradients), rel=1e-5)
    assert [b for _, b in found] == pytest.approx(KNOWN[words](1.0, [2 * g for g in gradients]), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("SGD", {"weight_decay": 0.01}),
        ("Momentum", {"momentum": 0.8, "weight_decay": 0.01}),
        ("Adam", {"beta1": 0.8, "weight_decay": 0.01}),
        ("AdamW", {"weight_decay": 0.02}),
    ],
)
def test_a_step_is_paddlesegs_to_the_bit(
    kind: str, arguments: dict[str, Any], recipe_with: Callable[[str], Recipe]
) -> None:
    import paddleseg.optimizers  # noqa: F401  (registers them)

    clip = {"name": "ClipGradByGlobalNorm", "clip_norm": 0.5}
    words = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    recipe = recipe_with(
        f"type: {kind}, {words}, grad_clip_cfg: {{name: ClipGradByGlobalNorm, clip_norm: 0.5}}"
    )
    states = []
    for make in (
        lambda model: build_optimizer(recipe, model),
        lambda model: manager.OPTIMIZERS[kind](grad_clip_cfg=clip, **arguments)(model, RATE),
    ):
        paddle.seed(0)
        model = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.ReLU(), nn.Conv2D(4, 2, 1))
        optimizer = make(model)
        for _ in range(3):
            (model(paddle.ones([2, 3, 8, 8]) * 0.1) ** 2).sum().backward()
            optimizer.step()
            model.clear_gradients()
        states.append({name: value.numpy() for name, value in model.state_dict().items()})
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], err_msg=name)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ("name: ClipGradByGlobalNorm, clip_norm: 1.0", (0.6, 0.8)),  # of (3, 4), whose norm is 5
        ("name: ClipGradByNorm, clip_norm: 2.0", (2.0, 2.0)),
        ("name: ClipGradByValue, max: 3.5", (3.0, 3.5)),
        ("name: ClipGradByValue, max: 2.0, min: -1.0", (2.0, 2.0)),
    ],
)
def test_gradients_are_clipped(
    clip: str, expected: tuple[float, float], recipe_with: Callable[[str], Recipe]
) -> None:
    ((weight, bias),) = stepped(recipe_with(f"type: SGD, grad_clip_cfg: {{{clip}}}"), [(3.0, 4.0)])
    assert (1 - weight) / RATE == pytest.approx(expected[0], rel=1e-5)
    assert (1 - bias) / RATE == pytest.approx(expected[1], rel=1e-5)


def test_a_global_norm_is_that_of_all_groups(recipe_with: Callable[[str], Recipe]) -> None:
    recipe = recipe_with(
        "type: SGD, custom_cfg: [{name: bias, lr_mult: 0.5}], "
        "grad_clip_cfg: {name: ClipGradByGlobalNorm, clip_norm: 1.0}"
    )
    ((weight, bias),) = stepped(recipe, [(3.0, 4.0)])
    assert (1 - weight) / RATE == pytest.approx(0.6, rel=1e-5)
    assert (1 - bias) / RATE == pytest.approx(0.4, rel=1e-5)


@pytest.mark.parametrize("kind", ["SGD", "Momentum", "Adam", "AdamW", "RMSProp"])
def test_a_group_has_its_share_of_learning_rate_and_decay(
    kind: str, recipe_with: Callable[[str], Recipe]
) -> None:
    gradients = [(0.5, 0.5), (0.25, 0.25)]

    def alone(decay: float) -> list[float]:
        return [w for w, _ in stepped(recipe_with(f"type: {kind}, weight_decay: {decay}"), gradients)]

    grouped = stepped(
        recipe_with(
            f"type: {kind}, weight_decay: 0.4, "
            "custom_cfg: [{name: bias, weight_decay_mult: 0.25}, {name: weight, lr_mult: 0.0}]"
        ),
        gradients,
    )
    assert [w for w, _ in grouped] == [1.0, 1.0]
    assert [b for _, b in grouped] == pytest.approx(alone(0.1), rel=1e-6)
    assert alone(0.1) != pytest.approx(alone(0.4), rel=1e-3)


@pytest.mark.parametrize("kind", ["SGD", "Momentum", "Adam", "AdamW", "RMSProp"])
def test_half_the_learning_rate_is_half_of_it_along_a_schedule(kind: str, disc_recipe_file: Path) -> None:
    def steps(rate: float, words: str = "") -> list[tuple[float, float]]:
        falling = f"type: PolynomialDecay, learning_rate: {rate}, end_lr: 0, decay_steps: 10, warmup_iters: 2"
        words = f"type: {kind}, weight_decay: 0.3{words}"
        recipe = load_recipe(disc_recipe_file, [f"lr_scheduler={{{falling}}}", f"optimizer={{{words}}}"])
        return stepped(recipe, [(0.5, 0.5), (-0.25, -0.25), (1.0, 1.0)])

    grouped = steps(0.1, ", custom_cfg: [{name: bias, lr_mult: 0.5}]")
    assert [w for w, _ in grouped] == [w for w, _ in steps(0.1)]
    assert [b for _, b in grouped] == pytest.approx([b for _, b in steps(0.05)], rel=1e-6)
    assert grouped[-1][1] != pytest.approx(grouped[-1][0], rel=1e-3)


@pytest.mark.parametrize("kind", ["SGD", "Momentum", "Adam", "AdamW", "RMSProp"])
def test_norms_and_biases_can_be_left_without_decay(kind: str, recipe_with: Callable[[str], Recipe]) -> None:
    words = f"type: {kind}, weight_decay: 0.4"
    gradients = [(0.5, 0.5), (-0.25, -0.25)]
    everywhere = stepped(recipe_with(words), gradients)[-1]
    nowhere = stepped(recipe_with(f"type: {kind}, weight_decay: 0.0"), gradients)[-1]
    spared = stepped(recipe_with(f"{words}, decay_norms_and_biases: false"), gradients)[-1]
    assert spared[0] == everywhere[0]
    assert spared[1] == pytest.approx(nowhere[1], rel=1e-6)
    assert everywhere[1] != pytest.approx(nowhere[1], rel=1e-3)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("{name: hed, lr_mult: 2}", "no parameter of the model has 'hed' in its name"),
        ("{name: down}, {name: down.0, lr_mult: 2}", "a group before it has every parameter with 'down.0'"),
    ],
)
def test_a_group_without_parameters_is_refused_before_the_run_is_made(
    groups: str, message: str, disc_recipe_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        train(
            disc_recipe_file,
            output=tmp_path / "run",
            overrides=[f"optimizer={{type: SGD, custom_cfg: [{groups}]}}"],
        )
    assert not (tmp_path / "run").exists()


def test_the_first_group_that_fits_counts(disc_recipe_file: Path) -> None:
    from medseg_paddle.engine.models import build_model

    recipe = load_recipe(
        disc_recipe_file,
        ["optimizer={type: SGD, custom_cfg: [{name: down.0, lr_mult: 2}, {name: down, lr_mult: 3}]}"],
    )
    model = build_model(recipe)
    build_optimizer(recipe, model)
    shares = {name: parameter.optimize_attr["learning_rate"] for name, parameter in model.named_parameters()}
    assert shares["down.0.0.weight"] == 2
    assert shares["down.1.0.weight"] == 3
    assert shares["head.weight"] == 1
