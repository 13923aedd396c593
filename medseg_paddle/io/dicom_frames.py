"""Enhanced multi-frame objects: what each frame's functional groups say, as a plain header would (PS3.3, C.7.6.16)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom

from medseg_paddle.errors import DataError

# What holds for all frames, and stands outside the groups.
_COMMON = (
    "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "Modality", "FrameOfReferenceUID", "Rows", "Columns",
    "BitsStored", "BitsAllocated", "HighBit", "PixelRepresentation", "PhotometricInterpretation",
    "PresentationLUTShape", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip

# Sequences whose only item places a frame, scales it, or tells when it was taken.
_GROUPS = (
    "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence",
    "FrameContentSequence", "MREchoSequence", "MRDiffusionSequence", "CardiacSynchronizationSequence",
    "CTImageFrameTypeSequence", "MRImageFrameTypeSequence",
)  # fmt: skip


def frames_of(header: pydicom.Dataset, path: Path) -> list[dict[str, Any]]:
    """Values by keyword of each frame of an object with functional groups.

    Raises
    ------
    DataError
        It declares another number of frames than it describes.
    """
    own = header.PerFrameFunctionalGroupsSequence
    declared = int(header.get("NumberOfFrames") or 1)
    if declared != len(own):
        raise DataError(
            f"{path} declares {declared} frames and describes {len(own)}",
            hint="copy the file again from its source, or export the series again",
        )
    common = {keyword: header[keyword].value for keyword in _COMMON if keyword in header}
    shared: dict[str, Any] = {}
    for item in header.get("SharedFunctionalGroupsSequence") or ():
        shared |= _flat(item)
    return [common | shared | _flat(item) for item in own]


def _flat(groups: pydicom.Dataset) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in _GROUPS:
        if name in groups:
            for item in groups[name].value or ():
                values |= {element.keyword: element.value for element in item if element.VR != "SQ"}
    return values
