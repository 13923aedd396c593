"""Trainings on machines with too little disk or shared memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medseg_paddle.cli import main
from medseg_paddle.config import Recipe
from medseg_paddle.engine import shared_memory
from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.engine.data import TrainingStream, batch_bytes, survey
from medseg_paddle.engine.loading import loaded
from medseg_paddle.engine.shared_memory import require_shared_memory
from medseg_paddle.errors import SetupError
from medseg_paddle.io import memory
from medseg_paddle.io.cases import load_cases
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
    # On a slow machine the pace of the training is told too ("25% ...").
    expected = r"checking |training:|validation |\s*\d+% "
    assert not [line for line in said.out.splitlines() if not re.match(expected, line)]


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


def test_too_little_memory_for_loader_processes_is_refused_before_the_start(
    disc_recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "free_memory", lambda: 2**19)
    # 2 * 1 batches of 20 patches of 32 x 32 pixels, 3 channels of 4 bytes and a label of 1
    wanted = r"num_workers: 1 needs 0\.5 MiB of memory .* \(2 batches\), 0\.5 MiB are free"
    with pytest.raises(SetupError, match=wanted) as caught:
        train(disc_recipe_file, output=tmp_path / "run", overrides=["batch_size=20", "num_workers=1"])
    assert "batch_size" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_free_memory_is_what_machine_and_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, container = tmp_path / "meminfo", tmp_path / "group"
    monkeypatch.setattr(memory, "_MEMINFO", machine)
    monkeypatch.setattr(memory, "_CGROUP", container)
    assert memory.free_memory() is None
    require_shared_memory(10**15, 2)
    machine.write_text("MemTotal:  900 kB\nMemAvailable:     300 kB\n")
    assert memory.free_memory() == 300 * 1024
    container.mkdir()
    for name, text in (
        ("memory.max", "204800\n"),
        ("memory.current", "102400\n"),
        ("memory.stat", "anon 1\ninactive_file 50000\nactive_file 1000\nactive_anon 7\n"),
    ):
        (container / name).write_text(text)
    assert memory.free_memory() == 204800 - 102400 + 51000
    require_shared_memory(153_400 // 4, 2)
    with pytest.raises(SetupError, match=r"num_workers: 2 needs 0\.1 MiB .* 0\.1 MiB are free"):
        require_shared_memory(153_404 // 4, 2)
    require_shared_memory(10**9, 0)
    (container / "memory.max").write_text("max\n")
    assert memory.free_memory() == 300 * 1024


def test_a_limit_counts_at_whatever_control_group_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch job lies some groups below the root; older Docker has groups of version 1, named as on the host."""
    machine, root, groups = tmp_path / "meminfo", tmp_path / "group", tmp_path / "cgroup"
    machine.write_text("MemAvailable:     300 kB\n")
    for name, path in (("_MEMINFO", machine), ("_CGROUP", root), ("_GROUPS", groups)):
        monkeypatch.setattr(memory, name, path)
    job = root / "system.slice" / "job_1"
    (job / "step_0").mkdir(parents=True)
    groups.write_text("0::/system.slice/job_1/step_0\n")
    assert memory.free_memory() == 300 * 1024
    (job / "memory.max").write_text("200000\n")
    (job / "memory.current").write_text("50000\n")
    assert memory.free_memory() == 150_000
    groups.write_text("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/../elsewhere\n")
    assert memory.free_memory() == 300 * 1024
    (root / "memory").mkdir()
    for name, text in (
        ("memory.limit_in_bytes", "100000\n"),
        ("memory.usage_in_bytes", "30000\n"),
        ("memory.stat", "inactive_file 9\nactive_file 9\ntotal_inactive_file 4000\ntotal_active_file 1000\n"),
    ):
        (root / "memory" / name).write_text(text)
    assert memory.free_memory() == 75_000
    (root / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # none
    assert memory.free_memory() == 300 * 1024


def test_the_memory_foretold_is_the_memory_used(disc_recipe: Recipe) -> None:
    small = disc_recipe.model_copy(update={"batch_size": 3, "num_workers": 2})
    cases = load_cases(small.train_dataset)
    foretold = 2 * 2 * batch_bytes(small, survey(cases, small))
    before = shared_of_this_process()
    stream, orders = TrainingStream(cases, small), [[n, n + 1, n + 2] for n in range(30)]
    with loaded(
        stream, orders, num_workers=2, batch_bytes=batch_bytes(small, survey(cases, small))
    ) as batches:
        for _ in batches:
            pass
        used = shared_of_this_process() - before
    assert 0 < used <= foretold + 4 * 4096  # each batch begins on a page


def shared_of_this_process() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^RssShmem:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
