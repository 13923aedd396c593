"""The Dockerfile and the compose files, without running them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("docker-compose.yml", "docker-compose.cpu.yml")
SERVERS = {"visualdl": "MEDSEG_BOARD_PORT", "notebook": "MEDSEG_NOTEBOOK_PORT"}


@pytest.fixture
def compose_here(compose_plugin, tmp_path) -> Callable[..., str]:
    """`compose_here(text of .env, words...)`: the merged file as a user's own folder gives it."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    unset = re.compile(r"MEDSEG_|COMPOSE_|REVISION$|\w+_IMAGE$")
    own = {key: value for key, value in os.environ.items() if not unset.match(key)}

    def config(dotenv: str, *words: str) -> str:
        (tmp_path / ".env").write_text(dotenv)
        return subprocess.run(
            ["docker", "compose", *words, "--profile", "*", "config", "--format", "json"],
            cwd=tmp_path, env=own, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    return config


@pytest.fixture(params=["gpu", "cpu", "standin"])
def config(request, compose_file) -> dict:
    return compose_file(request.param).config()


def test_the_dockerfile_is_clean():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_service_is_locked_down(config, user):
    assert set(config["services"]) == {
        "prepare", "train", "evaluate", "export", "predict", "visualdl", "notebook",
    }  # fmt: skip
    for name, service in config["services"].items():
        assert service["user"].partition(":")[0] == str(user)
        assert service["read_only"]
        assert service["init"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert (service.get("network_mode") == "none") == (name not in SERVERS)
        for mount in service["volumes"]:
            assert not mount["bind"].get("create_host_path", False)


def test_only_prepare_writes_data_and_only_work_on_runs_writes_outputs(config):
    writable = {
        (name, mount["target"])
        for name, service in config["services"].items()
        for mount in service["volumes"]
        if not mount.get("read_only", False)
    }
    assert writable == {
        ("prepare", "/work/data"),
        *((name, "/work/outputs") for name in ("train", "evaluate", "export", "predict", "notebook")),
    }


def test_servers_listen_on_this_machine_only_unless_told_otherwise(compose_file):
    project = compose_file("gpu")
    for bind, expected in (({}, "127.0.0.1"), ({"MEDSEG_BIND": "0.0.0.0"}, "0.0.0.0")):
        project.settings |= bind
        services = project.config()["services"]
        for name in SERVERS:
            assert services[name]["ports"][0]["host_ip"] == expected
        assert all("ports" not in service for name, service in services.items() if name not in SERVERS)


def test_a_server_listens_on_the_port_it_is_published_on(compose_file):
    """So that the address it prints is the one to open."""
    project = compose_file("cpu")
    services = project.config()["services"]
    for name, setting in SERVERS.items():
        port = project.settings[setting]
        (published,) = services[name]["ports"]
        assert (published["published"], str(published["target"])) == (port, port)
    assert services["visualdl"]["command"][-2:] == ["--port", project.settings["MEDSEG_BOARD_PORT"]]
    assert services["notebook"]["environment"]["JUPYTER_PORT"] == project.settings["MEDSEG_NOTEBOOK_PORT"]


def test_nothing_that_an_engine_before_25_refuses(config):
    """It fails on a health check's start interval; the rest has been there since 20.10."""
    assert "start_interval" not in config["services"]["visualdl"]["healthcheck"]
    assert "start-interval" not in (ROOT / "Dockerfile").read_text()


def test_users_of_one_engine_and_runs_side_by_side_are_projects_of_their_own(compose_here):
    def project(dotenv: str) -> str:
        return json.loads(compose_here(dotenv))["name"]

    assert project("") == "medseg-1000"
    assert project("MEDSEG_UID=1234\n") == "medseg-1234"
    assert project("MEDSEG_UID=1234\nCOMPOSE_PROJECT_NAME=medseg-second\n") == "medseg-second"


def test_a_gpu_is_reserved_for_what_computes_and_none_without_one(compose_file):
    def reserved(kind):
        project = compose_file(kind)
        project.settings["MEDSEG_GPU"] = "GPU-7"
        return {
            name: service["deploy"]["resources"]["reservations"]["devices"]
            for name, service in project.config()["services"].items()
            if service.get("deploy")
        }

    gpu = {"driver": "nvidia", "device_ids": ["GPU-7"], "capabilities": ["gpu"]}
    computing = ("train", "evaluate", "export", "predict", "notebook")
    assert reserved("gpu") == {name: [gpu] for name in computing}
    assert reserved("cpu") == {}
    assert reserved("standin") == {}


def test_a_training_is_stopped_gently_and_started_again_a_few_times(config):
    train = config["services"]["train"]
    assert train["stop_grace_period"] == "5m0s"
    assert train["restart"] == "on-failure:3"
    assert "--resume" in train["command"]
    assert train["depends_on"]["prepare"]["condition"] == "service_completed_successfully"


def test_folders_and_recipe_come_from_the_settings(compose_file):
    project = compose_file("gpu")
    project.settings |= {
        "MEDSEG_SOURCE": "/srv/my images",
        "MEDSEG_RECIPE": "configs/mine and yours.yml",
        "MEDSEG_RUN": "r 1",
    }
    services = project.config()["services"]
    assert services["prepare"]["command"] == [
        "prepare", "source", "--config", "configs/mine and yours.yml", "--keep",
    ]  # fmt: skip
    assert "/srv/my images" in {mount["source"] for mount in services["prepare"]["volumes"]}
    assert services["train"]["command"] == [
        "train", "--config", "configs/mine and yours.yml", "--output", "outputs/r 1", "--resume",
    ]  # fmt: skip
    assert services["export"]["command"][:2] == ["export", "outputs/r 1"]


def test_predict_takes_a_synthetic_patient_from_the_data_folder_or_what_it_is_told(compose_file):
    project = compose_file("gpu")

    def input_of(**settings) -> str:
        project.settings |= settings
        (source,) = (
            mount["source"]
            for mount in project.config()["services"]["predict"]["volumes"]
            if mount["target"] == "/work/input"
        )
        return source

    assert input_of(MEDSEG_DATA="/srv/sets") == "/srv/sets/phantom-cohort/PHANTOM-001"
    assert input_of(MEDSEG_DATA="/srv/sets", MEDSEG_INPUT="/srv/new") == "/srv/new"


def test_every_setting_of_the_example_is_the_default(compose_here):
    """All of it taken over, without and with the lines for machines without GPU."""
    everything = re.sub(r"^#(\w+=)", r"\1", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    with_gpu = re.sub(r"^COMPOSE_.*\n", "", everything, flags=re.MULTILINE)
    assert "\nMEDSEG_SOURCE=\n" in with_gpu
    assert "COMPOSE_FILE" not in with_gpu.replace("# ", "")
    assert compose_here(with_gpu) == compose_here("")
    assert compose_here(everything) == compose_here("", "-f", FILES[0], "-f", FILES[1]) != compose_here("")


def test_the_example_and_the_page_name_every_setting():
    files = "".join((ROOT / name).read_text() for name in FILES)
    used = set(re.findall(r"\$\{(\w+):?[-+]", files)) | {"COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR"}
    page = (ROOT / "docs/howto/containers.md").read_text()
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^#(\w+)=", example, re.MULTILINE)) == used - {"REVISION"}
    assert {name for name in used if f"`{name}`" not in page} == set()


def test_a_checkout_on_windows_keeps_the_line_ends_that_containers_need():
    scripts = [path.relative_to(ROOT) for path in (ROOT / "docker").glob("*.sh")]
    files = [*map(str, scripts), "Dockerfile", "Makefile", ".ci/run"]
    done = subprocess.run(
        ["git", "check-attr", "eol", "--", *files], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{file}: eol: lf" for file in files]


def test_the_cpu_image_has_the_python_of_the_cuda_images():
    """The lock's versions depend on it; `test_images` compares the images, both on one stand-in."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.10-slim-", dockerfile, re.MULTILINE)
    page = (ROOT / "docs/howto/containers.md").read_text()
    assert "Python 3.10" in page


def test_the_gpu_lock_is_the_cpu_lock_without_paddle():
    def pins(name):
        return set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    cpu, gpu = pins("cpu.lock"), pins("gpu.lock")
    assert {pin.partition("==")[0] for pin in cpu - gpu} == {"paddlepaddle"}
    assert gpu <= cpu
    assert gpu <= pins("notebook.lock")
    assert not any(pin.startswith("paddlepaddle==") for pin in pins("notebook.lock"))
