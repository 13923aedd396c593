"""Batch norms of several processes, as far as one can show; with real ones: tests/steps/test_together.py."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import paddle
import pytest
from paddle import nn

from medseg_paddle.engine.models import ScalableUNet
from medseg_paddle.engine.ranks import ALONE, Ranks
from medseg_paddle.engine.recomputation import checkpoint_blocks
from medseg_paddle.engine.shared_norms import share_batch_norms


@dataclass(frozen=True)
class Told(Ranks):
    """One of two processes, which is told what both have said when they were asked before."""

    count: int = 2
    known: Sequence[paddle.Tensor] = ()
    said: list[paddle.Tensor] = field(default_factory=list)

    def each(self, own: paddle.Tensor) -> paddle.Tensor:
        self.said.append(own.detach())
        turn = len(self.said) - 1
        return self.known[turn] if turn < len(self.known) else paddle.stack([own, own]).detach()


def learned(layer: nn.Layer, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
    """What a layer gives, the gradients of its input, weight and bias, and its statistics after it."""
    given = paddle.to_tensor(x, stop_gradient=False)
    y = layer(given)
    (y * paddle.to_tensor(dy)).sum().backward()
    found = (y, given.grad, layer.weight.grad, layer.bias.grad, layer._mean, layer._variance)
    return tuple(value.numpy() for value in found)


def by_two(layer: nn.Layer, x: np.ndarray, dy: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """What each of two processes finds, each with half of the images; played until nobody says anything new."""
    known: list[paddle.Tensor] = []
    while True:
        found, ranks = [], [Told(rank, known=tuple(known)) for rank in (0, 1)]
        for each, own, slope in zip(ranks, np.split(x, 2), np.split(dy, 2), strict=True):
            shared = copy.deepcopy(layer)
            share_batch_norms(shared, each)
            assert type(shared) is type(layer)
            assert shared.state_dict().keys() == layer.state_dict().keys()
            found.append(learned(shared, own, slope))
        if len(ranks[0].said) == len(known):
            return found
        turn = len(known)
        known.append(paddle.stack([each.said[turn] for each in ranks]))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.BatchNorm2D(3, momentum=0.7), (4, 3, 5, 6)),
        (lambda: nn.BatchNorm3D(2), (2, 2, 3, 4, 5)),
        (lambda: nn.BatchNorm(3, act="relu"), (4, 3, 5, 6)),
    ],
    ids=["pictures", "volumes", "the older one"],
)
def test_a_shared_norm_is_the_norm_of_all_images(make, shape) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) * 3 + 7).astype(np.float32)
    x[0] -= 20  # the halves differ
    dy = rng.normal(size=shape).astype(np.float32)
    paddle.seed(3)
    layer = make()
    for value in (layer.weight, layer.bias):
        value.set_value(value + 0.3 * paddle.randn(value.shape))
    found = by_two(layer, x, dy)
    expected = learned(layer, x, dy)
    joined = [
        *(
            np.concatenate(halves) for halves in list(zip(*found, strict=True))[:2]
        ),  # output, gradient of the input
        *(one + other for one, other in list(zip(*found, strict=True))[2:4]),  # of weight and bias
    ]
    for one, other in zip(joined, expected[:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    for half in found:
        for one, other in zip(half[4:], expected[4:], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_in_use_it_is_paddles() -> None:
    layer = nn.BatchNorm2D(3)
    x = paddle.randn([2, 3, 4, 4])
    layer.eval()
    expected = layer(x).numpy()
    told = Told(0)
    share_batch_norms(layer, told)
    np.testing.assert_array_equal(layer(x).numpy(), expected)
    assert not told.said


def test_a_network_with_blocks_and_an_average_computes_as_alone() -> None:
    images = paddle.to_tensor(np.random.default_rng(1).normal(size=(3, 3, 16, 16)).astype(np.float32))
    states = []
    for shared in (False, True):
        paddle.seed(5)
        model = ScalableUNet(2, width=4, depth=2)
        if shared:
            share_batch_norms(model, Told(0))
            checkpoint_blocks(model)
        average = copy.deepcopy(model)
        (model(images)[0] ** 2).mean().backward()
        gradients = {
            name: value.grad.numpy() for name, value in model.named_parameters() if value.grad is not None
        }
        states.append([gradients, {name: value.numpy() for name, value in model.state_dict().items()}])
        assert not average.down[0][1]._mean.numpy().any(), "a copy has statistics of its own"
    for expected, found in zip(*states, strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_one_process_keeps_paddles_norms() -> None:
    model = ScalableUNet(2, width=4, depth=2)
    share_batch_norms(model, ALONE)
    assert not any("forward" in vars(layer) for layer in model.sublayers())
