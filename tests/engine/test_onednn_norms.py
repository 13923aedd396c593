"""Batch and instance norms on oneDNN: Paddle's numbers, statistics and refusals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn
from paddle.distributed.fleet.utils import recompute

from medseg_paddle.engine.onednn import Unavailable, accelerate, layers, library, restore
from medseg_paddle.engine.onednn.normalization import Normalization
from tests.engine import onednn_calls

ROUNDING = 2e-5  # of the greatest value; sums of some hundred float32
KINDS = {
    (2, False): nn.BatchNorm2D,
    (3, False): nn.BatchNorm3D,
    (2, True): nn.InstanceNorm2D,
    (3, True): nn.InstanceNorm3D,
}

try:
    library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small arrays too, which Paddle is quicker with."""
    monkeypatch.setattr(layers, "_WORTH_IT", 0)


@pytest.fixture
def seen() -> Iterator[list[str]]:
    """What oneDNN computed."""
    with onednn_calls.computed(Normalization) as found:
        yield found


def made(kind: type[nn.Layer], channels: int, **options: object) -> nn.Layer:
    """A norm whose scale and shift are not those it begins with."""
    layer = kind(channels, **options)
    for name, parameter in layer.named_parameters():
        if not parameter.stop_gradient:
            parameter.set_value(paddle.randn(parameter.shape))
        elif "variance" in name:
            parameter.set_value(paddle.rand(parameter.shape) + 0.5)
    return layer


def computed(layer: nn.Layer, x: paddle.Tensor, dy: paddle.Tensor, steps: int = 1) -> dict[str, np.ndarray]:
    """Result, gradients, and all that the layer keeps, after some steps."""
    layer.clear_gradients()
    for _ in range(steps):
        x = x.detach()
        x.stop_gradient = False
        y = layer(x)
        y.backward(dy)
    found = {"result": y, "gradient of x": x.grad}
    found |= {f"gradient of {name}": p.grad for name, p in layer.named_parameters() if not p.stop_gradient}
    return {name: tensor.numpy() for name, tensor in (found | layer.state_dict()).items()}


def require_alike(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert np.abs(values - other[name]).max() <= ROUNDING * max(np.abs(values).max(), 1e-3), name


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(2, 9), min_size=4, max_size=5),
    by_image=st.booleans(),
    momentum=st.sampled_from([0.9, 0.0, 0.5]),
    epsilon=st.sampled_from([1e-5, 1e-3]),
    offset=st.sampled_from([0.0, 30.0]),
    swapped=st.booleans(),
    steps=st.integers(1, 3),
)
def test_results_gradients_and_statistics_are_paddles(
    shape, by_image, momentum, epsilon, offset, swapped, steps
) -> None:
    axes, channels = len(shape) - 2, shape[1]
    paddle.seed(3)
    x, dy = paddle.randn(shape) * 2 + offset, paddle.randn(shape)
    if swapped:  # the same numbers, lying otherwise in memory
        x, dy = (paddle.transpose(t, [1, 0, *range(2, axes + 2)]).contiguous() for t in (x, dy))
        x, dy = (t.transpose([1, 0, *range(2, axes + 2)]) for t in (x, dy))
    layer = made(KINDS[axes, by_image], channels, momentum=momentum, epsilon=epsilon)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    expected = computed(layer, x, dy, steps)
    layer.set_state_dict(before)
    require_alike(expected, computed(accelerate(layer), x, dy, steps))


def test_a_group_of_one_value_gets_its_shift_and_no_gradient() -> None:
    x = paddle.full([2, 3, 8, 8], 7.0)
    layer = accelerate(made(nn.BatchNorm2D, 3))
    found = computed(layer, x, paddle.ones_like(x))
    np.testing.assert_allclose(
        found["result"], layer.bias.numpy()[None, :, None, None] + np.zeros(x.shape), atol=1e-5
    )
    np.testing.assert_allclose(found["gradient of x"], 0, atol=1e-3)


def test_running_statistics_move_as_worked_by_hand() -> None:
    layer = accelerate(nn.BatchNorm2D(1, momentum=0.75))
    layer(paddle.to_tensor([1.0, 3.0, 5.0, 7.0]).reshape([1, 1, 2, 2]))
    assert float(layer._mean) == 1.0  # 0.75 * 0 + 0.25 * 4
    assert float(layer._variance) == 2.0  # 0.75 * 1 + 0.25 * 5, the biased variance


def test_the_running_statistics_stay_the_same_tensors_and_take_no_gradient() -> None:
    layer = accelerate(nn.BatchNorm2D(3))
    held = layer._mean
    y = layer(paddle.randn([2, 3, 8, 8]))
    y.sum().backward()
    assert layer._mean is held
    assert layer.state_dict()["_mean"] is held
    assert held.stop_gradient
    assert held.grad is None


@pytest.mark.parametrize("frozen", ["x", "weight", "bias", "weight and bias"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_does(frozen: str, seen: list[str]) -> None:
    layer, x = accelerate(made(nn.BatchNorm2D, 3)), paddle.randn([2, 3, 8, 8])
    x.stop_gradient = "x" in frozen
    layer.weight.stop_gradient, layer.bias.stop_gradient = "weight" in frozen, "bias" in frozen
    layer(x).sum().backward()
    for name, tensor in (("x", x), ("weight", layer.weight), ("bias", layer.bias)):
        assert (tensor.grad is None) == (name in frozen), name
    assert seen == ["forward", "backward"]


@pytest.mark.parametrize("kind", [nn.BatchNorm2D, nn.InstanceNorm2D])
def test_recomputed_layers_give_the_same_gradients(kind: type[nn.Layer]) -> None:
    layer, x = accelerate(made(kind, 3, momentum=1.0)), paddle.randn([2, 3, 8, 8])
    found = []
    for run in (layer, lambda image: recompute(layer, image)):
        image = x.detach()
        image.stop_gradient = False
        layer.clear_gradients()
        (run(image) ** 3).sum().backward()
        found.append({name: t.grad.numpy() for name, t in [("x", image), ("bias", layer.bias)]})
    require_alike(*found)


def test_the_same_twice_gives_the_same_bits() -> None:
    x, dy = paddle.randn([4, 16, 32, 32]), paddle.randn([4, 16, 32, 32])
    layer = accelerate(made(nn.BatchNorm2D, 16, momentum=1.0))
    one, other = (computed(layer, x, dy) for _ in range(2))
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.BatchNorm2D(3, use_global_stats=True), paddle.ones([2, 3, 8, 8])),
        (nn.BatchNorm2D(3, data_format="NHWC"), paddle.ones([2, 8, 8, 3])),
        (nn.BatchNorm2D(3, weight_attr=False, bias_attr=False), paddle.ones([2, 3, 8, 8])),
        (nn.InstanceNorm2D(3, weight_attr=False, bias_attr=False), paddle.ones([2, 3, 8, 8])),
        (nn.BatchNorm1D(3), paddle.ones([2, 3, 8])),
    ],
    ids=["global statistics", "channels last", "no scale", "no scale, instance", "one axis"],
)
def test_what_is_not_covered_goes_paddles_way(layer: nn.Layer, x: paddle.Tensor, seen: list[str]) -> None:
    expected = layer(x).numpy()
    np.testing.assert_array_equal(accelerate(layer)(x).numpy(), expected)
    assert not seen


def test_a_batch_norm_that_judges_uses_what_it_has_learned(seen: list[str]) -> None:
    layer = accelerate(nn.BatchNorm2D(3))
    layer.eval()
    x = paddle.randn([2, 3, 8, 8]) + 5
    np.testing.assert_allclose(layer(x).numpy(), x.numpy(), rtol=1e-4)
    assert not seen


def test_small_arrays_are_left_to_paddle(seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    layer = accelerate(nn.BatchNorm2D(2))
    layer(paddle.randn([1, 2, 64, 64]))
    assert not seen
    layer(paddle.randn([4, 2, 256, 256]))
    assert seen == ["forward"]


def test_wrong_images_get_paddles_own_error() -> None:
    for layer in (nn.BatchNorm2D(3), nn.InstanceNorm2D(3), nn.BatchNorm1D(3)):
        for shape in ([2, 4, 8, 8], [2, 3, 4, 5, 6]):
            said = []
            for one in (accelerate(layer), restore(layer)):
                with pytest.raises(ValueError, match=r"\S") as error:
                    one(paddle.ones(shape))
                said.append(str(error.value)[:80])
            assert said[0] == said[1]


def test_a_change_in_place_before_the_gradient_is_an_error() -> None:
    layer, x = accelerate(nn.BatchNorm2D(3)), paddle.randn([2, 3, 8, 8])
    y = layer(x)
    x.add_(paddle.ones_like(x))
    with pytest.raises(OSError, match="in place"):
        y.sum().backward()


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    layer, x = accelerate(nn.InstanceNorm2D(3)), paddle.randn([2, 3, 8, 8])
    x.stop_gradient = False
    with pytest.raises(OSError, match="second derivative"):
        paddle.grad((layer(x) ** 3).sum(), x, create_graph=True)
