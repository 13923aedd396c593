"""Pictures from another hospital through a recipe: read, drawn, noted, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.config import load_recipe
from medseg_paddle.core import MANIFEST_NAME, Case, LabelSet, Manifest
from medseg_paddle.engine.data import TrainingStream
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.unlabelled import MOST_STYLES, style_files
from medseg_paddle.predictor import Predictor
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.preview import preview
from medseg_paddle.steps.reproduce import reproduce
from medseg_paddle.steps.train import train


def other_hospital(folder: Path, count: int = 3) -> Path:
    """Green pictures, of another size."""
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 60, (30, 36, 3)).astype(np.uint8)
        pixels[..., 1] += 180
        Image.fromarray(pixels).save(folder / f"p{number:03}.png")
    (folder / "README.txt").write_text("not a picture")
    (folder / "labels").mkdir()
    return folder


def with_style(kind: str, folder: Path) -> str:
    return (
        f"train_dataset.transforms=[{{type: {kind}, styles: '{folder}', prob: 1}}, "
        "{type: RandomAffinePatch, size: [32, 32], foreground: 0.5}, {type: Normalize}]"
    )


@pytest.mark.parametrize("kind", ["RandomHistogramMatch", "RandomFourierStyle"])
def test_training_images_take_on_the_style_and_keep_their_labels(kind, disc_recipe_file, tmp_path):
    folder = other_hospital(tmp_path / "other")
    plain = load_recipe(disc_recipe_file)
    recipe = load_recipe(disc_recipe_file, [with_style(kind, folder)])
    cases = load_cases(recipe.train_dataset)
    stream, again = TrainingStream(cases, recipe), TrainingStream(cases, recipe)
    for position in (0, 7, 3):
        image, label = (stream[position][key] for key in ("img", "label"))
        np.testing.assert_array_equal(image, again[position]["img"])
        red, green, blue = image.mean(axis=(1, 2))
        assert green > red + 0.8 > red > -1
        assert green > blue + 0.8
        assert set(np.unique(label)) <= {0, 1}
    grey = TrainingStream(cases, plain)[0]["img"]
    assert np.ptp(grey, axis=0).max() == 0


def test_a_run_notes_the_pictures_and_goes_on_with_the_same_only(disc_recipe_file, tmp_path):
    folder = other_hospital(tmp_path / "other")
    wanted = [
        with_style("RandomFourierStyle", folder),
        "lr_scheduler.decay_steps=4",
        "save_interval=2",
        "iters=4",
    ]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=[*wanted, "num_workers=2"])
    assert [Path(path).name for path in whole.provenance["files"]] == ["p000.png", "p001.png", "p002.png"]
    train(disc_recipe_file, output=tmp_path / "parts", overrides=[*wanted, "iters=2"])
    parts = train(disc_recipe_file, output=tmp_path / "parts", overrides=wanted, resume=True)
    assert whole.history() == parts.history()
    reproduce(whole, iterations=1, output=tmp_path / "again")
    assert Run.open(tmp_path / "again").provenance["files"] == whole.provenance["files"]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "p003.png")
    with pytest.raises(DataError, match=r"1 file\(s\).*p003\.png"):
        train(disc_recipe_file, output=tmp_path / "parts", overrides=[*wanted, "iters=6"], resume=True)


def test_a_preview_shows_the_styles(disc_recipe_file, tmp_path):
    wanted = [with_style("RandomHistogramMatch", other_hospital(tmp_path / "other"))]
    made = preview(disc_recipe_file, draws=2, output=tmp_path / "sheet.png", overrides=wanted)
    with Image.open(made.path) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert ((pixels[..., 1] > 150) & (pixels[..., 0] < 80)).sum() > 1000


def test_which_pictures_of_a_folder(tmp_path):
    folder = other_hospital(tmp_path / "many", MOST_STYLES + 51)
    files = style_files(folder)
    assert len(files) == MOST_STYLES
    assert (files[0].name, files[-1].name) == ("p000.png", f"p{MOST_STYLES + 50:03}.png")
    assert list(files) == sorted(set(files))
    with pytest.raises(DataError, match="is not there"):
        style_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        style_files(tmp_path / "empty")


def test_of_a_prepared_data_set_the_training_images(disc_recipe_file, tmp_path):
    root = tmp_path / "prepared"
    (root / "images").mkdir(parents=True)
    splits = {}
    for split in ("train", "test"):
        path = root / "images" / f"{split}.png"
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
        splits[split] = (Case(id=f"images/{split}", image=path, patient=split),)
    (root / MANIFEST_NAME).write_text(Manifest("other", LabelSet.generic(2), splits, root).to_json())
    assert [path.name for path in style_files(root)] == ["train.png"]
    with pytest.raises(DataError, match=r"is a part of the prepared data set .*held-out") as error:
        style_files(root / "images")
    assert str(root) in error.value.hint


def test_of_whole_volumes_none(tmp_path):
    image = tmp_path / "a.nii.gz"
    image.write_bytes(b"")
    splits = {"train": (Case(id="a", image=image, patient="a"),)}
    (tmp_path / MANIFEST_NAME).write_text(Manifest("other", LabelSet.generic(2), splits, tmp_path).to_json())
    with pytest.raises(DataError, match=r"whole volumes, such as a\.nii\.gz"):
        style_files(tmp_path)


@pytest.mark.parametrize("way", ["styles", "alignment"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_an_image_that_is_scored_is_no_source_of_style_whatever_it_is_called(
    way, split, disc_recipe_file, discs, tmp_path
):
    folder = other_hospital(tmp_path / "other")
    wanted = with_style("RandomFourierStyle", folder) if way == "styles" else f"alignment.target={folder}"
    with Image.open(discs / "images" / f"{split}1.png") as opened:
        opened.convert("L").save(folder / "patient.bmp")  # a grey copy is the same to the network
    with pytest.raises(DataError, match=rf"1 image\(s\) of the {split} set lend their style.*patient\.bmp"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=[wanted])
    assert not (tmp_path / "run").exists()


def test_an_evaluation_looks_at_what_the_training_saw(disc_recipe_file, discs, tmp_path):
    folder = other_hospital(tmp_path / "other")
    listed = (discs / "test_list.txt").rename(tmp_path / "kept.txt")  # not there yet when the training starts
    wanted = [with_style("RandomFourierStyle", folder), "iters=1"]
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=wanted)
    shutil.copy(listed, discs / "test_list.txt")
    shutil.copy(folder / "p001.png", discs / "images" / "test0.png")
    Image.fromarray(np.ones((30, 36), np.uint8)).save(discs / "labels" / "test0.png")
    with pytest.raises(DataError, match=r"1 image\(s\) of the test set lend their style.*test0\.png"):
        evaluate(run)
    shutil.copy(discs / "images" / "test1.png", discs / "images" / "test0.png")
    shutil.copy(discs / "labels" / "test1.png", discs / "labels" / "test0.png")
    assert json.loads(_summary(run))["compared_with_training_data"] is True
    shutil.rmtree(folder)
    assert json.loads(_summary(run))["compared_with_training_data"] is False


def _summary(run: Run) -> str:
    evaluate(run, overlays=0)
    return (run.evaluation_folder("test") / "summary.json").read_text()


def test_the_fold_that_is_held_out_lends_no_style(disc_recipe_file, tmp_path):
    """Without a fold, a data set's training images are those of all folds but the first."""
    root = tmp_path / "prepared"
    root.mkdir()
    splits: dict[str, tuple[Case, ...]] = {"train": (), "val": (), "test": ()}
    for n in range(3):
        pixels = np.random.default_rng(n).integers(0, 99, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{n}.png")
        Image.fromarray((pixels[..., 0] > 50).astype(np.uint8)).save(root / f"{n}_label.png")
        case = Case(id=str(n), image=root / f"{n}.png", label=root / f"{n}_label.png", patient=str(n), fold=n)
        splits["train" if n else "val"] += (case,)
    (root / MANIFEST_NAME).write_text(Manifest("folds", LabelSet.generic(2), splits, root).to_json())
    dataset = f"type: Manifest, dataset_root: {root}, fold: 1"
    transforms = with_style("RandomFourierStyle", root).partition("=")[2]
    wanted = [
        f"train_dataset={{{dataset}, mode: train, transforms: {transforms}}}",
        f"val_dataset={{{dataset}, mode: val, transforms: [{{type: Normalize}}]}}",
        "labels=null",
        "model.num_classes=2",
    ]
    with pytest.raises(DataError, match=r"1 image\(s\) of the val set lend their style"):
        train(disc_recipe_file, output=tmp_path / "run", overrides=wanted)


def test_a_folder_that_is_missing_leaves_no_run(disc_recipe_file, tmp_path):
    with pytest.raises(DataError, match="nowhere is not there"):
        train(
            disc_recipe_file,
            output=tmp_path / "run",
            overrides=[with_style("RandomFourierStyle", Path("nowhere"))],
        )
    assert not (tmp_path / "run").exists()


STANDARD = "{type: StandardizeImage, above: 5}"
PATCH = "{type: RandomAffinePatch, size: [32, 32]}"
BOTH = [
    f"train_dataset.transforms=[{STANDARD}, {PATCH}, {{type: Normalize}}]",
    f"val_dataset.transforms=[{STANDARD}, {{type: Normalize}}]",
]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (BOTH[:1], "train_dataset and val_dataset normalise differently"),
        (BOTH[1:], "train_dataset and val_dataset normalise differently"),
        ([BOTH[0].replace("above: 5", "above: 6"), BOTH[1]], "normalise differently"),
        (
            [f"train_dataset.transforms=[{PATCH}, {STANDARD}, {{type: Normalize}}]", BOTH[1]],
            "stands after RandomAffinePatch",
        ),
        ([BOTH[0], f"val_dataset.transforms=[{{type: Normalize}}, {STANDARD}]"], "stands after Normalize"),
        (
            [BOTH[0].replace(PATCH, "{type: RandomHistogramMatch, styles: a}, " + PATCH), BOTH[1]],
            "RandomHistogramMatch after StandardizeImage",
        ),
        (
            ["train_dataset.transforms=[{type: Normalize}, {type: RandomFourierStyle, styles: a}]"],
            "after Normalize",
        ),
    ],
)
def test_what_would_teach_something_wrong_is_refused(overrides, words, disc_recipe_file):
    with pytest.raises(RecipeError, match=words):
        load_recipe(disc_recipe_file, overrides)


def test_standardized_images_are_learned_scored_and_predicted_alike(disc_recipe_file, discs, tmp_path):
    """A bundle gives the same mask for a picture whose channels another camera shifts and stretches."""
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=[*BOTH, "iters=40", "save_interval=40"])
    assert [step["type"] for step in run.recipe.preprocessing_specs] == ["StandardizeImage", "Normalize"]
    bundle = export(run)
    predictor = Predictor(bundle.path)
    with Image.open(discs / "images" / "test0.png") as opened:
        image = np.asarray(opened).astype(np.float32)
    pictures = [image, image * np.float32([0.5, 0.8, 0.6]) + np.float32([10, 20, 30])]
    first, second = (predictor.predict(picture) for picture in pictures)
    assert 0 < np.asarray(first.labels).sum() < first.labels.size
    assert (np.asarray(first.labels) == np.asarray(second.labels)).mean() > 0.999
