"""DICOM segmentations (SEG) as label volumes on the grid of the series that they were drawn on."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from medseg_paddle.core import Volume
from medseg_paddle.io.dicom import Series


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation, by its SOP class; False for a file that is not DICOM."""
    raise NotImplementedError


def segment_names(path: Path) -> dict[int, str]:
    """Segment numbers and labels (SegmentLabel) of a DICOM segmentation, in rising order.

    Raises
    ------
    DataError
        Missing, damaged, or not a DICOM segmentation.
    """
    raise NotImplementedError


def read_segmentation(
    path: Path,
    series: Series,
    *,
    segments: Collection[int] | None = None,
    threshold: float | None = None,
) -> Volume:
    """Read a DICOM segmentation onto the grid of a series.

    Frames find their slice by their position in the patient, never by their order. A slice without a
    frame is background.

    Parameters
    ----------
    path : Path
    series : Series
        The images that were segmented, as :func:`~medseg_paddle.io.dicom.load_series` gives them.
    segments : collection of int, optional
        Read only these segment numbers; the others may then overlap. None reads all.
    threshold : float, optional
        For FRACTIONAL segmentations, which are refused without: a voxel whose fraction (0..1) is at
        least this belongs to the segment.

    Returns
    -------
    Volume
        uint8, or uint16 where a segment number is above 255: segment numbers, 0 for background, on
        ``series.volume.geometry``.

    Raises
    ------
    DataError
        Missing, damaged, not a segmentation; of another patient, frame of reference or series; on a
        grid that is not the series' own; FRACTIONAL without `threshold`, or a threshold for another
        kind; segments that overlap; a segment asked for that is not there.
    """
    raise NotImplementedError
