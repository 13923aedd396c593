"""What every DICOM object that is made here says of itself: who drew it, and in which series it lies."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from medseg_paddle.core import Label, LabelSet
from medseg_paddle.core.concepts import is_uncoded
from medseg_paddle.errors import DataError, RecipeError

MAKER = "medseg-paddle"
LONGEST_TEXT = 64  # of VR LO
# Beyond what a scanner makes in a study.
SEGMENTATION_SERIES, STRUCTURES_SERIES, REPORT_SERIES, KEY_IMAGES_SERIES, IMAGES_SERIES = range(300, 305)

_NOT_IN_TEXT = re.compile(r"[\\\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Algorithm:
    """Who drew a segmentation.

    Attributes
    ----------
    name, version : str
        Of a trained model.

    Raises
    ------
    RecipeError
        DICOM cannot hold one of them.
    """

    name: str
    version: str

    def __post_init__(self) -> None:
        for what, text in (("name", self.name), ("version", self.version)):
            if not _is_text(text):
                raise RecipeError(
                    f"a model's {what} that DICOM cannot hold: '{text[:80]}'",
                    hint=f"give it 1 to {LONGEST_TEXT} characters, and no backslash or line break",
                )

    @property
    def uid(self) -> str:
        """The same for the same name and version (DICOM PS3.5, annex B.2)."""
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{self.name} {self.version}').int}"


def drawn_by(algorithm: Algorithm | None) -> str:
    """For people: the model, or that people drew it."""
    return "drawn by people" if algorithm is None else f"{algorithm.name} {algorithm.version}"


def made_with() -> dict[str, Any]:
    """Equipment, in highdicom's words."""
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": version(MAKER),
        "device_serial_number": version(MAKER),
    }


def without_codes(labels: LabelSet) -> tuple[str, ...]:
    """What to say of labels that no code is known for."""
    names = [label.name for label in labels.foreground if is_uncoded(label.meaning)]
    if not names:
        return ()
    listed = ", ".join(f"'{name}'" for name in names)
    return (f"no SNOMED code is known for {listed}: written as 'Tissue', with the name beside it",)


def require_name(label: Label) -> None:
    """Refuse a label whose name DICOM cannot hold.

    Raises
    ------
    DataError
    """
    if not _is_text(label.name):
        raise DataError(
            f"label {label.index} has a name that DICOM cannot hold: '{label.name[:80]}'",
            hint=f"give it 1 to {LONGEST_TEXT} characters, and no backslash or line break",
        )


def _is_text(text: str) -> bool:
    return len(text.strip()) > 0 and len(text) <= LONGEST_TEXT and not _NOT_IN_TEXT.search(text)
