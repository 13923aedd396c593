"""The export step on a run: real files, real checkpoint, real validation pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.bundle import Bundle, ParityError
from medseg_paddle.config import load_recipe
from medseg_paddle.errors import DataError, ModelError, SetupError
from medseg_paddle.io.images import read_image
from medseg_paddle.predictor import Predictor
from medseg_paddle.preprocess import segment
from medseg_paddle.run import Run
from medseg_paddle.steps.export import export


@pytest.fixture
def run(tmp_path, disc_recipe_file, discs) -> Run:
    """A run as `train` leaves it, with fresh weights for a checkpoint; its pictures differ in size."""
    import paddle

    from medseg_paddle.engine.models import build_model

    for number, size in enumerate([(48, 48), (350, 61)]):
        path = discs / "images" / f"val{number}.png"
        Image.open(path).resize(size[::-1]).save(path)
    recipe = load_recipe(disc_recipe_file, ("inference.divisor=16", "export.samples=2"))
    made = Run.create(tmp_path / "run", recipe, {"git": {"commit": "abc"}, "data": {}})
    paddle.seed(4)
    model = build_model(recipe)
    best = made.checkpoints / "best_model" / "model.pdparams"
    best.parent.mkdir(parents=True)
    paddle.save(model.state_dict(), str(best))
    made.set_history([{"iter": 1, "weights": "model", "score": 0.5, "dice": {"disc": 0.5}}])
    return made


def test_a_bundle_of_a_run_answers_as_its_checkpoint_does(run, discs):
    from medseg_paddle.engine.models import ForwardFunction, load_model

    bundle = export(run.path)
    assert bundle.path == run.bundle_folder
    said = bundle.description
    assert said.labels.names == ("background", "disc")
    assert (said.name, said.in_channels, said.window) == ("discs", 3, None)
    assert said.provenance["git"] == {"commit": "abc"}
    assert said.recipe["model"]["width"] == 4
    assert said.versions["paddlepaddle"] == "3.2.2"
    # Two pictures (first and last of the list, 48 x 48), a pair of the first, and a part of 37 x 29.
    assert set(bundle.parity.shapes) == {(2, 3, 48, 48), (1, 3, 48, 48), (1, 3, 48, 32)}
    assert bundle.parity.max_difference <= said.tolerance == 1e-4
    assert bundle.parity.differing_pixels < 0.01
    predictor = Predictor(run.bundle_folder, "cpu")
    assert predictor.self_check() <= said.tolerance
    tall = read_image(discs / "images" / "val1.png", 3)
    answer = predictor.predict(tall, probabilities=True)
    forward = ForwardFunction(load_model(run.recipe, run.best_checkpoint))
    expected = segment(forward, tall, said.preprocessing, said.plan)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)


def test_the_sample_is_a_part_of_the_first_validation_picture_at_most_320_pixels_wide(run, discs):
    big = np.random.default_rng(0).integers(0, 256, (340, 500, 3)).astype(np.uint8)
    Image.fromarray(big).save(discs / "images" / "val0.png")
    picture, probabilities = export(run).sample()
    np.testing.assert_array_equal(picture, big[10:330, 90:410])
    assert probabilities.shape == (2, 320, 320)


def test_a_folder_of_one_s_choice_and_an_export_again(run, tmp_path):
    first = export(run, output=tmp_path / "elsewhere" / "model")
    assert not run.bundle_folder.exists()
    with pytest.raises(SetupError):
        export(run, output=first.path)
    again = export(run, output=first.path, overwrite=True)
    assert Bundle.open(first.path).id == again.id


def test_a_graph_that_differs_leaves_nothing(run, monkeypatch):
    """The weights move between the save and the comparison, as if the graph had lost a layer."""
    from medseg_paddle.engine import static_graph

    save = static_graph.save_static

    def save_then_move(model, *rest):
        save(model, *rest)
        model.head.weight.set_value(model.head.weight * 1.05)

    monkeypatch.setattr(static_graph, "save_static", save_then_move)
    before = set(run.path.iterdir())
    with pytest.raises(ParityError, match="differs from the trained model"):
        export(run)
    assert set(run.path.iterdir()) == before


def test_the_tolerance_is_the_recipe_s(run):
    strict = Run(
        run.path,
        run.recipe.model_copy(update={"export": run.recipe.export.model_copy(update={"tolerance": 1e-12})}),
    )
    with pytest.raises(ParityError, match="1e-12 is allowed"):
        export(strict)


def test_a_checkpoint_of_another_model_is_refused(run):
    model = run.recipe.model.model_copy(update={"width": 8})
    with pytest.raises(ModelError, match="another model"):
        export(Run(run.path, run.recipe.model_copy(update={"model": model})))
    assert not run.bundle_folder.exists()


@pytest.mark.parametrize("gone", ["run", "checkpoint", "pictures"])
def test_what_is_not_there_is_said(run, discs, tmp_path, gone):
    folder: Path = run.path
    if gone == "run":
        folder = tmp_path / "nowhere"
    elif gone == "checkpoint":
        run.best_checkpoint.unlink()
    else:
        discs.rename(tmp_path / "moved")
    with pytest.raises(DataError if gone == "pictures" else ModelError):
        export(folder)
    assert not run.bundle_folder.exists()


def test_the_window_of_volumes_comes_from_the_recipe(run):
    from medseg_paddle.config.prepare import PrepareSpec

    prepare = PrepareSpec(
        reader="nifti", sets=[{"images": "*.nii", "labels": "*.nii"}], val_fraction=0.1,
        window={"level": -600, "width": 1500},
    )  # fmt: skip
    window = export(Run(run.path, run.recipe.model_copy(update={"prepare": prepare}))).description.window
    assert (window.level, window.width) == (-600, 1500)
