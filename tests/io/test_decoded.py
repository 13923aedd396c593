"""Pictures decoded once: for every process, within bounds, and gone when nobody needs them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medseg_paddle.io import memory
from medseg_paddle.io.decoded import DecodedImages

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def pictures(count: int) -> list[tuple[np.ndarray, ...]]:
    return [
        (
            RNG.integers(0, 256, (17, 13, 3), np.uint8),
            RNG.random((5, 7, 1), np.float32),
            RNG.integers(0, 9, 3, np.int32),
        )
        for _ in range(count)
    ]


def test_what_was_kept_comes_back_read_only(folder: Path) -> None:
    given = pictures(5)
    with DecodedImages(2**20) as decoded:
        for number, arrays in enumerate(given):
            assert decoded.keep(number, *arrays)
            assert not list(folder.iterdir()), "the file has no name"
        assert (len(decoded), decoded.shortage) == (5, "")
        for number, arrays in enumerate(given):
            back = decoded.get(number)
            assert back is not None
            for one, other in zip(arrays, back, strict=True):
                np.testing.assert_array_equal(one, other, strict=True)
                assert not other.flags.writeable
        assert decoded.get(5) is None
        held = decoded.get(3)
    assert decoded.get(3) is None
    np.testing.assert_array_equal(held[0], given[3][0])  # in use when it was closed


def test_it_grows_after_it_was_read() -> None:
    with DecodedImages(2**20) as decoded:
        for number, arrays in enumerate(pictures(3)):
            decoded.keep(number, *arrays)
            np.testing.assert_array_equal(decoded.get(number)[0], arrays[0])


def test_a_picture_that_is_listed_twice_is_held_once() -> None:
    one, other = pictures(2)
    with DecodedImages(2**20) as decoded:
        assert decoded.keep("a", *one)
        assert decoded.keep("a", *other)
        assert len(decoded) == 1
        np.testing.assert_array_equal(decoded.get("a")[0], one[0])


def test_it_keeps_within_its_limit() -> None:
    picture = np.zeros(640, np.uint8)
    with DecodedImages(2000) as decoded:
        assert [decoded.keep(n, picture) for n in range(5)] == [True, True, True, False, False]
        assert decoded.get(2) is not None
        assert decoded.get(3) is None
        assert "cache_mb" in decoded.shortage
    with DecodedImages(0) as decoded:
        assert not decoded.keep(0, picture)


def test_it_leaves_half_of_the_folder_to_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3000))
    with DecodedImages(2**30) as decoded:
        assert [decoded.keep(n, np.zeros(640, np.uint8)) for n in range(4)] == [True, True, False, False]
        assert f"half of what {folder} has free" in decoded.shortage


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 KiB that says it has more."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only the superuser can mount a small file system")
    mount = folder / "disk"
    mount.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_in_memory_it_leaves_half_of_that_to_others(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.lies_in_memory(small_disk)
    with_room = shutil.disk_usage(small_disk)._replace(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: with_room)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    machine = small_disk / "meminfo"
    machine.write_text("MemAvailable:     4 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", machine)
    monkeypatch.setattr(memory, "_CGROUP", small_disk / "none")
    with DecodedImages(2**30) as decoded:
        assert [decoded.keep(n, np.zeros(640, np.uint8)) for n in range(5)] == [
            True,
            True,
            True,
            False,
            False,
        ]
        assert f"{small_disk} lies in memory" in decoded.shortage


def test_a_folder_on_a_disk_lies_not_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = f"{os.major(folder.stat().st_dev)}:{os.minor(folder.stat().st_dev)}"
    mounts = folder / "mountinfo"
    monkeypatch.setattr(memory, "_MOUNTS", mounts)
    for kind, answer in (("ext4", False), ("tmpfs", True), ("overlay", False)):
        # As in proc(5): optional fields before the dash, and another mount before.
        mounts.write_text(
            "20 1 0:9999 / /run rw,nosuid - tmpfs tmpfs rw\n"
            f"36 35 {number} / {folder} rw,noatime master:1 - {kind} x rw\n"
        )
        assert memory.lies_in_memory(folder) is answer


def test_a_full_disk_is_a_shortage_and_what_was_kept_stays(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(small_disk)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: usage._replace(free=2**30)
    )  # others fill it meanwhile
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    picture = RNG.integers(0, 256, 20_000, np.uint8)
    with DecodedImages(2**30) as decoded:
        assert [decoded.keep(n, picture + n) for n in range(5)] == [True, True, True, False, False]
        assert os.strerror(errno.ENOSPC) in decoded.shortage
        for number in range(3):
            np.testing.assert_array_equal(decoded.get(number)[0], picture + number)
    assert shutil.disk_usage(small_disk).free == 2**30


def test_without_a_temporary_folder_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/to/be/found")
    with DecodedImages(2**20) as decoded:
        assert not decoded.keep(0, np.zeros(3, np.uint8))
        assert "no temporary folder" in decoded.shortage


def test_a_process_forked_later_reads_the_same(folder: Path) -> None:
    (picture,) = (arrays[0] for arrays in pictures(1))
    with DecodedImages(2**20) as decoded:
        decoded.keep(0, picture)
        child = os.fork()
        if child == 0:
            os._exit(int(not np.array_equal(decoded.get(0)[0], picture)))
        assert os.waitpid(child, 0)[1] == 0


def test_two_at_once_and_a_kill_leave_nothing(folder: Path) -> None:
    program = """
import sys, numpy as np, signal, tempfile, os
from medseg_paddle.io import memory
from medseg_paddle.io.decoded import DecodedImages
decoded = DecodedImages(2**30)
decoded.keep(0, np.full(2**20, int(sys.argv[1]), np.uint8))
print(int(decoded.get(0)[0].mean()), flush=True)
sys.stdin.read()
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        for number in (3, 4)
    ]
    assert [process.stdout.readline() for process in started if process.stdout] == ["3\n", "4\n"]
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert list(folder.iterdir()) == []
