"""Volumes that are preprocessed once: made from the files as they are, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg_paddle import volume_cache
from medseg_paddle.config import Recipe, change_recipe, load_recipe
from medseg_paddle.core import Case, sha256
from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.io.case_volumes import read_case_volumes
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.files import locked
from medseg_paddle.preprocess import ZScore
from medseg_paddle.steps.check import check
from medseg_paddle.steps.prepare import prepare
from medseg_paddle.steps.volumes import ready_volumes
from medseg_paddle.volume_cache import SPEC, VolumeCache
from tests.conftest import prepare_balls


def cases_of(recipe: Recipe) -> tuple[Case, ...]:
    return load_cases(recipe.train_dataset, 3)


def made(cache: VolumeCache) -> dict[str, int]:
    """When each file was written."""
    files = [path for path in cache.folder.rglob("*.np*") if not path.name.startswith(".")]
    return {path.relative_to(cache.folder).as_posix(): path.stat().st_mtime_ns for path in files}


def changed(path: Path, array: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, nib.load(path).affine), path)


def stored(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_what_is_kept_is_what_the_network_sees(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases, workers=1)
    for number, case in enumerate(cases):
        facts = cache.facts(case)
        kept = cache.open(case, facts)
        # SPL: slices to the head, rows to the back, columns to the left; NIfTI's i runs to the right, j to the front.
        signs = np.sign(np.diag(nib.load(case.image).affine)[:3])
        turned = [stored(path)[:: -int(signs[0]), :: -int(signs[1])].T for path in (case.image, case.label)]
        values = turned[0].astype(np.float64)
        np.testing.assert_allclose(kept.image[0], (values - values.mean()) / values.std(), atol=1e-5)
        np.testing.assert_array_equal(kept.label, turned[1])
        assert kept.image.dtype == np.float32
        assert facts.counts == tuple(np.bincount(turned[1].ravel()))
        assert kept.spacing == pytest.approx((2, 1, 1))
        assert (facts.ignored, facts.holds_foreground) == (0, True), number


def test_several_processes_keep_the_same(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases, workers=1)
    alone = {name: (cache.folder / name).read_bytes() for name in made(cache) if not name.startswith("notes")}
    shutil.rmtree(cache.folder)
    ready_volumes(ball_recipe, cases, workers=2)
    assert alone == {name: (cache.folder / name).read_bytes() for name in alone}


def test_only_what_is_missing_or_of_another_source_is_made_anew(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    first = made(cache)
    os.utime(cases[0].image)  # another time, the same content
    ready_volumes(ball_recipe, cases)
    assert made(cache) == first
    label = stored(cases[1].label)
    changed(cases[1].label, np.roll(label, 1, axis=0))
    assert cache.lacking(cases) == [cases[1]]
    with pytest.raises(DataError, match="its source has changed"):
        cache.facts(cases[1])
    ready_volumes(ball_recipe, cases)
    then = made(cache)
    assert {name for name in first if then[name] != first[name]} == {
        f"{kind}/{cases[1].id}.{ending}"
        for kind, ending in (("images", "npy"), ("labels", "npy"), ("notes", "npz"))
    }
    kept = cache.open(cases[1], cache.facts(cases[1]))
    assert np.count_nonzero(kept.label) == np.count_nonzero(label)


def test_of_a_copied_data_set_each_file_is_hashed_once(
    ball_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has other times: only the content tells that it is the same, and a training asks several times."""
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    for case in cases:
        os.utime(case.image, ns=(1, 1))
        os.utime(case.label, ns=(1, 1))
    hashed = []
    monkeypatch.setattr(volume_cache, "sha256", lambda path: hashed.append(path) or sha256(path))
    for _ in range(3):
        assert cache.lacking(cases) == []
        assert all(cache.facts(case).holds_foreground for case in cases)
    files = sorted(path for case in cases for path in (case.image, case.label))
    assert sorted(hashed) == files
    begin_anew()  # a second start
    assert cache.lacking(cases) == []
    assert sorted(hashed) == files
    os.utime(cases[0].label, ns=(2, 2))
    begin_anew()
    assert cache.lacking(cases) == []
    assert hashed[len(files) :] == [cases[0].label]


def begin_anew() -> None:
    """Forget what a process remembers of files."""
    volume_cache._digest.cache_clear()


def test_a_training_at_work_goes_on_when_files_get_another_time(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    facts = cache.facts(cases[0])
    os.utime(cases[0].image, ns=(1, 1))
    begin_anew()
    ready_volumes(ball_recipe, cases)  # of another training
    assert cache.open(cases[0], facts).image.size > 0


def test_a_file_that_was_changed_in_place_is_noticed_after_a_copy(ball_recipe: Recipe) -> None:
    """The time is new, the size is as before: what was remembered of the copy must not speak for it."""
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    os.utime(cases[0].image, ns=(1, 1))
    assert cache.lacking(cases) == []
    stamps = cache.folder / "stamps" / f"{cases[0].id}.json"
    assert stamps.is_file()
    content = bytearray(cases[0].image.read_bytes())
    content[-1] ^= 1
    cases[0].image.write_bytes(content)
    begin_anew()
    assert cache.lacking(cases) == [cases[0]]
    stamps.write_text("{")
    assert cache.lacking(cases[1:]) == []


def test_a_copy_that_nobody_may_write_to_is_compared_each_time(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    os.utime(cases[0].image, ns=(1, 1))
    (cache.folder / "stamps").touch()  # a file where the folder is to be
    begin_anew()
    assert cache.lacking(cases) == []


def test_volumes_of_other_recipes_are_named_when_more_are_made(
    ball_recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    finer = [f"{name}_dataset.transforms.0.spacing=[1, 1, 1]" for name in ("train", "val")]
    assert "other ways" not in capsys.readouterr().out
    for path in cache.folder.rglob("*"):
        os.utime(path, (1, 1))
    os.utime(cases[0].image, ns=(1, 1))
    assert cache.lacking(cases) == []  # a look at it, which leaves a stamp
    ready_volumes(change_recipe(ball_recipe, finer), cases)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{cache.folder.name} (" in said
    assert "made until 1970-01-01" in said
    assert "no recipe needs any more" in said
    assert cache.lacking(cases) == []  # and still there
    ready_volumes(change_recipe(ball_recipe, finer), cases)
    assert "other ways" not in capsys.readouterr().out


def test_volumes_that_somebody_else_keeps_to_himself_are_no_trouble(
    ball_recipe: Recipe, request: pytest.FixtureRequest
) -> None:
    # Not tmp_path: nobody may not even enter that of the superuser.
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        cache = replace(VolumeCache.of(ball_recipe), root=Path(root))
        closed, open_to_all = (cache.folder.parent / name for name in ("closed", "open"))
        for folder in (closed, open_to_all):
            folder.mkdir(parents=True)
            (folder / SPEC).write_text("{}")
        closed.chmod(0o000)
        request.getfixturevalue("ordinary_user")
        try:
            assert [one.folder for one in cache.others()] == [open_to_all]
        finally:
            os.seteuid(os.getuid())
            closed.chmod(0o700)


def test_what_a_killed_process_left_is_completed(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    first = made(cache)
    (cache.folder / "notes" / f"{cases[2].id}.npz").unlink()  # the last of a case's files
    half = cache.folder / "images" / f".{cases[2].id}.npy.0123abcd.tmp"
    half.write_bytes(b"half of it")
    ready_volumes(ball_recipe, cases)
    assert made(cache).keys() == first.keys()
    assert not half.exists()
    assert {name for name in first if made(cache)[name] == first[name]} == {
        name for name in first if cases[2].id not in name
    }


def test_another_way_to_preprocess_has_a_folder_of_its_own(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    finer = change_recipe(
        ball_recipe, [f"{name}_dataset.transforms.0.spacing=[1, 1, 1]" for name in ("train", "val")]
    )
    ready_volumes(finer, cases)
    other = VolumeCache.of(finer)
    assert other.folder != cache.folder
    assert other.folder.parent == cache.folder.parent
    kept = other.open(cases[0], other.facts(cases[0]))
    assert kept.image.shape[1] == 2 * cache.open(cases[0], cache.facts(cases[0])).image.shape[1]
    assert set(np.unique(kept.label)) == {0, 1}


def test_a_second_process_waits_and_takes_what_the_first_has_made(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    with locked(cache.lock):
        second = threading.Thread(target=ready_volumes, args=(ball_recipe, cases))
        second.start()
        cache.begin()
        cache.make(cases[0])
        mine = made(cache)
        time.sleep(0.2)
        assert made(cache) == mine
    second.join()
    assert cache.lacking(cases) == []
    assert {name: then for name, then in made(cache).items() if name in mine} == mine


def test_a_folder_that_cannot_be_written_is_named(ball_recipe: Recipe) -> None:
    (VolumeCache.of(ball_recipe).root / "preprocessed").write_text("a file where the folder is to be")
    with pytest.raises(SetupError, match="cannot be written") as error:
        ready_volumes(ball_recipe, cases_of(ball_recipe))
    assert "medseg prepare" in error.value.hint


def test_a_disk_that_is_too_small_is_told_before_the_work_begins(ball_recipe: Recipe) -> None:
    finest = [
        f"{name}.transforms.0.spacing=[0.001, 0.001, 0.001]" for name in ("train_dataset", "val_dataset")
    ]
    recipe = change_recipe(ball_recipe, finest)
    with pytest.raises(SetupError, match=r"take \d+\.\d GB, and \d+\.\d GB are free") as error:
        ready_volumes(recipe, cases_of(recipe))
    assert "spacing" in error.value.hint
    assert made(VolumeCache.of(recipe)) == {}


def test_a_damaged_file_is_told(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    facts = cache.facts(cases[0])
    path = cache.folder / "images" / f"{cases[0].id}.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged") as error:
        cache.open(cases[0], facts)
    assert f"remove {cache.folder}" in error.value.hint


def test_labels_that_are_no_classes_or_lie_elsewhere_are_refused(ball_recipe: Recipe) -> None:
    cases = cases_of(ball_recipe)
    label = stored(cases[0].label)
    changed(cases[0].label, label * 7)
    with pytest.raises(DataError, match=r"label value 7 \(\d+ voxels\) for 2 classes"):
        ready_volumes(ball_recipe, cases)
    moved = nib.load(cases[0].label).affine + np.eye(4, k=3) * 5
    nib.save(nib.Nifti1Image(label, moved), cases[0].label)
    with pytest.raises(DataError, match="does not lie on the grid of its image"):
        ready_volumes(ball_recipe, cases)


def test_channels_and_units_of_a_case(ball_recipe: Recipe) -> None:
    case = cases_of(ball_recipe)[0]
    with pytest.raises(DataError, match="has 1 channel") as error:
        read_case_volumes(case, 3)
    assert "img_channels: 1" in error.value.hint
    assert read_case_volumes(case, 1)[0].units == "unknown"
    assert case.slicing is not None


def test_a_volume_that_cannot_be_normalised_is_named(ball_recipe: Recipe) -> None:
    case = cases_of(ball_recipe)[0]
    changed(case.image, np.full_like(stored(case.image), 40))
    with pytest.raises(DataError, match=r"train\d.*no contrast to normalise") as error:
        ready_volumes(ball_recipe, [case])
    assert isinstance(VolumeCache.of(ball_recipe).preprocessing.normalization, ZScore)
    assert "blank" in error.value.hint


def test_a_data_set_that_is_prepared_again_has_no_old_volumes(ball_recipe: Recipe) -> None:
    cases, cache = cases_of(ball_recipe), VolumeCache.of(ball_recipe)
    ready_volumes(ball_recipe, cases)
    prepare_balls(cache.root.parent)
    assert cache.root.is_dir()
    assert not cache.folder.parent.exists()
    assert cache.lacking(cases) == list(cases)


def test_a_data_set_with_preprocessed_volumes_is_checked_as_before(ball_recipe: Recipe) -> None:
    ready_volumes(ball_recipe, cases_of(ball_recipe))
    assert check(Path(ball_recipe.train_dataset.dataset_root)).is_fit()


@pytest.mark.parametrize("folds", [None, 2])
def test_after_prepare_a_training_has_nothing_to_write(
    ball_recipe_file: Path, balls: Path, folds: int | None
) -> None:
    sets = {"images": "train*_image.nii.gz", "labels": "train*_label.nii.gz", "split": "train"}
    spec = {
        "reader": "volumes",
        "volumes": "whole",
        "key": "(train[0-9])",
        "patient": "(train[0-9])",
        "sets": [sets],
    }
    spec |= {"val_fraction": 0.25} if folds is None else {"folds": folds}
    recipe = load_recipe(ball_recipe_file, [f"prepare={spec}"])
    shutil.rmtree(balls)
    manifest = prepare(recipe, balls.parent / "source")
    cache = VolumeCache.of(recipe)
    learned = [case for fold in manifest.folds or (None,) for case in manifest.cases("train", fold)]
    assert not cache.lacking(learned)
    # Of the others nothing is kept, since they are scored on the grid that they came on.
    assert len(list(cache.folder.rglob("*.npz"))) == len({case.id for case in learned})
    before = made(cache)
    prepare(recipe, balls.parent / "source", keep=True)
    assert made(cache) == before
