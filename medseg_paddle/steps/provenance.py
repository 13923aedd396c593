"""What a run was made with: versions, code, machine, data."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from medseg_paddle.core import Case, sha256
from medseg_paddle.errors import DataError

_PACKAGES = (
    "medseg-paddle",
    "paddlepaddle",
    "paddlepaddle-gpu",
    "paddleseg",
    "numpy",
    "opencv-python-headless",
    "visualdl",
)
_FILES = "files"
_DIGITS = 16  # of a file's checksum: enough to tell files apart, and short
_NAMED = 5  # files in a message
# What comes before the @ of an address, and a part of its query that is called like a password.
_SECRETS = (
    (re.compile(r"://\S*@"), "://***@"),
    (re.compile(r"(?i)([?&]\w*(?:pass|pwd|secret|token|key)\w*=)[^&\s]*"), r"\1***"),
)
_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "CUDA_VISIBLE_DEVICES")


def provenance(
    cases: Mapping[str, Sequence[Case]], device: str, files: Sequence[Path] = ()
) -> dict[str, Any]:
    """Everything beside the recipe that a run depends on, as JSON-able values.

    Parameters
    ----------
    cases : mapping
        Split to its cases; one SHA-256 over all their files is noted per split, and the first digits of each
        file's own, without its name.
    device : str
        Where it computes.
    files : sequence of Path
        What else it reads; the SHA-256 of each is noted.
    """
    return {
        **surroundings(device),
        "files": {str(path): sha256(path) for path in files},
        "data": {split: _noted(members) for split, members in cases.items()},
    }


def surroundings(device: str) -> dict[str, Any]:
    """When, by which command, with which versions and on which machine a process computes on `device`."""
    return {
        "started": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "command": [without_passwords(word) for word in sys.argv],
        "versions": {"python": platform.python_version(), **versions()},
        "git": git_state(),
        "machine": {
            "system": platform.platform(),
            "processor": processor_name(),
            "device": device,
            "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        },
    }


def without_passwords(text: str) -> str:
    """A text without the passwords of the addresses in it, such as that of a search's database."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text


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
    return _together(sha256(path) for path in _files(cases))


def require_noted_data(noted: Mapping[str, Any], cases: Mapping[str, Sequence[Case]], run: Path) -> None:
    """See that the files are those that a run's provenance tells of, and name those that are not.

    Parameters
    ----------
    noted : mapping
        ``data`` of a run's provenance.
    cases : mapping
        Split to its cases now.
    run : Path
        The run's folder, for the message.

    Raises
    ------
    DataError
        Files have changed, are new, gone, or in another order.
    """
    for split, members in cases.items():
        if split not in noted:
            continue
        paths = list(_files(members))
        sums = [sha256(path) for path in paths]
        if _together(sums) == noted[split]["sha256"]:
            continue
        raise DataError(
            f"the {split} set of {run} is not what it was: {_what_differs(paths, sums, noted[split])}",
            hint="put the data back as it was; with other data it is another training, not a repetition",
        )


def without_files(noted: dict[str, Any]) -> dict[str, Any]:
    """A run's provenance without single files, their checksums and their names: for whom it is passed on to.

    Parameters
    ----------
    noted : dict
        Of one run, or ``{"members": [...]}`` with that of each run of an ensemble.
    """
    found = {key: value for key, value in noted.items() if key != _FILES}
    if "members" in noted:
        found["members"] = [without_files(member) for member in noted["members"]]
    if "data" in noted:
        found["data"] = {
            split: {key: value for key, value in facts.items() if key != _FILES}
            for split, facts in noted["data"].items()
        }
    return found


def _noted(cases: Sequence[Case]) -> dict[str, Any]:
    sums = [sha256(path) for path in _files(cases)]
    return {"images": len(cases), "sha256": _together(sums), _FILES: [digits[:_DIGITS] for digits in sums]}


def _files(cases: Sequence[Case]) -> Iterator[Path]:
    for case in cases:
        yield from (path for path in (case.image, case.label, case.roi) if path is not None)


def _together(sums: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for one in sums:
        digest.update(one.encode())
    return digest.hexdigest()


def _what_differs(paths: Sequence[Path], sums: Sequence[str], noted: Mapping[str, Any]) -> str:
    then = noted.get(_FILES)
    if then is None:
        return (
            f"{noted['images']} images then; its provenance, of an earlier version, cannot tell which differ"
        )
    now = [digits[:_DIGITS] for digits in sums]
    if sorted(now) == sorted(then):
        return "the same files in another order"
    new = [str(path) for path, digits in zip(paths, now, strict=True) if digits not in then]
    if not new and len(now) == len(then):  # the content of another file
        new = [str(path) for path, digits, was in zip(paths, now, then, strict=True) if digits != was]
    more = f" and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
    named = f"{', '.join(new[:_NAMED])}{more} changed or new" if new else "no file is new"
    return f"{named}; {len(then)} files then, {len(now)} now"
