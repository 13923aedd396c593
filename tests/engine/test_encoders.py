"""Networks of ours around PaddleSeg's backbones, and heads that only a training has."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.config.networks import BackboneName
from medseg_paddle.engine.encoders import _KINDS, EncoderUNet
from medseg_paddle.engine.initialise import initialise
from medseg_paddle.engine.models import ForwardFunction, ScalableUNet, build_model
from medseg_paddle.engine.static_graph import load_static, save_static
from medseg_paddle.errors import ModelError
from medseg_paddle.steps.train import train

RNG = np.random.default_rng(5)


def pictures(channels: int, *size: int) -> np.ndarray:
    return RNG.normal(size=(2, channels, *size)).astype(np.float32)


def loss_of(model: paddle.nn.Layer, images: np.ndarray) -> paddle.Tensor:
    labels = paddle.to_tensor((images[:, 0] > 0).astype(np.int64))
    return F.cross_entropy(model(paddle.to_tensor(images))[0], labels, axis=1)


def test_every_backbone_of_the_recipe_is_there() -> None:
    assert set(get_args(BackboneName)) == set(_KINDS)


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("ResNet18_vd", 1),
        ("HRNet_W18_Small_V1", 3),
        ("MobileNetV2_x1_0", 4),
        ("MobileNetV3_small_x1_0", 5),
        ("GhostNet_x1_0", 1),
        ("STDC1", 2),
    ],  # one of each family; the others differ from these in width and depth alone
)
def test_every_weight_learns_from_images_of_any_size_and_channels(backbone: str, channels: int) -> None:
    paddle.seed(0)
    model = EncoderUNet(2, channels, backbone={"type": backbone}, width=4)
    images = pictures(channels, 45, 70)
    model.train()
    loss_of(model, images).backward()
    for name, value in model.named_parameters():
        if value.stop_gradient:  # running statistics
            continue
        assert value.grad is not None, name
        assert np.isfinite(value.grad.numpy()).all(), name
    with paddle.no_grad():
        (logits,) = model(paddle.to_tensor(images))
    assert logits.shape == [2, 2, 45, 70]


def test_a_step_lowers_the_loss() -> None:
    paddle.seed(0)
    model = EncoderUNet(2, 1, backbone={"type": "ResNet18_vd"}, width=4)
    images = pictures(1, 32, 32)
    updater = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
    losses = []
    for _ in range(6):
        loss = loss_of(model, images)
        loss.backward()
        updater.step()
        updater.clear_grad()
        losses.append(float(loss))
    assert losses[-1] < 0.95 * losses[0]


def test_the_exported_graph_answers_as_the_network(tmp_path: Path) -> None:
    paddle.seed(0)
    model = EncoderUNet(3, 1, backbone={"type": "ResNet18_vd"}, width=4)
    model.train()
    with paddle.no_grad():
        model(paddle.to_tensor(pictures(1, 64, 64)))  # statistics that are not those of a fresh network
    model.eval()
    save_static(model, tmp_path / "model", 1)
    static = load_static(tmp_path / "model", "cpu", threads=1)
    for size in ((32, 64), (37, 29)):
        images = pictures(1, *size)
        np.testing.assert_allclose(static(images), ForwardFunction(model)(images), atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "module"),
    [
        ("ResNet18_vd", "resnet_vd"),
        ("HRNet_W18_Small_V1", "hrnet"),
        ("MobileNetV2_x1_0", "mobilenetv2"),
        ("MobileNetV3_small_x1_0", "mobilenetv3"),
        ("GhostNet_x1_0", "ghostnet"),
        ("STDC1", "stdcnet"),
    ],
)
def test_an_encoder_is_paddlesegs_with_the_weights_that_paddleseg_loads(
    backbone: str, module: str, disc_recipe_file: Path, tmp_path: Path
) -> None:
    make = getattr(importlib.import_module(f"paddleseg.models.backbones.{module}"), backbone)
    options = {"output_stride": 32} if module == "resnet_vd" else {}
    file, images = tmp_path / "backbone.pdparams", paddle.to_tensor(pictures(3, 40, 64))
    with paddle.utils.unique_name.guard():
        paddle.seed(1)
        paddle.save(make(**options).state_dict(), str(file))
    with paddle.utils.unique_name.guard():
        paddle.seed(2)
        theirs = make(pretrained=str(file), **options)
    recipe = encoder_recipe(disc_recipe_file, type=backbone, pretrained=str(file))
    ours = build_model(recipe)
    initialise(ours, recipe)
    for model in (theirs, ours):
        model.eval()
    found = ours._encoded(images)
    for one, expected in zip(found[module == "resnet_vd" :], theirs(images), strict=True):
        np.testing.assert_array_equal(one.numpy(), expected.numpy())
    if module == "resnet_vd":
        np.testing.assert_array_equal(found[0].numpy(), theirs.conv1_logit.numpy())


@pytest.mark.parametrize("backbone", ["MobileNetV2_x1_0", "GhostNet_x1_0"])
def test_one_process_can_have_several_and_names_follow_the_order(backbone: str) -> None:
    """Two of PaddleSeg's backbones have fixed names of parameters, which Paddle takes once; see `_fresh`."""

    def names(count: int) -> list[list[str]]:
        with paddle.utils.unique_name.guard():
            made = [EncoderUNet(2, backbone={"type": backbone}, width=4) for _ in range(count)]
        return [[value.name for value in model.state_dict().values()] for model in made]

    first, second = names(2)
    assert len({*first, *second}) == 2 * len(first)
    assert names(1) == [first], "as in every process, or a checkpoint would have no place for its moments"


def encoder_recipe(path: Path, **backbone: Any) -> Recipe:
    said = {"type": "MobileNetV3_small_x1_0", **backbone}
    return load_recipe(path, [f"model={{type: EncoderUNet, width: 4, backbone: {said}}}"])


def test_a_backbone_takes_weights_from_a_file_and_its_decoder_stays_fresh(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    model = build_model(encoder_recipe(disc_recipe_file))
    imagenet = {
        name: RNG.uniform(0.1, 0.9, value.shape).astype(np.float32)
        for name, value in model.encoder.state_dict().items()
    }
    file = tmp_path / "backbone.pdparams"
    paddle.save({**imagenet, "fc.weight": np.zeros((576, 1000), np.float32)}, str(file))
    recipe = encoder_recipe(disc_recipe_file, pretrained=str(file))
    paddle.seed(2)
    other = build_model(recipe)
    decoder = other.up[0][0].weight.numpy().copy()
    said = initialise(other, recipe)
    assert said is not None
    assert said.count("taken") == len(said.layers) > 40
    assert said.unused == 1
    for name, array in imagenet.items():
        np.testing.assert_array_equal(other.encoder.state_dict()[name].numpy(), array)
    np.testing.assert_array_equal(other.up[0][0].weight.numpy(), decoder)


def test_weights_of_another_backbone_are_refused(disc_recipe_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.pdparams"
    paddle.save({"stem.conv.weight": np.zeros((3, 3), np.float32)}, str(file))
    recipe = encoder_recipe(disc_recipe_file, pretrained=str(file))
    with pytest.raises(ModelError, match=r"the encoder find no weights.*it has stem\.conv\.weight"):
        initialise(build_model(recipe), recipe)


def test_weights_of_a_backbone_as_a_whole_network_are_refused_with_the_right_key(
    disc_recipe_file: Path, tmp_path: Path
) -> None:
    recipe = encoder_recipe(disc_recipe_file)
    file = tmp_path / "backbone.pdparams"
    paddle.save(build_model(recipe).encoder.state_dict(), str(file))
    wanted = recipe.model_copy(
        update={"initialise": load_recipe(disc_recipe_file, [f"initialise.source={file}"]).initialise}
    )
    with pytest.raises(ModelError) as caught:
        initialise(build_model(wanted), wanted)
    assert "model.backbone.pretrained" in caught.value.hint


def test_lower_heads_are_for_the_training_alone() -> None:
    paddle.seed(1)
    plain = ScalableUNet(3, width=4, depth=3)
    paddle.seed(1)
    deep = ScalableUNet(3, width=4, depth=3, deep_supervision=2)
    images = paddle.to_tensor(pictures(3, 24, 40))
    for model in (plain, deep):
        model.eval()
    # Of one seed, the rest of the network is the same, and so is the answer.
    (expected,), (found,) = plain(images), deep(images)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    deep.train()
    assert [logits.shape for logits in deep(images)] == [[2, 3, 24, 40]] * 3
    assert set(deep.state_dict()) - set(plain.state_dict()) == {
        f"lower_heads.{n}.{what}" for n in (0, 1) for what in ("weight", "bias")
    }


def test_lower_heads_see_the_decoder_at_their_level() -> None:
    deep = ScalableUNet(2, width=4, depth=3, deep_supervision=2)
    assert [head.weight.shape[1] for head in deep.lower_heads] == [8, 16]
    deep.train()
    decoded = []
    for block in deep.up:
        block.register_forward_post_hook(lambda _layer, _inputs, y: decoded.append(y))
    logits = deep(paddle.to_tensor(pictures(3, 32, 32)))
    quarter, half, full = decoded
    assert [y.shape[2] for y in decoded] == [8, 16, 32]
    np.testing.assert_array_equal(logits[0].numpy(), deep.head(full).numpy())
    for found, y, head in zip(logits[1:], (half, quarter), deep.lower_heads, strict=True):
        expected = F.interpolate(head(y), scale_factor=32 // y.shape[2], mode="bilinear", align_corners=False)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)


def test_deep_supervision_trains_and_leaves_one_output(disc_recipe_file: Path, tmp_path: Path) -> None:
    network = "model={type: ScalableUNet, width: 4, depth: 3, deep_supervision: 2}"
    run = train(
        disc_recipe_file, output=tmp_path / "run", overrides=[network, "loss.coef=[1, 0.5, 0.25]", "iters=4"]
    )
    before = build_model(run.recipe).state_dict()
    after = paddle.load(str(run.weights_in(run.checkpoints / "iter_4")), return_numpy=True)
    assert set(after) == set(before)
    assert len(run.history()) == 1
