"""Networks that see a slice between its neighbours, from the recipe to the bundle: the same slices everywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import paddle
import pytest

from medseg_paddle.bundle import Bundle
from medseg_paddle.config import Recipe, change_recipe, load_recipe
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet, Volume
from medseg_paddle.description import from_json
from medseg_paddle.engine.data import TrainingStream, survey
from medseg_paddle.errors import DataError, ModelError, RecipeError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.io.images import read_label
from medseg_paddle.predictor import Predictor
from medseg_paddle.run import Run
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.members import open_members, require_one_task
from medseg_paddle.steps.preview import preview
from medseg_paddle.steps.train import train

SLICES, SIDE, STEP = 6, 16, 2.0

RECIPE = """\
name: above
labels: [background, above]
prepare:
  reader: volumes
  key: '(train\\d|val\\d)'
  window: {{level: 127.5, width: 255}}
  sets:
    - {{split: train, images: train*_image.nii.gz, labels: train*_label.nii.gz}}
    - {{split: val, images: val*_image.nii.gz, labels: val*_label.nii.gz}}
neighbours: 1
batch_size: 6
iters: 60
save_interval: 30
log_iters: 30
overlays: 1
model_graph: false
device: cpu
seed: 3
train_dataset:
  type: Manifest
  dataset_root: {root}
  img_channels: 1
  transforms:
    - {{type: RandomAffinePatch, size: [16, 16], flip_horizontal: 0.5, rotate90: 0.5}}
    - {{type: Normalize}}
  mode: train
val_dataset: {{type: Manifest, dataset_root: {root}, img_channels: 1, mode: val, transforms: [{{type: Normalize}}]}}
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.03, decay_steps: 60}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1]}}
model: {{type: SimpleUNet, width: 4}}
"""


def blocks(number: int) -> np.ndarray:
    """Blocks that are bright or dark by chance, ``[height, row, column]`` from the feet to the head."""
    coarse = np.random.default_rng(number).integers(0, 2, (SLICES, SIDE // 4, SIDE // 4))
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def truth(bright: np.ndarray) -> np.ndarray:
    """What is bright in the slice above; the uppermost one is its own neighbour. No slice tells it of itself."""
    return np.concatenate([bright[1:], bright[-1:]])


def nifti(array: np.ndarray, *, down: bool) -> nib.Nifti1Image:
    """``[height, row, column]`` as a file, from the feet to the head or, of the same patient, the other way."""
    affine = np.diag([-1.0, -1.0, STEP, 1.0])
    if down:
        array, affine[2, 2], affine[2, 3] = array[::-1], -STEP, STEP * (len(array) - 1)
    return nib.Nifti1Image(np.ascontiguousarray(array.T), affine)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task that one slice cannot solve; every other volume is stored from the head to the feet."""
    folder = tmp_path_factory.mktemp("above")
    source = folder / "source"
    source.mkdir()
    for number in range(6):
        name, bright = f"{'train' if number < 4 else 'val'}{number}", blocks(number)
        for what, array in (("image", 30 + 180 * bright), ("label", truth(bright))):
            stored = array.astype(np.int16 if what == "image" else np.uint8)
            nib.save(nifti(stored, down=bool(number % 2)), source / f"{name}_{what}.nii.gz")
    path = folder / "above.yml"
    path.write_text(RECIPE.format(root=folder / "data"))
    spec = load_recipe(path).prepare
    assert isinstance(spec, PrepareSpec)
    labels = LabelSet.from_names(("background", "above"))
    write_dataset(spec, source=source, destination=folder / "data", labels=labels, name="above", workers=1)
    return path


@pytest.fixture(scope="module")
def run(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe_file, output=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def bundle(run: Run) -> Bundle:
    return export(run)


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


def test_what_the_slice_above_tells_is_learned_with_neighbours_alone(
    run: Run, recipe_file: Path, tmp_path: Path
) -> None:
    assert run.history()[-1]["score"] > 0.95
    alone = train(recipe_file, output=tmp_path / "alone", overrides=["neighbours=0", "save_interval=60"])
    assert alone.history()[-1]["score"] < 0.8  # calling everything foreground gives 2/3


def test_evaluation_and_validation_see_the_same_slices(run: Run) -> None:
    report = evaluate(run, split="val")
    best = max(entry["score"] for entry in run.history())
    assert report.summary["mean"]["dice"].mean == pytest.approx(best)


def test_the_masks_of_a_bundle_are_those_that_the_evaluation_wrote(
    run: Run, bundle: Bundle, recipe: Recipe, recipe_file: Path
) -> None:
    """One of the two volumes is stored from the head to the feet."""
    evaluate(run, split="val", overlays=0)
    masks, predictor = run.evaluation_folder("val") / "masks", Predictor(bundle, "cpu")
    compared = []
    for name in ("val4", "val5"):
        answer = predictor.predict_file(recipe_file.parent / "source" / f"{name}_image.nii.gz")
        for case in load_cases(recipe.val_dataset, neighbours=1):
            if name in case.id:
                mask = read_label(masks / f"{case.id}.png")
                np.testing.assert_array_equal(mask, answer.array[case.slicing.within.place])
                compared.append(mask.mean())
    assert len(compared) == 2 * SLICES
    assert 0.2 < np.mean(compared) < 0.8


@pytest.mark.parametrize("down", [False, True])
def test_a_bundle_gives_one_answer_at_one_place_however_slices_are_stored(
    bundle: Bundle, tmp_path: Path, down: bool
) -> None:
    bright = blocks(99)
    path = tmp_path / "new.nii.gz"
    nib.save(nifti((30 + 180 * bright).astype(np.int16), down=down), path)
    predictor = Predictor(bundle, "cpu")
    answer = predictor.predict(predictor.read(path), probabilities=True)
    found = answer.array[::-1] if down else answer.array
    wanted = truth(bright)
    assert 2 * (found * wanted).sum() / (found.sum() + wanted.sum()) > 0.95
    other = tmp_path / "other.nii.gz"
    nib.save(nifti((30 + 180 * bright).astype(np.int16), down=not down), other)
    again = predictor.predict(predictor.read(other), probabilities=True)
    np.testing.assert_array_equal(again.array, answer.array[::-1])
    np.testing.assert_array_equal(again.probabilities, answer.probabilities[:, ::-1])


def test_a_bundle_says_what_it_sees_and_takes_volumes_alone(bundle: Bundle, run: Run) -> None:
    description = bundle.description
    assert (description.neighbours, description.in_channels, description.image_channels) == (1, 3, 1)
    assert bundle.sample()[0].shape == (SIDE, SIDE, 3)
    predictor = Predictor(bundle, "cpu")
    picture = Path(run.recipe.train_dataset.dataset_root) / "images"
    for call in (
        lambda: predictor.predict(np.zeros((SIDE, SIDE, 3), np.uint8)),
        lambda: predictor.predict_file(next(picture.rglob("*.png"))),
    ):
        with pytest.raises(
            DataError, match="is one picture, the model sees a slice with 1 neighbours"
        ) as caught:
            call()
        assert "whole volume" in caught.value.hint


def test_a_bundle_from_before_sees_one_slice(bundle: Bundle) -> None:
    content = json.loads((bundle.path / "bundle.json").read_text())
    assert content.pop("neighbours") == 1
    assert from_json(content)[0].neighbours == 0
    del content["trained_on"]["between"]
    assert from_json({**content, "version": 2})[0].trained_on.between is None
    with pytest.raises(ValueError, match="3 channels for 5 slices"):
        from_json({**content, "neighbours": 2})


def test_slices_much_farther_apart_than_those_learned_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    nib.save(nifti(blocks(9).astype(np.int16), down=False), tmp_path / "one.nii.gz")
    predictor = Predictor(bundle, "cpu")
    (volume,) = predictor.read(tmp_path / "one.nii.gz")
    assert isinstance(volume, Volume)
    predictor.predict(volume)
    header = nib.load(tmp_path / "one.nii.gz")
    header.affine[2, 2] = 2 * STEP
    nib.save(nib.Nifti1Image(np.asarray(header.dataobj), header.affine), tmp_path / "far.nii.gz")
    with pytest.raises(DataError, match=r"axial slices are 4 mm apart; .* trained on slices 2 mm apart"):
        predictor.predict_file(tmp_path / "far.nii.gz")


def test_images_of_the_training_are_the_same_from_memory_which_holds_each_slice_once(recipe: Recipe) -> None:
    cases = load_cases(recipe.train_dataset, neighbours=1)
    by_image = {(case.volume, case.slicing.within.place): case for case in cases}
    with DecodedImages(1 << 24) as decoded:
        found = survey(cases, recipe, decoded=decoded)
        assert len(decoded) == len(cases) == 4 * SLICES
        fast, slow = TrainingStream(cases, recipe, decoded, found), TrainingStream(cases, recipe)
        for position in range(40):
            one, other = fast[position], slow[position]
            assert one["img"].shape == (3, SIDE, SIDE)
            for key in ("img", "label"):
                np.testing.assert_array_equal(one[key], other[key])
            # All channels are turned and mirrored alike, and the label goes with the slice above.
            np.testing.assert_array_equal(one["label"], one["img"][2] > 0)
            case = fast.case_at(position)
            assert by_image[case.volume, case.slicing.within.place] is case


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(recipe_file: Path, tmp_path: Path) -> None:
    def digest(run: Run) -> str:
        state = paddle.load(str(run.checkpoints / "iter_4" / "model.pdparams"), return_numpy=True)
        return hashlib.sha256(b"".join(value.tobytes() for _, value in sorted(state.items()))).hexdigest()

    short = ["save_interval=2", "log_iters=1"]
    whole = train(recipe_file, output=tmp_path / "whole", overrides=[*short, "iters=4"])
    train(recipe_file, output=tmp_path / "parts", overrides=[*short, "iters=2"])
    with pytest.raises(RecipeError, match="another neighbours"):
        train(
            recipe_file, output=tmp_path / "parts", overrides=[*short, "iters=4", "neighbours=0"], resume=True
        )
    parts = train(recipe_file, output=tmp_path / "parts", overrides=[*short, "iters=4"], resume=True)
    assert digest(whole) == digest(parts)
    assert whole.history() == parts.history()


def test_networks_of_other_slices_do_not_answer_together(run: Run, tmp_path: Path) -> None:
    other = Run.open(shutil.copytree(run.path, tmp_path / "other"))
    changed = [
        "neighbours=0",
        "model.in_channels=3",
        "train_dataset.img_channels=3",
        "val_dataset.img_channels=3",
    ]
    resolved = change_recipe(other.recipe, changed)
    with pytest.raises(ModelError, match="differ in neighbours"):
        require_one_task([*open_members(run), Run(other.path, resolved)])


def test_a_preview_shows_the_slice_itself(recipe_file: Path, tmp_path: Path) -> None:
    sheet = preview(recipe_file, draws=1, output=tmp_path / "sheet.png")
    assert sheet.path.is_file()
    assert sheet.shares["above"] > 0.9
