"""What the data doctor says: findings, and all of them together as a result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from medseg_paddle.preprocess.shift import Shift

RESULT_VERSION = 1
"""Of the JSON; a change that a reader must know of raises it."""

CODES = frozenset(
    (
        "binary-image", "case-twice", "centres-differ", "class-missing", "constant-image", "dark-sixteen-bit",
        "empty-list", "empty-mask", "flat-image", "full-mask", "grid-mismatch", "ignored-mask", "image-is-label",
        "inverted-mask", "jpeg-mask", "left-out", "list-broken", "list-line", "listed-twice", "look-alike",
        "low-contrast", "manifest-broken", "mask-shifted", "mask-turned", "masks-shifted", "missing-file",
        "mixed-channels", "mixed-depth", "no-foreground", "no-label", "no-list", "not-listed", "patient-in-two-splits",
        "patient-spelled-twice", "patients-unknown", "rare-class", "refused", "same-image", "same-mask",
        "saturated-image", "several-planes", "several-units", "size-mismatch", "sizes-vary", "spacing-outlier",
        "squeezed-depth", "swapped", "undeclared-values", "unpaired", "unreadable",
    )
)  # fmt: skip
"""Of all kinds of findings; docs/howto/check.md explains each."""


class Severity(str, Enum):
    """How a finding stands: a fact that spoils training or scores, something to look at, or information."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    code : str
        One of :data:`CODES`.
    severity : Severity
    message : str
        What was found, with its figures.
    remedy : str
        What to do.
    cases : tuple of str
        The cases (or files) that it is about; empty where it is about the whole set.
    figures : dict
        The figures of the message, for programs.
    """

    code: str
    severity: Severity
    message: str
    remedy: str
    cases: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"no such kind of finding: {self.code}")


def error(code: str, message: str, remedy: str, cases: Sequence[str] = (), **figures: Any) -> Finding:
    """A fact that spoils training or scores."""
    return Finding(code, Severity.ERROR, message, remedy, tuple(cases), figures)


def warning(code: str, message: str, remedy: str, cases: Sequence[str] = (), **figures: Any) -> Finding:
    """Something that somebody should look at; every estimate is one."""
    return Finding(code, Severity.WARNING, message, remedy, tuple(cases), figures)


def note(code: str, message: str, remedy: str = "", cases: Sequence[str] = (), **figures: Any) -> Finding:
    """Information; nothing need be done."""
    return Finding(code, Severity.NOTE, message, remedy, tuple(cases), figures)


@dataclass(frozen=True)
class ClassShare:
    """How much of a set a class is.

    Attributes
    ----------
    value : int
        Class index.
    name : str
    pixels : int
    share : float
        Of all pixels that are not left out.
    cases : dict
        Split to the number of its cases that hold the class.
    """

    value: int
    name: str
    pixels: int
    share: float
    cases: Mapping[str, int]


@dataclass(frozen=True)
class Centre:
    """Intensities of one centre's images, 0..255 (16-bit values divided by 257).

    Attributes
    ----------
    name : str
        Empty where the data set names no centres.
    cases : int
    low, middle, high : float
        Medians over its cases of the 1st, 50th and 99th percentile.
    """

    name: str
    cases: int
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Result:
    """What was looked at, and what was found.

    Attributes
    ----------
    data : str
        The folder, as it was named.
    kind : {"manifest", "lists", "source"}
    splits : dict
        Split to its number of cases; ``"auto"`` for those not dealt out yet.
    findings : tuple of Finding
        Errors first, then warnings, then notes.
    classes : tuple of ClassShare
    centers : tuple of Centre
    set_shift : Shift or None
        The displacement that all masks have in common; None where there is nothing to measure it by.
    shifts : dict
        Case to the displacement of its mask, where it could be estimated; certain or not.
    seconds : float
        What it took.
    """

    data: str
    kind: Literal["manifest", "lists", "source"]
    splits: Mapping[str, int]
    findings: tuple[Finding, ...]
    classes: tuple[ClassShare, ...]
    centers: tuple[Centre, ...]
    set_shift: Shift | None
    shifts: Mapping[str, Shift]
    seconds: float

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def is_fit(self, *, strict: bool = False) -> bool:
        """Whether nothing keeps the data from being trained on; with `strict`, no warning does either."""
        return self.count(Severity.ERROR) == 0 and not (strict and self.count(Severity.WARNING))

    def to_json(self) -> str:
        """As JSON; docs/howto/check.md describes it."""
        return json.dumps(
            {
                "version": RESULT_VERSION,
                "data": self.data,
                "kind": self.kind,
                "cases": dict(self.splits),
                "errors": self.count(Severity.ERROR),
                "warnings": self.count(Severity.WARNING),
                "notes": self.count(Severity.NOTE),
                "findings": [
                    {
                        "code": one.code,
                        "severity": one.severity.value,
                        "message": one.message,
                        "remedy": one.remedy,
                        "cases": list(one.cases),
                        "figures": dict(one.figures),
                    }
                    for one in self.findings
                ],
                "classes": [
                    {
                        "value": one.value,
                        "name": one.name,
                        "pixels": one.pixels,
                        "share": one.share,
                        "cases": dict(one.cases),
                    }
                    for one in self.classes
                ],
                "centers": [vars(one) for one in self.centers],
                "shift": {
                    "set": None if self.set_shift is None else shift_json(self.set_shift),
                    "cases": {name: shift_json(shift) for name, shift in self.shifts.items()},
                },
                "seconds": round(self.seconds, 1),
            },
            indent=1,
        )


def shift_json(shift: Shift) -> dict[str, Any]:
    """A displacement for programs: pixels, positive down and to the right."""
    return {
        "down": round(shift.down, 3),
        "right": round(shift.right, 3),
        "margin95": round(shift.margin, 3),
        "least95": round(shift.least, 3),
        "score": round(shift.score, 3),
        "inside": shift.inside,
        "scale": round(shift.scale, 3),
    }
