"""Features of two sources made alike by an adversary: its gradients, its images, its state, and what it leaves."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from medseg_paddle.config import load_recipe
from medseg_paddle.config.alignment import Alignment
from medseg_paddle.engine.accumulation import compute_in_parts
from medseg_paddle.engine.alignment import DomainAlignment, DomainLoss, strength
from medseg_paddle.engine.dashboard import curve
from medseg_paddle.engine.data import TrainingStream, batch_bytes, survey, targets_of
from medseg_paddle.engine.encoders import EncoderUNet
from medseg_paddle.engine.finders import try_out
from medseg_paddle.engine.loading import loaded
from medseg_paddle.engine.models import ScalableUNet, load_model
from medseg_paddle.engine.paddleseg_adapter.loop import StreamSampler
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.run import Run
from medseg_paddle.steps.preview import preview
from medseg_paddle.steps.train import train

BATCH = 2  # of the recipe


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Green pictures of several sizes, without labels."""
    folder = tmp_path / "other"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 60, (40 + 8 * number, 56, 3)).astype(np.uint8)
        pixels[..., 1] += 150
        Image.fromarray(pixels).save(folder / f"p{number}.png")
    return folder


def network(**changes: object) -> ScalableUNet:
    paddle.seed(3)
    return ScalableUNet(2, width=4, depth=2, **{"norm": "instance", **changes})


def images(count: int = 8) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(0).standard_normal((count, 3, 16, 16), np.float32))


def gradients(layer: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {name: value.grad.numpy() for name, value in layer.named_parameters() if value.grad is not None}


# ---- the formula ----


def test_the_strength_of_the_paper_by_hand():
    assert strength(1, 100) == 0
    assert strength(51, 100) == pytest.approx((1 - math.exp(-5)) / (1 + math.exp(-5)))
    assert strength(11, 100) == pytest.approx(math.tanh(0.5))
    values = [strength(n, 100) for n in range(1, 101)]
    assert values == sorted(values)
    assert 0.999 < values[-1] < 1


def test_the_loss_by_hand_labelled_and_unlabelled_by_turns():
    labels = paddle.zeros([2, 8, 8], "int64")
    nothing = DomainLoss()(paddle.zeros([4, 1, 2, 2]), labels)
    assert nothing.shape == [1]
    assert float(nothing) == pytest.approx(math.log(2))
    sure = paddle.to_tensor(np.float32([-3, 3, -3, 3])).reshape([4, 1, 1, 1])
    assert float(DomainLoss()(sure, labels)) == pytest.approx(math.log1p(math.exp(-3)))
    assert float(DomainLoss()(-sure, labels)) == pytest.approx(math.log1p(math.exp(3)))


@pytest.mark.parametrize(
    "make", [network, lambda: EncoderUNet(2, backbone={"type": "STDC1"}, norm="instance")]
)
def test_the_encoder_gets_the_gradient_reversed_and_the_classifier_as_it_is(make):
    paddle.seed(3)
    model = make()
    model.train()
    alignment = DomainAlignment(model, Alignment(target="x", weight=0.5), iters=100)
    inputs = paddle.to_tensor(np.random.default_rng(0).standard_normal((4, 3, 32, 32), np.float32))
    DomainLoss()(alignment.classifier(model.encode(inputs)[-1]), None).backward()
    plain, learned = gradients(model), gradients(alignment.classifier)
    model.clear_gradients(set_to_zero=False)
    alignment.begin(31)
    assert not any(value.any() for value in gradients(alignment.classifier).values())  # `train()` keeps them
    DomainLoss()(model(inputs)[-1], None).backward()
    factor = -0.5 * strength(31, 100)
    found = gradients(model)
    assert len(plain) >= 10
    rounding = 1e-5 * max(float(abs(value).max()) for value in plain.values())
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], factor * value, atol=rounding, err_msg=name)
    for name, value in gradients(alignment.classifier).items():
        np.testing.assert_allclose(value, learned[name], atol=1e-7)


def test_the_labelled_images_are_segmented_as_without_it():
    plain, aligned = network(deep_supervision=1), network(deep_supervision=1)
    DomainAlignment(aligned, Alignment(target="x"), 10)
    plain.train()
    aligned.train()
    *logits, judged = aligned(images())
    assert judged.shape == [8, 1, 4, 4]
    for found, expected in zip(logits, plain(images()[::2]), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)
    aligned.eval()
    plain.eval()
    (found,), (expected,) = aligned(images()), plain(images())
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert aligned.state_dict().keys() == plain.state_dict().keys()


def test_a_batch_in_parts_has_the_gradients_of_the_whole():
    found = []
    for parts in (1, 2, 4):
        model = network()
        model.train()
        alignment = DomainAlignment(model, Alignment(target="x"), 10)
        if parts > 1:
            compute_in_parts(model, parts)
        alignment.begin(6)
        logits, judged = model(images())
        assert logits.shape[0] == 4
        (DomainLoss()(judged, None) + (logits[:, 1] ** 2).mean()).backward()
        found.append({**gradients(model), **gradients(alignment.classifier)})
    assert len(found[0]) > 20
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_allclose(other[name], value, atol=1e-6, err_msg=name)


# ---- the images ----


def recipe_of(path: Path, other: Path, *more: str) -> object:
    return load_recipe(path, [f"alignment.target={other}", *more])


def batches(path: Path, other: Path, workers: int, first: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    recipe = recipe_of(path, other, "train_dataset.mixup={prob: 0.5}")
    cases = load_cases(recipe.train_dataset)
    found = survey(cases, recipe, targets=targets_of(recipe))
    orders = StreamSampler(len(cases), BATCH, first, 7)
    with loaded(
        TrainingStream(cases, recipe), orders, num_workers=workers, batch_bytes=batch_bytes(recipe, found)
    ) as served:
        return [(batch["img"].numpy(), batch["label"].numpy()) for batch in served]


def test_the_batches_are_the_same_for_any_number_of_processes_and_wherever_they_start(
    disc_recipe_file, other
):
    alone = batches(disc_recipe_file, other, 0)
    assert [image.shape for image, _ in alone] == [(2 * BATCH, 3, 32, 32)] * 7
    assert [label.shape for _, label in alone] == [(BATCH, 32, 32)] * 7
    for workers, first in ((1, 0), (2, 0), (2, 3)):
        for one, another in zip(alone[first:], batches(disc_recipe_file, other, workers, first), strict=True):
            np.testing.assert_array_equal(one[0], another[0])
            np.testing.assert_array_equal(one[1], another[1])


def test_labelled_images_are_those_of_the_training_without_it_and_others_stand_between(
    disc_recipe_file, other
):
    plain, aligned = load_recipe(disc_recipe_file), recipe_of(disc_recipe_file, other)
    cases = load_cases(plain.train_dataset)
    stream = TrainingStream(cases, aligned)
    expected = TrainingStream(cases, plain).batch(range(6, 12))
    found = stream.batch(range(6, 12))
    np.testing.assert_array_equal(found["img"][::2], expected["img"])
    np.testing.assert_array_equal(found["label"], expected["label"])
    np.testing.assert_array_equal(stream[7]["img"], expected["img"][1])
    red, green, _ = found["img"][1::2].mean(axis=(2, 3)).T  # the others are green
    assert (green > red + 0.5).all()
    assert np.ptp(found["img"][::2], axis=1).max() == 0  # the discs are grey
    names = [Path(name).name for name in stream.names(range(6))]
    assert len(names) == 12
    assert sorted(names[6:9]) == sorted(names[9:]) == ["p0.png", "p1.png", "p2.png"]  # each once in a pass


# ---- a training ----

SHORT = ["lr_scheduler.decay_steps=4", "save_interval=2", "iters=4", "use_ema=true"]


def states(run: Run) -> dict[str, np.ndarray]:
    """Weights, average, optimiser and the classifier after the last iteration."""
    folder = run.checkpoint_at(4)
    found = {}
    for file in ("model.pdparams", "ema_model.pdparams", "model.pdopt"):
        for name, value in paddle.load(str(folder / file)).items():
            if isinstance(value, paddle.Tensor):
                found[f"{file} {name}"] = value.numpy()
    classifier = pickle.loads((folder / "model.pdstate").read_bytes())["alignment"]  # noqa: S301  (ours)
    return {**found, **{f"classifier {name}": value for name, value in classifier.items()}}


def test_a_resumed_training_is_the_training_bit_for_bit(disc_recipe_file, other, tmp_path):
    wanted = [f"alignment.target={other}", *SHORT]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=wanted)
    stopped = train(
        disc_recipe_file, output=tmp_path / "parts", overrides=[*wanted, "num_workers=2"], max_time=0.001
    )
    assert stopped.last_checkpoint.name == "iter_1"
    parts = train(disc_recipe_file, output=tmp_path / "parts", overrides=wanted, resume=True)
    expected, found = states(whole), states(parts)
    assert found.keys() == expected.keys()
    assert any("moment" in name for name in found)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert whole.history() == parts.history()
    assert curve(whole.path, "Train/DomainLoss").keys() == {2, 4}
    assert curve(whole.path, "Train/DomainLoss") == curve(parts.path, "Train/DomainLoss")
    assert [Path(path).name for path in whole.provenance["files"]] == ["p0.png", "p1.png", "p2.png"]
    Image.new("RGB", (60, 60)).save(other / "p3.png")
    with pytest.raises(DataError, match=r"1 file\(s\).*p3\.png"):
        train(disc_recipe_file, output=tmp_path / "parts", overrides=[*wanted, "iters=6"], resume=True)
    with pytest.raises(RecipeError, match="another alignment"):
        train(
            disc_recipe_file,
            output=tmp_path / "parts",
            overrides=[*wanted, "alignment.weight=2"],
            resume=True,
        )


def test_nothing_of_it_is_left_in_the_weights(disc_recipe_file, other, tmp_path):
    wanted = [f"alignment.target={other}", "gradient_accumulation=2"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=wanted)
    assert run.history()[-1]["score"] > 0.5
    for weights in (run.weights("last"), run.weights("best")):
        model = load_model(load_recipe(disc_recipe_file), weights)  # all of them must fit, and none more
        assert "decode" not in vars(model)


def test_finders_train_as_the_training_does(disc_recipe_file, other, tmp_path):
    recipe = recipe_of(disc_recipe_file, other, "iters=3", "log_iters=1", "save_interval=3")
    cases = load_cases(recipe.train_dataset)
    found, losses = survey(cases, recipe, targets=targets_of(recipe)), []
    with DecodedImages(1 << 20) as decoded:
        try_out(
            recipe,
            cases,
            found=found,
            decoded=decoded,
            device="cpu",
            iters=3,
            told=lambda _, loss: not losses.append(loss),
            class_weights=None,
        )
    run = train(recipe, output=tmp_path / "run")
    assert losses == pytest.approx(list(curve(run.path, "Train/loss").values()), rel=1e-6)


def test_a_preview_shows_the_images_with_labels(disc_recipe_file, other, tmp_path):
    made = preview(
        disc_recipe_file,
        draws=1,
        output=tmp_path / "sheet.png",
        overrides=[f"alignment.target={other}"],
    )
    assert made.path.is_file()


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model={type: UNet}"], "UNet has none"),
        (["precision=bf16", "device=gpu"], "bf16 has never been tried"),
        (["to_static_training=true"], "alignment with to_static_training"),
        (["freeze={layers: [encoder]}"], "freeze.layers leaves it"),
        (["alignment.weight=0"], "weight"),
    ],
)
def test_what_it_cannot_do_is_refused(overrides, words, disc_recipe_file, other):
    with pytest.raises(RecipeError, match=words):
        recipe_of(disc_recipe_file, other, *overrides)
    recipe_of(disc_recipe_file, other, "freeze={layers: [encoder], until: 3}")


def test_pictures_that_do_not_fit_leave_no_run(disc_recipe_file, other, tmp_path):
    def refused(error: type[Exception], words: str, *overrides: str, target: Path = other) -> None:
        with pytest.raises(error, match=words):
            train(
                disc_recipe_file,
                output=tmp_path / "run",
                overrides=[f"alignment.target={target}", *overrides],
            )
        assert not (tmp_path / "run").exists()

    refused(DataError, r"alignment\.target: folder .*nowhere is not there", target=tmp_path / "nowhere")
    refused(
        RecipeError,
        "cannot be stacked to a batch of 2",
        "batch_size=1",
        "train_dataset.transforms=[{type: Normalize}]",
    )
    Image.new("RGBA", (60, 60)).save(other / "p3.png")
    refused(DataError, r"p3\.png")
