"""What a run was made with: versions, code, machine, data."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from medseg_paddle.core import Case, sha256

_PACKAGES = (
    "medseg-paddle",
    "paddlepaddle",
    "paddlepaddle-gpu",
    "paddleseg",
    "numpy",
    "opencv-python-headless",
    "visualdl",
)
_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "CUDA_VISIBLE_DEVICES")


def provenance(
    cases: Mapping[str, Sequence[Case]], device: str, files: Sequence[Path] = ()
) -> dict[str, Any]:
    """Everything beside the recipe that a run depends on, as JSON-able values.

    Parameters
    ----------
    cases : mapping
        Split to its cases; one SHA-256 over all their files is noted per split.
    device : str
        Where it computes.
    files : sequence of Path
        What else it reads; the SHA-256 of each is noted.
    """
    return {
        **surroundings(device),
        "files": {str(path): sha256(path) for path in files},
        "data": {
            split: {"images": len(members), "sha256": fingerprint_of(members)}
            for split, members in cases.items()
        },
    }


def surroundings(device: str) -> dict[str, Any]:
    """When, by which command, with which versions and on which machine a process computes on `device`."""
    return {
        "started": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **versions()},
        "git": git_state(),
        "machine": {
            "system": platform.platform(),
            "processor": processor_name(),
            "device": device,
            "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        },
    }


def versions() -> dict[str, str]:
    """Versions of the packages that matter, those installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout the package runs from, and whether it was changed; None where unknown.

    An image has no checkout; it names the commit it was built from in ``MEDSEG_REVISION``.
    """
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", __file__
        )  # else it is somebody else's checkout around our installation
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        built_from = os.environ.get("MEDSEG_REVISION", "unknown")
        return None if built_from == "unknown" else {"commit": built_from, "changed": False}


def processor_name() -> str:
    """The processor's own name, for example from ``/proc/cpuinfo``."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def fingerprint_of(cases: Sequence[Case]) -> str:
    """One SHA-256 over all files of the cases, in their order."""
    digest = hashlib.sha256()
    for case in cases:
        for path in (case.image, case.label, case.roi):
            if path is not None:
                digest.update(sha256(path).encode())
    return digest.hexdigest()
