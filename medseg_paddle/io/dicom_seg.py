"""DICOM segmentations (SEG) as label volumes, on the grid of the series that they were drawn on or on their own.

What parses them, :mod:`medseg_paddle.io.dicom_seg_frames`, runs in a child process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medseg_paddle.core import Geometry, Volume
from medseg_paddle.io.dicom import OpenSeries, Series
from medseg_paddle.io.dicom_file import glance
from medseg_paddle.io.isolated import run_isolated
from medseg_paddle.io.stored import StoredSlice, StoredSlices


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation, by its SOP class; False for a file that is not DICOM.

    Raises
    ------
    DataError
        The file is DICOM and damaged, or cannot be read.
    """
    (found,) = glance([path])
    if found.error is not None:
        raise found.error
    return found.is_segmentation


def segment_names(path: Path) -> dict[int, str]:
    """Segment numbers and labels (SegmentLabel) of a DICOM segmentation, in rising order, without background.

    Raises
    ------
    DataError
        Missing, damaged, or not a DICOM segmentation.
    """
    answer = run_isolated("medseg_paddle.io.dicom_seg_frames:names", {"path": str(path)})
    with answer.values:
        return {int(number): str(name) for number, name in answer.result.items()}


def read_segmentation(
    path: Path,
    series: Series | None,
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
        Of type BINARY, FRACTIONAL or LABELMAP.
    series : Series or None
        The images that were segmented, as :func:`~medseg_paddle.io.dicom.load_series` gives them. Without them the
        grid is that of the frames: from the lowest to the highest, as far apart as the closest two, or as the
        header's SpacingBetweenSlices where that is a whole part of it.
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
    with open_segmentation(path, series, segments=segments, threshold=threshold) as (stored, geometry):
        return Volume(stored.whole(), geometry)


@contextlib.contextmanager
def open_segmentation(
    path: Path,
    series: Series | OpenSeries | None,
    *,
    segments: Collection[int] | None = None,
    threshold: float | None = None,
) -> Iterator[tuple[StoredSlices, Geometry]]:
    """As :func:`read_segmentation`, for slices to be taken one at a time."""
    arguments = {
        "path": str(path),
        "series": None if series is None else _said_of(series),
        "segments": None if segments is None else [int(number) for number in segments],
        "threshold": threshold,
    }
    answer = run_isolated("medseg_paddle.io.dicom_seg_frames:labels", arguments)
    found: Mapping[str, Any] = answer.result
    dtype = np.dtype(str(found["dtype"]))
    count, rows, columns = (int(length) for length in found["shape"])
    places = [StoredSlice(index * rows * columns * dtype.itemsize, dtype) for index in range(count)]
    with StoredSlices(answer.values, (rows, columns), places) as stored:
        yield stored, Geometry((count, rows, columns), np.array(found["affine"]), str(found["frame"]))


def _said_of(series: Series | OpenSeries) -> dict[str, Any]:
    geometry = series.geometry if isinstance(series, OpenSeries) else series.volume.geometry
    return {
        "shape": geometry.shape,
        "affine": geometry.affine.tolist(),
        "uid": series.uid,
        "patient_id": series.patient_id,
        "frame_of_reference": geometry.frame_of_reference,
    }
