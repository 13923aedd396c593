"""Folders that know whether their files are as they were written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from medseg_paddle.core import sha256
from medseg_paddle.io.files import write_text

_CHECKSUMS = "checksums.json"


def seal(folder: Path) -> None:
    """Note size and SHA-256 of each file of a folder in it.

    Raises
    ------
    SetupError
        It cannot be written.
    """
    sums = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())
    }
    write_text(folder / _CHECKSUMS, json.dumps(sums, indent=1))


def is_sealed(folder: Path) -> bool:
    """Whether :func:`seal` has been here."""
    return (folder / _CHECKSUMS).is_file()


def damage(folder: Path, needed: Sequence[str]) -> str | None:
    """What is wrong with a sealed folder, None if its files are as they were written.

    Parameters
    ----------
    folder : Path
    needed : sequence of str
        Names of files that must be among them.

    Raises
    ------
    OSError
        A file cannot be read at all.
    """
    try:
        sums = json.loads((folder / _CHECKSUMS).read_bytes())
        noted = {name: (int(facts["bytes"]), str(facts["sha256"])) for name, facts in sums.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{_CHECKSUMS} cannot be read"
    for name in needed:
        if name not in noted:
            return f"{_CHECKSUMS} names no {name}"
    for name, (size, digest) in noted.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, not {size:,}"
        if sha256(path) != digest:
            return f"{name} is not as it was written"
    return None
