"""Whose series it is, for what is drawn on it: runs in the child process of `io.isolated`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.multival import MultiValue

from medseg_paddle.io.dicom_header import damage_refused, require_header
from medseg_paddle.io.isolated import Job

# DICOM PS3.3, C.7.1.1 (patient), C.7.2.1 (study), C.7.4.1 (frame of reference), C.7.6.1.1.5 (lossy compression),
# C.7.6.1 (burned in annotation), C.12.1 (time zone): what an archive files an object by, what was lost before, what
# pictures show, and where the study's times are those of the clock.
REPEATED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved",
    "DeidentificationMethod", "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation",
    "TimezoneOffsetFromUTC",
)  # fmt: skip


def origins(job: Job, paths: Sequence[str]) -> list[dict[str, str]]:
    """Of each image its SOPClassUID, and `REPEATED`; text as DICOM has it, several values with a backslash between."""
    found = []
    for path in map(Path, paths):
        job.at(path)
        header = require_header(path)
        with damage_refused(path):
            found.append({keyword: _text(header, keyword) for keyword in ("SOPClassUID", *REPEATED)})
    return found


def _text(header: pydicom.Dataset, keyword: str) -> str:
    value: Any = header.get(keyword)
    values = value if isinstance(value, MultiValue) else [value]
    return "\\".join(str(one or "").strip() for one in values)
