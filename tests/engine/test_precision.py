"""Mixed precision: what can be tried without a GPU."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from medseg_paddle.config import load_recipe
from medseg_paddle.engine import device, precision
from medseg_paddle.engine.models import ScalableUNet
from medseg_paddle.engine.precision import LossScaler, MixedPrecision, mixed_precision, training_in_bf16
from medseg_paddle.errors import RecipeError
from medseg_paddle.steps.train import train


class Scaler(paddle.amp.GradScaler):
    """Paddle's own, which switches itself off where there is no GPU, with the state it would have on one."""

    def __init__(self, init_loss_scaling: float = 65536.0) -> None:
        super().__init__(init_loss_scaling=init_loss_scaling)
        self._enable, self._use_dynamic_loss_scaling = True, True
        self._scale = paddle.full([1], init_loss_scaling)
        self._incr_ratio, self._decr_ratio = 2.0, 0.5
        self._incr_every_n_steps, self._decr_every_n_nan_or_inf = 2000, 1
        self._incr_count, self._decr_count = 0, 0


def test_the_state_of_a_loss_scaler_is_taken_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_GradScaler", Scaler)
    first = LossScaler()
    scaler = first.make(init_loss_scaling=1024)
    scaler._scale = paddle.full([1], 256.0)
    scaler._incr_count = 7
    saved = pickle.loads(pickle.dumps(first.state_dict()))  # noqa: S301
    np.testing.assert_array_equal(saved["scale"], [256.0])

    second = LossScaler()
    second.set_state_dict(saved)
    assert second.state_dict() == saved, "stopped again before the first iteration"
    again = second.make(init_loss_scaling=1024)
    assert float(again._scale) == 256
    assert again._incr_count == 7
    other = LossScaler().make(init_loss_scaling=1024)
    assert float(other._scale) == 1024


def test_train_takes_the_scaler_from_a_checkpoint(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make(**options: Any) -> Scaler:
        made.append(Scaler(**options))
        return made[-1]

    monkeypatch.setattr(precision, "_GradScaler", make)
    monkeypatch.setattr(device, "set_device", lambda *_, **__: "cpu")
    # It scales no loss here, and its methods do nothing; only the state is looked at.
    for name in ("scale", "minimize"):
        monkeypatch.setattr(Scaler, name, getattr(DoesNothing, name))
    overrides = ["precision=fp16", "save_interval=3"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=3"])
    state = run.checkpoints / "iter_3" / "model.pdstate"
    assert pickle.loads(state.read_bytes())["scaler"]["scale"] == 1024 * 2**3  # noqa: S301
    train(disc_recipe_file, output=tmp_path / "run", overrides=[*overrides, "iters=5"], resume=True)
    assert [float(scaler._scale) for scaler in made] == [1024 * 2**3, 1024 * 2**5]


class DoesNothing:
    """What a scaler does that finds no overflow and doubles its scale each time."""

    def scale(self: Any, loss: paddle.Tensor) -> paddle.Tensor:
        return loss

    def minimize(self: Any, optimizer: Any, _loss: paddle.Tensor) -> None:
        optimizer.step()
        self._scale = self._scale * 2


def test_bf16_is_entered_whenever_the_network_computes(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[tuple[str, str]] = []
    inside: list[bool] = []
    forward = ScalableUNet.forward

    @contextlib.contextmanager
    def noted(enable: bool = True, level: str = "O1", dtype: str = "float16", **_: Any) -> Iterator[None]:
        if enable:
            entered.append((level, dtype))
        yield
        if enable:
            entered.pop()

    def looked_at(self: ScalableUNet, x: paddle.Tensor) -> Any:
        inside.append(entered[-1:] == [("O1", "bfloat16")])
        return forward(self, x)

    monkeypatch.setattr(paddle.amp, "auto_cast", noted)
    monkeypatch.setattr(ScalableUNet, "forward", looked_at)
    monkeypatch.setattr(device, "set_device", lambda *_, **__: "gpu:0")
    model = "model={type: ScalableUNet, width: 4, depth: 2}"
    overrides = ["precision=bf16", "iters=2", "use_ema=true", "cpu_kernels=paddle", model]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=overrides)
    assert inside == [True] * (2 + 3 + 3)  # two iterations; three images, by the model and by its average
    assert entered == []
    state = paddle.load(str(run.weights_in(run.checkpoint_at(2))))
    assert all(value.dtype == paddle.float32 for value in state.values())


def test_a_model_in_bf16_is_as_it_was_afterwards() -> None:
    model = paddle.nn.Linear(2, 1)
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    images = paddle.ones([1, 2])
    before = model(images)
    with training_in_bf16(model, optimizer, MixedPrecision("bfloat16", "O1")):
        assert model(images).shape == before.shape
    np.testing.assert_array_equal(model(images).numpy(), before.numpy())
    for mixed in (None, MixedPrecision("float16", "O1")):
        with training_in_bf16(model, optimizer, mixed):
            np.testing.assert_array_equal(model(images).numpy(), before.numpy())


def test_a_recipe_says_its_precision(disc_recipe_file: Path) -> None:
    def of(*overrides: str, device: str = "gpu:0") -> MixedPrecision | None:
        return mixed_precision(load_recipe(disc_recipe_file, overrides), device)

    assert of() is None
    assert of("precision=fp16", "amp_level=O2") == MixedPrecision("float16", "O2")
    assert of("precision=bf16") == MixedPrecision("bfloat16", "O1")
    assert of("precision=bf16", device="cpu") is None, "convolutions see to it there"
    with pytest.raises(RecipeError, match="bf16 with to_static_training"):
        of("precision=bf16", "to_static_training=true")
