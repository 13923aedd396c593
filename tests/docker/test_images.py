"""What is in the images, and what a container may do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TMP = "/tmp"  # noqa: S108  (of the container)
IMAGES = {"medseg-paddle:gpu": "gpu", "medseg-paddle:cpu": "cpu"}
PACKAGES = """
import importlib.metadata, sys
(ours,) = [path for path in sys.path if path.startswith("/opt/medseg") and path.endswith("site-packages")]
for package in importlib.metadata.distributions(path=[ours]):
    print(f"{package.name}=={package.version}")
"""


def inside(docker, image: str, *words: str, options: tuple[str, ...] = ()) -> str:
    return docker("run", "--rm", "--network", "none", "--entrypoint", "", *options, image, *words)


def packages(docker, image: str) -> set[str]:
    """name==version of everything in our environment."""
    return set(inside(docker, image, "python", "-c", PACKAGES).lower().replace("_", "-").split())


def test_both_builds_install_the_lock_and_nothing_else(images, docker):
    """Built apart, from different stages: the packages are the lock's, to the version."""
    locked = set(re.findall(r"^(\S+==[^\s;]+)", (ROOT / "requirements/cpu.lock").read_text(), re.MULTILINE))
    first, second = (packages(docker, image) for image in IMAGES)
    assert first == second
    assert len(first) > 60
    assert {package.partition("==")[0] for package in first - locked} == {"medseg-paddle"}
    assert {"paddlepaddle", "paddleseg", "visualdl"} <= {package.partition("==")[0] for package in first}


def test_building_again_installs_the_same(images, docker):
    """Not from the layers of the first build: everything is found and installed once more."""

    def installed(image: str) -> list[str]:
        return inside(docker, image, "python", "-m", "pip", "list", "--format=freeze").splitlines()

    again = "medseg-paddle-test:again"
    docker("build", "--quiet", "--no-cache", "--target", "cpu", "--tag", again, ROOT)
    try:
        assert len(installed(again)) > 60
        assert installed(again) == installed("medseg-paddle:cpu")
    finally:
        docker("image", "rm", again)


def test_a_build_asks_the_mirror_it_is_told_to(fresh, docker):
    """Where that has nothing, the build ends there; the settings that were used are not in the image."""
    own = fresh.folder / "pip.conf"
    own.write_text("[global]\nno-index = true\n")
    done = fresh.compose("build", "--no-cache", "train", MEDSEG_PIP_CONF=str(own))
    assert done.returncode != 0
    assert "No matching distribution found" in done.stdout
    for image in IMAGES:
        assert "pip.conf" not in inside(docker, image, "ls", "-AR", "/run")


@pytest.mark.parametrize("image", IMAGES)
def test_it_starts_as_nobody_special_on_a_read_only_root(images, docker, image):
    locked_down = ("--read-only", "--tmpfs", TMP, "--cap-drop", "ALL")
    said = inside(
        docker, image, "sh", "-c",
        "id -u; touch /work/x; command -v gcc cc g++ git curl; "
        "medseg recipe check configs/unet_drive.yml",
        options=locked_down,
    )  # fmt: skip
    assert said.splitlines()[0] == "1000"
    assert "Read-only file system" in said
    assert not re.search(r"/(gcc|cc|g\+\+|git|curl)$", said, re.MULTILINE)
    assert "configs/unet_drive.yml" in said


@pytest.mark.parametrize(("image", "device"), IMAGES.items())
def test_labels_device_and_nothing_of_the_checkout(images, docker, image, device):
    labels = docker("inspect", "--format", "{{json .Config.Labels}}", image)
    for word in ('"org.opencontainers.image.title":"medseg-paddle"', '"Apache-2.0"', '"0123abc"'):
        assert word in labels
    settings = docker("inspect", "--format", "{{json .Config.Env}}", image)
    assert f"MEDSEG_DEVICE={device}" in settings
    assert not re.search(r"(?i)(token|password|secret|api_key)=", settings)
    everything = inside(docker, image, "sh", "-c", "ls -A / /work /work/*")
    assert ".git" not in everything
    assert "tests" not in everything.split()


def test_the_doctor_is_content(project):
    said = project.ok("run", "--rm", "--no-deps", "train", "doctor")
    assert "right, on cpu" in said
    assert "to mend" not in said


def test_the_gpu_image_does_not_fall_back_to_the_processor_unasked(fresh):
    words = ["train", "--config", "configs/unet_medical.yml"]
    done = fresh.compose("run", "--rm", "--no-deps", "-e", "MEDSEG_DEVICE=gpu", "train", *words)
    assert done.returncode == 5
    assert "device gpu is asked for" in done.stdout
    assert "Traceback" not in done.stdout
