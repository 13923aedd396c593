"""The networks that see volumes: sizes, structure, what learns, and what else is done with a network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from medseg_paddle.config import load_recipe
from medseg_paddle.config.initialise import Freeze, Initialise
from medseg_paddle.config.networks_3d import UNet3D as UNet3DSpec
from medseg_paddle.engine.freezing import Freezing
from medseg_paddle.engine.initialise import initialise
from medseg_paddle.engine.losses.build import MixedLoss
from medseg_paddle.engine.losses.overlap import DiceLoss
from medseg_paddle.engine.losses.pixels import CrossEntropyLoss
from medseg_paddle.engine.models import ForwardFunction, build_network
from medseg_paddle.engine.networks_3d import AttentionUNet3D, ResUNet3D, UNet3D
from medseg_paddle.engine.onednn import Unavailable, accelerate
from medseg_paddle.engine.recomputation import checkpoint_blocks
from medseg_paddle.engine.static_graph import load_static, save_static

KINDS = [UNet3D, ResUNet3D, AttentionUNet3D]
FLAT = {"strides": ((1, 2, 2), (1, 2, 2)), "kernels": ((1, 3, 3),) * 3}
SMALL: dict[str, Any] = {"width": 4, "depth": 2}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[nn.Layer]:
    paddle.seed(1)
    return request.param


def volume(*shape: int, seed: int = 0) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def gradients(model: nn.Layer, x: paddle.Tensor) -> dict[str, np.ndarray]:
    model.clear_gradients()
    sum((output**2).mean() for output in model(x)).backward()
    return {name: value.grad.numpy() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("shape", [{}, FLAT, {"norm": "batch", "max_width": 6}], ids=["", "flat", "batch"])
@pytest.mark.parametrize("size", [(8, 12, 16), (5, 9, 7)], ids=["even", "odd"])
def test_logits_have_the_size_of_the_volume(kind: type[nn.Layer], shape: dict, size: tuple[int, ...]) -> None:
    model = kind(3, 2, **SMALL, **shape)
    assert [y.shape for y in model(volume(2, 2, *size))] == [[2, 3, *size]]
    assert (
        model.encode(volume(1, 2, *size))[-1].shape[1]
        == model.bottom_channels
        == min(16, shape.get("max_width", 16))
    )


def test_lower_levels_give_logits_of_their_own_size_while_the_network_trains(kind: type[nn.Layer]) -> None:
    model = kind(3, 1, width=4, depth=3, deep_supervision=2, strides=((1, 2, 2), (2, 2, 2), (2, 2, 2)))
    model.train()
    assert [y.shape[2:] for y in model(volume(1, 1, 5, 16, 8))] == [[5, 16, 8], [5, 8, 4], [3, 4, 2]]
    model.eval()
    assert [y.shape[2:] for y in model(volume(1, 1, 5, 16, 8))] == [[5, 16, 8]]


def test_every_parameter_learns(kind: type[nn.Layer]) -> None:
    model = kind(2, 1, width=4, depth=3, deep_supervision=2)
    found = gradients(model, volume(1, 1, 16, 16, 8))
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert all(np.abs(slope).max() > 0 for slope in found.values())


def test_flat_kernels_and_strides_never_mix_slices(kind: type[nn.Layer]) -> None:
    model = kind(2, 1, **SMALL, norm="batch", **FLAT)
    model.eval()  # the norms look at no slice
    one, other = volume(1, 1, 4, 8, 8).numpy(), volume(1, 1, 4, 8, 8, seed=1).numpy()
    other[:, :, 2] = one[:, :, 2]
    first, second = (model(paddle.to_tensor(x))[0].numpy() for x in (one, other))
    np.testing.assert_allclose(first[:, :, 2], second[:, :, 2], atol=1e-6)
    assert np.abs(first[:, :, 1] - second[:, :, 1]).max() > 1e-2


def test_instance_norms_make_the_scale_of_intensities_irrelevant(kind: type[nn.Layer]) -> None:
    model, x = kind(2, 1, **SMALL), volume(1, 1, 8, 8, 8)
    if kind is AttentionUNet3D:  # the gates see features behind a norm too
        assert model.up[0].gate is not None
        assert model.up[-1].gate is None
    np.testing.assert_allclose(model(x)[0].numpy(), model(1000 * x)[0].numpy(), rtol=0.02, atol=2e-3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # per level two convolutions of 27 voxels and two norms; transposed convolutions of 8 voxels with a bias
        (
            UNet3D,
            [27 * 2 * 4 + 27 * 4 * 4 + 16, 27 * 4 * 8 + 27 * 8 * 8 + 32,
             8 * 8 * 4 + 4, 27 * 8 * 4 + 27 * 4 * 4 + 16],
        ),
        # the stem and a block; three blocks, the first beside 1 x 1 x 1 and a norm; one convolution on the way up
        (
            ResUNet3D,
            [27 * 2 * 4 + 8 + 2 * (27 * 4 * 4 + 8),
             27 * 4 * 8 + 5 * 27 * 8 * 8 + 6 * 16 + 4 * 8 + 16, 8 * 8 * 4 + 4, 27 * 8 * 4 + 8],
        ),
    ],
)  # fmt: skip
def test_layers_are_those_of_nnu_net(kind: type[nn.Layer], expected: list[int]) -> None:
    model = kind(3, 2, width=4, depth=1)
    head = 4 * 3 + 3
    assert sum(int(value.size) for value in model.parameters()) == sum(expected) + head


def test_weights_begin_as_he_and_nnu_net_draw_them() -> None:
    paddle.seed(0)
    model = UNet3D(2, 16, width=32, depth=1)
    for layer, fan_in in ((model.down[0][0], 27 * 16), (model.up[0].enlarge, 8 * 32)):
        deviation = np.sqrt(2 / (1 + 0.01**2) / fan_in)
        assert layer.weight.numpy().std() == pytest.approx(deviation, rel=0.03)
    assert not model.up[0].enlarge.bias.numpy().any()


def test_a_residual_block_without_its_convolutions_is_the_way_past_them() -> None:
    model = ResUNet3D(2, 1, width=4, depth=1, blocks=(2, 1))
    block, x = model.down[0][2], volume(1, 4, 4, 4, 4)
    block.second[1].scale.set_value(paddle.zeros([4]))
    np.testing.assert_allclose(block(x).numpy(), np.where(x.numpy() > 0, 1, 0.01) * x.numpy(), atol=1e-6)
    lower = model.down[1][0]
    lower.second[1].scale.set_value(paddle.zeros([8]))
    found = lower(volume(1, 4, 5, 4, 4))
    means = F.avg_pool3d(volume(1, 4, 5, 4, 4)[:, :, :4], 2, 2)
    last = volume(1, 4, 5, 4, 4)[:, :, 4:].reshape([1, 4, 1, 2, 2, 2, 2]).mean([4, 6])
    expected = F.leaky_relu(lower.widen(paddle.concat([means, last], axis=2)), 0.01)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


def test_an_attention_gate_is_the_formula() -> None:
    paddle.seed(2)
    gate = AttentionUNet3D(2, 1, **SMALL).up[0].gate
    skip, below = volume(1, 8, 4, 4, 4), volume(1, 16, 2, 2, 2, seed=1)
    of_skip, of_below, weigh = (
        getattr(gate, name).weight.numpy()[:, :, 0, 0, 0] for name in ("of_skip", "of_below", "weigh")
    )
    both = np.einsum("oc,ncdhw->nodhw", of_skip, skip.numpy()[:, :, ::2, ::2, ::2])
    both = np.maximum(both + np.einsum("oc,ncdhw->nodhw", of_below, below.numpy()), 0)
    weights = 1 / (1 + np.exp(-np.einsum("oc,ncdhw->nodhw", weigh, both)))
    larger = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])  # centres on centres
    weights = np.einsum("ia,jb,kc,noabc->noijk", larger, larger, larger, weights)
    expected = gate.out(paddle.to_tensor((skip.numpy() * weights).astype(np.float32)))
    np.testing.assert_allclose(gate(skip, below).numpy(), expected.numpy(), atol=1e-4)


def test_onednn_computes_the_same(kind: type[nn.Layer]) -> None:
    model = kind(3, 4, **SMALL, deep_supervision=1)
    x = volume(2, 4, 8, 12, 8)
    try:
        fast = accelerate(copy.deepcopy(model))
    except Unavailable as reason:
        pytest.skip(str(reason))
    for one, other in zip(model(x), fast(x), strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-4)
    slopes = gradients(model, x)
    for name, slope in gradients(fast, x).items():
        assert np.abs(slope - slopes[name]).max() <= 2e-3 * np.abs(slopes[name]).max() + 1e-6, name


def test_blocks_computed_again_give_the_same_gradients(kind: type[nn.Layer]) -> None:
    model = kind(2, 1, **SMALL, deep_supervision=1)
    sparing, x = copy.deepcopy(model), volume(1, 1, 8, 8, 8)
    checkpoint_blocks(sparing)
    expected = gradients(model, x)
    for name, slope in gradients(sparing, x).items():
        # Of a residual block three gradients are added up, in another order.
        before = expected.pop(name)
        np.testing.assert_allclose(
            slope, before, rtol=0, atol=(kind is ResUNet3D) * 1e-5 * np.abs(before).max()
        )
    assert not expected


def test_a_frozen_encoder_stays(kind: type[nn.Layer]) -> None:
    model = kind(2, 1, **SMALL, norm="batch")
    Freezing(model, Freeze(layers=("encoder",))).begin(0)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    updater = paddle.optimizer.SGD(0.1, model.parameters())
    gradients(model, volume(1, 1, 8, 8, 8, seed=3))
    updater.step()
    moved = {
        name for name, value in model.state_dict().items() if not np.array_equal(value.numpy(), before[name])
    }
    assert {name.partition(".")[0] for name in moved} == {"up", "head"}


def test_a_network_starts_from_another_of_more_channels_and_classes(
    tmp_path: Path, kept_disc_recipe: str
) -> None:
    source, channels, classes = tmp_path / "source.pdparams", 2, 3
    paddle.save(UNet3D(classes, channels, **SMALL).state_dict(), str(source))
    (tmp_path / "recipe.yml").write_text(kept_disc_recipe)
    spec = UNet3DSpec(type="UNet3D", num_classes=2, in_channels=1, **SMALL)
    recipe = load_recipe(tmp_path / "recipe.yml").model_copy(
        update={"model": spec, "initialise": Initialise(source=str(source), least_fitting=0.5)}
    )
    model = build_network(spec)
    found = initialise(model, recipe)
    assert found is not None
    fresh = {layer.layer: layer.how for layer in found.layers if layer.origin != "taken"}
    assert set(fresh) == {"down.0.0", "head"}
    assert fresh["down.0.0"] == "2 channels there, 1 here"
    taken = paddle.load(str(source))["up.1.enlarge.weight"]
    np.testing.assert_array_equal(model.up[1].enlarge.weight.numpy(), taken.numpy())


def test_the_exported_graph_computes_the_same_at_any_size(kind: type[nn.Layer], tmp_path: Path) -> None:
    model = kind(3, 2, **SMALL, deep_supervision=1)
    save_static(model, tmp_path / "model", 2, dimensions=3)
    static = load_static(tmp_path / "model", "cpu", threads=1)
    for size in ((8, 12, 8), (16, 8, 8), (7, 9, 10)):
        x = volume(2, 2, *size).numpy()
        np.testing.assert_allclose(static(x), ForwardFunction(model)(x), atol=1e-5)


def test_a_ball_is_learned(kind: type[nn.Layer]) -> None:
    rng = np.random.default_rng(0)
    places = np.stack(np.indices((8, 16, 16)), -1)
    label = ((places - [4, 7, 8]) ** 2).sum(-1) < 12
    labels = paddle.to_tensor(np.stack([label, label[:, ::-1]]).astype(np.int64))
    x = labels.unsqueeze(1).astype("float32") + volume(2, 1, 8, 16, 16, seed=int(rng.integers(9)))
    model = kind(2, 1, **SMALL, deep_supervision=1)
    loss = MixedLoss([CrossEntropyLoss(), DiceLoss(background=False)], (1.0, 1.0))
    updater = paddle.optimizer.Adam(0.01, parameters=model.parameters())
    for _ in range(25):
        outputs = model(x)
        sum(weight * sum(loss(y, labels)) for weight, y in zip((1, 0.5), outputs, strict=True)).backward()
        updater.step()
        updater.clear_grad()
    predicted = model(x)[0].numpy().argmax(1) == 1
    truth = labels.numpy() == 1
    assert 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()) > 0.8
