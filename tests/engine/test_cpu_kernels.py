"""The recipe's `cpu_kernels`: a training learns the same, whoever computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from medseg_paddle.engine.cpu_kernels import use_cpu_kernels
from medseg_paddle.engine.onednn import is_accelerated, library
from medseg_paddle.errors import SetupError
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.train import train

try:
    library.load()
    HERE = True
except library.Unavailable:
    HERE = False
needs_onednn = pytest.mark.skipif(not HERE, reason="no oneDNN that can be used here")


@pytest.fixture
def without_onednn(monkeypatch: pytest.MonkeyPatch):
    """As on a machine whose Paddle brings a oneDNN that was never tested."""
    monkeypatch.setattr(library, "_FILE", "libs/none.so")
    from medseg_paddle.engine.onednn.runtime import runtime

    runtime.cache_clear()
    yield
    runtime.cache_clear()


def learned(run: Run) -> dict[str, np.ndarray]:
    state = paddle.load(str(run.weights_in(run.last_checkpoint)), return_numpy=True)
    return {name: value for name, value in state.items() if "_mean" not in name and "_variance" not in name}


@needs_onednn
def test_a_training_learns_the_same_with_either(disc_recipe_file: Path, tmp_path: Path) -> None:
    changes = ["iters=3", "save_interval=3", "model_graph=false", "lr_scheduler.learning_rate=0.001"]
    runs = {}
    for name, kernels in (("paddle", "paddle"), ("onednn", "onednn"), ("again", "auto")):
        runs[name] = train(
            disc_recipe_file, output=tmp_path / name, overrides=[*changes, f"cpu_kernels={kernels}"]
        )
    weights = {name: learned(run) for name, run in runs.items()}
    assert weights["paddle"].keys() == weights["onednn"].keys()
    for name, one in weights["paddle"].items():
        np.testing.assert_allclose(weights["onednn"][name], one, rtol=0, atol=2e-4, err_msg=name)
        np.testing.assert_array_equal(weights["again"][name], weights["onednn"][name])
    assert any((weights["paddle"][name] != weights["onednn"][name]).any() for name in weights["paddle"])
    assert "convolutions by Paddle\n" in runs["paddle"].log.read_text()
    assert "convolutions by oneDNN 3" in runs["onednn"].log.read_text()

    scores = [
        evaluate(tmp_path / "onednn", split="val", overrides=[f"cpu_kernels={kernels}"]).mean_foreground_dice
        for kernels in ("paddle", "onednn")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_where_there_is_none_a_training_says_so_once_and_goes_paddles_way(
    disc_recipe_file: Path, tmp_path: Path, without_onednn, capsys: pytest.CaptureFixture
) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=2", "model_graph=false"])
    assert run.last_checkpoint is not None
    output = capsys.readouterr()
    assert (output.out + output.err).count("brings no libs/none.so") == 1
    assert "convolutions by Paddle (this Paddle brings no libs/none.so)" in run.log.read_text()


def test_what_is_asked_for_and_not_there_is_an_error(without_onednn) -> None:
    with pytest.raises(SetupError, match="cpu_kernels: onednn cannot be had") as caught:
        use_cpu_kernels(nn.Conv2D(1, 1, 3), "onednn", "cpu")
    assert "cpu_kernels: auto" in (caught.value.hint or "")


@needs_onednn
@pytest.mark.parametrize(
    ("choice", "device", "expected"),
    [("auto", "cpu", True), ("onednn", "cpu", True), ("paddle", "cpu", False), ("onednn", "gpu:0", False)],
)
def test_who_computes(choice: str, device: str, expected: bool) -> None:
    layer = nn.Conv2D(1, 1, 3)
    said = use_cpu_kernels(layer, choice, device)
    assert is_accelerated(layer) is expected
    assert said == ("" if device != "cpu" else f"oneDNN {library.version()}" if expected else "Paddle")
