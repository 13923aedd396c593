"""From a run on whole volumes to its bundle, and to the masks that the evaluation gave."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg_paddle.bundle import Bundle, ParityError
from medseg_paddle.config import load_recipe
from medseg_paddle.core import Manifest, VolumeAcquisition
from medseg_paddle.errors import DataError, ModelError
from medseg_paddle.predictor import Predictor
from medseg_paddle.preprocess import VolumePreprocessing
from medseg_paddle.run import Run
from medseg_paddle.steps.evaluate import evaluate
from medseg_paddle.steps.export import export
from medseg_paddle.steps.train import train
from tests.conftest import VOLUME_RECIPE, write_balls

RULES = (
    "postprocessing=[{type: Threshold, classes: [ball], at_least: 0.5}, {type: KeepLargest, classes: [ball]}]"
)
MIRRORED = "inference.mirror=[2]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folder of two trainings on balls, ``one`` and ``two``, and of the data."""
    folder = tmp_path_factory.mktemp("balls")
    (folder / "balls.yml").write_text(VOLUME_RECIPE.format(root=write_balls(folder)))
    for name, iters in (("one", 24), ("two", 3)):
        overrides = [f"seed={iters}", f"iters={iters}", f"save_interval={iters}", RULES, MIRRORED]
        train(folder / "balls.yml", output=folder / name, overrides=overrides)
    return folder


@pytest.fixture(scope="module")
def bundle(runs) -> Bundle:
    return export(runs / "one")


def test_a_bundle_gives_the_masks_that_the_evaluation_wrote(runs, bundle):
    evaluate(runs / "one", split="val", overlays=0)
    masks = Run.open(runs / "one").evaluation_folder("val") / "masks"
    predictor = Predictor(bundle, "cpu")
    cases = Manifest.load(runs / "balls").splits["val"]
    assert len(cases) == 2
    for case in cases:
        mask = nibabel.load(masks / f"{case.id}.nii.gz")
        answer = predictor.predict_file(case.image)
        found = np.asarray(mask.dataobj).T
        assert 0 < np.count_nonzero(found) < found.size
        np.testing.assert_array_equal(answer.array, found)
        assert answer.labels.geometry.shape == found.shape


def test_a_bundle_says_how_volumes_are_taken(runs, bundle):
    said, recipe = bundle.description, Run.open(runs / "one").recipe
    assert isinstance(said.preprocessing, VolumePreprocessing)
    assert said.preprocessing.spacing == (2, 1, 1)
    assert (said.plan.mode, said.plan.tile, said.plan.mirror) == ("tiles", (8, 16, 16), (2,))
    assert [rule["type"] for rule in said.postprocessing] == ["Threshold", "KeepLargest"]
    assert (said.window, said.channel_windows, said.in_channels) == (None, (), 1)
    assert isinstance(said.trained_on, VolumeAcquisition)
    assert [one.median for one in said.trained_on.spacing] == pytest.approx([2, 1, 1])
    assert said.trained_on.units == ("unknown",)
    assert said.tolerance == recipe.export.tolerance
    assert bundle.parity.max_difference <= said.tolerance
    assert bundle.parity.shapes == ((2, 1, 8, 16, 16), (1, 1, 8, 16, 16))
    assert bundle.sample()[0].shape == (1, 8, 16, 16)
    text = (bundle.path / "bundle.json").read_text()
    assert not any(word in text for word in (str(runs / "balls" / "images"), "val4.nii.gz"))


def test_volumes_that_go_whole_are_compared_whole(runs, tmp_path):
    overrides = ["inference.mode=whole", "export.samples=2", "postprocessing=[]"]
    whole = export(runs / "one", output=tmp_path / "whole", overrides=overrides)
    # Of 10 x 18 x 20 and 10 x 18 x 21 voxels; sides are padded to the powers of two in the patch's.
    assert set(whole.parity.shapes) == {(2, 1, 16, 32, 32), (1, 1, 16, 32, 32)}
    assert (whole.description.plan.mode, whole.description.postprocessing) == ("whole", ())
    image = Manifest.load(runs / "balls").splits["val"][0].image
    assert Predictor(whole, "cpu").predict_file(image).array.any()


def test_an_ensemble_answers_with_the_mean(runs, tmp_path):
    members = [runs / "one", runs / "two"]
    both = export(members, output=tmp_path / "both")
    assert both.description.members == 2
    image = Manifest.load(runs / "balls").splits["val"][0].image
    found = [
        Predictor(one, "cpu").predict_file(image, probabilities=True).probabilities
        for one in (
            both,
            export(members[0], output=tmp_path / "1"),
            export(members[1], output=tmp_path / "2"),
        )
    ]
    np.testing.assert_allclose(found[0], (found[1] + found[2]) / 2, atol=1e-5)
    other = Run.open(runs / "two").changed(["postprocessing=[]"], ("postprocessing",))
    with pytest.raises(ModelError, match="differ in postprocessing"):
        export([members[0], other], output=tmp_path / "no")


def test_a_training_starts_from_a_bundle(runs, bundle, tmp_path):
    import paddle

    overrides = [f"initialise={{source: {bundle.path}}}", "iters=1", "save_interval=1"]
    run = train(runs / "balls.yml", output=tmp_path / "run", overrides=overrides)
    before, after = (paddle.load(str(one.weights("last"))) for one in (Run.open(runs / "one"), run))
    moved = [np.abs(after[name].numpy() - before[name].numpy()).max() for name in before]
    assert max(moved) < 0.05  # by one step of 0.01
    assert before.keys() == after.keys()


def test_a_graph_that_differs_is_not_exported(runs, tmp_path, monkeypatch):
    from medseg_paddle.engine import static_graph

    save = static_graph.save_static

    def save_then_move(model, *rest):
        save(model, *rest)
        model.head.weight.set_value(model.head.weight * 1.05)

    monkeypatch.setattr(static_graph, "save_static", save_then_move)
    with pytest.raises(ParityError, match="differs from the trained model"):
        export(runs / "one", output=tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_without_foreground_there_is_nothing_to_compare(runs, tmp_path):
    shutil.copytree(runs / "balls", tmp_path / "balls")
    for case in Manifest.load(tmp_path / "balls").splits["val"]:
        label = nibabel.load(case.label)
        nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj) * 0, label.affine), case.label)
    run = Run.open(runs / "one")
    recipe = load_recipe(run.path / "recipe.yml", [f"val_dataset.dataset_root={tmp_path / 'balls'}"])
    with pytest.raises(DataError, match="no validation volume has foreground"):
        export(Run(run.path, recipe), output=tmp_path / "b")
