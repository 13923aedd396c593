"""The loader: the same batches however many processes load them, and nothing left when they end."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.core import Case
from medseg_paddle.engine.data import TrainingStream, batch_bytes, survey
from medseg_paddle.engine.loading import Allocate, loaded
from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.decoded import DecodedImages
from medseg_paddle.io.images import read_image, read_label
from medseg_paddle.preprocess.deterministic import Normalize

WORKERS = (0, 1, 2, 4)
OURS = (
    "[{type: RandomAffinePatch, size: [24, 40], rotation: 20, foreground: 0.5}, "
    "{type: RandomIntensity, contrast: 0.3, noise: 0.1}, "
    "{type: Normalize, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3]}]"
)
BY_CLASS = OURS.replace("foreground: 0.5", "foreground: 0.5, foreground_by: class")
THEIRS = "[{type: RandomPaddingCrop, crop_size: [32, 32]}, {type: RandomDistort}, {type: Normalize}]"


def with_transforms(path: Path, transforms: str) -> Recipe:
    normalize = transforms[transforms.rindex("{") :]
    sets = (("train", transforms), ("val", f"[{normalize}"))
    return load_recipe(path, [f"{name}_dataset.transforms={steps}" for name, steps in sets])


def orders(first: int, last: int, size: int = 3) -> list[list[int]]:
    return [list(range(n * size, n * size + size)) for n in range(first, last)]


def batches(
    stream: Any, wanted: Sequence[Sequence[int]], workers: int, room: int = 2**20
) -> list[dict[str, Any]]:
    with loaded(stream, wanted, num_workers=workers, batch_bytes=room) as served:
        return [{name: tensor.numpy() for name, tensor in batch.items()} for batch in served]


def assert_equal(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], strict=True)


@pytest.mark.parametrize("transforms", [OURS, BY_CLASS, THEIRS], ids=["ours", "by class", "PaddleSeg's"])
def test_same_stream_for_any_number_of_processes_and_after_resume(
    disc_recipe_file: Path, transforms: str
) -> None:
    recipe = with_transforms(disc_recipe_file, transforms)
    cases = load_cases(recipe.train_dataset)
    with DecodedImages(2**20) as decoded:
        survey(cases, recipe, decoded=decoded)
        assert len(decoded) == 6
        stream = TrainingStream(cases, recipe, decoded)
        whole = batches(stream, orders(0, 11), 0)
        assert len(whole) == 11
        for workers in WORKERS:
            assert_equal(batches(stream, orders(0, 11), workers), whole)
            assert_equal(batches(stream, orders(7, 11), workers), whole[7:])
    plain = TrainingStream(cases, recipe)
    for order, batch in zip(orders(0, 11), whole, strict=True):
        alone = [plain[position] for position in order]
        assert_equal([{**batch, "label": batch["label"].astype(np.int64)}], [
            {name: np.stack([one[name] for one in alone]) for name in ("img", "label")}
        ])  # fmt: skip


def test_a_picture_that_is_kept_decoded_gives_the_same_numbers(disc_recipe: Recipe) -> None:
    cases = load_cases(disc_recipe.train_dataset)
    one = 48 * 48 * 4 + 48 * 4  # image, label, and the foreground of 48 rows
    streams = []
    for room, held in ((0, 0), (3 * one, 3), (2**20, 6)):
        decoded = DecodedImages(room)
        survey(cases, disc_recipe, decoded=decoded)
        assert len(decoded) == held
        streams.append(batches(TrainingStream(cases, disc_recipe, decoded), orders(0, 5), 2))
    assert_equal(streams[0], streams[1])
    assert_equal(streams[0], streams[2])


def test_a_batch_is_the_pictures_normalised(disc_recipe_file: Path) -> None:
    recipe = with_transforms(disc_recipe_file, "[{type: Normalize, mean: [0.3], std: [0.7]}]")
    cases = load_cases(recipe.train_dataset)
    stream = TrainingStream(cases, recipe)
    (batch,) = batches(stream, [[0, 1]], 1)
    for place in (0, 1):
        case = stream.case_at(place)
        assert case.label is not None
        wanted = Normalize((0.3,), (0.7,)).forward(read_image(case.image, 3))
        np.testing.assert_array_equal(batch["img"][place], wanted.transpose(2, 0, 1))
        np.testing.assert_array_equal(batch["label"][place], read_label(case.label))
    assert (batch["img"].dtype, batch["label"].dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_larger_than_its_room_arrives_all_the_same(disc_recipe: Recipe, workers: int) -> None:
    stream = TrainingStream(load_cases(disc_recipe.train_dataset), disc_recipe)
    wanted = batches(stream, orders(0, 7), 0)
    for room in (1, 3 * 32 * 32 * 3, 3 * 32 * 32 * 13 - 1):
        assert_equal(batches(stream, orders(0, 7), workers, room), wanted)


def test_the_room_foretold_is_enough(disc_recipe: Recipe) -> None:
    recipe = disc_recipe.model_copy(update={"batch_size": 3})
    cases = load_cases(recipe.train_dataset)
    used = []

    def note(_: str, shape: tuple[int, ...], dtype: Any) -> Any:
        used.append(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.empty(shape, dtype)

    TrainingStream(cases, recipe).batch([0, 1, 2], note)
    assert sum(used) <= batch_bytes(recipe, survey(cases, recipe)) <= sum(used) + 256


class Failing:
    """Serves numbers, and fails at one."""

    def __init__(self, error: Exception, at: int = 5) -> None:
        self.error, self.at = error, at

    def names(self, positions: Sequence[int]) -> list[str]:
        return [f"scan_{position}.png" for position in positions]

    def batch(self, positions: Sequence[int], allocate: Allocate) -> dict[str, Any]:
        if self.at in positions:
            raise self.error
        batch = allocate("img", (len(positions),), np.int64)
        batch[:] = positions
        return {"img": batch}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_arrives_as_itself_where_its_batch_was_to_be_read(workers: int) -> None:
    error = DataError("scan_5.png is cut off", hint="copy it again")
    seen = []
    with (
        pytest.raises(DataError) as caught,
        loaded(Failing(error), orders(0, 9), num_workers=workers, batch_bytes=64) as served,
    ):
        seen.extend(batch["img"].tolist() for batch in served)
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
    assert seen == [[0, 1, 2]]


def test_a_bug_in_a_process_shows_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'no such thing'"):
        batches(Failing(KeyError("no such thing")), orders(0, 9), 1)


def test_an_image_that_is_lost_amid_the_training_is_an_error_that_names_it(disc_recipe: Recipe) -> None:
    cases = load_cases(disc_recipe.train_dataset)
    stream = TrainingStream(cases, disc_recipe)
    cases[2].image.unlink()
    for workers in (0, 2):
        with pytest.raises(DataError, match=cases[2].image.name):
            batches(stream, orders(0, 3), workers)


class Mortal:
    """Notes the process that ends it."""

    def __init__(self, ended_by: Any) -> None:
        self.ended_by, self.itself = ended_by, self  # only a collection ends it

    def __del__(self) -> None:
        self.ended_by.value = os.getpid()


class Collecting(Failing):
    """Collects garbage with each batch."""

    def batch(self, positions: Sequence[int], allocate: Allocate) -> dict[str, Any]:
        gc.collect()
        return super().batch(positions, allocate)


def test_garbage_of_the_training_is_not_ended_by_its_processes() -> None:
    """The end of a reader of an earlier training would wait for ever for a thread that was not forked."""
    ended_by = multiprocessing.Value("i", 0)
    gc.collect()
    gc.disable()
    try:
        Mortal(ended_by)
        assert len(batches(Collecting(KeyError(), -1), orders(0, 6), 2)) == 6
        assert ended_by.value == 0
    finally:
        gc.enable()
    assert len(batches(Collecting(KeyError(), -1), orders(0, 6), 2)) == 6
    assert gc.isenabled()
    gc.collect()
    assert ended_by.value == os.getpid()


@pytest.mark.parametrize("workers", WORKERS)
def test_nothing_runs_on_after_the_last_batch_or_an_early_end(workers: int) -> None:
    before = threading.active_count()
    for early in (False, True):
        with loaded(Failing(KeyError(), -1), orders(0, 40), num_workers=workers, batch_bytes=64) as served:
            assert len(multiprocessing.active_children()) == workers
            seen = 0
            for batch in served:
                seen += len(batch["img"])
                if early and seen > 9:
                    break
        assert multiprocessing.active_children() == []
        end = time.monotonic() + 60
        while threading.active_count() != before and time.monotonic() < end:
            time.sleep(0.02)
        assert threading.active_count() == before
        assert early or seen == 120


class Fatal(Failing):
    """Ends its process at a position: by a signal, or with an exit code."""

    def __init__(self, number: int, at: int = 13) -> None:
        super().__init__(KeyError(), -1)
        self.number, self.fatal = number, at

    def batch(self, positions: Sequence[int], allocate: Allocate) -> dict[str, Any]:
        if self.fatal in positions:
            faulthandler.disable()  # pytest's, which would write a screenful
            os.kill(os.getpid(), self.number) if self.number > 0 else os._exit(-self.number)
        return super().batch(positions, allocate)


@pytest.mark.parametrize(
    ("number", "how", "advice"),
    [
        (signal.SIGKILL, r"was killed \(signal 9\)", "memory runs out"),
        (signal.SIGSEGV, r"crashed \(signal 11, Segmentation fault\)", "no lack of memory"),
        (-3, r"ended \(exit code 3\)", "no lack of memory"),
    ],
)
def test_a_process_that_is_lost_is_an_error_that_says_how_and_at_which_images(
    number: int, how: str, advice: str
) -> None:
    seen: list[int] = []
    with (
        pytest.raises(
            SetupError, match=rf"{how} while it had to load scan_12.png, scan_13.png, scan_14.png\n"
        ) as caught,
        loaded(Fatal(number), orders(0, 10**6), num_workers=3, batch_bytes=64) as served,
    ):
        seen.extend(number for batch in served for number in batch["img"].tolist())
    assert seen == list(range(12))
    assert advice in caught.value.hint


@pytest.mark.parametrize("how", ["whole", "early", "error", "lost"])
def test_no_file_descriptor_is_left_however_it_ends(how: str) -> None:
    def load() -> None:
        stream = {
            "error": Failing(DataError("cut off", hint="copy it"), 9),
            "lost": Fatal(signal.SIGKILL, 9),
        }.get(how, Failing(KeyError(), -1))
        with loaded(stream, orders(0, 8), num_workers=3, batch_bytes=64) as served:
            for _ in served:
                if how == "early":
                    return

    with contextlib.suppress(DataError, SetupError):
        load()
    gc.collect()
    gc.disable()
    try:
        before = psutil.Process().num_fds()
        for _ in range(3):
            with contextlib.suppress(DataError, SetupError):
                load()
        assert psutil.Process().num_fds() == before
    finally:
        gc.enable()


def test_a_message_names_eight_images_of_a_large_batch() -> None:
    with pytest.raises(SetupError, match=r"scan_7\.png and 12 more\n"):
        batches(Fatal(signal.SIGKILL, 3), orders(0, 2, 20), 1)


def test_processes_end_when_the_training_is_killed() -> None:
    program = """
import numpy as np
from medseg_paddle.engine.startup import start_paddle
start_paddle()
from medseg_paddle.engine.loading import loaded
class Numbers:
    def names(self, positions):
        return []
    def batch(self, positions, allocate):
        batch = allocate("img", (1,), np.int64)
        batch[:] = positions
        return {"img": batch}
with loaded(Numbers(), ([n] for n in range(10**6)), num_workers=2, batch_bytes=64) as served:
    next(served)
    print("loading", flush=True)
    input()
    for _ in range(20):
        next(served)
    print("loading on", flush=True)
    input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "loading\n"
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    for worker in workers:  # a terminal's Ctrl-C reaches them, too, and is not for them
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
    process.stdin.write("\n")
    assert process.stdout.readline() == "loading on\n"
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for worker in alive:
        worker.kill()
    assert alive == []


def test_processes_share_what_is_decoded(disc_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = load_cases(disc_recipe.train_dataset)
    with DecodedImages(2**20) as decoded:
        survey(cases, disc_recipe, decoded=decoded)
        stream = TrainingStream(cases, disc_recipe, decoded)
        for case in cases:  # nobody reads them again
            _without_files(case)
        assert len(batches(stream, orders(0, 5), 2)) == 5


def _without_files(case: Case) -> None:
    assert case.label is not None
    case.image.unlink()
    case.label.unlink()
