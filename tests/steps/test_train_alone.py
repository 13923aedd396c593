"""Two trainings do not write into one folder."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from medseg_paddle.errors import SetupError
from medseg_paddle.io.files import locked
from medseg_paddle.run import Run
from medseg_paddle.steps.train import train


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def test_a_folder_that_is_trained_in_is_left_alone(disc_recipe_file: Path, tmp_path: Path) -> None:
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=2"])
    before = files(run.path)
    with Run.held(run.path):
        for how in ("resume", "overwrite"):
            with pytest.raises(SetupError, match=f"{run.path} is being trained by another process") as caught:
                train(disc_recipe_file, output=run.path, overrides=["iters=4"], **{how: True})
            assert "wait until it ends, or stop it" in caught.value.hint
        # Nor is what a finished run says of its later use noted by one that was to start several processes.
        noted = ["iters=2", "description=other"]
        with pytest.raises(SetupError, match="is being trained by another process"):
            train(disc_recipe_file, output=run.path, overrides=noted, resume=True, nproc=2)
    assert files(run.path) == before
    train(disc_recipe_file, output=run.path, overrides=["iters=4"], resume=True)
    assert run.last_checkpoint == run.checkpoints / "iter_4"


def test_of_two_that_begin_in_a_new_folder_one_is_refused(disc_recipe_file: Path, tmp_path: Path) -> None:
    with Run.held(tmp_path / "run"), pytest.raises(SetupError, match="is being trained by another process"):
        train(disc_recipe_file, output=tmp_path / "run", resume=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["train.lock"]
    assert train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=1"]).best_checkpoint.is_file()


def test_a_lock_ends_with_a_killed_process_though_one_that_it_forked_lives_on(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from medseg_paddle.io.files import locked
with locked(Path(sys.argv[1])) as held:
    there = "held" if os.fork() else "forked"
    print(there if held else "not held", flush=True)
    os.read(0, 1)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert {process.stdout.readline() for _ in range(2)} == {"held\n", "forked\n"}
        with locked(tmp_path / "lock", wait=False) as held:
            assert not held
        process.kill()
        process.wait()
        # The fork waits for its standard input still: if it had the lock, this would wait until the test's time is up.
        with locked(tmp_path / "lock") as held:
            assert held


def test_where_the_disk_has_no_locks_a_training_says_so_and_goes_on(
    disc_recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def absent(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", absent)
    run = train(disc_recipe_file, output=tmp_path / "run", overrides=["iters=1"])
    assert run.best_checkpoint.is_file()
    assert "warning: the file system of " in capsys.readouterr().out
