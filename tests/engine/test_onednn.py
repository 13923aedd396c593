"""Convolutions on oneDNN: the same numbers as Paddle's, in every use that a training makes of them."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

from medseg_paddle.engine.models import ScalableUNet
from medseg_paddle.engine.onednn import Unavailable, accelerate, is_accelerated, library, restore
from medseg_paddle.engine.onednn.convolution import Convolution
from medseg_paddle.engine.onednn.doubling import Doubling
from medseg_paddle.engine.onednn.library import OneDnnError
from medseg_paddle.engine.onednn.runtime import Cache, runtime
from medseg_paddle.engine.paddleseg_adapter import manager
from tests.engine.onednn_calls import computed, convolutions, values_and_gradients

ROUNDING = 2e-6  # of the sum of the products' sizes; a float32 has 24 bits: 6e-8
try:
    library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)


def require_agreement(plain: nn.Layer, x: paddle.Tensor, dy: paddle.Tensor) -> None:
    """Paddle's and oneDNN's numbers differ by rounding only, measured against the sum of the products' sizes."""
    fast, sizes = accelerate(copy.deepcopy(plain)), copy.deepcopy(plain)
    for parameter in sizes.parameters():
        parameter.set_value(parameter.abs())
    expected = values_and_gradients(plain, x, dy)
    bounds = values_and_gradients(sizes, x.abs(), dy.abs())
    with computed(Convolution) as seen:
        found = values_and_gradients(fast, x, dy)
    assert seen == ["forward", "backward"]
    for one, other, bound in zip(expected, found, bounds, strict=True):
        assert one.shape == other.shape
        assert np.all(np.abs(one - other) <= ROUNDING * bound + 1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(convolutions())
def test_result_and_gradients_are_paddles(drawn) -> None:
    layer, shape, odd = drawn
    x = paddle.randn(shape)
    if odd:  # rows and columns change places, in memory only
        x = paddle.randn([*shape[:-2], shape[-1], shape[-2]]).transpose([*range(len(shape) - 2), -1, -2])
        assert 1 in shape[-2:] or not x.is_contiguous()
    with paddle.no_grad():
        dy = paddle.randn(layer(x).shape)
    require_agreement(layer, x, dy)


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "side"),
    [(3, 64, 3, 40), (1, 32, 3, 17), (64, 2, 1, 33), (48, 16, 3, 31), (256, 128, 3, 8), (24, 24, 5, 20)],
)
def test_the_layers_of_a_u_net_are_paddles(inputs: int, outputs: int, kernel: int, side: int) -> None:
    layer = nn.Conv2D(inputs, outputs, kernel, padding="same")
    require_agreement(layer, paddle.randn([2, inputs, side, side]), paddle.randn([2, outputs, side, side]))


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride", "padding"),
    [
        (1, 16, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
        (4, 16, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
        (16, 24, (3, 3, 3), (2, 2, 2), (1, 1, 1)),
        (16, 6, (5, 3, 3), (1, 2, 2), (2, 1, 1)),
        (8, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
        (8, 8, (3, 3, 3), (1, 1, 1), (2, 0, 1, 1, 1, 1)),
    ],
)
def test_the_layers_of_a_u_net_of_volumes_are_paddles(inputs, outputs, kernel, stride, padding) -> None:
    layer = nn.Conv3D(inputs, outputs, kernel, stride=stride, padding=padding)
    x = paddle.randn([2, inputs, 7, 12, 9])
    # Something larger first: what it leaves in the buffers is not taken for zeros.
    larger = paddle.full([2, inputs, 12, 15, 13], 1e6)
    values_and_gradients(accelerate(copy.deepcopy(layer)), larger)
    with paddle.no_grad():
        dy = paddle.randn(layer(x).shape)
    require_agreement(layer, x, dy)


def test_a_gradient_that_lies_oddly_in_memory_is_taken() -> None:
    plain = nn.Conv2D(4, 4, 3, padding=1)
    dy = paddle.randn([2, 4, 7, 9]).transpose([0, 1, 3, 2])
    assert not dy.is_contiguous()
    require_agreement(plain, paddle.randn([2, 4, 9, 7]), dy)


def test_a_layer_may_be_used_twice() -> None:
    plain = nn.Conv2D(8, 8, 3, padding=1)
    x = paddle.randn([1, 8, 9, 9])

    class Twice(nn.Layer):
        def __init__(self, layer: nn.Layer) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return self.layer(paddle.tanh(self.layer(x)))

    expected = values_and_gradients(Twice(plain), x)
    found = values_and_gradients(accelerate(Twice(copy.deepcopy(plain))), x)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", [("weight",), ("bias",), ("weight", "bias"), ("x",)])
def test_what_is_frozen_gets_no_gradient_and_the_rest_does(frozen: tuple[str, ...]) -> None:
    plain = nn.Conv2D(5, 6, 3)
    fast = accelerate(copy.deepcopy(plain))
    gradients = []
    for layer in (plain, fast):
        x = paddle.ones([1, 5, 8, 8]) * 0.5
        x.stop_gradient = "x" in frozen
        layer.weight.stop_gradient, layer.bias.stop_gradient = "weight" in frozen, "bias" in frozen
        layer(x).sum().backward()
        gradients.append([x.grad, layer.weight.grad, layer.bias.grad])
    for name, one, other in zip(("x", "weight", "bias"), *gradients, strict=True):
        assert (one is None) == (other is None) == (name in frozen)
        if one is not None:
            np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=1e-4, atol=1e-5)


def test_without_gradients_nothing_is_kept() -> None:
    layer = accelerate(nn.Conv2D(3, 4, 3))
    with paddle.no_grad(), computed(Convolution) as seen:
        result = layer(paddle.ones([1, 3, 8, 8]))
    assert seen == ["forward"]
    assert result.stop_gradient


def test_recomputed_layers_give_the_same_gradients() -> None:
    from paddle.distributed.fleet.utils import recompute

    layer = accelerate(nn.Sequential(nn.Conv2D(4, 4, 3), nn.ReLU(), nn.Conv2D(4, 2, 3)))
    x = paddle.randn([1, 4, 12, 12])
    expected = values_and_gradients(layer, x)
    layer.clear_gradients()
    x.stop_gradient = False
    recompute(layer, x).sum().backward()
    for one, other in zip(expected[1:], (x.grad, *(p.grad for p in layer.parameters())), strict=True):
        np.testing.assert_array_equal(one, other.numpy())


def test_the_same_twice_gives_the_same_bits() -> None:
    layer, x = accelerate(nn.Conv2D(16, 24, 3, padding=1)), paddle.randn([2, 16, 33, 31])
    for one, other in zip(values_and_gradients(layer, x), values_and_gradients(layer, x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_do_not_disturb_each_other() -> None:
    plain = [nn.Conv2D(8, 8, 3, padding=1) for _ in range(4)]
    images = [paddle.randn([1, 8, 20 + n, 24]) for n in range(4)]
    fast = [accelerate(copy.deepcopy(layer)) for layer in plain]
    expected = [layer(x).numpy() for layer, x in zip(plain, images, strict=True)]
    wrong: list[int] = []

    def work(number: int) -> None:
        results = [fast[number](images[number]).numpy() for _ in range(40)]
        wrong.extend(number for r in results if not np.allclose(r, expected[number], rtol=1e-4, atol=1e-5))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def ends_well(child: int, within: float) -> bool:
    """Whether the process ends by itself, and with exit code 0."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_on_its_own() -> None:
    layer, x = accelerate(nn.Conv2D(8, 8, 3)), paddle.randn([1, 8, 30, 30])
    expected = layer(x).numpy()
    ended = threading.Event()

    def keep_busy() -> None:
        while not ended.is_set():
            layer(x)

    busy = threading.Thread(target=keep_busy)
    busy.start()  # so that the lock is likely held when the process forks
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(
                    0
                    if np.allclose(layer(x).numpy(), expected, atol=1e-5) and len(runtime().cache) == 1
                    else 1
                )
            assert ends_well(child, within=30)
    finally:
        ended.set()
        busy.join()


def resident_mb() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_memory_stays_flat_with_ever_changing_sizes() -> None:
    layer = accelerate(nn.Conv2D(8, 8, 3, padding=1))

    def work(first: int, count: int) -> None:
        for number in range(first, first + count):
            x = paddle.ones([1, 8, 8 + number % 40, 8 + number // 40 % 40])
            x.stop_gradient = False
            layer(x).sum().backward()
            layer.clear_gradients()

    with patch.object(runtime(), "cache", Cache(8)) as cache:
        work(0, 400)
        before = resident_mb()
        work(400, 1200)
        assert len(cache) == 8
        # unbounded, 1200 sizes were 200 MB
        assert resident_mb() - before < 40


def test_the_cache_keeps_what_was_used_last_and_what_cannot_be_made() -> None:
    cache, made = Cache(2), []

    def make(key: str) -> str:
        made.append(key)
        if key == "bad":
            raise OneDnnError("dnnl_x", 3)
        return key

    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache.get(key, lambda key=key: make(key)) == key
    assert made == ["a", "b", "c", "b"]
    for _ in range(2):
        with pytest.raises(OneDnnError, match="not implemented"):
            cache.get("bad", lambda: make("bad"))
    assert made.count("bad") == 1


def test_what_onednn_refuses_goes_paddles_way() -> None:
    plain = nn.Conv2D(2, 3, 3)
    fast, x = accelerate(copy.deepcopy(plain)), paddle.randn([1, 2, 11, 13])
    with (
        patch.object(runtime(), "cache", Cache(2)),
        patch.object(Convolution, "prepare_backward", side_effect=OneDnnError("dnnl_x", 3)),
    ):
        for one, other in zip(values_and_gradients(plain, x), values_and_gradients(fast, x), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2D(2, 2, 3, padding=1, padding_mode="reflect"), paddle.ones([1, 2, 8, 8])),
        (nn.Conv2D(2, 2, 3, data_format="NHWC"), paddle.ones([1, 8, 8, 2])),
        (nn.Conv2D(2, 2, 3, dtype="float64"), paddle.ones([1, 2, 8, 8], "float64")),
        (nn.Conv2D(2, 2, 3, padding="same", dilation=2), paddle.ones([1, 2, 8, 8])),
        (nn.Conv2DTranspose(2, 2, 3, padding="same"), paddle.ones([1, 2, 8, 8])),
        (nn.Conv2D(2, 2, 3), paddle.ones([0, 2, 8, 8])),
    ],
    ids=["reflect", "NHWC", "float64", "same with dilation", "transposed same", "empty batch"],
)
def test_what_is_not_covered_goes_paddles_way(layer: nn.Layer, x: paddle.Tensor) -> None:
    expected = layer(x).numpy()
    with computed(Convolution) as seen:
        found = accelerate(layer)(x).numpy()
    assert not seen
    np.testing.assert_array_equal(found, expected)


def test_a_size_asked_of_a_transposed_convolution_is_paddles_business() -> None:
    layer, x = nn.Conv2DTranspose(2, 2, 3, stride=2), paddle.ones([1, 2, 5, 5])
    expected = layer(x, output_size=[12, 12])
    assert accelerate(layer)(x, output_size=[12, 12]).shape == expected.shape


def test_a_wrong_image_gets_paddles_own_error() -> None:
    with pytest.raises(ValueError, match="channel"):
        accelerate(nn.Conv2D(3, 4, 3))(paddle.ones([1, 5, 8, 8]))


def test_a_change_in_place_before_the_gradient_is_an_error() -> None:
    layer, x = accelerate(nn.Conv2D(2, 2, 1)), paddle.ones([1, 2, 4, 4])
    result = layer(x)
    x.add_(paddle.ones_like(x))
    with pytest.raises(OSError, match="changed in place"):
        result.sum().backward()


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    layer, x = accelerate(nn.Conv2D(2, 2, 1)), paddle.ones([1, 2, 4, 4])
    x.stop_gradient = False
    with pytest.raises(OSError, match="second derivative"):
        paddle.grad((layer(x) ** 2).sum(), x, create_graph=True)


def test_a_model_stays_what_it_was(tmp_path: Path) -> None:
    paddle.seed(1)
    model = ScalableUNet(2, width=4, depth=1)
    model.eval()
    names, classes = list(model.state_dict()), [type(layer) for layer in model.sublayers()]
    spec = [paddle.static.InputSpec([None, 3, None, None], "float32", "image")]

    def graph(name: str) -> str:
        paddle.jit.save(copy.deepcopy(model), str(tmp_path / name), input_spec=spec)
        # where the numbering of names stands is no part of the computation
        return re.sub(r"_\d+", "", (tmp_path / f"{name}.json").read_text())

    with paddle.utils.unique_name.guard():
        before = graph("before")
    assert accelerate(model) is model
    assert sum(map(is_accelerated, model.sublayers())) == 13  # 7 convolutions, 6 norms
    assert is_accelerated(model)
    assert list(model.state_dict()) == names
    assert [type(layer) for layer in model.sublayers()] == classes
    with paddle.utils.unique_name.guard():
        assert graph("after") == before
    restore(model)
    assert not any(map(is_accelerated, model.sublayers(include_self=True)))


def test_a_copy_computes_with_its_own_weights() -> None:
    layer = accelerate(nn.Conv2D(2, 2, 3))
    twin = copy.deepcopy(layer)
    twin.weight.set_value(paddle.zeros_like(twin.weight))
    x = paddle.ones([1, 2, 5, 5])
    with computed(Convolution) as seen:
        assert float(twin(x).abs().max()) == 0
        assert float(layer(x).abs().max()) > 0
    assert len(seen) == 2


def test_a_layer_with_its_own_forward_is_left_alone() -> None:
    class Doubled(nn.Conv2D):
        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return 2 * super().forward(x)

    model = accelerate(nn.Sequential(Doubled(2, 2, 3)))
    assert not is_accelerated(model[0])


@pytest.mark.parametrize("version", [(2, 7, 0), (3, 7, 0), (4, 0, 0)])
def test_a_version_that_was_not_tested_is_not_used(version, monkeypatch) -> None:
    monkeypatch.setattr(library, "KNOWN_VERSIONS", frozenset({version}))
    with pytest.raises(Unavailable, match="has not been tested"):
        library.Library(library.library_path())


def test_a_missing_library_or_processor_is_a_reason(monkeypatch, tmp_path) -> None:
    with pytest.raises(Unavailable, match="cannot be loaded"):
        library.Library(tmp_path / "libdnnl.so.3")
    (tmp_path / "libdnnl.so.3").write_bytes(b"no library")
    with pytest.raises(Unavailable, match="cannot be loaded"):
        library.Library(tmp_path / "libdnnl.so.3")
    with pytest.raises(Unavailable, match="cannot be loaded"):  # a library, but another one
        library.Library(Path(ctypes.util.find_library("m") or "libm.so.6"))
    monkeypatch.setattr(library, "_FILE", "libs/none.so")
    with pytest.raises(Unavailable, match=r"brings no libs/none\.so"):
        library.library_path()
    monkeypatch.setattr(library.platform, "machine", lambda: "aarch64")
    with pytest.raises(Unavailable, match="aarch64"):
        library.library_path()


class Upwards(nn.Layer):
    """Interpolates as told."""

    def __init__(self, **how) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.interpolate(x, **{"mode": "bilinear", **self.how})


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 19), st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from(["factor", "factors", "size", "tensor"]),
)
def test_interpolation_and_its_gradient_are_paddles(shape: tuple[int, ...], said: str) -> None:
    x, (height, width) = paddle.randn(shape), shape[2:]
    how = {
        "factor": {"scale_factor": 2},
        "factors": {"scale_factor": [2.0, 2.0]},
        "size": {"size": [2 * height, 2 * width]},
        "tensor": {"size": paddle.to_tensor([2 * height, 2 * width])},
    }[said]
    dy = paddle.randn([*shape[:2], 2 * height, 2 * width])
    expected = values_and_gradients(Upwards(**how), x, dy)
    with computed(Doubling) as seen:
        found = values_and_gradients(accelerate(Upwards(**how)), x, dy)
    assert seen == ["forward", "backward"]
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "how",
    [
        {"size": [9, 8]},
        {"scale_factor": 3},
        {"scale_factor": 2, "align_corners": True},
        {"scale_factor": 2, "align_mode": 1},
        {"scale_factor": 2, "mode": "nearest"},
        {"scale_factor": 2, "mode": "bicubic"},
        {"scale_factor": 2, "data_format": "NHWC"},
    ],
    ids=str,
)
def test_other_interpolation_is_paddles_business(how: dict) -> None:
    x = paddle.randn([1, 4, 4, 4])
    with computed(Doubling) as seen:
        found = accelerate(Upwards(**how))(x)
    assert not seen
    np.testing.assert_array_equal(found.numpy(), Upwards(**how)(x).numpy())


def test_interpolation_outside_an_accelerated_model_is_paddles() -> None:
    accelerate(Upwards(scale_factor=2))(paddle.ones([1, 2, 3, 3]))
    with computed(Doubling) as seen:
        Upwards(scale_factor=2)(paddle.ones([1, 2, 3, 3]))
    assert not seen


@pytest.mark.parametrize(
    "name", ["UNet", "AttentionUNet", "UNetPlusPlus", "UNet3Plus", "ScalableUNet", "SimpleUNet"]
)
def test_every_model_of_ours_learns_the_same(name: str) -> None:
    paddle.seed(3)
    plain = manager.MODELS[name](num_classes=2, in_channels=3)
    fast = accelerate(copy.deepcopy(plain))
    x, y = paddle.randn([1, 3, 32, 32]), paddle.randint(0, 2, [1, 32, 32])
    gradients = []
    for model in (plain, fast):
        model.eval()  # normalisation with one image at 2 x 2 pixels would magnify rounding
        loss = sum(F.cross_entropy(o.transpose([0, 2, 3, 1]), y) for o in model(x))
        loss.backward()
        gradients.append({n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for parameter, one in gradients[0].items():
        difference = np.linalg.norm(gradients[1][parameter] - one)
        # two pixels that differ by rounding may change places in max pooling
        assert difference <= 1e-2 * np.linalg.norm(one) + 1e-6, parameter


def test_ten_thousand_steps_leave_memory_as_it_was() -> None:
    layer = accelerate(nn.Sequential(nn.Conv2D(4, 4, 3, padding=1), Upwards(scale_factor=2)))
    x = paddle.ones([1, 4, 8, 8])
    x.stop_gradient = False

    def work(steps: int) -> None:
        for _ in range(steps):
            layer(x).sum().backward()
            layer.clear_gradients()
            x.clear_gradient()

    work(500)
    before = resident_mb()
    work(10_000)
    assert resident_mb() - before < 8


PARALLEL = """
import json, sys
import numpy as np
import paddle
from paddle import nn
from medseg_paddle.engine.onednn import accelerate

paddle.set_device("cpu")
paddle.distributed.init_parallel_env()
paddle.seed(5)
model = nn.Sequential(nn.Conv2D(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2D(8, 2, 3))
if sys.argv[2] == "onednn":
    accelerate(model)
parallel = paddle.DataParallel(model)
optimizer = paddle.optimizer.Momentum(0.05, parameters=model.parameters())
rank = paddle.distributed.get_rank()
x = paddle.to_tensor(np.random.default_rng(rank).standard_normal((2, 3, 12, 12)).astype("float32"))
for _ in range(3):
    (parallel(x) ** 2).mean().backward()
    optimizer.step()
    optimizer.clear_grad()
if rank == 0:
    np.savez(sys.argv[1], *(p.numpy() for p in model.parameters()))
"""


def test_two_processes_learn_together(tmp_path: Path) -> None:
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    learned = []
    for kernels in ("paddle", "onednn"):
        command = [
            sys.executable,
            "-m",
            "paddle.distributed.launch",
            "--nproc_per_node",
            "2",
            "--backend",
            "gloo",
        ]
        command += [
            "--log_dir",
            str(tmp_path / "log"),
            str(script),
            str(tmp_path / f"{kernels}.npz"),
            kernels,
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        with np.load(tmp_path / f"{kernels}.npz") as saved:
            learned.append([saved[name] for name in saved.files])
    for one, other in zip(*learned, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)
