"""Interpolation by products of matrices: Paddle's values and gradients, and where it is taken."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from medseg_paddle.engine import device
from medseg_paddle.engine.losses.label_loss import at_one_size
from medseg_paddle.engine.models import ScalableUNet
from medseg_paddle.engine.networks_3d import AttentionUNet3D
from medseg_paddle.engine.ordered_interpolation import in_order

PADDLES = F.interpolate


class Watched:
    """Paddle's function, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

        @functools.wraps(PADDLES)
        def interpolate(*words: Any, **named: Any) -> paddle.Tensor:
            self.calls += 1
            return PADDLES(*words, **named)

        self.function = in_order(interpolate)


def value_and_gradient(function: Any, x: np.ndarray, how: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    given = paddle.to_tensor(x, stop_gradient=False)
    y = function(given, **how)
    weight = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    (y * paddle.to_tensor(weight)).sum().backward()
    return y.numpy(), given.grad.numpy()


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((2, 3, 5, 7), {"scale_factor": 2, "mode": "bilinear"}),
        ((2, 3, 5, 7), {"scale_factor": [2, 3.0], "mode": "bilinear", "align_corners": True}),
        ((1, 2, 5, 7), {"size": [13, 7], "mode": "bilinear", "align_mode": 1}),
        ((1, 2, 9, 12), {"size": paddle.to_tensor([4, 31]), "mode": "bilinear"}),
        ((1, 2, 1, 3), {"size": [1, paddle.to_tensor(8)], "mode": "bilinear", "align_corners": True}),
        ((2, 2, 3, 4, 5), {"size": (6, 4, 11), "mode": "trilinear", "data_format": "NCDHW"}),
        ((1, 2, 3, 2, 2), {"scale_factor": 2, "mode": "TRILINEAR"}),
        ((2, 3, 6), {"size": [4], "mode": "linear", "data_format": "NCW"}),
    ],
    ids=str,
)  # fmt: skip
def test_values_and_gradients_are_paddles(shape: tuple[int, ...], how: dict[str, Any]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    watched = Watched()
    expected, found = value_and_gradient(PADDLES, x, how), value_and_gradient(watched.function, x, how)
    assert watched.calls == 0
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "how",
    [
        {"scale_factor": 2, "mode": "nearest"},
        {"scale_factor": 2, "mode": "bicubic"},
        {"scale_factor": 1.5, "mode": "bilinear"},
        {"scale_factor": 2, "mode": "bilinear", "data_format": "NHWC"},
    ],
    ids=str,
)
def test_what_is_not_linear_or_shares_pixels_is_paddles_business(how: dict[str, Any]) -> None:
    x = paddle.randn([1, 4, 4, 4])
    watched = Watched()
    np.testing.assert_array_equal(watched.function(x, **how).numpy(), PADDLES(x, **how).numpy())
    assert watched.calls == 1


def test_the_type_of_numbers_stays() -> None:
    x = paddle.randn([1, 2, 4, 4])
    for dtype in ("float16", "bfloat16"):
        found = Watched().function(x.astype(dtype), scale_factor=2, mode="bilinear")
        assert found.dtype == getattr(paddle, dtype)
        np.testing.assert_allclose(
            found.astype("float32").numpy(), PADDLES(x, scale_factor=2, mode="bilinear").numpy(), atol=0.03
        )


def test_a_network_s_matrices_are_brought_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, 17, 19)).astype(np.float32)
    function, wanted = Watched().function, {"size": [23, 29], "mode": "bilinear"}
    given, brought, to_tensor = paddle.to_tensor(x), [], paddle.to_tensor
    monkeypatch.setattr(
        paddle,
        "to_tensor",
        lambda *words, **named: brought.append(named["place"]) or to_tensor(*words, **named),
    )
    for _ in range(3):
        first = function(given, **wanted)
    assert brought == ["cpu", "cpu"]
    function(given, align_corners=True, **wanted)
    assert len(brought) == 4
    for side in range(30, 80):  # images of all sizes, as in validation
        function(given, size=[side, side], mode="bilinear")
    again = function(given, **wanted)
    assert len(brought) == 4 + 2 * 50 + 2
    np.testing.assert_array_equal(again.numpy(), first.numpy())
    np.testing.assert_allclose(again.numpy(), PADDLES(given, **wanted).numpy(), atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_and_losses_of_lower_outputs_take_it_and_learn_the_same(
    dimensions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradients() -> list[np.ndarray]:
        paddle.seed(4)
        if dimensions == 2:
            model: paddle.nn.Layer = ScalableUNet(2, width=4, depth=2, norm="instance", deep_supervision=1)
        else:
            model = AttentionUNet3D(2, 1, width=4, depth=2)
        images = paddle.randn([2, 3 if dimensions == 2 else 1, *([12] * dimensions)])
        labels = paddle.zeros([2, *([12] * dimensions)], "int64")
        model.train()
        sum((at_one_size(each, labels)[0] ** 2).mean() for each in model(images)).backward()
        return [value.grad.numpy() for value in model.parameters() if value.grad is not None]

    expected, watched = gradients(), Watched()
    monkeypatch.setattr(F, "interpolate", watched.function)
    for one, other in zip(expected, gradients(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-6)
    assert watched.calls == 0


def test_a_gpu_is_told_all_of_it_by_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done where there is a GPU, as far as it can be seen without one."""
    flags: dict[str, Any] = {}
    asked: list[bool] = []
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(paddle.distributed, "ParallelEnv", lambda: SimpleNamespace(device_id=0))
    monkeypatch.setattr(paddle, "set_device", lambda _: None)
    monkeypatch.setattr(paddle, "set_flags", flags.update)
    monkeypatch.setattr(device, "interpolate_in_order", lambda: asked.append(True))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    device.set_device("gpu")
    assert (flags, asked) == ({}, [])
    assert device.set_device("gpu", deterministic=True) == "gpu:0"
    assert (flags, asked) == (device.DETERMINISTIC_FLAGS, [True])
