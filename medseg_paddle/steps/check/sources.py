"""The one place where the doctor asks `prepare` what a source folder holds."""

from __future__ import annotations

from pathlib import Path

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.errors import DataError
from medseg_paddle.steps.check.findings import Finding, error
from medseg_paddle.steps.dataset_sources import Source, find_sources


def gather(spec: PrepareSpec, root: Path) -> tuple[list[Source], list[Finding]]:
    """Sources of all sets of a recipe, and what keeps others from being found.

    Returns
    -------
    list of Source
    list of Finding
        ``unpaired``: a pattern finds nothing, an image lacks its label or the reverse, two files have one key.
    """
    sources: list[Source] = []
    findings: list[Finding] = []
    for part in spec.sets:
        try:
            sources += find_sources(spec.model_copy(update={"sets": (part,)}), root)
        except DataError as problem:
            findings.append(error("unpaired", problem.message, problem.hint))
    return sources, findings
