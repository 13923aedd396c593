"""Layouts that a file describes: nnU-Net's dataset.json, PaddleSeg's lists, COCO's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_paddle.errors import DataError
from medseg_paddle.io.images import IMAGE_SUFFIXES
from medseg_paddle.steps.recognise.pieces import (
    LONGEST_LIST,
    SAMPLED,
    Layout,
    json_of,
    mapping,
    pattern,
    split_word,
    window_for,
    with_splits,
)
from medseg_paddle.steps.sources.names import listed
from medseg_paddle.steps.sources.nnunet import DatasetJson
from medseg_paddle.steps.sources.pictures import cut_line


def find_nnunet(root: Path, files: Sequence[Path]) -> Layout | None:
    """nnU-Net's layout, by its dataset.json."""
    for path in files:
        if path.name != "dataset.json":
            continue
        try:
            said = DatasetJson.load(path)
        except DataError:
            continue
        name = path.relative_to(root).as_posix()
        has_test = (path.parent / "labelsTs").is_dir()
        sets = [{"split": "auto" if not has_test else "train", "index": name}]
        if has_test:
            sets.append({"split": "test", "index": name, "part": "Ts"})
        section: dict[str, Any] = {"reader": "nnunet", "sets": sets}
        remarks: list[str] = []
        if said.is_volume:
            section |= window_for([channel.upper() for channel in said.channels], remarks)
            if all(channel.upper() == "CT" for channel in said.channels):
                section["units"] = "HU"
        values = list(said.labels.values())
        if values != list(range(len(values))) or "ignore" in said.labels:
            classes = [value for name, value in said.labels.items() if name != "ignore"]
            section["label_map"] = {
                value: 255 if name == "ignore" else classes.index(value)
                for name, value in said.labels.items()
            }
        if said.regions:
            remarks.append(f"regions of several labels are not made: {', '.join(said.regions)}")
        names = tuple(name for name in said.labels if name != "ignore")
        what = f"nnU-Net's {name}, version {said.version}, channels {', '.join(said.channels)}"
        return Layout(what, with_splits(section), names, tuple(remarks))
    return None


def find_lists(root: Path, files: Sequence[Path]) -> Layout | None:
    """PaddleSeg's lists: text files whose lines name two files."""
    sets = []
    counted = []
    labels: list[Path] = []
    for path in files:
        if path.suffix.lower() not in (".txt", ".csv", ".lst") or path.stat().st_size > LONGEST_LIST:
            continue
        try:
            lines = [
                line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
            ]
        except (OSError, UnicodeDecodeError):
            continue
        cut = [cut_line(root, line, None) for line in lines[:SAMPLED]]
        good = [ways[0] for ways in cut if len(ways) == 1 and len(ways[0]) == 2]
        if len(good) <= len(cut) // 2:  # one bad line is no cause to draw other splits
            continue
        labels += [label for _, label in good]
        sets.append({"split": split_word(path.stem), "index": path.relative_to(root).as_posix()})
        counted.append(f"{path.name} ({len(lines)} lines)")
    if not sets:
        return None
    order = ["train", "val", "test", "auto"]
    sets.sort(key=lambda one: order.index(one["split"]))
    remarks: list[str] = []
    section = {"reader": "lists", "sets": sets, **mapping(labels, remarks)}
    return Layout(f"PaddleSeg's lists {', '.join(counted)}", with_splits(section), (), tuple(remarks))


def find_coco(root: Path, files: Sequence[Path]) -> Layout | None:
    """COCO's JSON files with the pictures that they name."""
    sets = []
    categories: dict[int, str] = {}
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    for path in files:
        content = json_of(path) if path.suffix.lower() == ".json" else None
        if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
            continue
        try:
            named = {Path(str(image["file_name"])).name for image in content["images"]}
            categories |= {int(one["id"]): str(one["name"]) for one in content["categories"]}
        except (KeyError, TypeError, ValueError):
            continue
        own = [picture for picture in pictures if picture.name in named]
        if own:
            sets.append(
                {
                    "split": split_word(path.stem),
                    "images": pattern(root, own),
                    "index": path.relative_to(root).as_posix(),
                }
            )
    if not sets:
        return None
    names = ("background", *categories.values())
    section: dict[str, Any] = {"reader": "coco", "sets": sets}
    if list(categories) != list(range(1, len(categories) + 1)):
        section["label_map"] = {one: index for index, one in enumerate(categories, start=1)}
    what = f"COCO annotations in {listed([one['index'] for one in sets])}"
    return Layout(what, with_splits(section), names if len(set(names)) == len(names) else ())
