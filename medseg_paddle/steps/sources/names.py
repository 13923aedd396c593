"""Names: which files a pattern means, which of them belong together, and what a case is called."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from medseg_paddle.config.prepare import PrepareSet
from medseg_paddle.errors import DataError
from medseg_paddle.steps.sources.base import Search

_ENDINGS = (
    ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".ima", ".dicom", ".png", ".jpg", ".jpeg", ".tif",
    ".tiff", ".gif", ".bmp", ".npy",
)  # fmt: skip
_SHOWN = 5
_LONGEST = 160  # of 255 bytes: the number of a slice, an ending and the mark of a file in the making follow


def matching(search: Search, pattern: str) -> list[Path]:
    """Files of the source folder that match a pattern, in order; hidden ones are passed over."""
    found = search.root.glob(pattern)
    paths = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    if not paths:
        search.fault(
            f"{search.root}: no file matches '{pattern}'",
            hint="correct the pattern in `prepare`, or the source folder",
        )
    return paths


def index_file(search: Search, name: str) -> Path | None:
    """File that names others; None, and a problem noted, where it is not there."""
    path = search.root / name
    if not path.is_file():
        search.fault(f"{path} is not there", hint="correct `index` in `prepare`, or the source folder")
        return None
    search.indexes.append(path)
    return path


def below_root(root: Path, folder: Path, text: str) -> Path | None:
    """The path that a file of the source folder names; None where it leads out of it, by name.

    Parameters
    ----------
    root : Path
        Source folder.
    folder : Path
        What a relative path is relative to; `root`, or below it.
    text : str
    """
    if "\0" in text:
        return None
    path = os.path.relpath(folder / text, root)  # by name: a folder may be a link to elsewhere
    return None if path == os.pardir or path.startswith(os.pardir + os.sep) else root / path


def keyed(search: Search, pattern: str) -> dict[str, Path]:
    """Files that match a pattern, by their keys."""
    return by_key(search, matching(search, pattern))


def by_key(search: Search, paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their keys; two with the same are a problem, and the first is kept."""
    found: dict[str, Path] = {}
    equal: dict[str, Path] = {}
    for path in paths:
        try:
            key = key_of(search, path)
        except DataError as error:
            search.problems.append(error)
            continue
        if key in found:
            equal.setdefault(key, path)
        found.setdefault(key, path)
    if equal:
        key, path = next(iter(equal.items()))
        more = f", and so have the files of {len(equal) - 1} more keys" if len(equal) > 1 else ""
        search.fault(
            f"{found[key]} and {path} have the same key '{key}'{more}",
            hint="set `key` in `prepare` to an expression that tells them apart, with the folder's name",
        )
    return found


def key_of(search: Search, path: Path) -> str:
    """What an image and its label have in common.

    Raises
    ------
    DataError
        The recipe's `key` finds nothing in the path.
    """
    if search.spec.key is not None:
        return _search("key", search.spec.key, search.below(path))
    if search.spec.reader == "dicom":
        # Slices of all patients are often named alike: P1/ct/IM1.dcm, P1/mask/IM1.png, P2/ct/IM1.dcm, ...
        above = path.parent.parent
        above = above.relative_to(search.root) if above.is_relative_to(search.root) else Path()
        return (above / stem(path)).as_posix()
    return stem(path)


def patient_of(search: Search, path: Path, *, default: str) -> str:
    """Patient of an image.

    Raises
    ------
    DataError
        The recipe's `patient` finds nothing in the path, or the default is empty.
    """
    pattern = search.spec.patient
    patient = default if pattern is None else _search("patient", pattern, search.below(path))
    if not patient:
        raise DataError(
            f"{path} names no patient (PatientID is empty)",
            hint="set `patient` in `prepare` to a regular expression for the path, such as '^([^/]+)/'",
        )
    return patient


def _search(what: str, pattern: str, name: str) -> str:
    match = re.search(pattern, name)
    found = "" if match is None else "-".join(group for group in match.groups() if group)
    if not found:
        raise DataError(
            f"the `{what}` pattern '{pattern}' finds nothing in '{name}'",
            hint=f"correct `{what}` in `prepare`",
        )
    return found


def stem(path: Path) -> str:
    """File name without its ending, ``.nii.gz`` taken as one."""
    ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)]


def file_name(key: str) -> str:
    """Turn a key into a name without spaces or other signs that lists and shells trip over.

    Where nothing is left of it, or too much for a file name, a short hash of the key takes the place of the rest.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip("-.")
    if name and len(name) <= _LONGEST:
        return name
    # Normalized: the same name is spelt in two ways by two file systems.
    digest = hashlib.sha256(unicodedata.normalize("NFC", key).encode(errors="surrogateescape")).hexdigest()
    return f"{name[:_LONGEST] or 'case'}-{digest[:10]}"


def chosen(
    search: Search, part: PrepareSet, images: Mapping[str, Path], every: Mapping[str, tuple[Path, ...]]
) -> dict[str, Path]:
    """Keep the images that the set's list `only` names; all where there is no list.

    Parameters
    ----------
    search : Search
    part : PrepareSet
    images : mapping
        Those that have a partner, by key.
    every : mapping
        The files of all that the set's pattern matches, by key.
    """
    if part.only is None:
        return dict(images)
    listing = search.root / part.only
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        search.fault(f"list {listing} cannot be read: {error}", hint="correct `only` in `prepare`")
        return {}
    search.indexes.append(listing)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = _keys_of_lines(search, listing, lines, {key: paths[0] for key, paths in every.items()})
    unknown = [line for line, key in keys.items() if key is None]
    if unknown:
        search.fault(
            f"{listing} names {listed(unknown)}, not among the images '{part.images}'",
            hint="list images by file name, or by path below the source folder",
        )
    wanted = set(keys.values())
    search.unlisted.update({path: search.below(listing) for key, path in images.items() if key not in wanted})
    return {key: path for key, path in images.items() if key in wanted}


def _keys_of_lines(
    search: Search, listing: Path, lines: list[str], every: Mapping[str, Path]
) -> dict[str, str | None]:
    """Key of the image that each line names; None for a line that names none, a problem noted where it names two."""
    by_path = {search.below(path): key for key, path in every.items()}
    by_name: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for key, path in every.items():
        by_name.setdefault(path.name, []).append(key)
        by_stem.setdefault(stem(path), []).append(key)
    found: dict[str, str | None] = {}
    for line in lines:
        first = line.split()[0]
        # The first word alone is a name only with its ending: 'scan 9.png' is no other picture than it says.
        keys = [by_path[line]] if line in by_path else by_name.get(line) or by_stem.get(line)
        keys = keys or ([by_path[first]] if first in by_path else by_name.get(first, []))
        if len(keys) > 1:
            names = [search.below(every[key]) for key in keys]
            search.fault(
                f"{listing}: '{line}' can be {listed(names)}",
                hint=f"name it by its path below the source folder, such as '{names[0]}'",
            )
        found[line] = keys[0] if keys else None
    return found


def paired(
    search: Search, images: Mapping[str, Path], others: Mapping[str, Path], what: str
) -> dict[str, Path]:
    """Keep the images that have a partner; the lonely of both sides are problems."""
    lonely = [search.below(path) for key, path in images.items() if key not in others]
    # Where a pattern found nothing at all, that is said already.
    if lonely and others:
        search.fault(
            f"{search.root}: no {what} for {listed(lonely)}",
            hint=f"add the missing {what}s, move these images away, or correct `key` in `prepare`",
        )
    orphans = [search.below(path) for key, path in others.items() if key not in images]
    if orphans and images:
        search.fault(
            f"{search.root}: {what} without an image: {listed(orphans)}",
            hint=f"add the missing images, move these {what}s away, or correct `key` in `prepare`",
        )
    return {key: path for key, path in images.items() if key in others}


def listed(names: list[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def require_size(
    image: Path, image_shape: tuple[int, ...], other: Path, other_shape: tuple[int, ...]
) -> None:
    """Refuse an image and a label that are not on one grid.

    Raises
    ------
    DataError
        The shapes differ.
    """
    if image_shape != other_shape:
        one, two = (" x ".join(map(str, shape)) for shape in (image_shape, other_shape))
        raise DataError(
            f"{image} is {one}, {other} is {two}",
            hint="export the annotation again on the image's own grid; resizing it would move its outline",
        )
