"""Layouts that follow from the names of folders and files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg_paddle.io.dicom import group_by_series
from medseg_paddle.io.dicom_seg import is_segmentation
from medseg_paddle.io.images import IMAGE_SUFFIXES
from medseg_paddle.io.volumes import VOLUME_SUFFIXES, is_volume
from medseg_paddle.steps.recognise.pieces import (
    IMAGE_WORDS,
    LABEL_WORDS,
    SPLIT_WORDS,
    Layout,
    is_stack,
    mapping,
    numbered,
    only_word,
    pattern,
    role,
    window_for,
    with_splits,
)
from medseg_paddle.steps.sources.names import listed, stem


def find_dicom(root: Path, files: Sequence[Path]) -> Layout | None:
    """DICOM series with masks of any kind."""
    likely = [
        p for p in files if not p.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES, ".json", ".txt"))
    ]
    if not likely:
        return None
    segmentations = [path for path in likely if is_segmentation(path)]
    series = group_by_series(set(likely) - set(segmentations), on_bad=lambda _, __: None)
    images = [path for paths in series.values() for path in paths]
    masks = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES or is_volume(p)] or segmentations
    if not images or not masks:
        return None
    remarks: list[str] = []
    section: dict[str, Any] = {
        "reader": "dicom",
        "sets": [{"images": pattern(root, images), "labels": pattern(root, masks)}],
        **window_for([], remarks),
        **({} if masks is segmentations else mapping(masks)),
    }
    kind = (
        "DICOM SEG" if masks is segmentations else "label volumes" if is_volume(masks[0]) else "mask pictures"
    )
    what = f"{len(series)} DICOM series with {len(masks)} {kind}"
    return Layout(what, with_splits(section), (), tuple(remarks))


def find_objects(root: Path, files: Sequence[Path]) -> Layout | None:
    """One folder per picture, with a folder of masks: images/A.png and masks/*.png below each."""
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    by_case: dict[Path, dict[str, list[Path]]] = {}
    for path in pictures:
        by_case.setdefault(path.parent.parent, {}).setdefault(path.parent.name.lower(), []).append(path)
    fitting = {
        case: folders
        for case, folders in by_case.items()
        if case != root and len(images := only_word(folders, IMAGE_WORDS)) == 1 and only_word(folders, LABEL_WORDS)
        and images
    }  # fmt: skip
    if len(fitting) < 2 or not any(len(only_word(one, LABEL_WORDS)) > 1 for one in fitting.values()):
        return None
    images = [path for folders in fitting.values() for path in only_word(folders, IMAGE_WORDS)]
    masks = [path for folders in fitting.values() for path in only_word(folders, LABEL_WORDS)]
    section = {
        "reader": "objects",
        "key": "^(.*)/[^/]+/[^/]+$",
        "sets": [{"images": pattern(root, images), "labels": pattern(root, masks)}],
        "instances": 1,
    }
    what = f"{len(images)} pictures with {len(masks)} masks, one per object"
    return Layout(what, with_splits(section))


def find_folders(root: Path, files: Sequence[Path]) -> Layout | None:
    """A folder of images and one of labels, perhaps below folders for train, val and test."""
    readable = [path for path in files if path.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES))]
    by_place: dict[Path, dict[str, list[Path]]] = {}
    for path in readable:
        for folder in path.relative_to(root).parents[:-1]:
            word = folder.name.lower()
            kind = "labels" if word in LABEL_WORDS else "images" if word in IMAGE_WORDS else None
            if kind is not None:
                rest = Path(*folder.parts[:-1])
                if kind == "images" and any(part.lower() in LABEL_WORDS for part in rest.parts):
                    continue
                by_place.setdefault(rest, {}).setdefault(kind, []).append(path)
                break
    pairs = {place: kinds for place, kinds in by_place.items() if {"images", "labels"} <= kinds.keys()}
    if not pairs or len(pairs) > len(SPLIT_WORDS):
        return None
    sets, labels, images = [], [], []
    for place, kinds in sorted(pairs.items()):
        words = [SPLIT_WORDS[part.lower()] for part in place.parts if part.lower() in SPLIT_WORDS]
        sets.append(
            {
                "split": words[0] if words else "auto",
                "images": pattern(root, kinds["images"]),
                "labels": pattern(root, kinds["labels"]),
            }
        )
        images += kinds["images"]
        labels += kinds["labels"]
    layout = _paired_layout("a folder of images and one of labels", sets, images, labels)
    others = _as_many(root, readable, {path.parent for path in (*images, *labels)}, images)
    if others:
        also = f"other folders hold as many files, of another kind perhaps: {listed(others)}"
        layout = replace(layout, remarks=(*layout.remarks, also))
    return layout


def _as_many(root: Path, files: Sequence[Path], taken: set[Path], images: Sequence[Path]) -> list[str]:
    """Folders beside those of the images that hold as many files as one of these, such as a second reader's masks."""
    sizes = Counter(path.parent for path in files)
    beside = {folder.parent: sizes[folder] for folder in {path.parent for path in images}}
    return [
        folder.relative_to(root).as_posix()
        for folder, size in sorted(sizes.items())
        if folder not in taken and beside.get(folder.parent) == size
    ]


def find_cases(root: Path, files: Sequence[Path]) -> Layout | None:
    """One folder per case, with files of the same names or the same endings in each."""
    readable = [path for path in files if path.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES))]
    by_case: dict[Path, list[Path]] = {}
    for path in readable:
        by_case.setdefault(path.parent, []).append(path)
    by_case.pop(root, None)
    roles = [{role(path, case): path for path in paths} for case, paths in by_case.items()]
    common = set.intersection(*map(set, roles)) if len(roles) > 1 else set()
    labels = [role for role in common if set(re.split(r"[^a-z]+", role.lower())) & set(LABEL_WORDS)]
    images = sorted(common - set(labels))
    if len(labels) != 1 or not images:
        return None
    patterns = [pattern(root, [one[role] for one in roles]) for role in images]
    label_files = [one[labels[0]] for one in roles]
    sets = [
        {
            "split": "auto",
            "images": patterns if len(patterns) > 1 else patterns[0],
            "labels": pattern(root, label_files),
        }
    ]
    layout = _paired_layout(
        f"one folder for each of {len(roles)} cases", sets, [one[images[0]] for one in roles], label_files
    )
    section = {"reader": layout.prepare.pop("reader"), "key": "^(.*)/", **layout.prepare}
    return replace(layout, prepare=section)


def find_beside(root: Path, files: Sequence[Path]) -> Layout | None:
    """Images and labels in one folder, told apart by a word in the name."""
    readable = [path for path in files if path.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES))]
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in readable:
        groups.setdefault((path.parent, re.sub(r"\d+", "#", path.name)), []).append(path)
    if len(groups) != 2:
        return None
    is_label = [bool(set(re.split(r"[^a-z]+", name.lower())) & set(LABEL_WORDS)) for _, name in groups]
    images, labels = sorted(groups.values(), key=lambda paths: is_label[list(groups.values()).index(paths)])
    if sorted(is_label) != [False, True] or len(images) != len(labels):
        return None
    sets = [
        {
            "split": "auto",
            "images": numbered(root, images),
            "labels": numbered(root, labels),
        }
    ]
    return _paired_layout("images and labels in one folder", sets, images, labels)


def _paired_layout(
    what: str, sets: list[dict[str, Any]], images: Sequence[Path], labels: Sequence[Path]
) -> Layout:
    remarks: list[str] = []
    volumes = is_volume(images[0])
    reader = "volumes" if volumes else "stacks" if is_stack(images[0]) else "pairs"
    section: dict[str, Any] = {"reader": reader, "sets": sets}
    stems = [{stem(path) for path in paths} for paths in (images, labels)]
    if stems[0] != stems[1]:
        digits = [{tuple(re.findall(r"\d+", name)[-1:]) for name in names} for names in stems]
        if digits[0] == digits[1] and len(digits[0]) == len(images):
            section = {"reader": reader, "key": r"(\d+)\D*$", "sets": sets}
        else:
            remarks.append("the names of images and labels differ: say with `key` what they have in common")
    if volumes:
        section |= window_for([], remarks)
    section |= mapping(labels)
    return Layout(
        f"{what}: {len(images)} images, {len(labels)} labels", with_splits(section), (), tuple(remarks)
    )
