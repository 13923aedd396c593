"""The one place where the doctor asks `prepare` what a source folder holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import IMAGE_SUFFIXES
from medseg_paddle.steps.check.findings import Finding, error
from medseg_paddle.steps.dataset_sources import Picture, Source, find_sources

__all__ = ["Picture", "SourceFolder", "case_name", "label_file", "look_into"]


@dataclass(frozen=True, eq=False)
class SourceFolder:
    """What a source folder holds by the rules of a recipe.

    Attributes
    ----------
    sources : tuple of Source
    findings : tuple of Finding
        ``unpaired``: a pattern finds nothing, an image lacks its label or the reverse, two files have one key.
    mapping : dict
        Label value to class index.
    label_of : callable
        A picture's label as values that `mapping` speaks of, (height, width).
    """

    sources: tuple[Source, ...]
    findings: tuple[Finding, ...]
    mapping: Mapping[int, int]
    label_of: Callable[[Picture], NDArray[Any]]


def look_into(spec: PrepareSpec, root: Path, labels: LabelSet) -> SourceFolder:
    """Find the sources of all sets of a recipe, and what keeps others from being found."""
    sources: list[Source] = []
    findings: list[Finding] = []
    for part in spec.sets:
        try:
            sources += find_sources(spec.model_copy(update={"sets": (part,)}), root)
        except DataError as problem:
            findings.append(error("unpaired", problem.message, problem.hint))
    mapping = spec.label_map or {index: index for index in range(len(labels))}
    return SourceFolder(tuple(sources), tuple(findings), mapping, _stored)


def case_name(source: Source) -> str:
    """What the doctor calls a source: its file's name without the ending."""
    name = source.name
    ending = next((one for one in (".nii.gz", *IMAGE_SUFFIXES, ".nii") if name.lower().endswith(one)), "")
    return name[: len(name) - len(ending)]


def label_file(source: Source) -> Path | None:
    """Its first file with labels, to find out what is wrong when reading fails."""
    return source.files[1] if len(source.files) > 1 else None


def _stored(picture: Picture) -> NDArray[Any]:
    return picture.label
