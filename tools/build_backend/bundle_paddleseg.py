"""Build backend: setuptools, and a wheel that carries PaddleSeg and the shipped recipes.

PaddleSeg 2.8.0 demands ``opencv-python<=4.6``, which numpy 2 cannot load; named as a dependency it would
make ``pip install`` fail or go back to 2021. So our wheel holds its unmodified package, hash-checked.

Editable installs bundle nothing: their PaddleSeg comes from the lock, their recipes from the checkout.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  (the hooks that a frontend looks up on this module)
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

ROOT = Path(__file__).resolve().parents[2]


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Build our wheel; add ``configs/`` and, where the build environment has none, ``paddleseg/``."""
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    wheel = Path(wheel_directory) / name
    dist_info = "-".join(name.split("-")[:2]) + ".dist-info"
    configs = ROOT / "configs"
    extra = {
        f"medseg_paddle/configs/{file.relative_to(configs).as_posix()}": file.read_bytes()
        for file in sorted(configs.rglob("*.yml"))
    }
    if importlib.util.find_spec("paddleseg") is None:
        extra |= _paddleseg(dist_info)
    _add(wheel, f"{dist_info}/RECORD", extra)
    return name


def _paddleseg(dist_info: str) -> dict[str, bytes]:
    """PaddleSeg's package and licence, from the wheel whose hash requirements/paddleseg.txt names."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "-r", str(ROOT / "requirements/paddleseg.txt"), "-d", folder], check=True)
        with ZipFile(next(Path(folder).glob("paddleseg-*.whl"))) as source:
            files = {name: source.read(name) for name in source.namelist() if name.startswith("paddleseg/")}
            licence = next(name for name in source.namelist() if name.endswith(".dist-info/LICENSE"))
            return {**files, f"{dist_info}/licenses/paddleseg/LICENSE": source.read(licence)}


def _add(wheel: Path, record: str, extra: dict[str, bytes]) -> None:
    with ZipFile(wheel) as source:
        lines = source.read(record).decode().splitlines()
        members = [(info, source.read(info)) for info in source.infolist() if info.filename != record]
    for name, data in extra.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}")
    with ZipFile(wheel, "w", ZIP_DEFLATED) as target:
        for info, data in members:
            target.writestr(info, data)
        for name, data in {**extra, record: ("\n".join(lines) + "\n").encode()}.items():
            info = ZipInfo(name)
            info.external_attr = 0o644 << 16
            target.writestr(info, data, ZIP_DEFLATED)
