"""The Dockerfile and the compose files, without running them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVERS = {"visualdl": 8040, "notebook": 8888}


@pytest.fixture(params=["gpu", "cpu", "standin"])
def config(request, compose_file) -> dict:
    return compose_file(request.param).config()


def test_the_dockerfile_is_clean():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_service_is_locked_down(config):
    assert set(config["services"]) == {
        "prepare", "train", "evaluate", "export", "predict", "visualdl", "notebook",
    }  # fmt: skip
    for name, service in config["services"].items():
        assert service["user"] == "4321:4321"
        assert service["read_only"]
        assert service["init"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["shm_size"] == str(8 << 30)
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
        for name, port in SERVERS.items():
            (published,) = services[name]["ports"]
            assert (published["host_ip"], published["target"]) == (expected, port)
        assert all("ports" not in service for name, service in services.items() if name not in SERVERS)


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


def test_the_example_and_the_page_name_every_setting_with_its_default():
    used = set(re.findall(r"\$\{(\w+):?[-+]", (ROOT / "docker-compose.yml").read_text())) | {"COMPOSE_FILE"}
    page = (ROOT / "docs/howto/containers.md").read_text()
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^#(\w+)=", example, re.MULTILINE)) == used - {"REVISION"}
    assert {name for name in used if f"`{name}`" not in page} == set()
    for name, default in re.findall(r"\$\{(\w+):-([^}]+)\}", (ROOT / "docker-compose.yml").read_text()):
        if name not in ("REVISION", "MEDSEG_SOURCE"):
            assert f"#{name}={default}" in example


def test_the_gpu_lock_is_the_cpu_lock_without_paddle():
    def pins(name):
        return set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    cpu, gpu = pins("cpu.lock"), pins("gpu.lock")
    assert {pin.partition("==")[0] for pin in cpu - gpu} == {"paddlepaddle"}
    assert gpu <= cpu
    assert gpu <= pins("notebook.lock")
    assert not any(pin.startswith("paddlepaddle==") for pin in pins("notebook.lock"))
