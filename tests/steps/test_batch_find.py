"""The search for the largest batch that fits: its arithmetic, its watchman, and the real thing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_paddle.config import Recipe
from medseg_paddle.engine.batch_probe import free_on_gpu
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.steps import batch_find as module
from medseg_paddle.steps.batch_find import Probe, batch_find

MB = 10**6


def machine(base: int, per_image: int, bend: int = 0) -> Any:
    """Peaks of a made-up network in MB: on a line in the batch size, or bent upwards."""

    def measured(recipe: Recipe, limit: int) -> dict[str, Any]:
        batch = recipe.batch_size
        peak = (base + per_image * batch + bend * batch * batch) * MB
        return {} if peak > limit else {"peak": peak, "images_per_second": 1.0, "device": "cpu"}

    return measured


@settings(deadline=None, max_examples=15)
@given(
    base=st.integers(1, 900),
    per_image=st.integers(1, 600),
    bend=st.integers(0, 3),
    at_most=st.integers(1, 80),
)
def test_it_finds_the_largest_that_fits(base: int, per_image: int, bend: int, at_most: int) -> None:
    recipe = RECIPE[0]
    fits = [b for b in range(1, at_most + 1) if base + per_image * b + bend * b * b <= 2000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_measured", machine(base, per_image, bend))
        found = batch_find(recipe, memory_mb=2000, at_most=at_most)
    if bend == 0:
        assert found.batch_size == fits[-1]
    assert found.batch_size in fits
    # What it proposes, it has measured.
    assert [p.fits for p in found.probes if p.batch_size == found.batch_size] == [True]
    assert len(found.probes) < 13


RECIPE: list[Recipe] = []


@pytest.fixture(autouse=True)
def _recipe(disc_recipe: Recipe) -> None:
    RECIPE[:] = [disc_recipe]


def test_batches_are_multiples_of_what_the_recipe_allows(
    disc_recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_measured", machine(100, 100))
    told: list[Probe] = []
    found = batch_find(
        disc_recipe_file,
        overrides=["train_dataset.mixup={}"],
        memory_mb=1250,
        told=told.append,
    )
    assert [probe.batch_size for probe in told] == [2, 4, 8, 10]
    assert (found.batch_size, found.limit) == (10, 1250 * MB)


def test_where_nothing_fits_it_says_so(disc_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_measured", machine(100, 100))
    with pytest.raises(SetupError, match="not even a batch of 1 fits 150 MB"):
        batch_find(disc_recipe, memory_mb=150)


def test_a_process_that_takes_more_than_it_may_is_killed_before_it_has_it() -> None:
    limit = 150 * MB
    greedy = "import time\nheld = []\nfor _ in range(60): held.append(bytearray(b'x' * 5_000_000))\ntime.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", greedy])
    try:
        most, _ = module._watched(process, limit)
        process.wait(timeout=60)
    finally:
        process.kill()
    assert limit < most < 4 * limit
    assert process.returncode == -9


def test_a_real_recipe_is_measured_and_its_processes_are_gone(disc_recipe_file: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    found = batch_find(disc_recipe_file, at_most=1, overrides=["num_workers=1"])
    assert found.batch_size == 1
    assert found.device == "cpu"
    (probe,) = found.probes
    assert probe.fits
    assert probe.images_per_second is not None
    assert probe.images_per_second > 0
    assert probe.peak is not None
    # Libraries are most of it; a process with Paddle in it takes some hundred MB.
    assert 100 * MB < probe.peak < 3000 * MB
    assert set(tmp_path.rglob("*")) == before
    assert not [child for child in psutil.Process().children() if "batch_probe" in " ".join(child.cmdline())]


def test_a_real_training_that_is_too_large_is_ended_early(disc_recipe_file: Path) -> None:
    told: list[Probe] = []
    with pytest.raises(SetupError, match="not even a batch of 1 fits 60 MB"):
        batch_find(disc_recipe_file, memory_mb=60, told=told.append)
    assert [(probe.batch_size, probe.peak) for probe in told] == [(1, None)], (
        "ended before it could tell its peak"
    )


@pytest.mark.parametrize(
    ("visible", "number", "expected"),
    [(None, 1, 1001), ("3", 0, 1003), ("2, 0", 1, 1000), ("2,0", 2, None), ("GPU-7", 0, 1007), ("", 0, None)],
)
def test_free_memory_is_that_of_the_gpu_that_computes(
    visible: str | None, number: int, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paddle counts what CUDA_VISIBLE_DEVICES leaves, `nvidia-smi` all of the machine."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$1" in --id=*[0-9]) n=${1#--id=}; echo $((1000 + ${n#GPU-}));; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert free_on_gpu(number) == (None if expected is None else expected << 20)


def test_what_is_wrong_with_the_data_is_told_as_a_training_would(disc_recipe_file: Path, discs: Path) -> None:
    for path in (discs / "images").glob("train*"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"train\d.png") as caught:
        batch_find(disc_recipe_file)
    assert caught.value.hint


def test_a_limit_below_what_the_recipe_allows_is_refused(disc_recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match="no batch_size up to 1"):
        batch_find(disc_recipe_file, overrides=["train_dataset.mixup={}"], at_most=1)
