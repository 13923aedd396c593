"""What goes wrong on a host, and what a user is told."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = """\
_base_: ../unet_medical.yml
model: {{width: 4}}
batch_size: 2
iters: {iters}
save_interval: 2
log_iters: 1
model_graph: false
num_workers: {workers}
"""


def tiny(project, *, iters: int = 4, workers: int = 0) -> dict[str, str]:
    configs = project.folder / "configs"
    shutil.copytree(ROOT / "configs", configs, dirs_exist_ok=True)
    (configs / "own").mkdir(exist_ok=True)
    (configs / "own" / "tiny.yml").write_text(TINY.format(iters=iters, workers=workers))
    return {"MEDSEG_CONFIGS": str(configs), "MEDSEG_RECIPE": "configs/own/tiny.yml", "MEDSEG_RUN": "tiny"}


def told(done) -> str:
    assert done.returncode != 0
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def test_an_output_folder_of_somebody_else(fresh):
    fresh.outputs.chmod(0o755)
    other = {"MEDSEG_UID": "5432", "MEDSEG_GID": "5432"}
    said = told(fresh.compose("run", "--rm", "--no-deps", "train", **tiny(fresh), **other))
    assert "cannot be written by user id 5432" in said
    assert "MEDSEG_UID" in said


def test_a_folder_that_is_not_there(fresh):
    shutil.rmtree(fresh.outputs)
    said = told(fresh.compose("run", "--rm", "--no-deps", "train"))
    assert "does not exist" in said
    assert str(fresh.outputs) in said


def test_a_recipe_that_is_not_there(fresh):
    said = told(fresh.compose("run", "--rm", "--no-deps", "train", MEDSEG_RECIPE="configs/unet_medicla.yml"))
    assert "did you mean" in said
    assert "configs/unet_medical.yml" in said


def test_a_full_disk(fresh, docker, user):
    """A run on a disk of 3 MiB, where the model with its optimiser does not fit twice."""
    disk = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", f"o=size=3m,uid={user}")
    docker("volume", "create", "medseg-test-small-disk", *disk)
    settings = tiny(fresh, iters=40)
    try:
        said = told(
            fresh.compose(
                "run", "--rm", "--no-deps", "-v", "medseg-test-small-disk:/work/small", "train", "train", "--config",
                "configs/own/tiny.yml", "--output", "small/run", "--set", "model.width=24", **settings,
            )
        )  # fmt: skip
    finally:
        docker("volume", "rm", "medseg-test-small-disk")
    assert "is full" in said
    assert "--resume" in said


def test_processes_that_load_images_need_no_dev_shm(fresh):
    settings = tiny(fresh, iters=2, workers=2)
    done = fresh.compose("run", "--rm", "train", **settings)
    assert done.returncode == 0, done.stdout


def test_a_port_in_use(fresh):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(fresh.settings["MEDSEG_BOARD_PORT"])))
        taken.listen()
        said = told(fresh.compose("up", "--detach", "visualdl"))
    assert "port is already allocated" in said or "address already in use" in said
    assert fresh.settings["MEDSEG_BOARD_PORT"] in said
