"""Trainings on machines with too little disk or shared memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from medseg_paddle.cli import main
from medseg_paddle.engine import shared_memory
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.shared_memory import require_shared_memory
from medseg_paddle.errors import SetupError
from medseg_paddle.steps.train import train


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many KiB; called again, its size is changed."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only the superuser can mount a small file system")
    mount = tmp_path / "disk"
    mount.mkdir()

    def sized(kib: int) -> Path:
        again = ["-o", "remount"] if os.path.ismount(mount) else []
        options = ["mount", *again, "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(mount)]
        done = subprocess.run(options, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return mount

    yield sized
    if os.path.ismount(mount):
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_a_full_disk_is_one_error_and_the_run_goes_on_when_there_is_room(
    disc_recipe_file: Path, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    no_pictures = ["overlays=0"]
    whole = train(disc_recipe_file, output=tmp_path / "whole", overrides=no_pictures)
    for kib, reached in ((4, ()), (12, ()), (88, ()), (148, ("iter_6",))):
        folder = small_disk(kib) / "run"
        with pytest.raises(SetupError) as caught:
            train(disc_recipe_file, output=folder, overrides=no_pictures)
        assert re.search(r"is full \(0\.\d MiB free\)", caught.value.message)
        assert "make room, then go on with --resume" in caught.value.hint
        files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        assert not [path for path in files if path.suffix == ".tmp"]
        assert {path.parts[1] for path in files if path.parts[0] == "checkpoints"} == set(reached)
        small_disk(4000)
        run = train(disc_recipe_file, output=folder, overrides=no_pictures, resume=True)
        for path in (
            "checkpoints/iter_12/model.pdparams",
            "checkpoints/iter_12/model.pdopt",
            "validation.jsonl",
        ):
            assert (run.path / path).read_bytes() == (whole.path / path).read_bytes(), (kib, path)
        shutil.rmtree(folder)


def test_a_full_disk_says_two_lines_and_no_traceback(
    disc_recipe_file: Path, small_disk: Callable[[int], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "--config", str(disc_recipe_file), "--output", str(small_disk(200) / "run")])
    said = capfd.readouterr()
    assert left.value.code == 5
    assert [line.split(":")[0] for line in said.err.splitlines()] == ["error", "hint"]
    assert {line.split()[0] for line in said.out.splitlines()} <= {"checking", "training:", "validation"}


def test_a_point_of_a_curve_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    dashboard = Dashboard(tmp_path, 1, ())
    dashboard.scalar("loss", 1.0, 0)
    dashboard.close()
    monkeypatch.setattr("visualdl.io.bfile.LocalFileSystem.append", full)
    dashboard.scalar("loss", 1.0, 1)  # goes to VisualDL's thread
    with pytest.raises(SetupError, match="No space left"):
        dashboard.close()
    with pytest.raises(SetupError, match="No space left"):
        dashboard.scalar("loss", 1.0, 2)
    assert capsys.readouterr() == ("", "")


def test_too_little_shared_memory_is_refused_before_the_start(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    # 2 * 1 + 2 batches of 20 patches of 32 x 32 pixels, 3 channels of 4 bytes and a label of 8
    wanted = r"num_workers: 1 needs 1\.6 MiB of shared memory, /dev/shm has 1\.0 MiB free"
    with pytest.raises(SetupError, match=wanted) as caught:
        train(disc_recipe_file, output=tmp_path / "run", overrides=["batch_size=20", "num_workers=1"])
    assert "shm_size" in caught.value.hint
    assert "num_workers: 0" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_shared_memory_is_measured_where_it_is(
    small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "MOUNT", small_disk(64))
    require_shared_memory(10_000, 2)
    with pytest.raises(SetupError, match=r"num_workers: 2 needs 0\.1 MiB .* 0\.1 MiB free"):
        require_shared_memory(11_000, 2)
    require_shared_memory(10**9, 0)
    monkeypatch.setattr(shared_memory, "MOUNT", small_disk(64) / "absent")
    with pytest.raises(SetupError, match=r"0\.0 MiB free"):
        require_shared_memory(11_000, 2)
