"""Images of any number of channels, from the folder somebody gave to the answer."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from medseg_paddle.core import Geometry, Manifest, Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_label
from medseg_paddle.predictor import Predictor
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.predict import predict
from medseg_paddle.steps.prepare import prepare
from medseg_paddle.steps.train import train

SIZE = 40


def case(number: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc that only the last channel shows, among noise; uint8 (H, W, C) and its label."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    centre = rng.integers(12, SIZE - 12, 2)
    label = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 64).astype(np.uint8)
    image = rng.integers(40, 120, (SIZE, SIZE, channels)).astype(np.uint8)
    image[:, :, -1] += 100 * label
    return image, label


def recipe(tmp_path: Path, channels: int, section: dict) -> Path:
    data = {"type": "Manifest", "dataset_root": str(tmp_path / "data"), "img_channels": channels}
    normalize = {"type": "Normalize", "mean": [0.3] * channels, "std": [0.2]}  # one each, and one for all
    patch = {"type": "RandomAffinePatch", "size": [32, 32], "rotation": 20, "flip_horizontal": 0.5}
    content = {
        "name": "channels", "labels": ["background", "disc"], "batch_size": 4, "iters": 60, "save_interval": 30,
        "log_iters": 30, "overlays": 1, "model_graph": False, "device": "cpu", "prepare": section,
        "train_dataset": {**data, "mode": "train", "transforms": [patch, normalize]},
        "val_dataset": {**data, "mode": "val", "transforms": [normalize]},
        "optimizer": {"type": "AdamW"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.02},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "model": {"type": "SimpleUNet", "width": 4},
    }  # fmt: skip
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("channels", [2, 5])
def test_pictures_of_any_number_of_channels_from_folder_to_answer(tmp_path, channels):
    source = tmp_path / "in"
    for kind in ("images", "labels"):
        (source / kind).mkdir(parents=True)
    for number in range(10):
        image, label = case(number, channels)
        Image.fromarray(label).save(source / "labels" / f"c{number}.png")
        if channels == 5:
            np.save(source / "images" / f"c{number}.npy", image)
            continue
        for channel in range(channels):
            Image.fromarray(image[:, :, channel]).save(source / "images" / f"c{number}_{channel:04d}.png")
    images = "images/*.npy" if channels == 5 else [f"images/*_{n:04d}.png" for n in range(channels)]
    section = {
        "reader": "pairs",
        "key": r"/(c\d+)",
        "sets": [{"images": images, "labels": "labels/*.png"}],
        "val_fraction": 0.3,
    }
    path = recipe(tmp_path, channels, section)
    manifest = prepare(path, source)
    assert {one.image.suffix for one in manifest.splits["train"]} == {".npy"}
    run = train(path, output=tmp_path / "run")
    report = evaluate(run, split="val")
    bundle = export(run)
    assert bundle.description.in_channels == channels

    held_out = manifest.splits["val"]
    files = sorted(
        one
        for one in (source / "images").iterdir()
        if one.name.split("_")[0].split(".")[0] in {c.id for c in held_out}
    )
    summary = predict(bundle.path, files, tmp_path / "answers")
    summary.require_complete()
    assert {result.name for result in summary.results} == {one.id for one in held_out}
    scores = {}
    predictor = Predictor(bundle)
    for one in held_out:
        answer = read_label(tmp_path / "answers" / f"{one.id}_mask.png")
        np.testing.assert_array_equal(answer, predictor.predict(np.load(one.image)).labels)
        scores[one.id] = dice(answer == 1, read_label(one.label) == 1)
    assert np.mean(list(scores.values())) == pytest.approx(report.mean_foreground_dice, abs=1e-6)
    assert report.mean_foreground_dice > 0.6  # it can only have seen the disc in the last channel
    with pytest.raises(DataError, match=f"takes \\[height, width, {channels}\\]"):
        predictor.predict(np.zeros((SIZE, SIZE, channels + 1), np.uint8))


def test_volumes_of_two_sequences_with_a_window_each_from_folder_to_answer(tmp_path):
    source = tmp_path / "in"
    affine = np.diag([-1.0, -1, 2, 1])
    for kind in ("images", "labels"):
        (source / kind).mkdir(parents=True)
    for number in range(5):
        drawn = [case(100 * number + place, 2) for place in range(3)]
        for channel, factor in enumerate((1, 4)):  # other scales: each needs its own window
            values = np.stack([image[:, :, channel] for image, _ in drawn]).astype(np.int16) * factor
            save(source / "images" / f"v{number}_{channel:04d}.nii.gz", values, affine)
        save(source / "labels" / f"v{number}.nii.gz", np.stack([label for _, label in drawn]), affine)
    section = {
        "reader": "volumes",
        "key": r"/(v\d+)",
        "sets": [{"images": ["images/*_0000.nii.gz", "images/*_0001.nii.gz"], "labels": "labels/*"}],
        "window": [{"level": 128, "width": 256}, {"level": 512, "width": 1024}],
        "bits": 16,
        "val_fraction": 0.2,
    }
    path = recipe(tmp_path, 2, section)
    prepare(path, source)
    run = train(path, output=tmp_path / "run")
    report = evaluate(run, split="val")
    bundle = export(run)
    (name,) = {one.volume for one in Manifest.load(tmp_path / "data").splits["val"]}
    files = [source / "images" / f"{name}_{channel:04d}.nii.gz" for channel in range(2)]
    predict(bundle.path, files, tmp_path / "answers").require_complete()
    answer = np.asarray(nib.load(tmp_path / "answers" / f"{name}_mask.nii.gz").dataobj).T
    truth = np.asarray(nib.load(source / "labels" / f"{name}.nii.gz").dataobj).T
    assert dice(answer == 1, truth == 1) == pytest.approx(report.mean_foreground_dice, abs=1e-6)
    assert (tmp_path / "answers" / f"{name}_overlay.png").is_file()

    alone = predict(bundle.path, files[:1], tmp_path / "alone")
    assert "channels [0] are there, the model takes 2" in alone.failures[0].message
    volume = Volume(np.zeros((2, SIZE, SIZE), np.float32), Geometry((2, SIZE, SIZE), np.diag([2.0, 1, 1, 1])))
    with pytest.raises(DataError, match=r"1 volume\(s\) are given, the model takes 2"):
        Predictor(bundle).predict(volume)


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array.T, affine)
    image.set_sform(affine, code="scanner")
    nib.save(image, path)


def test_pictures_of_twelve_bits_are_predicted_through_their_window(tmp_path):
    source = tmp_path / "in"
    for kind in ("images", "labels"):
        (source / kind).mkdir(parents=True)
    for number in range(6):
        image, label = case(number, 1)
        Image.fromarray(image[:, :, 0].astype(np.uint16) * 16).save(source / "images" / f"c{number}.png")
        Image.fromarray(label).save(source / "labels" / f"c{number}.png")
    section = {
        "sets": [{"images": "images/*", "labels": "labels/*"}],
        "window": {"level": 2047.5, "width": 4095},
        "val_fraction": 0.2,
    }
    path = recipe(tmp_path, 1, section)
    manifest = prepare(path, source)
    bundle = export(train(path, output=tmp_path / "run", overrides=["iters=30"]))
    (held_out,) = manifest.splits["val"]
    predict(bundle.path, [source / "images" / f"{held_out.id}.png"], tmp_path / "answers").require_complete()
    answer = read_label(tmp_path / "answers" / f"{held_out.id}_mask.png")
    predictor = Predictor(bundle)
    stored = np.asarray(Image.open(source / "images" / f"{held_out.id}.png"))
    np.testing.assert_array_equal(answer, predictor.predict(stored[:, :, None].astype(np.uint16)).labels)
    prepared = np.asarray(Image.open(held_out.image)) / 257  # what it was trained and scored on
    np.testing.assert_array_equal(answer, predictor.predict(prepared[:, :, None].astype(np.float32)).labels)
