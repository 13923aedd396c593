"""A proposal tried on its folder: a key that pairs its files, lists of names that say the splits, what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.errors import DataError
from medseg_paddle.steps.recognise.pieces import LONGEST_LIST, Layout, split_word, with_splits
from medseg_paddle.steps.sources import Found, look
from medseg_paddle.steps.sources.names import listed, stem

_STEM = r"([^/]+?)(?:\.nii)?\.[^/.]+$"
# From what is short and usual to what is long; the first that pairs all files is taken.
_KEYS = (
    r"(\d+)\D*$",
    r"(\d+)[^/]*$",
    rf"([^/]+)/{_STEM}",
    rf"^([^/]+)/(?:.*/)?{_STEM}",
    rf"^(.*)/[^/]+/{_STEM}",
    r"([^/]+)/[^/]*?(\d+)\D*$",
    r"^([^/]+)/(?:.*/)?[^/]*?(\d+)\D*$",
    "^(.*)/",
)
_SERIES_KEYS = (_KEYS[2], "^([^/]+)/")  # each costs reading all headers
_KEYED = ("pairs", "stacks", "volumes", "dicom")
_TAKE_ONLY = ("pairs", "objects", "stacks", "volumes")
_LIST_SUFFIXES = (".txt", ".csv", ".lst", ".tsv")
_NNUNET_FOLDS = "splits_final.json"


def tried(root: Path, files: Sequence[Path], layout: Layout) -> Layout:
    """A layout as it reads its folder, with a key where it needs one, official splits, and its problems."""
    layout, found = _keyed(root, layout)
    if found is not None:
        layout, found = _with_name_lists(root, files, layout, found)
        layout = replace(layout, problems=tuple(problem.message for problem in found.problems))
    return replace(layout, remarks=(*layout.remarks, *_unread(root, files, layout)))


def _look(root: Path, section: dict[str, Any]) -> Found:
    return look(PrepareSpec.model_validate(section), root)


def _keyed(root: Path, layout: Layout) -> tuple[Layout, Found | None]:
    try:
        found = _look(root, layout.prepare)
    except (ValidationError, DataError) as error:
        return replace(layout, problems=(str(error),)), None
    reader = layout.prepare["reader"]
    if not found.problems or reader not in _KEYED or "key" in layout.prepare:
        return layout, found
    for key in _SERIES_KEYS if reader == "dicom" else _KEYS:
        section = {"reader": reader, "key": key, **layout.prepare}
        other = _look(root, section)
        if not other.problems:
            return replace(layout, prepare=section), other
    return layout, found


def _with_name_lists(root: Path, files: Sequence[Path], layout: Layout, found: Found) -> tuple[Layout, Found]:
    """Take official splits from lists of image names, if they say who is in train, all of one set."""
    section = layout.prepare
    lists = [path for path in _lists(root, files, layout) if split_word(path.stem) != "auto"]
    if section["reader"] not in _TAKE_ONLY or not lists:
        return layout, found
    for one in section["sets"]:
        images = [
            source.files[0]
            for source in _look(root, {**section, "sets": [{**one, "split": "train"}]}).sources
        ]
        named = _naming(root, lists, images)
        if "train" not in named or any(len(paths) > 1 for paths in named.values()):
            continue
        sets = [
            {**one, "split": split, "only": path.relative_to(root).as_posix()}
            for split in ("train", "val", "test")
            for path in named.get(split, ())
        ]
        kept = {key: value for key, value in section.items() if key not in ("val_fraction", "test_fraction")}
        split = with_splits({**kept, "sets": sets})
        rest = [str(other["images"]) for other in section["sets"] if other is not one]
        remarks = [f"not taken, as the lists name none of them: {listed(rest)}"] if rest else []
        what = f"{layout.what}, split by {', '.join(one['only'] for one in sets)}"
        return (
            replace(layout, what=what, prepare=split, remarks=(*layout.remarks, *remarks)),
            _look(root, split),
        )
    return layout, found


def _naming(root: Path, lists: Sequence[Path], images: Sequence[Path]) -> dict[str, list[Path]]:
    """The lists whose lines are mostly names of some images, by their split."""
    names = {
        name for image in images for name in (image.relative_to(root).as_posix(), image.name, stem(image))
    }
    found: dict[str, list[Path]] = {}
    for path in lists:
        lines = _lines(path)
        if 2 * sum(line in names for line in lines) > len(lines):
            found.setdefault(split_word(path.stem), []).append(path)
    return found


def _lists(root: Path, files: Sequence[Path], layout: Layout) -> list[Path]:
    """Text files that no set of the layout reads."""
    read = {one.get(key) for one in layout.prepare["sets"] for key in ("index", "only")}
    return [
        path
        for path in files
        if path.suffix.lower() in _LIST_SUFFIXES
        and path.stat().st_size <= LONGEST_LIST
        and path.relative_to(root).as_posix() not in read
    ]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def _unread(root: Path, files: Sequence[Path], layout: Layout) -> list[str]:
    """Files that look as if they said official splits and are not read."""
    remarks = []
    lists = [path for path in _lists(root, files, layout) if split_word(path.stem) != "auto"]
    if lists:
        remarks.append(
            f"not read, though the names say a split: {listed([path.relative_to(root).as_posix() for path in lists])}; "
            "`only` in a set takes a list of image names, reader `lists` one of images and labels, `table` a table"
        )
    folds = [path.relative_to(root).as_posix() for path in files if path.name == _NNUNET_FOLDS]
    if folds:
        remarks.append(
            f"not read: the folds of {listed(folds)}; `folds: 5` deals new ones, `table` takes an official split"
        )
    return remarks
