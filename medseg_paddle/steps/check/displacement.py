"""Judging where masks lie: one that lies elsewhere than the others, all of them, one that is mirrored or turned.

Only what is certain is said. What an estimate must be, to be called certain, was set on real data without any
shift, none of which may raise an alarm (benchmarks/shift.py, docs/howto/check.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess.shift import Shift
from medseg_paddle.steps.check.facts import Facts
from medseg_paddle.steps.check.findings import Finding, shift_json, warning

LEAST_SCORE = 0.25
"""Mean cosine that an outline must reach at its best place, to tell anything."""

LEAST_DISTANCE = 0.75
"""Measured pixels that must be certain. Half a pixel is a convention: a pixel's centre counts, or its corner."""

_WIDEST_MARGIN = 5.0  # measured pixels; a place known no better is none
_LEAST_BLOCKS = 6
_LEAST_CASES = 3
_FEW_CASES = 8
_SPREAD_OF_FEW = 0.5
_LEAST_SPREAD = 0.1
_DEVIATIONS = 4.5
_CERTAIN = 3.0  # standard deviations; of ten tenths of the optic discs one lies 1.5 px off, by 3.0 of them


def judge_displacement(facts: Sequence[Facts], together: Shift | None, cases: int) -> Iterator[Finding]:
    """Masks beside their images.

    Parameters
    ----------
    facts : sequence of Facts
    together : Shift or None
        What all masks have in common.
    cases : int
        How many cases that is of.
    """
    yield from _turned(facts)
    if together is not None and set_is_off(together, cases):
        yield warning(
            "masks-shifted",
            f"the masks lie {together} beside their images, over {cases} cases",
            "look at the pictures on the page; if so, correct the export of the masks (an origin counted from 1, half "
            "a voxel, a resampling) and prepare the data again",
            **shift_json(together),
        )
    shifts = {one.unit.id: one.shift for one in facts if one.shift is not None}
    off = {name: shifts[name] for name in off_cases(shifts)}
    if off:
        worst = max(off, key=lambda name: off[name].distance)
        yield warning(
            "mask-shifted",
            f"{len(off)} mask(s) lie elsewhere than the others do; the farthest {off[worst]} ({worst})",
            "look at the pictures on the page; if so, export these masks again",
            tuple(off),
            shifts={name: shift_json(shift) for name, shift in off.items()},
        )


def is_measured(shift: Shift) -> bool:
    """Whether an estimate is one: outlines that fit no edge have a best place, too."""
    return shift.inside and shift.score >= LEAST_SCORE and shift.margin <= _WIDEST_MARGIN * shift.scale


def told(shift: Shift) -> str:
    """A displacement for a reader, or why there is none."""
    if is_measured(shift):
        return str(shift)
    if shift.score < LEAST_SCORE:
        return f"cannot be measured (the outlines fit no edges: mean cosine {shift.score:.2f})"
    return "cannot be measured (no place where the outlines fit best)"


def set_is_off(together: Shift, cases: int) -> bool:
    """Whether the masks of a set certainly lie beside their images."""
    return (
        cases >= _LEAST_CASES
        and together.inside
        and together.score >= LEAST_SCORE
        and together.distance - _CERTAIN * max(together.deviation) > LEAST_DISTANCE * together.scale
    )


def off_cases(shifts: Mapping[str, Shift]) -> list[str]:
    """Names of the cases whose masks certainly lie elsewhere than those of the others."""
    measured = {name: shift for name, shift in shifts.items() if _tells(shift)}
    places = np.array([(shift.down / shift.scale, shift.right / shift.scale) for shift in measured.values()])
    places = places.reshape(-1, 2)
    few = len(measured) < _FEW_CASES
    usual = np.zeros(2) if few else np.median(places, axis=0)
    spread = np.full(2, _SPREAD_OF_FEW)
    if not few:
        spread = np.maximum(1.4826 * np.median(np.abs(places - usual), axis=0), _LEAST_SPREAD)
    return [
        name
        for (name, shift), place in zip(measured.items(), places, strict=True)
        if _is_off(shift, place - usual, spread)
    ]


def _is_off(shift: Shift, apart: NDArray[np.float64], spread: NDArray[np.float64]) -> bool:
    deviations = float(np.linalg.norm(apart / np.hypot(spread, np.array(shift.deviation) / shift.scale)))
    return (
        deviations > _DEVIATIONS
        and float(np.linalg.norm(apart)) > LEAST_DISTANCE
        and shift.least > LEAST_DISTANCE * shift.scale
    )


def _tells(shift: Shift) -> bool:
    return shift.inside and shift.score >= LEAST_SCORE and shift.blocks >= _LEAST_BLOCKS


def _turned(facts: Sequence[Facts]) -> Iterator[Finding]:
    ways: dict[str, list[str]] = {}
    for one in facts:
        if one.turn is not None:
            ways.setdefault(one.turn, []).append(one.unit.id)
    for way, names in ways.items():
        yield warning(
            "mask-turned",
            f"{len(names)} mask(s) look {way}; undone, they fit their image",
            "look at the pictures on the page; if so, export these masks again in the image's own orientation",
            names,
            turn=way,
        )
