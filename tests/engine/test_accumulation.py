"""Batches in parts, and blocks that compute again: the same training, with less kept in memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from medseg_paddle.config import load_recipe
from medseg_paddle.config.networks import Model
from medseg_paddle.engine.accumulation import compute_in_parts
from medseg_paddle.engine.losses import build_losses
from medseg_paddle.engine.models import ScalableUNet
from medseg_paddle.engine.onednn import Unavailable, accelerate
from medseg_paddle.engine.optimizers import build_optimizer
from medseg_paddle.engine.paddleseg_adapter import manager
from medseg_paddle.engine.recomputation import checkpoint_blocks
from medseg_paddle.errors import ModelError, RecipeError
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train

BATCH, SIDE = 6, 32
LOSSES = {
    "cross-entropy": "{type: CrossEntropyLoss, weight: [0.3, 0.7]}",
    "Dice over the batch": "{type: DiceLoss}",
    "mixed": "{type: MixedLoss, losses: [{type: CrossEntropyLoss}, {type: DiceLoss}], coef: [0.5, 1]}",
}
Change = Callable[[nn.Layer], Any]


def unet(**changes: Any) -> nn.Layer:
    paddle.seed(3)
    return ScalableUNet(2, width=4, depth=2, **{"norm": "instance", **changes})


class Smooth(nn.Layer):
    """Without pooling and ReLU, whose gradients jump where rounding makes another pixel the greatest."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2D(3, 8, 3, padding=1),
            nn.InstanceNorm2D(8),
            nn.GELU(),
            nn.Conv2D(8, 8, 3, 2, 1),
            nn.GELU(),
        )
        self.head = nn.Conv2DTranspose(8, 2, 2, 2)

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        return [self.head(self.layers(x))]


def smooth() -> nn.Layer:
    paddle.seed(3)
    return Smooth()


def batch() -> tuple[paddle.Tensor, paddle.Tensor]:
    """Images, and labels of which each image ignores another share."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (BATCH, SIDE, SIDE))
    for n in range(BATCH):
        labels[n, : 4 * n] = 255
    images = random.standard_normal((BATCH, 3, SIDE, SIDE), np.float32)
    return paddle.to_tensor(images), paddle.to_tensor(labels)


def trained(model: nn.Layer, recipe: Any, steps: int = 5) -> dict[str, np.ndarray]:
    """The state of `model` after some steps with the loss and the optimiser of the recipe."""
    from paddleseg.core.train import loss_computation

    losses = build_losses(recipe.loss, 255, mixed=False)
    optimizer = build_optimizer(recipe, model)
    images, labels = batch()
    model.train()
    paddle.seed(11)
    for _ in range(steps):
        sum(loss_computation(model(images), labels, None, losses)).backward()
        optimizer.step()
        model.clear_gradients()
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=atol, rtol=0, err_msg=name)


# Adam divides a gradient by its size, and rounding with it; a larger epsilon bounds that.
OPTIMIZERS = {
    "momentum": ["optimizer={type: SGD, momentum: 0.9}", "lr_scheduler.learning_rate=0.1"],
    "AdamW": ["optimizer={type: AdamW, epsilon: 1.0e-4}", "lr_scheduler.learning_rate=0.01"],
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_are_those_of_the_large_batch(loss: str, optimizer: str, disc_recipe_file: Path) -> None:
    recipe = load_recipe(disc_recipe_file, [f"loss.types=[{LOSSES[loss]}]", *OPTIMIZERS[optimizer]])
    whole, split = smooth(), smooth()
    compute_in_parts(split, 3)
    before = {name: value.numpy() for name, value in whole.state_dict().items()}
    expected = trained(whole, recipe)
    assert max(np.abs(expected[name] - before[name]).max() for name in before) > 0.01, "it learned"
    assert_close(trained(split, recipe), expected, 1e-5)


def test_on_onednn_too(disc_recipe_file: Path) -> None:
    recipe = load_recipe(disc_recipe_file, OPTIMIZERS["momentum"])
    models = [smooth() for _ in range(3)]
    try:
        for model in models:
            accelerate(model)
    except Unavailable as reason:
        pytest.skip(str(reason))
    compute_in_parts(models[1], 3)
    checkpoint_blocks(models[2])
    compute_in_parts(models[2], 3)
    expected = trained(models[0], recipe)
    assert_close(trained(models[1], recipe), expected, 1e-5)
    assert_close(trained(models[2], recipe), expected, 1e-5)


def test_a_batch_need_not_divide_and_may_be_smaller_than_the_parts() -> None:
    whole, split = unet(), unet()
    compute_in_parts(split, 4)
    images, _ = batch()
    for count in (6, 5, 3, 1):
        (found,), (expected,) = split(images[:count]), whole(images[:count])
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "change", [lambda m: compute_in_parts(m, 1), checkpoint_blocks], ids=["parts", "blocks"]
)
def test_dropout_draws_the_same_again(change: Change, disc_recipe_file: Path) -> None:
    recipe = load_recipe(disc_recipe_file)
    whole, changed = unet(dropout=0.5), unet(dropout=0.5)
    change(changed)
    assert_close(trained(changed, recipe), trained(whole, recipe), 0 if change is checkpoint_blocks else 1e-6)


def test_the_random_numbers_of_a_training_go_on_as_without_parts() -> None:
    """One dropout layer draws for image after image, in parts or not, and the gradients draw none."""
    drawn = []
    for parts in (1, 3):
        model = unet(dropout=0.5)
        compute_in_parts(model, parts)
        model.train()
        paddle.seed(5)
        (logits,) = model(batch()[0])
        logits.sum().backward()
        drawn.append((logits.numpy(), paddle.rand([4]).numpy()))
    np.testing.assert_allclose(drawn[0][0], drawn[1][0], atol=1e-5)
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])


def test_batch_norms_see_a_part_and_follow_it_once() -> None:
    model, by_hand = unet(norm="batch"), unet(norm="batch")
    compute_in_parts(model, 3)
    images, _ = batch()
    model.train()
    (logits,) = model(images)
    logits.sum().backward()
    by_hand.train()
    with paddle.no_grad():
        outputs = [by_hand(part)[0] for part in paddle.split(images, 3)]
    np.testing.assert_array_equal(logits.numpy(), paddle.concat(outputs).numpy())
    expected = by_hand.state_dict()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), expected[name].numpy(), err_msg=name)
    assert all(layer._momentum == 0.9 for layer in model.sublayers() if isinstance(layer, nn.BatchNorm2D))


@pytest.mark.parametrize("onednn", [False, True])
def test_blocks_that_compute_again_train_to_the_same_bits(onednn: bool, disc_recipe_file: Path) -> None:
    recipe = load_recipe(disc_recipe_file)
    plain, sparing = unet(norm="batch"), unet(norm="batch")
    if onednn:
        try:
            accelerate(plain), accelerate(sparing)
        except Unavailable as reason:
            pytest.skip(str(reason))
    checkpoint_blocks(sparing)
    assert_close(trained(sparing, recipe), trained(plain, recipe), 0)


NETWORKS = [get_args(spec.model_fields["type"].annotation)[0] for spec in get_args(get_args(Model)[0])]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_blocks(name: str) -> None:
    needed = {"backbone": {"type": "ResNet18_vd"}} if name == "EncoderUNet" else {}
    with paddle.LazyGuard():  # parameters without values
        model = manager.MODELS[name](num_classes=2, in_channels=3, **needed)
    checkpoint_blocks(model)


@pytest.mark.parametrize("name", ["SimpleUNet", "UNet", "U2Netp"])
def test_gradients_and_statistics_are_those_without_blocks(name: str) -> None:
    """Blocks of one tensor, and such with interpolation inside; on oneDNN, where it can be had."""
    paddle.seed(0)
    plain = manager.MODELS[name](num_classes=2, in_channels=3)
    with contextlib.suppress(Unavailable):
        accelerate(plain)
    sparing = copy.deepcopy(plain)
    checkpoint_blocks(sparing)
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32))
    found = []
    for model in (plain, sparing):
        model.train()
        sum((logits**2).mean() for logits in model(images)).backward()
        found.append(
            {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
            | {f"state of {n}": v.numpy() for n, v in model.state_dict().items()}
        )
    assert_close(found[1], found[0], 0)


class Doubling(nn.Layer):
    """A block that interpolates, and notes what computes the gradients of that."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2D(3, 4, 3, padding=1), nn.Conv2D(4, 2, 1)
        self.computed_by: list[str] = []

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = F.interpolate(self.first(x), scale_factor=2, mode="bilinear")
        if x.grad_fn is not None:
            self.computed_by.append(x.grad_fn.name())
        return self.second(x)


def test_a_block_interpolates_the_second_time_as_the_first() -> None:
    found = []
    for change in (lambda _: None, checkpoint_blocks):
        block = Doubling()
        model = nn.Sequential(nn.Conv2D(3, 3, 1), block)
        try:
            accelerate(model)
        except Unavailable as reason:
            pytest.skip(str(reason))
        change(model)
        model(batch()[0]).sum().backward()
        found.append(block.computed_by)
    assert len(found[0]) == 1
    assert found[0] == found[1]


def kept_bytes(model: nn.Layer) -> int:
    """Bytes that a forward pass keeps for the gradients, each tensor once."""
    sizes: dict[int, int] = {}

    def note(tensor: paddle.Tensor) -> paddle.Tensor:
        sizes[tensor.data_ptr()] = tensor.size * 4
        return tensor

    model.train()
    with paddle.autograd.saved_tensors_hooks(note, lambda tensor: tensor):
        model(batch()[0])
    return sum(sizes.values())


def test_less_is_kept_for_the_gradients() -> None:
    plain, by_block, by_part = unet(), unet(), unet()
    checkpoint_blocks(by_block)
    compute_in_parts(by_part, 3)
    assert kept_bytes(by_block) < 0.5 * kept_bytes(plain)
    assert kept_bytes(by_part) < 0.1 * kept_bytes(plain)


def test_a_layer_that_does_not_learn_is_computed_once_and_gradients_pass_through_it() -> None:
    plain, sparing = unet(), unet()
    checkpoint_blocks(sparing)
    gradients = []
    for model in (plain, sparing):
        for name, parameter in model.named_parameters():
            parameter.stop_gradient = name.startswith(("down", "up.0"))
        model.train()
        model(batch()[0])[0].sum().backward()
        gradients.append({n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None})
    assert {name.partition(".")[0] for name in gradients[0]} == {"up", "head"}
    assert_close(gradients[1], gradients[0], 0)


def test_a_copy_computes_itself_and_predictions_are_as_before() -> None:
    model = unet(norm="batch")
    images, _ = batch()
    model.eval()
    with paddle.no_grad():
        before = model(images)[0].numpy()
    checkpoint_blocks(model)
    compute_in_parts(model, 2)
    model.train()
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.set_value(parameter * 0)
    assert np.abs(twin(images)[0].numpy()).max() == 0
    twin(images)[0].sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    with paddle.no_grad():
        np.testing.assert_array_equal(model(images)[0].numpy(), before)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="no blocks"):
        checkpoint_blocks(nn.Sequential(nn.Conv2D(3, 4, 3), nn.ReLU()))


COMMON = [
    "model={type: ScalableUNet, width: 4, depth: 2, norm: instance}",
    "loss.types=[{type: DiceLoss}]",
    "train_dataset.transforms.0={type: RandomAffinePatch, size: [32, 32], rotation: 90, border: ignore}",
    "batch_size=4",
    "iters=3",
    "optimizer={type: SGD, momentum: 0.9}",
    "lr_scheduler.learning_rate=0.001",
]


def weights(run: Run) -> dict[str, np.ndarray]:
    state = paddle.load(str(run.last_checkpoint / "model.pdparams"), return_numpy=True)
    return {name: value for name, value in state.items() if isinstance(value, np.ndarray)}


def test_a_training_in_parts_is_that_of_the_recipe_without(disc_recipe_file: Path, tmp_path: Path) -> None:
    sparing = ["gradient_accumulation=4", "gradient_checkpointing=true", "use_ema=true"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=COMMON)
    parts = train(disc_recipe_file, output=tmp_path / "parts", overrides=[*COMMON, *sparing])
    assert_close(weights(parts), weights(whole), 1e-5)
    assert parts.history()[0]["score"] == pytest.approx(whole.history()[0]["score"], abs=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batch_size=6", "gradient_accumulation=4"], "a batch of 6 cannot be computed in 4 equal parts"),
        (
            ["gradient_accumulation=2", "to_static_training=true"],
            "gradient_accumulation with to_static_training",
        ),
        (["gradient_checkpointing=true", "to_static_training=true"], "gradient_checkpointing with to_static"),
    ],
)
def test_what_cannot_be_combined_is_refused(
    overrides: list[str], message: str, disc_recipe_file: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(disc_recipe_file, overrides)
