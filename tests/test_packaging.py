"""What `pip install .` gets: a wheel with PaddleSeg and the recipes in it; and a lock that fits."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
HOOK = """
import importlib.util, sys
sys.path.insert(0, "tools/build_backend")
if {hidden}:
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if name == "paddleseg" else find_spec(name)
import bundle_paddleseg
bundle_paddleseg.{hook}("dist")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what is needed to build, since building leaves files behind."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    for name in ("medseg_paddle", "configs", "requirements", "tools"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def build(source: Path, hook: str, *, hidden: bool = False) -> Path:
    """Call a hook of the build backend, PaddleSeg hidden from it or not; return what it built."""
    shutil.rmtree(source / "dist", ignore_errors=True)
    (source / "dist").mkdir()
    subprocess.run(
        [sys.executable, "-c", HOOK.format(hook=hook, hidden=hidden)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    return next((source / "dist").iterdir())


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    """The wheel that is built where PaddleSeg is not installed."""
    folder = tmp_path_factory.mktemp("probe")
    probe = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--require-hashes",
            "--retries",
            "1",
            "-r",
            str(ROOT / "requirements/paddleseg.txt"),
            "-d",
            str(folder),
        ],
        capture_output=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip("the package registry that PaddleSeg's wheel comes from is out of reach")
    built = build(source, "build_wheel", hidden=True)
    return Path(shutil.copy(built, folder))


def test_wheel_carries_paddleseg_unmodified_with_its_licence(wheel):
    installed = Path(importlib.util.find_spec("paddleseg").origin).parent
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        modules = sorted(installed.rglob("*.py"))
        assert len(modules) > 100
        for module in modules:
            assert (
                archive.read(f"paddleseg/{module.relative_to(installed).as_posix()}") == module.read_bytes()
            )
    assert any(name.endswith(".dist-info/licenses/paddleseg/LICENSE") for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_carries_the_shipped_recipes_and_the_type_marker(wheel):
    recipes = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yml")}
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"medseg_paddle/configs/{name}" for name in recipes} <= names
    assert "medseg_paddle/py.typed" in names
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "medseg_paddle").rglob("*.py")}
    assert {f"{package}/__init__.py" for package in packages} <= names


def test_record_names_every_file_with_its_hash_and_size(wheel):
    with ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == len(set(names))
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        listed = {row[0]: row[1:] for row in csv.reader(archive.read(record).decode().splitlines())}
        assert set(listed) == set(names)
        for name in set(names) - {record}:
            data = archive.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert listed[name] == [f"sha256={digest}", str(len(data))], name
    assert listed[record] == ["", ""]


def test_nothing_is_bundled_where_paddleseg_is_installed_already(source):
    with ZipFile(build(source, "build_wheel")) as archive:
        assert not [name for name in archive.namelist() if name.startswith("paddleseg/")]


def test_editable_install_bundles_nothing(source):
    with ZipFile(build(source, "build_editable", hidden=True)) as archive:
        assert not [
            name for name in archive.namelist() if name.startswith(("paddleseg/", "medseg_paddle/configs"))
        ]


def test_source_archive_can_be_built_from(source):
    with tarfile.open(build(source, "build_sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"requirements/paddleseg.txt", "tools/build_backend/bundle_paddleseg.py", "LICENSE"} <= names
    assert any(name.startswith("configs/") for name in names)


@pytest.mark.parametrize(("lock", "extra"), [("cpu.lock", ""), ("dev.lock", "dev")])
def test_lock_has_a_hashed_version_of_every_dependency(lock, extra):
    declared = [Requirement(line) for line in importlib.metadata.requires("medseg-paddle")]
    wanted = [r for r in declared if r.marker is None or r.marker.evaluate({"extra": extra})]
    assert len(wanted) > 15
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    locked: dict[str, list[str]] = {}
    for name, version, rest in re.findall(r"^([a-z0-9-]+)==(\S+)(.*(?:\n    .*)*)", text, re.MULTILINE):
        assert "--hash=sha256:" in rest, name
        locked.setdefault(name, []).append(version)
    for requirement in [*wanted, Requirement("paddleseg==2.8.0")]:
        versions = locked[requirement.name.lower()]
        assert all(requirement.specifier.contains(version) for version in versions), requirement
