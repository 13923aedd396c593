"""Layouts that follow from the names of folders and files."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
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
    says_label,
    window_for,
    with_splits,
    word,
)
from medseg_paddle.steps.sources.names import listed, stem

_ROLES_SHOWN = 5
_ROI_WORDS = ("mask", "masks", "fov", "roi", "rois")
_MARKED = re.compile(rf"(.+?)([ _.-](?:{'|'.join(LABEL_WORDS)})(?![A-Za-z]).*)", re.IGNORECASE)
_IMAGE_TAILS = ("", *(f"{sign}{word}" for sign in "_-. " for word in IMAGE_WORDS))


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
        **({} if masks is segmentations else mapping(masks, remarks)),
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
    images_at: dict[Path, list[Path]] = {}
    labels_at: dict[
        Path, dict[str, list[Path]]
    ] = {}  # several where two people drew, or a region of interest is said
    for path in readable:
        for folder in path.relative_to(root).parents[:-1]:
            rest = Path(*folder.parts[:-1])
            if word(folder.name) in IMAGE_WORDS:
                if any(word(part) in LABEL_WORDS for part in rest.parts):
                    continue
                images_at.setdefault(rest, []).append(path)
                break
            if says_label(folder.name):
                labels_at.setdefault(rest, {}).setdefault(folder.name, []).append(path)
                break
    places = sorted(images_at.keys() & labels_at.keys())
    if not places or len(places) > len(SPLIT_WORDS):
        return None
    sets, labels, images, taken = [], [], [], set()
    for place in places:
        words = [SPLIT_WORDS[part.lower()] for part in place.parts if part.lower() in SPLIT_WORDS]
        own = images_at[place]
        kinds = labels_at[place]
        first = min(
            kinds, key=lambda name: (len(kinds[name]) != len(own), "manual" not in name.lower(), name)
        )
        one = {
            "split": words[0] if words else "auto",
            "images": pattern(root, own),
            "labels": pattern(root, kinds[first]),
        }
        rois = [name for name in kinds if word(name) in _ROI_WORDS and len(kinds[name]) == len(own)]
        if (
            rois and "manual" in first.lower()
        ):  # as DRIVE has it: the camera's field of view beside what people drew
            one["rois"] = pattern(root, kinds[rois[0]])
            taken |= {path.parent for path in kinds[rois[0]]}
        sets.append(one)
        images += own
        labels += kinds[first]
    layout = _paired_layout("a folder of images and one of labels", sets, images, labels)
    taken |= {path.parent for path in (*images, *labels)}
    others = set(_as_many(root, readable, taken, images)) | {
        path.parent.relative_to(root).as_posix()
        for place in places
        for paths in labels_at[place].values()
        for path in paths
        if path.parent not in taken
    }
    remarks = []
    if others:
        remarks.append(f"other folders may hold labels, or are of another kind: {listed(sorted(others))}")
    if any("rois" in one for one in sets):
        remarks.append("`rois` are taken for the camera's field of view: scores are taken inside only")
    return replace(layout, remarks=(*layout.remarks, *remarks))


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
    roles = {case: {role(path, case): path for path in paths} for case, paths in by_case.items()}
    counts = Counter(role for one in roles.values() for role in one)
    if len(roles) < 2:
        return None
    # A role that a few cases lack is one all the same: what is missing is said, not passed over.
    common = sorted(role for role, count in counts.items() if count > max(1, len(roles) // 2))
    labels = [role for role in common if says_label(role)]
    images = [role for role in common if role not in labels]
    if len(labels) != 1 or not images:
        return None
    patterns = [_role_pattern(root, roles, role) for role in images]
    label_files = [one[labels[0]] for one in roles.values() if labels[0] in one]
    sets = [
        {
            "split": "auto",
            "images": patterns if len(patterns) > 1 else patterns[0],
            "labels": _role_pattern(root, roles, labels[0]),
        }
    ]
    layout = _paired_layout(
        f"one folder for each of {len(roles)} cases",
        sets,
        [one[images[0]] for one in roles.values() if images[0] in one],
        label_files,
    )
    remarks = [
        f"'{role}' is not in {listed([case.relative_to(root).as_posix() for case in roles if role not in roles[case]])}"
        for role in sorted(counts)
        if counts[role] < len(roles)
    ]
    section = {"reader": layout.prepare.pop("reader"), "key": "^(.*)/", **layout.prepare}
    return replace(layout, prepare=section, remarks=(*layout.remarks, *remarks[:_ROLES_SHOWN]))


def _role_pattern(root: Path, roles: Mapping[Path, Mapping[str, Path]], role: str) -> str:
    """Pattern of the files that have one role in all cases: ``*/*_t1.nii.gz``, and not ``*/*.nii.gz`` as that of T2."""
    paths = {case: one[role] for case, one in roles.items() if role in one}
    names = {"*".join(map(glob.escape, path.name.split(case.name))) for case, path in paths.items()}
    return pattern(root, list(paths.values()), names.pop() if len(names) == 1 else "")


def find_marked(root: Path, files: Sequence[Path]) -> Layout | None:
    """Labels beside their images, named like these with a word at the end: scan 1.png and scan 1_mask.png."""
    readable = [path for path in files if path.name.lower().endswith((*IMAGE_SUFFIXES, *VOLUME_SUFFIXES))]
    there = {(path.parent, stem(path).lower()): path for path in readable}
    groups: dict[tuple[str, str, str, str], list[tuple[Path, Path]]] = {}
    for path in readable:
        name = stem(path)
        marked = _MARKED.fullmatch(name)
        if marked is None:
            continue
        for tail in _IMAGE_TAILS:
            image = there.get((path.parent, f"{marked[1]}{tail}".lower()))
            if image is not None and image != path:
                own = stem(image)[len(marked[1]) :]
                kind = (marked[2], path.name[len(name) :], own, image.name[len(stem(image)) :])
                groups.setdefault(kind, []).append((image, path))
                break
    if not groups:
        return None
    (tail, ending, own_tail, own_ending), pairs = max(groups.items(), key=lambda item: len(item[1]))
    if len(pairs) < 2:
        return None
    images, labels = [image for image, _ in pairs], [label for _, label in pairs]
    end = glob.escape(own_tail) or _last_letter({stem(image)[-1] for image in images}, tail[-1])
    names = (f"*{end}{own_ending}", f"*{glob.escape(tail)}{ending}")
    sets = [
        {
            "split": "auto",
            "images": pattern(root, images, names[0]),
            "labels": pattern(root, labels, names[1]),
        }
    ]
    layout = _paired_layout("labels beside their images", sets, images, labels)
    alone = len({stem(label) for label in labels}) == len(labels)
    tails = "|".join(dict.fromkeys(re.escape(one) for one in (tail, own_tail) if one))
    endings = (
        re.escape(ending) if ending == own_ending else f"(?:{re.escape(ending)}|{re.escape(own_ending)})"
    )
    key = f"{'([^/]+?)' if alone else '^(.+?)'}(?:{tails}){'' if own_tail else '?'}{endings}$"
    rest = sorted(set(readable) - {path for pair in pairs for path in pair})
    remarks = [
        f"{len(rest)} files are not taken: {listed([path.relative_to(root).as_posix() for path in rest])}"
    ]
    section = {"reader": layout.prepare.pop("reader"), "key": key, **layout.prepare}
    return replace(layout, prepare=section, remarks=(*layout.remarks, *(remarks if rest else ())))


def _last_letter(last: set[str], of_labels: str) -> str:
    """The end of a pattern that images match by the last sign of their names, and labels do not."""
    if all(sign in "0123456789" for sign in last):
        return "[0-9]"
    return glob.escape(last.pop()) if len(last) == 1 else f"[!{of_labels}]"


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
    if volumes:
        section |= window_for([], remarks)
    section |= mapping(labels, remarks)
    return Layout(
        f"{what}: {len(images)} images, {len(labels)} labels", with_splits(section), (), tuple(remarks)
    )
