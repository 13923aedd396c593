"""From probabilities to the answer: which class a voxel gets, and which parts of it are kept.

Thresholds go by probabilities, voxel by voxel, so that they can be applied slab by slab; the other rules go by the
connected parts of a whole picture or volume, in the order in which they are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from medseg_paddle.core import LabelSet
from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of

Connectivity = Literal["faces", "corners"]

_COUNTED_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Threshold:
    """Classes are there where their probability reaches `at_least`; see :func:`classes_of`."""

    classes: tuple[str, ...]
    at_least: float


@dataclass(frozen=True)
class KeepLargest:
    """Keep the `parts` largest parts of each class (or of all `together`, as one); the rest becomes background.

    Of parts of one size the first is kept, by slice, row and column.
    """

    classes: tuple[str, ...] | None = None
    parts: int = 1
    together: bool = False
    connectivity: Connectivity = "corners"


@dataclass(frozen=True)
class RemoveSmall:
    """Make background of the parts of each class that are smaller than `ml` in a volume, `pixels` in a picture."""

    classes: tuple[str, ...] | None = None
    ml: float | None = None
    pixels: int | None = None
    connectivity: Connectivity = "corners"


@dataclass(frozen=True)
class FillHoles:
    """Give a class the background that it encloses: from which no way leads, by faces, to the image's border."""

    classes: tuple[str, ...] | None = None


Rule = Threshold | KeepLargest | RemoveSmall | FillHoles

_RULES: dict[str, type[Any]] = {
    rule.__name__: rule for rule in (Threshold, KeepLargest, RemoveSmall, FillHoles)
}


def rules_from_specs(specs: Sequence[Mapping[str, Any]], labels: LabelSet) -> tuple[Rule, ...]:
    """Make the rules of a recipe's or a bundle's mappings.

    Raises
    ------
    RecipeError
        A rule, a key or a class is not known.
    """
    rules: list[Rule] = []
    for spec in specs:
        values = dict(spec)
        if values.get("classes") is not None:
            values["classes"] = tuple(values["classes"])
        rule: Rule = spec_of.build(values, _RULES)
        _indices(rule, labels)
        rules.append(rule)
    return tuple(rules)


def looks_at_parts(rules: Sequence[Rule]) -> bool:
    """Whether a rule needs the whole picture or volume, not only a voxel's probabilities."""
    return any(not isinstance(rule, Threshold) for rule in rules)


def require_sizes(rules: Sequence[Rule], *, volumes: bool) -> None:
    """See that sizes are in ml for volumes, in pixels for pictures.

    Raises
    ------
    RecipeError
        They are not.
    """
    for rule in rules:
        if isinstance(rule, RemoveSmall):
            _least_voxels(rule, (1.0, 1.0, 1.0) if volumes else None)


def classes_of(
    probabilities: NDArray[np.floating], labels: LabelSet, rules: Sequence[Rule] = ()
) -> NDArray[Any]:
    """The class of every voxel.

    The most probable one, of equal ones the first. With thresholds: where classes reach theirs, the most probable of
    these, whatever is more probable; elsewhere the most probable of the classes that have no threshold.

    Parameters
    ----------
    probabilities : ndarray, shape (classes, ...)
    labels : LabelSet
    rules : sequence of Rule
        Those that are no thresholds are not looked at.

    Returns
    -------
    ndarray, shape (...), uint8, uint16 beyond 256 classes
    """
    least = {
        index: rule.at_least
        for rule in rules
        if isinstance(rule, Threshold)
        for index in _indices(rule, labels)
    }
    found = np.zeros(probabilities.shape[1:], np.uint8 if len(probabilities) <= 256 else np.uint16)
    best = np.array(probabilities[0])
    for index in range(1, len(probabilities)):
        if index not in least:
            _overtake(found, best, index, probabilities[index], probabilities[index] > best)
    if least:
        best.fill(-1)
        for index, threshold in sorted(least.items()):
            values = probabilities[index]
            _overtake(found, best, index, values, (values >= threshold) & (values > best))
    return found


def cleaned(
    array: NDArray[Any], labels: LabelSet, rules: Sequence[Rule], spacing: Sequence[float] | None = None
) -> NDArray[Any]:
    """A segmentation after all rules that are no thresholds, in their order.

    Beside it and the answer, memory grows with the box that holds a class: 3 bytes a voxel, 5 where it has more than
    65535 parts.

    Parameters
    ----------
    array : ndarray, shape (H, W) or (D, H, W), integer
        Is not changed.
    labels : LabelSet
    rules : sequence of Rule
    spacing : sequence of float, optional
        mm along each axis of a volume; None of a picture.

    Raises
    ------
    RecipeError
        A size in ml is asked of a picture, or one in pixels of a volume.
    """
    if not looks_at_parts(rules):
        return array
    found = np.array(array)
    for rule in rules:
        if isinstance(rule, Threshold):
            continue
        indices = _indices(rule, labels)
        together = isinstance(rule, KeepLargest) and rule.together
        for group in [indices] if together else [(index,) for index in indices]:
            box = _box(found, group)
            if box is None:
                continue
            part = found[box]
            if isinstance(rule, KeepLargest):
                _keep_largest(part, group, rule)
            elif isinstance(rule, RemoveSmall):
                _remove_small(part, group, rule, _least_voxels(rule, spacing))
            else:
                _fill_holes(part, group[0])
    return found


def _overtake(
    found: NDArray[Any],
    best: NDArray[np.floating],
    index: int,
    values: NDArray[np.floating],
    where: NDArray[np.bool_],
) -> None:
    found[where] = index
    np.copyto(best, values, where=where)


def _indices(rule: Rule, labels: LabelSet) -> tuple[int, ...]:
    if rule.classes is None:
        return tuple(label.index for label in labels.foreground)
    unknown = [name for name in rule.classes if name not in labels.names[1:]]
    if unknown:
        raise RecipeError(
            f"postprocessing: '{unknown[0]}' is no class that is segmented",
            hint=f"name some of {', '.join(labels.names[1:])}",
        )
    return tuple(labels.names.index(name) for name in rule.classes)


def _box(array: NDArray[Any], group: Sequence[int]) -> tuple[slice, ...] | None:
    """The smallest box that holds all voxels of some classes; None where there is none."""
    found = scipy.ndimage.find_objects(array, max(group))
    boxes = [found[index - 1] for index in group if found[index - 1] is not None]
    if not boxes:
        return None
    return tuple(
        slice(min(one.start for one in axis), max(one.stop for one in axis))
        for axis in zip(*boxes, strict=True)
    )


def _parts(mask: NDArray[np.bool_], connectivity: Connectivity) -> tuple[NDArray[Any], int]:
    structure = scipy.ndimage.generate_binary_structure(
        mask.ndim, 1 if connectivity == "faces" else mask.ndim
    )
    parts = np.empty(mask.shape, np.uint16)
    try:
        return parts, int(scipy.ndimage.label(mask, structure, output=parts))
    except RuntimeError:  # scipy's word for more parts than the type can number
        found, count = scipy.ndimage.label(mask, structure)
        return found, int(count)


def _sizes(parts: NDArray[Any], count: int) -> NDArray[np.int64]:
    flat, sizes = parts.reshape(-1), np.zeros(count + 1, np.int64)
    for start in range(0, len(flat), _COUNTED_AT_ONCE):  # bincount makes 8 bytes of each
        sizes += np.bincount(flat[start : start + _COUNTED_AT_ONCE], minlength=count + 1)
    return sizes


def _mask(part: NDArray[Any], group: Sequence[int]) -> NDArray[np.bool_]:
    return np.asarray(part == group[0] if len(group) == 1 else np.isin(part, group))


def _keep_largest(part: NDArray[Any], group: Sequence[int], rule: KeepLargest) -> None:
    parts, count = _parts(_mask(part, group), rule.connectivity)
    if count <= rule.parts:
        return
    sizes = _sizes(parts, count)[1:]
    kept = np.zeros(count + 1, np.bool_)
    kept[0] = True
    kept[np.argsort(-sizes, kind="stable")[: rule.parts] + 1] = True
    part[~kept[parts]] = 0


def _remove_small(part: NDArray[Any], group: Sequence[int], rule: RemoveSmall, least: float) -> None:
    parts, count = _parts(_mask(part, group), rule.connectivity)
    sizes = _sizes(parts, count)
    small = sizes < least
    small[0] = False
    if small.any():
        part[small[parts]] = 0


def _least_voxels(rule: RemoveSmall, spacing: Sequence[float] | None) -> float:
    if rule.ml is not None:
        if spacing is None:
            raise RecipeError(
                "postprocessing: RemoveSmall has a size in ml, and this is a picture, whose pixels have no volume",
                hint="write `pixels: ...` in place of `ml`",
            )
        # A part of exactly this size is kept, however its voxels' volume is rounded.
        return rule.ml * 1000 / float(np.prod(spacing)) * (1 - 1e-9)
    if spacing is not None:
        raise RecipeError(
            "postprocessing: RemoveSmall has a size in pixels, and this is a volume",
            hint="write `ml: ...` in place of `pixels`",
        )
    return float(rule.pixels or 0)


def _fill_holes(part: NDArray[Any], index: int) -> None:
    """Beyond the box of a class there is none of it, so that what reaches the box's border is no hole."""
    outside, count = _parts(part != index, "faces")
    if not count:
        return
    is_open = np.zeros(count + 1, np.bool_)
    for axis in range(part.ndim):
        for end in (0, -1):
            is_open[np.unique(np.take(outside, end, axis=axis))] = True
    is_open[0] = True
    part[~is_open[outside] & (part == 0)] = index
