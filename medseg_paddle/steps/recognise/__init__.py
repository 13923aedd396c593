"""What layout a folder somebody gave seems to have, and the lines of a recipe that read it.

A proposal to look at, never a default: a real preparation does what its recipe says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg_paddle.errors import DataError
from medseg_paddle.steps.recognise.described import find_coco, find_lists, find_nnunet
from medseg_paddle.steps.recognise.named import (
    find_beside,
    find_cases,
    find_dicom,
    find_folders,
    find_marked,
    find_objects,
)
from medseg_paddle.steps.recognise.pieces import Layout
from medseg_paddle.steps.recognise.tried import tried

__all__ = ["Layout", "recognise"]

_Look = Callable[[Path, Sequence[Path]], Layout | None]
_DESCRIBED: tuple[_Look, ...] = (find_nnunet, find_lists, find_coco)
_NAMED: tuple[_Look, ...] = (find_dicom, find_objects, find_folders, find_cases, find_marked, find_beside)


def recognise(root: Path) -> tuple[Layout, ...]:
    """The layouts that a folder may have, the most certain first.

    Raises
    ------
    DataError
        There is no such folder, or nothing in it is recognised.
    """
    if not root.is_dir():
        raise DataError(f"source folder {root} is not there", hint="name the folder that holds the images")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    found = [*_tried(root, files, _DESCRIBED), *_fitting(_tried(root, files, _NAMED))]
    if not found:
        kinds = Counter("".join(path.suffixes[-2:]).lower() or "no ending" for path in files).most_common(4)
        counted = ", ".join(f"{count} of {kind}" for kind, count in kinds) or "no files"
        raise DataError(
            f"the layout of {root} is not recognised ({counted})",
            hint="write a `prepare` section (docs/howto/own-images.md) and look with --dry-run --config",
        )
    return tuple(found)


def _tried(root: Path, files: Sequence[Path], looks: Sequence[_Look]) -> list[Layout]:
    return [tried(root, files, layout) for look in looks if (layout := look(root, files)) is not None]


def _fitting(layouts: Sequence[Layout]) -> Sequence[Layout]:
    """Those that read the folder; all where none does, with what keeps them from it."""
    return [layout for layout in layouts if not layout.problems] or layouts
