"""What recognising layouts shares: the words of folders, patterns that match files, mappings that labels suggest."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from medseg_paddle.errors import MedsegError
from medseg_paddle.io.images import read_label
from medseg_paddle.io.stacks import read_label_stack, read_stack
from medseg_paddle.io.volumes import is_volume, read_label_volume
from medseg_paddle.steps.sources.names import stem

_WIDTH = 110
IMAGE_WORDS = (
    "image",
    "images",
    "img",
    "imgs",
    "imagestr",
    "photos",
    "pictures",
    "data",
    "ct",
    "mr",
    "mri",
    "scans",
)
LABEL_WORDS = (
    "label", "labels", "labelstr", "lab", "mask", "masks", "gt", "groundtruth", "ground_truth", "manual", "annotation",
    "annotations", "seg", "segs", "segmentation", "segmentations", "instances",
)  # fmt: skip
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
                "test": "test", "testing": "test"}  # fmt: skip
SAMPLED = 12  # label files looked into for a proposal
LONGEST_LIST = 1 << 24


@dataclass(frozen=True)
class Layout:
    """A layout that a folder seems to have.

    Attributes
    ----------
    what : str
        For people.
    prepare : dict
        A `prepare` section; its window and fractions are to be filled in by a person.
    labels : tuple of str
        Class names, where the folder says them.
    remarks : tuple of str
        What to see to.
    """

    what: str
    prepare: dict[str, Any]
    labels: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        section: dict[str, Any] = {"labels": list(self.labels)} if self.labels else {}
        text = yaml.safe_dump(
            {**section, "prepare": self.prepare}, sort_keys=False, default_flow_style=None, width=_WIDTH,
            allow_unicode=True,
        )  # fmt: skip
        said = [f"found: {self.what}", *(f"see to: {remark}" for remark in self.remarks)]
        return "\n".join([*said, "to put into the recipe:", "", text.rstrip()])


def only_word(folders: dict[str, list[Path]], words: Sequence[str]) -> list[Path]:
    """Files of the folders whose name is one of some words."""
    return [path for name, paths in folders.items() if name in words for path in paths]


def numbered(root: Path, paths: Sequence[Path]) -> str:
    """Pattern of files of one folder whose names differ in numbers alone."""
    name = re.sub(r"\d+", "*", paths[0].name)
    return (paths[0].parent.relative_to(root) / name).as_posix()


def is_stack(path: Path) -> bool:
    """Whether a TIFF holds several pages."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        return len(read_stack(path)) > 1
    except MedsegError:
        return False


def role(path: Path, case: Path) -> str:
    """A file's name without the name of its case."""
    return path.name.replace(case.name, "").lower()


def split_word(name: str) -> str:
    """Split that a name says; ``"auto"`` where it says none."""
    words = [SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_WORDS]
    return words[0] if words else "auto"


def with_splits(section: dict[str, Any]) -> dict[str, Any]:
    """Add the fractions that the sets leave to be drawn."""
    named = {one["split"] for one in section["sets"] if "split" in one} or {"auto"}
    if "val" not in named:
        section["val_fraction"] = 0.15
    if "test" not in named:
        section["test_fraction"] = 0.2
    return section


def window_for(channels: Sequence[str], remarks: list[str]) -> dict[str, Any]:
    """A window to begin with, one for each of several channels, and a remark that it is an example."""
    remarks.append("the window is an example (soft tissue of CT): set the intensities that matter")
    window = {"level": 40, "width": 400}
    return {"window": [dict(window) for _ in channels] if len(channels) > 1 else window}


def mapping(labels: Sequence[Path]) -> dict[str, Any]:
    """The mapping that some of the label files suggest; none where their values are 0, 1, 2, ... or unreadable."""
    values: set[int] = set()
    step = max(1, len(labels) // SAMPLED)
    for path in list(labels)[::step][:SAMPLED]:
        try:
            array = _label_values(path)
        except MedsegError:
            return {}
        values |= {int(value) for value in np.unique(array)}
    if len(values) <= SAMPLED and values <= set(range(len(values))):
        return {}
    if max(values) > 255:
        return {"instances": 1}
    if len(values) == 2 and 0 in values:
        return {"label_map": {0: 0, max(values): 1}}
    if len(values) > SAMPLED:
        soft = max(values) == 255 and min(values) == 0
        return {"label_threshold": 128} if soft else {"instances": 1}
    return {"label_map": {value: index for index, value in enumerate(sorted(values))}}


def _label_values(path: Path) -> NDArray[Any]:
    if is_volume(path):
        return read_label_volume(path).array
    return read_label_stack(path) if is_stack(path) else read_label(path)


def pattern(root: Path, paths: Sequence[Path]) -> str:
    """The narrowest glob of the form ``fixed/*/name*.end`` that matches all paths."""
    split = [path.relative_to(root).parts for path in paths]
    if len({len(parts) for parts in split}) > 1:
        common = _common_parts([parts[:-1] for parts in split])
        return "/".join([*common, "**", _name_pattern([parts[-1] for parts in split])])
    columns = list(zip(*split, strict=True))
    folders = [column[0] if len(set(column)) == 1 else "*" for column in columns[:-1]]
    return "/".join([*folders, _name_pattern(columns[-1])])


def _common_parts(all_parts: Sequence[tuple[str, ...]]) -> list[str]:
    common = []
    for column in zip(*all_parts, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return common


def _name_pattern(names: Sequence[str]) -> str:
    if len(set(names)) == 1:
        return names[0]
    endings = {name[len(stem(Path(name))) :] for name in names}
    tails = {re.sub(r"^.*\d", "", stem(Path(name))) for name in names}
    ending = endings.pop() if len(endings) == 1 else ""
    # A common end of the names, such as _mask, tells labels from images that lie beside them.
    tail = tails.pop() if len(tails) == 1 and ending else ""
    return f"*{tail}{ending}"


def json_of(path: Path) -> Any:
    """Content of a JSON file; None where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
