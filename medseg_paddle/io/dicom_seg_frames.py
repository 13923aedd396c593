"""DICOM segmentations, parsed and decoded: runs in the child process of `io.isolated`.

DICOM PS3.3, A.51 (Segmentation IOD) and C.8.20 (its modules).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom.seg import Segmentation
from numpy.typing import NDArray

from medseg_paddle.core import Geometry
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_file import COSINE_TOLERANCE
from medseg_paddle.io.dicom_header import SEGMENTATION_CLASSES, damage_refused, require_header, text
from medseg_paddle.io.isolated import Job
from medseg_paddle.io.limits import require_amount
from medseg_paddle.io.voxels import grid_of

# Of a voxel. Frames repeat their slices' positions, so more is another grid: half a voxel is the usual mistake.
_GRID_TOLERANCE = 0.25

_SAME_PLACE_MM = 1e-3

_BACKGROUND_CODE = "125040"  # "Background" in PS3.16, annex D


def names(job: Job, path: str) -> dict[int, str]:
    """Segment numbers and labels; JSON makes texts of the numbers."""
    job.at(path)
    header = require_header(Path(path))
    with damage_refused(Path(path)):
        return _names(header, Path(path))


def labels(
    job: Job,
    path: str,
    series: Mapping[str, Any] | None,
    segments: Collection[int] | None,
    threshold: float | None,
) -> dict[str, Any]:
    """Write the label map of a segmentation.

    Parameters
    ----------
    job : Job
    path : str
    series : mapping, optional
        ``shape``, ``affine``, ``uid``, ``patient_id`` and ``frame_of_reference`` of the series that was segmented;
        without it, the grid is the one of the segmentation's own frames.
    segments, threshold
        As for :func:`~medseg_paddle.io.dicom_seg.read_segmentation`.

    Returns
    -------
    dict
        ``shape``, ``affine``, ``frame`` (of reference) and ``dtype`` of what was written.
    """
    job.at(path)
    return _labels(job, Path(path), series, segments, threshold)


def _labels(
    job: Job,
    path: Path,
    series: Mapping[str, Any] | None,
    segments: Collection[int] | None,
    threshold: float | None,
) -> dict[str, Any]:
    header = require_header(path)
    with damage_refused(path):
        names = _names(header, path)
        wanted = _wanted(names, segments, path)
        if series is None:
            _require_readable(header, threshold, path)
            geometry = _own_grid(header, path)
        else:
            _require_same_subject(header, series, path)
            geometry = Geometry(tuple(series["shape"]), np.array(series["affine"]))
            _require_readable(header, threshold, path)
        _require_size(header, geometry, path)
        require_amount(path, geometry.shape)
        dataset = Segmentation.from_dataset(pydicom.dcmread(path), copy=False)
        drawn_on = np.zeros(geometry.shape, dtype=np.uint8 if max(names, default=0) <= 255 else np.uint16)
        overlaps: Counter[tuple[int, int]] = Counter()
        for index, numbers in _frames(dataset, names, threshold, path):
            job.goes_on()
            drawn = np.where(np.isin(numbers, list(wanted)), numbers, 0)
            if not drawn.any():
                continue
            here = drawn_on[_slice_index(dataset, index, geometry, path)]
            taken = (drawn != 0) & (here != 0)
            overlaps.update(zip(here[taken].tolist(), drawn[taken].tolist(), strict=True))
            here[drawn != 0] = drawn[drawn != 0]
    if overlaps:
        raise _overlapping(overlaps, names, path)
    job.sink.write(drawn_on.data)
    return {
        "shape": geometry.shape,
        "affine": geometry.affine.tolist(),
        "frame": text(header, "FrameOfReferenceUID"),
        "dtype": drawn_on.dtype.str,
    }


def _own_grid(header: pydicom.Dataset, path: Path) -> Geometry:
    """The grid on which all frames lie, from their positions alone; slices without a frame are on it, too."""
    count = len(header.PerFrameFunctionalGroupsSequence)
    measures = _group(header, 0, "PixelMeasures")
    orientation = np.array(_group(header, 0, "PlaneOrientation").ImageOrientationPatient, dtype=np.float64)
    spacing = np.array(measures.PixelSpacing, dtype=np.float64)
    places = np.array(
        [_group(header, index, "PlanePosition").ImagePositionPatient for index in range(count)],
        dtype=np.float64,
    )
    axes = np.array([orientation[:3], orientation[3:]])
    if not (
        np.isfinite(places).all()
        and (spacing > 0).all()
        and np.allclose(axes @ axes.T, np.eye(2), atol=COSINE_TOLERANCE)
    ):
        raise DataError(
            f"{path}: its frames lie nowhere (position, spacing or orientation is zero or not finite)",
            hint="export the segmentation again",
        )
    normal = np.cross(*axes)
    heights = places @ normal
    order = np.argsort(heights)
    step = _frame_distance(measures, np.diff(heights[order]), path)
    slices = round(float(heights[order[-1]] - heights[order[0]]) / step) + 1
    affine = np.eye(4)
    affine[:3, 0] = normal * step
    affine[:3, 1], affine[:3, 2] = orientation[3:] * spacing[0], orientation[:3] * spacing[1]
    affine[:3, 3] = places[order[0]]
    # Whether the frames do lie on this grid is asked of each one (_slice_index).
    return grid_of(path, (slices, int(header.Rows), int(header.Columns)), affine)


def _frame_distance(measures: pydicom.Dataset, gaps: NDArray[np.float64], path: Path) -> float:
    """Distance of slices in mm: the smallest gap between frames, or what the header says of a single slice."""
    apart = gaps[gaps > _SAME_PLACE_MM]
    said = [float(measures.get(key) or 0) for key in ("SpacingBetweenSlices", "SliceThickness")]
    if apart.size:
        smallest = float(apart.min())
        # Frames may all lie two slices apart, where the slices between them are empty.
        share = smallest / said[0] if said[0] > 0 else 0
        return (
            smallest / round(share)
            if share > 1 and abs(share - round(share)) < _GRID_TOLERANCE / 5
            else smallest
        )
    for distance in said:
        if distance > 0:
            return distance
    raise DataError(
        f"{path} is of one slice without SliceThickness",
        hint="export the segmentation with its slice thickness",
    )


def _names(header: pydicom.Dataset, path: Path) -> dict[int, str]:
    if text(header, "SOPClassUID") not in SEGMENTATION_CLASSES:
        raise DataError(
            f"{path} is DICOM, but no segmentation (SEG)", hint="name the segmentation's file, not an image's"
        )
    is_map = text(header, "SegmentationType") == "LABELMAP"
    background = int(header.get("PixelPaddingValue") or 0) if is_map else 0
    names = {}
    for segment in header.SegmentSequence:
        number = int(segment.SegmentNumber)
        if number in names:
            raise DataError(f"{path} describes segment {number} twice", hint="export the segmentation again")
        if number != background and not (number == 0 and _is_background(segment)):
            names[number] = text(segment, "SegmentLabel") or f"segment {number}"
    if 0 in names:
        raise DataError(
            f"{path}: segment 0 ('{names[0]}') cannot be told from the background of a label map",
            hint="number the segments from 1",
        )
    return dict(sorted(names.items()))


def _is_background(segment: pydicom.Dataset) -> bool:
    codes = [text(item, "CodeValue") for item in segment.get("SegmentedPropertyTypeCodeSequence") or ()]
    return text(segment, "SegmentLabel").lower() == "background" or _BACKGROUND_CODE in codes


def _wanted(names: dict[int, str], segments: Collection[int] | None, path: Path) -> set[int]:
    wanted = set(names) if segments is None else set(segments)
    if not wanted <= set(names):
        missing = ", ".join(str(number) for number in sorted(wanted - set(names)))
        raise DataError(
            f"{path} has no segment {missing}; it holds {_listed(names)}", hint="name segments that are there"
        )
    return wanted


def _listed(names: dict[int, str]) -> str:
    return ", ".join(f"{number} ('{name}')" for number, name in names.items())


def _require_same_subject(header: pydicom.Dataset, series: Mapping[str, Any], path: Path) -> None:
    if text(header, "FrameOfReferenceUID") != series["frame_of_reference"]:
        raise DataError(
            f"{path} is of frame of reference '{text(header, 'FrameOfReferenceUID')}', "
            f"series {series['uid']} of '{series['frame_of_reference']}'",
            hint="put each segmentation beside the series that it was drawn on",
        )
    if text(header, "PatientID") != series["patient_id"]:  # who they are is nobody's business here
        raise DataError(
            f"{path} is of another patient than series {series['uid']} (another PatientID)",
            hint="put each segmentation beside the series that it was drawn on",
        )
    referenced = [text(item, "SeriesInstanceUID") for item in header.get("ReferencedSeriesSequence") or ()]
    if referenced and series["uid"] not in referenced:
        raise DataError(
            f"{path} was drawn on series {', '.join(referenced)}, not on {series['uid']}",
            hint="put each segmentation beside the series that it was drawn on",
        )


def _require_readable(header: pydicom.Dataset, threshold: float | None, path: Path) -> None:
    kind = text(header, "SegmentationType")
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise DataError(f"{path} is a segmentation of type '{kind}'", hint="export it as BINARY or LABELMAP")
    if kind == "FRACTIONAL" and threshold is None:
        raise DataError(
            f"{path} holds fractions (FRACTIONAL), not a yes or no per voxel",
            hint="name the fraction from which a voxel belongs to its segment, for example 0.5, or export it as BINARY",
        )
    if threshold is not None and not (kind == "FRACTIONAL" and 0 < threshold <= 1):
        raise DataError(
            f"{path} is {kind}, and a threshold of {threshold:g} is named",
            hint="a threshold in 0..1 is for FRACTIONAL segmentations alone",
        )
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != len(header.PerFrameFunctionalGroupsSequence):
        raise DataError(
            f"{path} declares {frames} frames and describes {len(header.PerFrameFunctionalGroupsSequence)}",
            hint="export the segmentation again",
        )


def _require_size(header: pydicom.Dataset, geometry: Geometry, path: Path) -> None:
    size = (int(header.Rows), int(header.Columns))
    if size != geometry.shape[1:]:
        raise DataError(
            f"{path} has frames of {size[0]} x {size[1]} pixels, its series slices of "
            f"{geometry.shape[1]} x {geometry.shape[2]}",
            hint="export the segmentation on the grid of its images",
        )


def _frames(
    dataset: Any, names: dict[int, str], threshold: float | None, path: Path
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Index and segment numbers ``(rows, columns)`` of each frame."""
    kind = text(dataset, "SegmentationType")
    seen: set[tuple[float, ...]] = set()
    for index in range(int(dataset.number_of_frames)):
        stored = dataset.get_stored_frame(index, as_index=True)
        if kind == "LABELMAP":
            place: tuple[float, ...] = tuple(_group(dataset, index, "PlanePosition").ImagePositionPatient)
            numbers = np.where(stored == int(dataset.get("PixelPaddingValue") or 0), 0, stored)
            unknown = sorted(set(np.unique(numbers).tolist()) - {0, *names})
        else:
            number = int(_group(dataset, index, "SegmentIdentification").ReferencedSegmentNumber)
            place = (number, *_group(dataset, index, "PlanePosition").ImagePositionPatient)
            least = 1 if threshold is None else threshold * int(dataset.MaximumFractionalValue)
            numbers = np.where(stored >= least, number, 0)
            unknown = [] if number in names else [number]
        if unknown:
            raise DataError(
                f"{path}: frame {index + 1} is of segment {unknown[0]}, which is described nowhere",
                hint="export the segmentation again",
            )
        if place in seen:
            raise DataError(
                f"{path}: frame {index + 1} repeats an earlier one's place and segment",
                hint="put segmentations of several times (phases) into files of their own",
            )
        seen.add(place)
        yield index, numbers


def _group(dataset: Any, index: int, name: str) -> pydicom.Dataset:
    """First item of a functional group's sequence, of the frame or shared by all (PS3.3, C.7.6.16)."""
    keyword = f"{name}Sequence"
    own = dataset.PerFrameFunctionalGroupsSequence[index]
    group = own if keyword in own else dataset.SharedFunctionalGroupsSequence[0]
    item: pydicom.Dataset = group[keyword].value[0]
    return item


def _slice_index(dataset: Any, index: int, geometry: Geometry, path: Path) -> int:
    """Slice of the series that a frame lies on; refuses a frame that lies on another grid."""
    orientation = np.array(
        _group(dataset, index, "PlaneOrientation").ImageOrientationPatient, dtype=np.float64
    )
    spacing = np.array(_group(dataset, index, "PixelMeasures").PixelSpacing, dtype=np.float64)
    origin = np.array(_group(dataset, index, "PlanePosition").ImagePositionPatient, dtype=np.float64)
    count, rows, columns = geometry.shape
    across, down = orientation[:3] * spacing[1] * (columns - 1), orientation[3:] * spacing[0] * (rows - 1)
    corners = np.stack([origin, origin + down, origin + across], axis=1)
    found = np.linalg.inv(geometry.affine) @ np.vstack([corners, np.ones(3)])
    nearest = round(float(found[0, 0])) if np.isfinite(found).all() else -1
    meant = np.array([[nearest] * 3, [0, rows - 1, 0], [0, 0, columns - 1]])
    if not np.abs(found[:3] - meant).max() <= _GRID_TOLERANCE:
        raise DataError(
            f"{path}: frame {index + 1} is not on the series' grid; its first pixel lies at slice {found[0, 0]:.4g}, "
            f"row {found[1, 0]:.4g}, column {found[2, 0]:.4g}, its last {found[0, 1:].max():.4g}, {found[1, 1]:.4g}, "
            f"{found[2, 2]:.4g}",
            hint="export the segmentation on the grid of its images",
        )
    if not 0 <= nearest < count:
        raise DataError(
            f"{path}: frame {index + 1} lies {abs(nearest) if nearest < 0 else nearest - count + 1} slice(s) "
            "beyond the series",
            hint="send the missing slices of the series",
        )
    return nearest


def _overlapping(overlaps: Counter[tuple[int, int]], names: dict[int, str], path: Path) -> DataError:
    pairs: Counter[tuple[int, int]] = Counter()
    for (one, two), count in overlaps.items():
        pairs[min(one, two), max(one, two)] += count
    listed = "; ".join(
        f"{one} ('{names[one]}') and {two} ('{names[two]}') in {count} voxels"
        for (one, two), count in sorted(pairs.items())
    )
    return DataError(
        f"{path}: segments overlap: {listed}",
        hint="name the segments to read, of which no two overlap (`medseg convert --segment N`), or write each into a "
        "file of its own (`--each`); a label map holds one class per voxel",
    )
