"""Trainings on whole volumes: patches that are where they should be, and the same whatever happens amid it."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import shutil
import signal
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import paddle
import psutil
import pytest

from medseg_paddle.config import Recipe, change_recipe, load_recipe
from medseg_paddle.engine.streams import batch_bytes, survey, survey_scored, training_stream
from medseg_paddle.engine.volume_data import VolumeStream
from medseg_paddle.errors import DataError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.run import Run
from medseg_paddle.steps.lr_find import lr_find
from medseg_paddle.steps.train import train
from medseg_paddle.steps.volumes import ready_volumes
from medseg_paddle.volume_cache import VolumeCache

CHANGES = ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma", "gamma_inverted")
PLAIN = ["rotation_prob=0", "scale_prob=0", "elastic_prob=0", "mirror=[]", "foreground=1"]


def digests(run: Run, iteration: int) -> dict[str, str]:
    """Of the values in each file of a checkpoint."""
    found = {}
    for path in sorted((run.checkpoints / f"iter_{iteration}").glob("*.pd*")):
        state = paddle.load(str(path), return_numpy=True)
        values = (
            v.tobytes() if hasattr(v, "tobytes") else repr(v).encode() for _, v in sorted(state.items())
        )
        found[path.name] = hashlib.sha256(b"".join(values)).hexdigest()
    assert found
    return found


def readied(recipe: Recipe) -> VolumeStream:
    cases = load_cases(recipe.train_dataset, 3)
    ready_volumes(recipe, cases)
    stream = training_stream(cases, recipe)
    assert isinstance(stream, VolumeStream)
    return stream


# Every way in which a file can store the axes of the patient: 6 orders, each with 8 directions; some of them.
WAYS = [
    way
    for number, way in enumerate(product(permutations(range(3)), product((1, -1), repeat=3)))
    if number % 7 == 0
]


@pytest.mark.parametrize(("order", "signs"), WAYS)
def test_a_patch_is_where_the_patient_has_it(ball_recipe: Recipe, order, signs) -> None:
    """Each voxel's intensity says where in the patient it lies, in mm: left, to the back, to the head."""
    spacing = np.array([0.5, 1.5, 2.5])  # along the patient's axes: right-left, back-front, feet-head
    axes = np.zeros((3, 3))
    for index, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        axes[axis, index] = sign * spacing[axis]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (12.5, -30.0, 40.0)
    shape = tuple(np.array([24, 22, 16])[list(order)])
    ras = np.moveaxis(np.indices(shape), 0, -1) @ axes.T + affine[:3, 3]
    left, back, head = -ras[..., 0], -ras[..., 1], ras[..., 2]
    recipe = change_recipe(
        ball_recipe,
        [
            *(f"{name}_dataset.transforms.0={{type: VolumePreprocessing}}" for name in ("train", "val")),
            *(f"train_dataset.transforms.1.{word}" for word in PLAIN),
            "train_dataset.transforms.1.size=[8, 8, 8]",
            *(f"train_dataset.transforms.2.{word}_prob=0" for word in CHANGES),
        ],
    )
    case = load_cases(recipe.train_dataset, 3)[0]
    marked = tuple(side // 2 for side in shape)
    label = np.zeros(shape, np.uint8)
    label[marked] = 1
    nib.save(nib.Nifti1Image((left + 100 * back + 10_000 * head).astype(np.float32), affine), case.image)
    nib.save(nib.Nifti1Image(label, affine), case.label)
    ready_volumes(recipe, [case])
    batch = VolumeStream([case], recipe).batch([0, 1])
    for image, found in zip(batch["img"][:, 0], batch["label"], strict=True):
        ((k, row, column),) = np.argwhere(found == 1)
        assert image[k, row, column] == left[marked] + 100 * back[marked] + 10_000 * head[marked]
        np.testing.assert_array_equal(np.diff(image, axis=0), 10_000 * 2.5)
        np.testing.assert_array_equal(np.diff(image, axis=1), 100 * 1.5)
        np.testing.assert_array_equal(np.diff(image, axis=2), 0.5)


def test_what_the_survey_noted_is_not_read_again(ball_recipe: Recipe) -> None:
    cases = load_cases(ball_recipe.train_dataset, 3)
    whole = readied(ball_recipe).batch(range(2))
    found = survey(cases, ball_recipe)
    notes = VolumeCache.of(ball_recipe).folder / "notes"
    notes.rename(notes.with_name("away"))
    stream = training_stream(cases, ball_recipe, found=found)
    with pytest.raises(DataError, match="not there any more"):
        training_stream(cases, ball_recipe)
    notes.with_name("away").rename(notes)
    np.testing.assert_array_equal(stream.batch(range(2))["img"], whole["img"])


def test_of_what_is_scored_headers_and_labels_are_looked_at(ball_recipe: Recipe) -> None:
    """Hundreds of CTs are not read at each start; what is wrong with their labels or channels is said all the same."""
    cases = load_cases(ball_recipe.val_dataset, 3)
    expected = survey_scored(cases, ball_recipe)
    image = nib.load(cases[0].image)
    with gzip.open(cases[0].image, "wb") as stream:
        stream.write(image.header.binaryblock + b"\0" * 4)  # no voxel
    assert survey_scored(cases, ball_recipe) == expected
    nib.save(nib.Nifti1Image(np.zeros((*image.shape, 2), np.int16), image.affine), cases[0].image)
    with pytest.raises(DataError, match=r"2 channel\(s\), the network takes 1"):
        survey_scored(cases, ball_recipe)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.int16), np.eye(4)), cases[0].image)
    with pytest.raises(DataError, match="not lie on the grid"):
        survey_scored(cases, ball_recipe)


def test_a_batch_depends_on_seed_and_position_alone(ball_recipe: Recipe) -> None:
    stream = readied(ball_recipe)
    whole = stream.batch(range(12))
    assert (whole["img"].shape, whole["img"].dtype) == ((12, 1, 8, 16, 16), np.float32)
    assert (whole["label"].shape, whole["label"].dtype) == ((12, 8, 16, 16), np.uint8)
    again = readied(ball_recipe)
    for positions in ([7], [3, 1], [11, 0]):
        part = again.batch(positions)
        for name in ("img", "label"):
            np.testing.assert_array_equal(part[name], whole[name][positions])
    assert {str(stream.case_at(place).image) for place in range(4)} == set(stream.names(range(4)))
    assert len({stream.case_at(place).id for place in range(4)}) == 4
    other = readied(change_recipe(ball_recipe, ["seed=7"])).batch(range(12))
    assert not np.array_equal(other["img"], whole["img"])
    room = sum(array.nbytes for array in stream.batch([0, 1]).values())
    assert room <= batch_bytes(ball_recipe, survey(load_cases(ball_recipe.train_dataset, 3), ball_recipe))


def test_no_file_stays_open(ball_recipe: Recipe) -> None:
    stream = readied(ball_recipe)
    stream.batch(range(2))
    before = psutil.Process().num_fds()
    stream.batch(range(40))
    assert psutil.Process().num_fds() == before


def test_what_is_surveyed(ball_recipe: Recipe) -> None:
    readied(ball_recipe)
    for look, dataset in ((survey, ball_recipe.train_dataset), (survey_scored, ball_recipe.val_dataset)):
        cases = load_cases(dataset, 3)
        counts = sum(np.bincount(np.asarray(nib.load(case.label).dataobj).ravel()) for case in cases)
        found = look(cases, ball_recipe)
        assert found.pixels == tuple(counts)
        assert found.holds_foreground == (True,) * len(cases)


def test_a_label_that_is_all_ignored_is_doubted_and_never_drawn_for_its_foreground(
    ball_recipe: Recipe,
) -> None:
    cases = load_cases(ball_recipe.train_dataset, 3)
    label = nib.load(cases[1].label)
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj) * np.uint8(255), label.affine), cases[1].label)
    recipe = change_recipe(ball_recipe, ["train_dataset.sampling={foreground: 1}"])
    stream = readied(recipe)
    found = survey(cases, recipe)
    assert found.only_ignored == (cases[1].label,)
    assert found.holds_foreground == (True, False, True, True)
    assert cases[1] not in [stream.case_at(place) for place in range(40)]


def test_a_source_that_changes_amid_a_training_ends_it(ball_recipe: Recipe) -> None:
    stream = readied(ball_recipe)
    stream.batch(range(4))
    case = stream.case_at(5)
    label = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(label.dataobj), 2, 0), label.affine), case.label)
    readied(ball_recipe)  # by a second training
    with pytest.raises(
        DataError, match=f"case {case.id} in .* is not there any more, or its source has changed"
    ):
        stream.batch([5])
    shutil.rmtree(Path(ball_recipe.train_dataset.dataset_root) / "preprocessed")
    with pytest.raises(DataError, match="is not there any more"):
        stream.batch([4])


# Batches are loaded some iterations ahead.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from medseg_paddle.engine.startup import start_paddle
start_paddle()
from medseg_paddle.engine.volume_data import VolumeStream
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train

batch = VolumeStream.batch

def killing(stream, positions, *rest):
    if positions[0] >= 8:
        run = Run.open(Path(sys.argv[2]))
        while not run.is_sealed(run.checkpoint_at(3)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return batch(stream, positions, *rest)

VolumeStream.batch = killing
train(sys.argv[1], output=sys.argv[2])
"""


def test_a_training_that_was_killed_ends_as_one_that_was_not(ball_recipe_file: Path, tmp_path: Path) -> None:
    sampled = ball_recipe_file.read_text().replace(
        "mode: train\n", "mode: train\n  sampling: {foreground: 0.5}\n", 1
    )
    ball_recipe_file.write_text(f"{sampled}use_ema: true\n")
    whole = train(ball_recipe_file, output=tmp_path / "whole")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(ball_recipe_file), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert "iter_3" in [path.name for path in (tmp_path / "run" / "checkpoints").glob("*")]
    run = train(ball_recipe_file, output=tmp_path / "run", overrides=["num_workers=2"], resume=True)
    assert digests(run, 6) == digests(whole, 6)
    assert [entry["score"] for entry in run.history()] == [entry["score"] for entry in whole.history()]
    assert all(math.isfinite(entry["score"]) for entry in run.history())


def test_balanced_weights_and_what_a_run_notes(ball_recipe_file: Path, tmp_path: Path) -> None:
    balanced = ["loss.types.0.weight=balanced", "iters=2", "save_interval=2"]
    run = train(ball_recipe_file, output=tmp_path / "run", overrides=balanced)
    background, ball = run.provenance["pixels_per_class"]
    assert background + ball == sum(
        math.prod(nib.load(case.label).shape) for case in load_cases(run.recipe.train_dataset, 3)
    )
    weights = run.provenance["class_weights"]
    assert weights[1] / weights[0] == pytest.approx(background / ball)
    assert run.provenance["data"]["train"]["images"] == 4
    case = load_cases(run.recipe.train_dataset, 3)[0]
    label = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(label.dataobj), 2, 0), label.affine), case.label)
    with pytest.raises(DataError, match="has changed since the training"):
        train(ball_recipe_file, output=tmp_path / "run", overrides=[*balanced, "iters=4"], resume=True)


def test_a_learning_rate_is_found(ball_recipe_file: Path, tmp_path: Path) -> None:
    found = lr_find(ball_recipe_file, output=tmp_path / "lr.png", iterations=10, highest=0.01)
    assert len(found.losses) == 10
    assert (tmp_path / "lr.png").is_file()


def test_volumes_and_pictures_are_not_taken_for_each_other(
    ball_recipe_file: Path, disc_recipe_file: Path
) -> None:
    balls, discs = load_recipe(ball_recipe_file), load_recipe(disc_recipe_file)
    with pytest.raises(DataError, match="holds whole volumes") as error:
        load_cases(balls.train_dataset, discs.dimensions)
    assert "volumes: slices" in error.value.hint
    with pytest.raises(DataError, match="holds pictures") as error:
        load_cases(discs.train_dataset, balls.dimensions)
    assert "volumes: whole" in error.value.hint
