"""The one place where the doctor asks `prepare` what a source folder holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.steps.check.findings import Finding, error, note
from medseg_paddle.steps.sources import Picture, Source, WholeVolume, look
from medseg_paddle.steps.sources.declared import LabelRules

__all__ = ["Picture", "SourceFolder", "WholeVolume", "case_name", "label_file", "look_into"]


@dataclass(frozen=True, eq=False)
class SourceFolder:
    """What a source folder holds by the rules of a recipe.

    Attributes
    ----------
    sources : tuple of Source
    findings : tuple of Finding
        ``unpaired``: a pattern finds nothing, an image lacks its label or the reverse, two files have one key, a
        table that does not name a case. ``left-out``: what lies in the folder and is not taken.
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
    found = look(spec, root, labels)
    findings = [error("unpaired", problem.message, problem.hint) for problem in found.problems]
    findings += [note("left-out", f"left out: {line}") for line in found.left_out]
    rules = LabelRules.of(spec, labels)
    return SourceFolder(found.sources, tuple(findings), rules.mapping, rules.coded)


def case_name(source: Source) -> str:
    """What the doctor calls a source."""
    return source.id


def label_file(source: Source) -> Path | None:
    """Its first file with labels, to find out what is wrong when reading fails."""
    return source.files[source.image_files] if len(source.files) > source.image_files else None
