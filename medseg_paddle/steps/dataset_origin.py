"""What a data set was made from: noted when it is written, compared when it shall be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import MANIFEST_NAME, SPLITS, LabelSet, Manifest
from medseg_paddle.errors import DataError
from medseg_paddle.steps.dataset_parts import Stamp, changed
from medseg_paddle.steps.sources import Found, look

ANEW = "make it anew with --overwrite, or name another folder with --output"
_LONGEST_VALUE = 48


def origin(spec: PrepareSpec, files: Mapping[str, Stamp]) -> dict[str, Any]:
    """Settings, and of every file read its size, time of change and SHA-256; as JSON-able values.

    The source folder's own path is left out: the same folder has another one in a container.

    Parameters
    ----------
    spec : PrepareSpec
    files : mapping
        Path below the source folder to what :func:`medseg_paddle.steps.dataset_parts.stamp` gave.
    """
    return {"prepare": spec.model_dump(mode="json"), "files": dict(sorted(files.items()))}


def earlier_dataset(destination: Path) -> Manifest | None:
    """The data set in a folder, None where there is none."""
    return Manifest.load(destination) if (destination / MANIFEST_NAME).is_file() else None


def is_synthetic(manifest: Manifest) -> bool:
    """Whether a data set was made of a recipe's synthetic patients, not of somebody's images."""
    settings = manifest.source.get("prepare")
    return isinstance(settings, dict) and bool(settings.get("synthetic"))


def require_same_origin(manifest: Manifest, spec: PrepareSpec, source: Path | None, labels: LabelSet) -> None:
    """See that a data set need not be written again, because it would become the same.

    A source file with the size and the time it had is taken for unchanged; one with another time is read,
    since copying a folder sets new times.

    Parameters
    ----------
    manifest : Manifest
        Of the data set that is there.
    spec, labels
        As for :func:`medseg_paddle.steps.dataset.write_dataset`.
    source : Path or None
        Folder of the images; None where nobody said where they are, and they are not compared.

    Raises
    ------
    DataError
        It was made with other settings, classes or files, or lacks files of its own.
    """
    own = [*manifest.fingerprints, *(f"{split}_list.txt" for split in SPLITS)]
    gone = [name for name in own if not (manifest.root / name).is_file()]
    if gone:
        raise DataError(f"{manifest.root} lacks {_counted(gone)}", hint=ANEW)
    differences = [*_other_classes(manifest, labels), *_other_settings(manifest, spec)]
    if not differences and source is not None:  # other settings find other files, which says nothing
        differences = _other_files(manifest, _files(source, look(spec, source)))
    if differences:
        raise DataError(f"{manifest.root} was made otherwise: {'; '.join(differences)}", hint=ANEW)


def _other_classes(manifest: Manifest, labels: LabelSet) -> list[str]:
    if manifest.labels.names == labels.names:  # what these mean, and in which colours, no file depends on
        return []
    return [f"its classes are {', '.join(manifest.labels.names)}, now {', '.join(labels.names)}"]


def _other_settings(manifest: Manifest, spec: PrepareSpec) -> list[str]:
    try:  # read as a recipe is: a key that came later has its default
        made = PrepareSpec.model_validate(manifest.source.get("prepare")).model_dump(mode="json")
    except ValidationError:
        return ["its settings are not those of this version"]
    now = spec.model_dump(mode="json")
    said = []
    for key, value in now.items():
        before, after = (json.dumps(one) for one in (made[key], value))
        if before != after:
            short = max(len(before), len(after)) <= _LONGEST_VALUE
            said.append(f"`{key}` was {before}, is {after}" if short else f"`{key}` was another")
    return said


def _other_files(manifest: Manifest, files: Mapping[str, Path]) -> list[str]:
    noted = manifest.source.get("files")
    if not isinstance(noted, dict):
        return ["by an earlier version, which did not note what it read"]
    found = {
        "added": sorted(files.keys() - noted.keys()),
        "removed": sorted(noted.keys() - files.keys()),
        "changed": sorted(name for name in files.keys() & noted.keys() if changed(files[name], noted[name])),
    }
    return [f"{_counted(names)} {how}" for how, names in found.items() if names]


def _files(root: Path, found: Found) -> dict[str, Path]:
    """Every file that a folder would be prepared from.

    Raises
    ------
    DataError
        It cannot be prepared as it is now.
    """
    if found.problems:
        raise found.problems[0]
    paths = {path for source in found.sources for path in source.files} | set(found.indexes)
    return {path.relative_to(root).as_posix(): path for path in sorted(paths)}


def _counted(names: list[str]) -> str:
    return f"{len(names)} file{'s' * (len(names) > 1)} ({names[0]}{', ...' * (len(names) > 1)})"
