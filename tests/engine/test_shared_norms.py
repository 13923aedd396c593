"""Batch norms of several processes, as far as one can show; with real ones: tests/steps/test_together.py."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import paddle
import pytest
from paddle import nn

from medseg_paddle.engine.models import ScalableUNet
from medseg_paddle.engine.ranks import ALONE, Ranks
from medseg_paddle.engine.recomputation import checkpoint_blocks
from medseg_paddle.engine.shared_norms import share_batch_norms


@dataclass(frozen=True)
class Twins(Ranks):
    """One of two processes that have the same images."""

    count: int = 2

    def each(self, own: paddle.Tensor) -> paddle.Tensor:
        return paddle.stack([own, own]).detach()


def learned(layer: nn.Layer, x: np.ndarray) -> list[np.ndarray]:
    """What a layer gives, its gradients, and its statistics after it."""
    given = paddle.to_tensor(x, stop_gradient=False)
    y = layer(given)
    (y * paddle.to_tensor(np.random.default_rng(2).normal(size=y.shape).astype(np.float32))).sum().backward()
    gradients = [value.grad.numpy() for value in layer.parameters() if value.grad is not None]
    return [
        y.numpy(),
        given.grad.numpy(),
        *gradients,
        *(value.numpy() for value in layer.state_dict().values()),
    ]


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
    """Two processes that have the same images have the statistics and the gradients of one of them."""
    x = (np.random.default_rng(0).normal(size=shape) * 3 + 7).astype(np.float32)
    paddle.seed(3)
    whole = make()
    for value in whole.parameters():
        value.set_value(value + 0.3 * paddle.randn(value.shape))
    own = copy.deepcopy(whole)
    share_batch_norms(own, Twins())
    assert type(own) is type(whole)
    assert own.state_dict().keys() == whole.state_dict().keys()
    for found, expected in zip(learned(own, x), learned(whole, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-4)
    own.eval(), whole.eval()
    np.testing.assert_allclose(
        own(paddle.to_tensor(x)).numpy(), whole(paddle.to_tensor(x)).numpy(), rtol=1e-5, atol=1e-5
    )


def test_a_network_with_blocks_and_an_average_computes_as_alone() -> None:
    images = paddle.to_tensor(np.random.default_rng(1).normal(size=(3, 3, 16, 16)).astype(np.float32))
    states = []
    for shared in (False, True):
        paddle.seed(5)
        model = ScalableUNet(2, width=4, depth=2)
        if shared:
            share_batch_norms(model, Twins())
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
