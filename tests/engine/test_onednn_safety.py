"""oneDNN where it must not be trusted, and what it must not leave behind."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from unittest.mock import patch

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from medseg_paddle.engine.onednn import Unavailable, accelerate, library
from medseg_paddle.engine.onednn.convolution import Convolution
from medseg_paddle.engine.onednn.library import OneDnnError
from medseg_paddle.engine.onednn.normalization import Normalization
from medseg_paddle.engine.onednn.runtime import Cache, Workspace, runtime
from medseg_paddle.engine.onednn.trial import require_right_results

try:
    library.load()
except Unavailable as reason:
    pytest.skip(f"no oneDNN here: {reason}", allow_module_level=True)

GRADIENT = """
from medseg_paddle.engine import cpu
cpu.apply_defaults(2)
import copy, numpy, paddle
from medseg_paddle.engine.cpu_kernels import use_cpu_kernels
for make, shape in (
    (lambda: paddle.nn.Conv2D(16, 16, 3, padding=1), [4, 16, 24, 24]),
    (lambda: paddle.nn.Conv2D(4, 8, 1, stride=2), [8, 4, 32, 32]),
):
    layer = make()
    other = copy.deepcopy(layer)
    said = use_cpu_kernels(other, "auto", "cpu")
    x = paddle.randn(shape)
    for one in (layer, other):
        (one(x) ** 2).sum().backward()
    a, b = layer.weight.grad.numpy(), other.weight.grad.numpy()
    assert abs(a - b).max() <= 1e-4 * abs(a).max(), "wrong gradient"
print(said)
"""


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"OMP_THREAD_LIMIT": "1"}, "oneDNN 3"),
        ({"OMP_DYNAMIC": "true"}, "oneDNN 3"),
        ({"OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "2"}, "grants 1 of 2 threads"),
    ],
)
def test_fewer_threads_than_promised_spoil_no_gradient(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", GRADIENT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.parametrize("spoiled", ["dx", "dw"])
def test_a_machine_where_it_computes_wrongly_is_not_trusted(spoiled: str) -> None:
    backward = Convolution.backward

    def wrong(self, *arguments, **named):
        backward(self, *arguments, **named)
        np.ctypeslib.as_array((library.ctypes.c_float * 1).from_address(named[spoiled]))[0] += 1e6

    require_right_results.cache_clear()
    try:
        with patch.object(Convolution, "backward", wrong), pytest.raises(Unavailable, match="wrongly"):
            accelerate(nn.Conv2D(1, 1, 3))
    finally:
        require_right_results.cache_clear()
    accelerate(nn.Conv2D(1, 1, 3))


@pytest.mark.parametrize(
    "spoiled", [3, 5, 6], ids=["result", "gradient of the image", "gradient of the scale"]
)
def test_a_machine_where_norms_are_wrong_is_not_trusted(spoiled: int) -> None:
    name = "forward" if spoiled == 3 else "backward"
    right = getattr(Normalization, name)

    def wrong(self, *addresses):
        right(self, *addresses)
        np.ctypeslib.as_array((library.ctypes.c_float * 1).from_address(addresses[spoiled]))[0] += 1e3

    require_right_results.cache_clear()
    try:
        with patch.object(Normalization, name, wrong), pytest.raises(Unavailable, match="a norm wrongly"):
            accelerate(nn.BatchNorm2D(1))
    finally:
        require_right_results.cache_clear()


def test_trials_leave_the_random_numbers_of_a_training_alone() -> None:
    drawn = []
    for tried in (False, True):
        paddle.seed(5)
        if tried:
            require_right_results.cache_clear()
            require_right_results()
        drawn.append(paddle.randn([3]).numpy())
    np.testing.assert_array_equal(*drawn)


def test_a_refusal_keeps_nothing_alive() -> None:
    cache, depths = Cache(2), []

    def refuse() -> None:
        raise OneDnnError("dnnl_x", 3)

    for _ in range(3):
        with pytest.raises(OneDnnError) as caught:
            cache.get("key", refuse)
        depths.append(len(list(caught.traceback)))
    assert depths[1] == depths[2] <= depths[0]


def test_a_shortage_of_memory_is_not_remembered() -> None:
    cache, answers = Cache(2), iter([OneDnnError("dnnl_x", 1), "made"])

    def make() -> str:
        answer = next(answers)
        if isinstance(answer, OneDnnError):
            raise answer
        return answer

    with pytest.raises(OneDnnError, match="out of memory"):
        cache.get("key", make)
    assert cache.get("key", make) == "made"


def test_the_room_of_a_few_large_images_is_given_back() -> None:
    workspace = Workspace(patience=10)
    sizes = [1000, 2000, 4000]
    for large in (1 << 20, 1 << 21):
        workspace.address("in", large)
        for use in range(25):
            workspace.tidy()
            workspace.address("in", sizes[use % 3])
        assert workspace.held_bytes == 4000
    before = workspace.address("in", 4000)
    for use in range(30):
        workspace.tidy()
        assert workspace.address("in", sizes[use % 3]) == before


def test_room_is_given_back_between_operations_and_never_amid_one() -> None:
    plain = [nn.Conv2D(3, 17, 3, padding=1), nn.Conv2DTranspose(3, 17, 2, stride=2)]
    fast = [accelerate(copy.deepcopy(layer)) for layer in plain]
    with (
        patch.object(runtime(), "workspace", Workspace(patience=1)) as workspace,
        patch.object(runtime(), "cache", Cache(64)),
    ):
        for size in (40, 9, 40, 8, 7, 30):
            x = paddle.randn([2, 3, size, size])
            for one, other in zip(plain, fast, strict=True):
                for a, b in zip(gradients(one, x), gradients(other, x), strict=True):
                    np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-3 * abs(a).max())
        assert workspace.held_bytes > 0


def gradients(layer: nn.Layer, x: paddle.Tensor) -> list[np.ndarray]:
    layer.clear_gradients()
    x = x.detach()
    x.stop_gradient = False
    (layer(x) ** 2).sum().backward()
    return [x.grad.numpy(), *(p.grad.numpy() for p in layer.parameters())]


def test_gradients_in_several_threads_do_not_disturb_each_other() -> None:
    plain = [nn.Conv2D(8, 8, 3, padding=1) for _ in range(3)]
    images = [paddle.randn([2, 8, 20 + n, 24]) for n in range(3)]
    fast = [accelerate(copy.deepcopy(layer)) for layer in plain]
    expected = [gradients(layer, x) for layer, x in zip(plain, images, strict=True)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            found = gradients(fast[number], images[number])
            if not all(
                np.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(found, expected[number], strict=True)
            ):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("shape", [[8], [1]])
def test_a_bias_of_another_kind_is_paddles_business(shape: list[int]) -> None:
    plain = nn.Conv2D(2, 4, 3)
    bias = paddle.arange(shape[0], dtype="float32")
    del plain.bias
    plain.bias = bias[::2] if shape == [8] else bias
    x = paddle.randn([1, 2, 6, 6])
    expected = plain(x).numpy()
    np.testing.assert_allclose(accelerate(plain)(x).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [[], ["weight", "bias"], ["x"]])
def test_hooks_on_what_is_kept_for_the_gradient_get_tensors(frozen: list[str]) -> None:
    layer, x = accelerate(nn.Conv2D(2, 3, 3)), paddle.randn([1, 2, 6, 6])
    x.stop_gradient = "x" in frozen
    for name in set(frozen) - {"x"}:
        getattr(layer, name).stop_gradient = True
    y = layer(x)
    (y * 1).sum().backward()
    expected = [t.grad.numpy() for t in (x, layer.weight) if not t.stop_gradient]
    for tensor in (x, layer.weight):
        tensor.clear_gradient(False)
    with paddle.autograd.saved_tensors_hooks(lambda t: t.numpy(), paddle.to_tensor):
        y = layer(x)
    y.sum().backward()
    found = [t.grad.numpy() for t in (x, layer.weight) if not t.stop_gradient]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_an_interpolation_without_a_size_gets_paddles_own_error() -> None:
    class Wrong(nn.Layer):
        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return F.interpolate(x, mode="bilinear")

    with pytest.raises(ValueError, match="scale"):
        accelerate(Wrong())(paddle.ones([1, 1, 4, 4]))
