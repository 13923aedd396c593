"""What recognising layouts shares: the words of folders, patterns that match files, mappings that labels suggest."""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from medseg_paddle.errors import MedsegError
from medseg_paddle.io.images import read_label, read_samples
from medseg_paddle.io.stacks import read_label_stack, read_stack
from medseg_paddle.io.volumes import is_volume, read_label_volume
from medseg_paddle.steps.sources.names import stem

_WIDTH = 110
_PROBLEMS_SHOWN = 3
_IGNORED = 255
_FEW_CLASSES = 64  # beside values below it, 255 is what is left out; grey levels of classes are spread wider
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
    "original",
    "originals",
    "input",
    "inputs",
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
    problems : tuple of str
        What keeps the proposal from reading the folder.
    """

    what: str
    prepare: dict[str, Any]
    labels: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        section: dict[str, Any] = {"labels": list(self.labels)} if self.labels else {}
        text = yaml.safe_dump(
            {**section, "prepare": self.prepare}, sort_keys=False, default_flow_style=None, width=_WIDTH,
            allow_unicode=True,
        )  # fmt: skip
        said = [f"found: {self.what}", *(f"see to: {remark}" for remark in self.remarks)]
        said += [f"does not fit yet: {problem}" for problem in self.problems[:_PROBLEMS_SHOWN]]
        if len(self.problems) > _PROBLEMS_SHOWN:
            said.append(f"does not fit yet: {len(self.problems) - _PROBLEMS_SHOWN} more problems")
        return "\n".join([*said, "to put into the recipe:", "", text.rstrip()])


def word(name: str) -> str:
    """A folder's name as the lists of words spell it."""
    return re.sub(r"[\s-]+", "_", name.lower())


def says_label(name: str) -> bool:
    """Whether a name holds a word for labels, such as ``1st_manual``."""
    return word(name) in LABEL_WORDS or bool(set(re.split(r"[^a-z]+", name.lower())) & set(LABEL_WORDS))


def only_word(folders: dict[str, list[Path]], words: Sequence[str]) -> list[Path]:
    """Files of the folders whose name is one of some words."""
    return [path for name, paths in folders.items() if name in words for path in paths]


def numbered(root: Path, paths: Sequence[Path]) -> str:
    """Pattern of files of one folder whose names differ in numbers alone."""
    name = "*".join(map(glob.escape, re.split(r"\d+", paths[0].name)))
    return "/".join([*map(glob.escape, paths[0].parent.relative_to(root).parts), name])


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


def mapping(labels: Sequence[Path], remarks: list[str]) -> dict[str, Any]:
    """The mapping that some of the label files suggest; none where their values are 0, 1, 2, ... or unreadable."""
    values: set[int] = set()
    step = max(1, len(labels) // SAMPLED)
    sample = list(labels)[::step][:SAMPLED]
    for path in sample:
        try:
            array = _label_values(path)
        except MedsegError:
            return _colors(sample, remarks)
        values |= {int(value) for value in np.unique(array)}
    return _mapping(values, remarks)


def _mapping(values: set[int], remarks: list[str]) -> dict[str, Any]:
    """The mapping that a set of values suggests."""
    if max(values) > 255:
        return {"instances": 1}
    if len(values) > SAMPLED:
        soft = max(values) == 255 and min(values) == 0
        return {"label_threshold": 128} if soft else {"instances": 1}
    if values <= set(range(len(values))):
        return {}
    if len(values) == 2 and 0 in values:
        return {"label_map": {0: 0, max(values): 1}}
    classes = sorted(values - {_IGNORED})
    if _IGNORED in values and max(classes, default=0) < _FEW_CLASSES:
        remarks.append("pixels of 255 are left out, as is usual; give 255 a class if it is one")
        return {"label_map": {**{value: index for index, value in enumerate(classes)}, _IGNORED: _IGNORED}}
    return {"label_map": {value: index for index, value in enumerate(sorted(values))}}


def _colors(labels: Sequence[Path], remarks: list[str]) -> dict[str, Any]:
    """The colours of label pictures, black first and then the frequent before the rare; none where they are no such."""
    counts: Counter[str] = Counter()
    for path in labels:
        try:
            samples = read_samples(path)
        except MedsegError:
            return {}
        if samples.dtype != np.uint8:
            return {}
        if samples.ndim == 2:
            samples = np.repeat(samples[:, :, None], 3, axis=2)
        colors, pixels = np.unique(samples.reshape(-1, 3), axis=0, return_counts=True)
        if len(colors) > SAMPLED:
            remarks.append(
                f"the labels are in colour, with {len(colors)} colours in {path.name}: a compressed or smoothed "
                "picture; save labels as PNG with one colour for each class"
            )
            return {}
        counts.update({" ".join(map(str, color)): int(n) for color, n in zip(colors, pixels, strict=True)})
    if not counts or len(counts) > SAMPLED:
        return {}
    order = sorted(counts, key=lambda color: (color != "0 0 0", -counts[color], color))
    remarks.append("the labels are in colour: set which class each colour is, 255 for pixels to leave out")
    return {"label_colors": {color: index for index, color in enumerate(order)}}


def _label_values(path: Path) -> NDArray[Any]:
    if is_volume(path):
        return read_label_volume(path).array
    return read_label_stack(path) if is_stack(path) else read_label(path)


def pattern(root: Path, paths: Sequence[Path], name: str = "") -> str:
    """The narrowest glob of the form ``fixed/*/name*.end`` that matches all paths; `name` for its last part."""
    split = [path.relative_to(root).parts for path in paths]
    last = name or _name_pattern([parts[-1] for parts in split])
    if len({len(parts) for parts in split}) > 1:
        common = _common_parts([parts[:-1] for parts in split])
        return "/".join([*map(glob.escape, common), "**", last])
    columns = list(zip(*split, strict=True))
    folders = [glob.escape(column[0]) if len(set(column)) == 1 else "*" for column in columns[:-1]]
    return "/".join([*folders, last])


def _common_parts(all_parts: Sequence[tuple[str, ...]]) -> list[str]:
    common = []
    for column in zip(*all_parts, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return common


def _name_pattern(names: Sequence[str]) -> str:
    if len(set(names)) == 1:
        return glob.escape(names[0])
    endings = {name[len(stem(Path(name))) :] for name in names}
    tails = {re.sub(r"^.*\d", "", stem(Path(name))) for name in names}
    ending = endings.pop() if len(endings) == 1 else ""
    # A common end of the names, such as _mask, tells labels from images that lie beside them.
    tail = tails.pop() if len(tails) == 1 and ending else ""
    return f"*{glob.escape(tail)}{ending}"


def json_of(path: Path) -> Any:
    """Content of a JSON file; None where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None
