"""From the data set named in a recipe to its cases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medseg_paddle.config.datasets import DatasetSpec, EvalList, EvalManifest, TrainList, TrainManifest
from medseg_paddle.core import Acquisition, Case, LabelSet, Manifest
from medseg_paddle.core.manifest import require_inside
from medseg_paddle.errors import DataError
from medseg_paddle.io.neighbours import with_neighbours
from medseg_paddle.io.volumes import is_volume


def load_cases(spec: DatasetSpec, dimensions: int = 2, neighbours: int = 0) -> tuple[Case, ...]:
    """The cases of the split that ``spec.mode`` names, in the file's order.

    Parameters
    ----------
    spec : DatasetSpec
    dimensions : {2, 3}
        What is wanted: pictures, slices among them, or whole volumes; ``Recipe.dimensions`` says what a network sees.
    neighbours : int
        Slices on each side that a network sees beside its own, ``Recipe.neighbours``: each case gets its ``stack``.

    Raises
    ------
    DataError
        The folder, the list, the fold or a file in it is missing, a line is not understood, or the data set holds
        whole volumes where pictures are wanted, or the other way round; neighbours are wanted, and a picture has none.
    """
    root = Path(spec.dataset_root)
    if not root.is_dir():
        raise DataError(
            f"data folder {root} is not there",
            hint="correct `dataset_root` in the recipe, or run `medseg prepare` to make it; nothing is downloaded",
        )
    if isinstance(spec, (TrainManifest, EvalManifest)):
        cases = Manifest.load(root).cases(spec.mode, spec.fold)
        origin = f"{root}, split {spec.mode}"
    else:
        path, separator = _list_file(spec, root)
        cases = _read_list(path, root, separator)
        origin = str(path)
    if not cases:
        raise DataError(f"{origin}: no image in it", hint="prepare the data with images in this split")
    _require_dimensions(cases, dimensions, origin)
    missing = [
        p for case in cases for p in (case.image, case.label, case.roi) if p is not None and not p.is_file()
    ]
    if missing:
        shown = ", ".join(str(p) for p in missing[:3])
        raise DataError(
            f"{origin} names {len(missing)} file(s) that are not there: {shown}{' ...' if len(missing) > 3 else ''}",
            hint="correct the list or `dataset_root`, or prepare the data again",
        )
    return with_neighbours(cases, neighbours, origin) if neighbours else cases


def _require_dimensions(cases: Sequence[Case], dimensions: int, origin: str) -> None:
    other = next((case.image for case in cases if is_volume(case.image) != (dimensions == 3)), None)
    if other is None:
        return
    if dimensions == 3:
        raise DataError(
            f"{origin} holds pictures, such as {other.name}; the network sees whole volumes",
            hint="prepare the data again with `volumes: whole` and without a `window`, or use a network for pictures",
        )
    raise DataError(
        f"{origin} holds whole volumes, such as {other.name}; the network sees pictures, and learns slices",
        hint="prepare the data again with `volumes: slices` and a `window`, or use a network for volumes, such as "
        "UNet3D",
    )


def labels_of(spec: DatasetSpec) -> LabelSet | None:
    """The classes that a manifest names; None for data sets that name none."""
    if isinstance(spec, (TrainManifest, EvalManifest)):
        return Manifest.load(Path(spec.dataset_root)).labels
    return None


def acquisition_of(spec: DatasetSpec) -> Acquisition | None:
    """What the slices of the split that ``spec.mode`` names are like; None where a data set does not say."""
    if isinstance(spec, (TrainManifest, EvalManifest)):
        cases = Manifest.load(Path(spec.dataset_root)).cases(spec.mode, spec.fold)
        return Acquisition.of(case.slicing for case in cases)
    return None


def channels_of(spec: DatasetSpec) -> tuple[int, int]:
    """How many channels the images of a prepared data set hold, and how many files of its source held these.

    Both are 1 where nobody noted it.
    """
    if isinstance(spec, (TrainManifest, EvalManifest)):
        source = Manifest.load(Path(spec.dataset_root)).source
        return int(source.get("channels", 1)), int(source.get("files_per_case", 1))
    return 1, 1


def _list_file(spec: DatasetSpec, root: Path) -> tuple[Path, str]:
    if isinstance(spec, (TrainList, EvalList)):
        named = {"train": spec.train_path, "val": spec.val_path, "test": spec.test_path}[spec.mode]
        if named is None:
            raise DataError(
                f"the recipe names no list for mode {spec.mode}",
                hint=f"add `{spec.mode}_path:` to the data set",
            )
        path = Path(named)
        if not path.is_file() and (root / named).is_file():
            path = root / named
        return path, spec.separator
    return root / f"{spec.mode}_list.txt", " "


def _read_list(path: Path, root: Path, separator: str) -> tuple[Case, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"list {path} is not there", hint="correct the path in the recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list {path} cannot be read: {error}", hint="save it as UTF-8 text") from None
    cases: list[Case] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.strip().split(separator)]
        if len(parts) not in (1, 2) or not all(parts):
            raise DataError(
                f"{path}, line {number}: expected `image{separator}label`, got {len(parts)} parts",
                hint="paths with spaces need another `separator` in the recipe, such as ','",
            )
        label = root / parts[1] if len(parts) == 2 else None
        cases.append(Case(id=_id(parts[0], root), image=root / parts[0], label=label))
    ids = [case.id for case in cases]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(
            f"{path}: '{twice}' is listed twice",
            hint="list every image once; two that differ only in '..' or the suffix need other names",
        )
    return tuple(cases)


def _id(listed: str, root: Path) -> str:
    """Name of a listed image: its path below `root`; elsewhere the path without what would lead out."""
    image = Path(os.path.normpath(root.absolute() / listed))
    below = Path(os.path.normpath(root.absolute()))
    if image.is_relative_to(below):
        name = image.relative_to(below)
    else:
        outside = Path(listed)
        name = Path(*(part for part in outside.parts if part not in (outside.anchor, "..")))
    text = (name.with_suffix("") if name.name else name).as_posix()
    require_inside(text)
    return text
