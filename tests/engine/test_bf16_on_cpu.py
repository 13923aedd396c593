"""`precision: bf16` on a CPU: factors of a convolution are rounded, all else is float32."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from paddle import nn

from medseg_paddle.engine.cpu_kernels import can_train_in_bf16, use_cpu_kernels
from medseg_paddle.engine.onednn import accelerate, library
from medseg_paddle.engine.onednn.convolution import Convolution
from medseg_paddle.errors import SetupError
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train
from tests.engine.onednn_calls import computed, convolutions, values_and_gradients

try:
    HERE = library.load().gains_by_bf16
except library.Unavailable:
    HERE = False
needs_bf16 = pytest.mark.skipif(not HERE, reason="this processor does not multiply matrices in bf16 (AMX)")


def rounded(values: paddle.Tensor) -> paddle.Tensor:
    """To 8 binary digits, to the nearest and halves to even; by numpy, from IEEE 754."""
    bits = values.numpy().view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return paddle.to_tensor(nearest.astype(np.uint32).view(np.float32))


def with_rounded_weights(layer: nn.Layer) -> nn.Layer:
    layer = copy.deepcopy(layer)
    layer.weight.set_value(rounded(layer.weight))
    return layer


@needs_bf16
@settings(max_examples=150, deadline=None, derandomize=True)
@given(convolutions())
def test_what_is_multiplied_is_rounded_and_nothing_else(drawn) -> None:
    plain, shape, _ = drawn
    layer, x = accelerate(copy.deepcopy(plain), bf16=True), paddle.randn(shape)
    with paddle.no_grad():
        dy = paddle.randn(plain(x).shape)
    with computed(Convolution) as seen:
        found = values_and_gradients(layer, x, dy)
    assert seen == ["forward", "backward"]
    reference = with_rounded_weights(plain)
    expected = values_and_gradients(reference, rounded(x), rounded(dy))
    for parameter in reference.parameters():
        parameter.set_value(parameter.abs())
    bounds = values_and_gradients(reference, x.abs(), dy.abs())
    for one, other, bound in zip(expected, found, bounds, strict=True):
        assert one.shape == other.shape
        assert np.all(np.abs(one - other) <= 4e-6 * bound + 1e-12)


@needs_bf16
def test_a_layer_that_does_not_train_computes_in_float32() -> None:
    plain, x = nn.Conv2D(16, 16, 3), paddle.randn([2, 16, 20, 20])
    expected = accelerate(copy.deepcopy(plain))(x).numpy()
    layer = accelerate(copy.deepcopy(plain), bf16=True)
    assert (layer(x).numpy() != expected).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), expected)
    copied = copy.deepcopy(layer)
    np.testing.assert_array_equal(copied(x).numpy(), expected)


def learned(run: Run) -> dict[str, np.ndarray]:
    return paddle.load(str(run.weights_in(run.last_checkpoint)), return_numpy=True)


@needs_bf16
def test_a_training_in_bf16_is_scored_in_float32_and_resumed_to_the_bit(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    schedule = "lr_scheduler={type: StepDecay, learning_rate: 0.001, step_size: 100}"
    changes = ["save_interval=2", "model_graph=false", schedule]

    def trained(name: str, *overrides: str, resume: bool = False) -> Run:
        return train(
            disc_recipe_file, output=tmp_path / name, overrides=[*changes, *overrides], resume=resume
        )

    whole = trained("whole", "precision=bf16", "iters=4")
    assert "convolutions by oneDNN 3.6.2 in bf16" in whole.log.read_text()
    trained("halves", "precision=bf16", "iters=2")
    halves = trained("halves", "precision=bf16", "iters=4", resume=True)
    exact = trained("exact", "iters=4")
    for name, value in learned(whole).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(learned(halves)[name], value, err_msg=name)
        np.testing.assert_allclose(learned(exact)[name], value, atol=0.02, err_msg=name)
    assert any((learned(exact)[name] != value).any() for name, value in learned(whole).items())

    again = evaluate(whole.path, split="val", checkpoint="last")
    assert again.mean_foreground_dice == pytest.approx(whole.history()[-1]["score"], abs=1e-9)


@needs_bf16
@pytest.mark.parametrize(
    ("override", "words"),
    [("cpu_kernels=paddle", "bf16 with cpu_kernels: paddle"), ("amp_level=O2", "amp_level O2 on a CPU")],
)
def test_what_would_not_be_bf16_is_refused(
    disc_recipe_file: Path, tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(SetupError, match=words):
        train(disc_recipe_file, output=tmp_path / "run", overrides=["precision=bf16", override])
    assert not (tmp_path / "run").exists()


def test_a_processor_that_gains_nothing_is_refused_before_anything_is_done(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    words = ["train", "--config", disc_recipe_file, "--output", tmp_path / "run", "--set", "precision=bf16"]
    ended = subprocess.run(
        [sys.executable, "-m", "medseg_paddle", *map(str, words)],
        check=False,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = " ".join((ended.stdout + ended.stderr).split())
    assert ended.returncode == 5, said
    assert "precision bf16 on a CPU cannot be had: this processor does not multiply matrices in bf16" in said
    assert "precision: fp32" in said
    assert not (tmp_path / "run").exists()


def test_a_gpu_is_not_this_modules_business() -> None:
    assert use_cpu_kernels(nn.Conv2D(1, 1, 3), "auto", "gpu:0", bf16=True) == ""
    assert not can_train_in_bf16("gpu:0")
    assert can_train_in_bf16("cpu") is HERE
