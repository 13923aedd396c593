"""Slices of a series put in order, and what is refused of them.

Geometry follows DICOM PS3.3, C.7.6.2.1.1 (image plane module): slices are put in order by the
projection of their position on the normal of the image plane, never by file name or instance number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_file import COSINE_TOLERANCE, Raster, Slice, read_stored

# Positions are often rounded to 0.1 mm, by old scanners to 1 mm of a tilted axis.
_GAP_TOLERANCE_MM = 0.1
_GAP_TOLERANCE_SHARE = 0.02
# Of the usual gap: in a scan of a tenth of a millimetre, a missing slice is less than what is rounding elsewhere.
_MOST_GAP_TOLERANCE_SHARE = 0.3
_SHEAR_TOLERANCE_DEGREES = 0.5
# What positions that are rounded to 0.1 mm put the last slice aside, at the most.
_ROUNDED_ASIDE_MM = 0.2
_SAME_PLACE_MM = 1e-3
# Of a pixel: slices that lie less aside need no straightening.
_ASIDE_SHARE = 1e-3
# Of the usual gap: slices of one scan are not closer, but those of two are that lie beside each other.
_LEAST_GAP_SHARE = 0.1

_MOST_LISTED = 20


@dataclass(frozen=True)
class Allowed:
    """What a reader may do that changes or leaves out slices; nothing by default.

    Attributes
    ----------
    untilt : bool
        Move sheared slices (gantry tilt) onto a straight grid, each within its plane.
    fill_gaps : bool
        Put unevenly spaced slices on an even grid, linear between neighbours.
    drop_copies : bool
        Of files that hold one and the same image, read the first.
    part : int, optional
        Of several time points (or echoes, ...) of a series the one to read, from 1.
    """

    untilt: bool = False
    fill_gaps: bool = False
    drop_copies: bool = False
    part: int | None = None


NOTHING = Allowed()


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order, and the grid they lie on.

    Attributes
    ----------
    slices : tuple of Slice
        Ascending along the normal.
    affine : ndarray, shape (4, 4)
        Of the slices as they are, or, where `is_crooked`, without meaning beyond the first slice.
    is_crooked, is_uneven : bool
        They lie on no even, straight grid, and may be resampled; their distances differ by more than rounding.
    notes : tuple of str
        What was done by allowance, for people.
    """

    slices: tuple[Slice, ...]
    affine: NDArray[np.float64]
    is_crooked: bool
    is_uneven: bool
    notes: tuple[str, ...]


def stack(found: Sequence[Slice], allowed: Allowed = NOTHING) -> Stack:
    """Put the slices of one series in order.

    Raises
    ------
    DataError
        Mixed series, patients, sizes, spacings, orientations, frames of reference or units; several time
        points; doubled, missing and sheared slices, unless `allowed`.
    """
    first = found[0]
    for other in found[1:]:
        _require_alike(first, other)
    # Along one normal: cosines that are rounded otherwise in each file put a slice up to half a millimetre elsewhere.
    slices = sorted((one.along(first) for one in found), key=lambda one: one.height)
    notes: list[str] = []
    if allowed.drop_copies:
        slices = _without_copies(slices, notes)
    if allowed.part is not None:
        slices = _part(slices, allowed.part, notes)
    affine = np.eye(4)
    step, is_crooked, is_uneven = _step(slices, allowed, notes)
    affine[:3, 0] = step
    affine[:3, 1] = first.down * first.spacing[0]
    affine[:3, 2] = first.across * first.spacing[1]
    affine[:3, 3] = slices[0].position
    return Stack(tuple(slices), affine, is_crooked, is_uneven, tuple(notes))


def _require_alike(first: Slice, other: Slice) -> None:
    """Refuse two slices that cannot lie on one grid."""
    first_axes = np.concatenate([first.across, first.down])
    other_axes = np.concatenate([other.across, other.down])
    for what, same, one, two in (
        ("series", first.uid == other.uid, first.uid, other.uid),
        # Who they are is nobody's business here.
        ("patients", first.patient_id == other.patient_id, "one PatientID", "another one"),
        ("sizes", first.raster.size == other.raster.size, first.raster.size, other.raster.size),
        (
            "pixel spacings",
            np.allclose(first.spacing, other.spacing, rtol=1e-4),
            first.spacing,
            other.spacing,
        ),
        (
            "orientations",
            np.allclose(first_axes, other_axes, rtol=0, atol=COSINE_TOLERANCE),
            first_axes.round(4).tolist(),
            other_axes.round(4).tolist(),
        ),
        ("frames of reference", first.reference == other.reference, first.reference, other.reference),
        ("units", first.raster.units == other.raster.units, first.raster.units, other.raster.units),
    ):
        if not same:
            raise DataError(
                f"series {first.uid} mixes {what}: {one} in {first.name}, {two} in {other.name}",
                hint="put the images that belong together into a folder of their own",
            )


def _step(
    slices: Sequence[Slice], allowed: Allowed, notes: list[str]
) -> tuple[NDArray[np.float64], bool, bool]:
    """Vector in mm from one slice to the next, whether they lie crooked and uneven; refuses what is not allowed."""
    first, label = slices[0], f"series {slices[0].uid}"
    normal = np.cross(first.across, first.down)
    if len(slices) == 1:
        if first.thickness is None or not first.thickness > 0:
            raise DataError(
                f"{label} is one slice without SliceThickness",
                hint="send the whole series, or a slice with its thickness",
            )
        return np.asarray(normal * first.thickness), False, False
    gaps = np.diff([one.height for one in slices])
    _require_no_doubles(slices, gaps, label)
    step = np.asarray((slices[-1].position - first.position) / (len(slices) - 1))
    tilted = _is_tilted(slices, step, normal, label, allowed, notes)
    uneven = _is_uneven(gaps, label, allowed, notes)
    places = np.array([one.position for one in slices])
    # How far along the line each slice is: as far as the others, or, where gaps are filled, as its height says.
    heights = (places - places[0]) @ normal
    share = heights / heights[-1] if uneven else np.linspace(0, 1, len(slices))
    aside = np.linalg.norm(places - places[0] - share[:, None] * (places[-1] - places[0]), axis=1)
    if aside.max() > max(first.spacing):
        raise DataError(
            f"{label}: slice {int(aside.argmax()) + 1} lies {aside.max():.3g} mm off the line of the others",
            hint="put the images that belong together into a folder of their own",
        )
    return step, tilted or uneven, uneven


def _is_tilted(
    slices: Sequence[Slice],
    step: NDArray[np.float64],
    normal: NDArray[np.float64],
    label: str,
    allowed: Allowed,
    notes: list[str],
) -> bool:
    along = float(step @ normal)
    shear = float(np.degrees(np.arctan2(np.linalg.norm(step - along * normal), along)))
    aside = np.linalg.norm(step - along * normal) * (len(slices) - 1)
    if aside <= _ASIDE_SHARE * min(slices[0].spacing):
        return False
    if shear <= _SHEAR_TOLERANCE_DEGREES and not allowed.untilt:
        if aside > _ROUNDED_ASIDE_MM:
            notes.append(
                f"sheared by {shear:.2g} degrees, {aside:.2g} mm in all, and kept so: NIfTI alone holds it, "
                "and programs built on ITK do not open that (--untilt straightens)"
            )
        return False
    if not allowed.untilt:
        raise DataError(
            f"{label} is sheared by {shear:.1f} degrees: slices move aside of their normal (gantry tilt)",
            hint="`medseg convert --untilt` moves the slices onto a straight grid; or scan without gantry tilt",
        )
    notes.append(
        f"sheared by {shear:.3g} degrees: each slice was moved within its plane, linear between pixels"
    )
    return True


def _is_uneven(gaps: NDArray[np.float64], label: str, allowed: Allowed, notes: list[str]) -> bool:
    usual = float(np.median(gaps))
    tolerance = min(max(_GAP_TOLERANCE_MM, _GAP_TOLERANCE_SHARE * usual), _MOST_GAP_TOLERANCE_SHARE * usual)
    wrong = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    drift = _drift(gaps)
    if wrong.size:
        worst = int(wrong[np.argmax(np.abs(gaps[wrong] - usual))])
        what = "a gap of" if gaps[worst] > usual else "only"
        more = f", and {wrong.size - 1} more like it" if wrong.size > 1 else ""
        said = (
            f"{what} {gaps[worst]:.3g} mm between slices {worst + 1} and {worst + 2} "
            f"(spacing elsewhere {usual:.3g} mm){more}"
        )
    elif drift > tolerance:
        said = f"gaps from {gaps.min():.4g} to {gaps.max():.4g} mm, which add up to {drift:.2g} mm off an even spacing"
    else:
        return False
    if not allowed.fill_gaps:
        raise DataError(
            f"{label} has {said}",
            hint="send the missing slices, or put each evenly spaced part into a folder of its own; "
            "`medseg convert --fill-gaps` interpolates",
        )
    if gaps.min() < _LEAST_GAP_SHARE * usual:
        raise DataError(
            f"{label} has {said}, {gaps.min():.3g} mm at the least: two scans of one part, or slices sent twice",
            hint="put the images that belong together into a folder of their own",
        )
    notes.append(f"{said}: resampled to even slices, linear between neighbours")
    return True


def _drift(gaps: NDArray[np.float64]) -> float:
    """Distance in mm of the slice that lies farthest from where the evenly spaced slices nearest to all lie."""
    heights = np.concatenate([[0.0], np.cumsum(gaps)])
    counts = np.arange(len(heights))
    return float(np.abs(heights - np.polyval(np.polyfit(counts, heights, 1), counts)).max())


def _require_no_doubles(slices: Sequence[Slice], gaps: NDArray[np.float64], label: str) -> None:
    doubled = np.flatnonzero(gaps < _SAME_PLACE_MM)
    if not doubled.size:
        return
    one, two = slices[doubled[0]], slices[doubled[0] + 1]
    keyword, parts = _told_apart(slices)
    if parts:
        listed = "".join(
            f"\n  {number}: {keyword} {value}, {len(members)} slices"
            for number, (value, members) in enumerate(list(parts.items())[:_MOST_LISTED], start=1)
        )
        raise DataError(
            f"{label} has {doubled.size} doubled slice position(s): it holds {len(parts)} volumes (time points, "
            f"echoes or the like), one is read:{listed}",
            hint="choose one by its number (`medseg convert --part N`), or put each into a folder of its own",
        )
    same = one.raster.instance and one.raster.instance == two.raster.instance
    raise DataError(
        f"{label} has {doubled.size} doubled slice position(s), first {one.name} and {two.name}"
        + (", which have one SOPInstanceUID" if same else ""),
        hint="remove copies (`medseg convert --drop-copies` passes over equal ones); "
        "put acquisitions at several times (phases) into folders of their own",
    )


def _told_apart(slices: Sequence[Slice]) -> tuple[str, dict[str, list[Slice]]]:
    """The attribute by which slices fall into volumes of the same places, and these; nothing where none does."""
    for keyword in dict.fromkeys(key for one in slices for key in one.moments):
        parts: dict[str, list[Slice]] = {}
        for one in slices:
            parts.setdefault(one.moments.get(keyword, ""), []).append(one)
        places = [np.array([one.position for one in members]) for members in parts.values()]
        if (
            len(parts) > 1
            and "" not in parts
            and all(
                np.diff([one.height for one in part]).min(initial=1) >= _SAME_PLACE_MM
                for part in parts.values()
            )
            and all(
                place.shape == places[0].shape and np.allclose(place, places[0], atol=_SAME_PLACE_MM)
                for place in places
            )
        ):
            return keyword, dict(sorted(parts.items(), key=lambda item: _number_first(item[0])))
    return "", {}


def _number_first(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return np.inf, value


def _part(slices: Sequence[Slice], wanted: int, notes: list[str]) -> list[Slice]:
    keyword, parts = _told_apart(slices)
    label = f"series {slices[0].uid}"
    if not 1 <= wanted <= len(parts):
        held = f"holds {len(parts)} parts" if parts else "is one volume, or its parts cannot be told apart"
        raise DataError(
            f"{label} {held}, part {wanted} is asked for",
            hint="name a part from 1 on that is there, or leave the choice out",
        )
    value, members = list(parts.items())[wanted - 1]
    notes.append(f"part {wanted} of {len(parts)}: {keyword} {value}")
    return members


def _without_copies(slices: Sequence[Slice], notes: list[str]) -> list[Slice]:
    """Drop files that repeat an image: one SOPInstanceUID, one place, the same values."""
    kept: dict[str, Slice] = {}
    dropped = 0
    for one in slices:
        key = one.raster.instance and f"{one.raster.instance} {one.raster.frame}"
        other = kept.setdefault(key or one.name, one)
        if other is one:
            continue
        apart = float(np.linalg.norm(one.position - other.position))
        if apart >= _SAME_PLACE_MM or not _same_values(one.raster, other.raster):
            raise DataError(
                f"{one.name} and {other.name} have one SOPInstanceUID and are not the same image",
                hint="find out which one is right, and remove the other",
            )
        dropped += 1
    if dropped:
        notes.append(f"{dropped} file(s) that repeat another one were passed over")
    return list(kept.values())


def _same_values(one: Raster, other: Raster) -> bool:
    with read_stored([one, other]) as stored:
        return bool(np.array_equal(stored.read(0), stored.read(1)))
