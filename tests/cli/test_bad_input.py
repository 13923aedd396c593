"""What users get wrong, through the real command: two lines, the exit code, nothing half-written, no traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.cli import main


@pytest.fixture
def refused(capsys, tmp_path):
    """Run a command that must fail; give back what it says."""

    def run(code: int, *words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        said = capsys.readouterr().err
        assert left.value.code == code, said
        assert said.startswith("error: ")
        assert "\nhint:  " in said
        assert "Traceback" not in said
        return " ".join(said.split())

    return run


@pytest.fixture
def training(refused, disc_recipe_file, tmp_path):
    """Start a training that must be refused; no run may be left that looks usable."""

    def run(code: int, *options: str) -> str:
        output = tmp_path / "run"
        said = refused(code, "train", "--config", disc_recipe_file, "--output", output, *options)
        assert not output.exists(), "nothing half-written"
        return said

    return run


def test_a_truncated_label(training, discs):
    label = discs / "labels" / "train1.png"
    label.write_bytes(label.read_bytes()[:60])
    said = training(3)
    assert "train1.png is damaged or truncated" in said


def test_a_truncated_image(training, discs):
    image = discs / "images" / "train4.png"
    image.write_bytes(image.read_bytes()[:-200])
    assert "train4.png is damaged or truncated" in training(3)


def test_an_empty_image(training, discs):
    (discs / "images" / "train0.png").write_bytes(b"")
    assert "train0.png" in training(3)


def test_a_text_file_as_image(training, discs):
    (discs / "images" / "val0.png").write_text("not a picture")
    assert "val0.png" in training(3)


def test_a_missing_file_in_a_list(training, discs):
    (discs / "train_list.txt").write_text(
        "images/train0.png labels/train0.png\nimages/gone.png labels/gone.png\n"
    )
    said = training(3)
    assert "gone.png" in said
    assert "train_list.txt" in said or str(discs) in said


def test_a_line_with_spaces_in_a_path(training, discs):
    (discs / "train_list.txt").write_text("images/my train0.png labels/train0.png\n")
    assert "line 1" in training(3)


def test_a_missing_data_folder(training):
    assert "is not there" in training(3, "--set", "train_dataset.dataset_root=nowhere")


def test_a_label_value_beyond_the_classes(training, discs):
    label = discs / "labels" / "train2.png"
    Image.fromarray(np.asarray(Image.open(label)) * 7).save(label)
    said = training(3)
    assert "train2.png" in said
    assert "label value 7" in said
    assert "label_map" in said


def test_a_label_of_another_size(training, discs):
    Image.fromarray(np.ones((40, 48), np.uint8)).save(discs / "labels" / "train3.png")
    assert "(40, 48)" in training(3)


def test_no_foreground_in_the_training_set(training, discs):
    for label in (discs / "labels").glob("train*"):
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(label)
    assert "no foreground pixel in the training set" in training(3)


def test_an_image_in_training_and_validation(training, discs):
    (discs / "val_list.txt").write_text("images/train0.png labels/train0.png\n")
    assert "are in the train and the val set" in training(3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("batchsize=2", "did you mean 'batch_size'"),
        ("iters=soon", "iters = 'soon'"),
        ("model.type=Unet", "did you mean 'UNet'"),
    ],
)
def test_a_recipe_with_a_wrong_word(training, change, words):
    assert words in training(2, "--set", change)


def test_fp16_without_a_gpu(training):
    assert "fp16 works on GPU only" in training(5, "--set", "precision=fp16")


def test_an_output_that_cannot_be_written(refused, disc_recipe_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = refused(5, "train", "--config", disc_recipe_file, "--output", tmp_path / "file" / "run")
    assert str(tmp_path / "file") in said
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_output_that_is_something_else(refused, disc_recipe_file, discs):
    refused(5, "train", "--config", disc_recipe_file, "--output", discs)
    assert (discs / "train_list.txt").is_file()


def test_a_folder_that_is_no_run(refused, discs):
    assert "is not a run" in refused(4, "evaluate", discs)
    assert "is not a run" in refused(4, "export", discs)


def test_a_checkpoint_of_another_model(refused, finished_runs, tmp_path):
    import shutil

    run = Path(shutil.copytree(finished_runs / "first", tmp_path / "copy"))
    recipe = run / "recipe.yml"
    recipe.write_text(recipe.read_text().replace("width: 4", "width: 8"))
    assert "another model" in refused(4, "evaluate", run)
    assert not (run / "evaluation").exists()
    assert "another model" in refused(4, "export", run)
    assert not (run / "bundle").exists()


def test_a_damaged_checkpoint(refused, finished_runs, tmp_path):
    import shutil

    run = Path(shutil.copytree(finished_runs / "first", tmp_path / "copy"))
    weights = run / "checkpoints" / "best_model" / "model.pdparams"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "cannot be read" in refused(4, "evaluate", run)
