"""A Docker engine, the images, and a project folder of its own for each group of tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = (
    ROOT.parent / "shared" / "tools" / "engine.sh"
)  # starts an engine where a machine has only the client
FILES = {
    "gpu": ("docker-compose.yml",),
    "standin": ("docker-compose.yml", "tests/docker/standin.yml"),
    "cpu": ("docker-compose.yml", "docker-compose.cpu.yml"),
}
ROOTS = os.geteuid() == 0
# Neither root nor the image's own; who may not give folders away works in his own.
USER, GROUP = (4321, 4321) if ROOTS else (os.geteuid(), os.getegid())
STANDIN = """\
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(900))  # the first one builds the images, from nothing


def run(*words: object, **options) -> subprocess.CompletedProcess[str]:
    """A command's exit code and output, both streams together."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=options.pop("timeout", 600),
        check=False,
        **options,
    )


def run_docker(*words: object, **options) -> str:
    """What `docker ...` prints; it must succeed."""
    done = run("docker", *words, **options)
    assert done.returncode == 0, f"docker {words}: {done.stdout}"
    return done.stdout


def until(found: Callable[[], object], seconds: float, what: str) -> object:
    """The first true value; asks again and again until the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Project:
    """Folders on the host and a compose project that works on them."""

    folder: Path
    files: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("data", "outputs"):
            (self.folder / name).mkdir(parents=True)
            if ROOTS:
                os.chown(self.folder / name, USER, GROUP)
        self.settings = {
            "MEDSEG_DATA": str(self.data),
            "MEDSEG_OUTPUT": str(self.outputs),
            "MEDSEG_UID": str(USER),
            "MEDSEG_GID": str(GROUP),
            "MEDSEG_BOARD_PORT": str(free_port()),
            "MEDSEG_NOTEBOOK_PORT": str(free_port()),
            **self.settings,
        }

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def compose(
        self, *words: object, timeout: float = 600, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """`docker compose ...` with this project's settings."""
        name = "medseg-test-" + self.folder.name.replace("_", "-")
        files = [word for file in self.files for word in ("-f", file)]
        own = {key: value for key, value in os.environ.items() if not key.startswith(("MEDSEG_", "COMPOSE_"))}
        no_dotenv = ("--env-file", os.devnull)
        return run(
            "docker", "compose", "--project-name", name, "--project-directory", ".", *no_dotenv, *files, *words,
            env={**own, **self.settings, **settings}, timeout=timeout,
        )  # fmt: skip

    def ok(self, *words: object, **settings) -> str:
        """What it prints; it must succeed."""
        done = self.compose(*words, **settings)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def config(self) -> dict:
        """The merged file, every profile on."""
        return json.loads(self.ok("--profile", "*", "config", "--format", "json"))

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "2")


@pytest.fixture(scope="session")
def compose_plugin() -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker command on this machine")
    if run("docker", "compose", "version").returncode:
        if not ENGINE.is_file() or os.geteuid():
            pytest.skip("docker has no compose plugin")
        assert run(ENGINE, "up").returncode == 0


@pytest.fixture(scope="session")
def engine(compose_plugin) -> None:
    """A running engine, and a stand-in for the CUDA base, which is too large for a test."""
    if run("docker", "info").returncode:
        if not ENGINE.is_file():
            pytest.skip("no Docker engine runs on this machine")
        assert run(ENGINE, "up").returncode == 0
    (python,) = re.findall(r"^ARG PYTHON_IMAGE=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if ENGINE.is_file():  # where nothing can be pulled; the engine of a user pulls it in the build
        done = run(ENGINE, "base", python)
        assert done.returncode == 0, done.stdout
    run_docker(
        "build", "--quiet", "--tag", "medseg-paddle-standin", "--build-arg", f"PYTHON_IMAGE={python}", "-",
        input=STANDIN,
    )  # fmt: skip


@pytest.fixture(scope="session")
def images(engine, tmp_path_factory) -> None:
    """The images of both files are built as a user builds them, side by side to save time."""

    def build(kind: str) -> str:
        project = Project(tmp_path_factory.mktemp("build") / kind, FILES[kind])
        return project.ok("build", "--quiet", "train", REVISION="0123abc", timeout=900)

    with ThreadPoolExecutor() as pool:
        list(pool.map(build, ("standin", "cpu")))


@pytest.fixture(scope="session")
def docker(engine) -> Callable[..., str]:
    return run_docker


@pytest.fixture(scope="session")
def user() -> int:
    """Who the containers run as."""
    return USER


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., object]:
    return until


@pytest.fixture
def compose_file(compose_plugin, tmp_path) -> Callable[..., Project]:
    """A project that is only read: `compose_file("gpu")`, `("standin")`, `("cpu")`."""
    return lambda kind: Project(tmp_path / kind, FILES[kind])


@pytest.fixture(scope="session")
def patients(images, tmp_path_factory) -> Path:
    """A data folder with the synthetic patients, as `prepare` makes it."""
    made = Project(tmp_path_factory.mktemp("patients") / "project", FILES["standin"])
    made.ok("run", "--rm", "prepare")
    made.down()
    return made.data


@pytest.fixture
def fresh(patients, tmp_path) -> Iterator[Project]:
    """A project of a test's own on the GPU image, with the synthetic patients."""
    made = Project(tmp_path / "fresh", FILES["standin"])
    shutil.copytree(patients, made.data, dirs_exist_ok=True)
    yield made
    made.down()


@pytest.fixture(scope="module")
def project(images, tmp_path_factory) -> Iterator[Project]:
    """A project on a machine without GPU."""
    made = Project(tmp_path_factory.mktemp("project"), FILES["cpu"])
    yield made
    made.down()
