"""Judging who is where: patients in two splits or spelled two ways, pictures that occur twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medseg_paddle.core.splitting import spelling
from medseg_paddle.preprocess.duplicates import near_duplicates
from medseg_paddle.steps.check.facts import Facts
from medseg_paddle.steps.check.findings import Finding, error, note, warning
from medseg_paddle.steps.check.labels import named

_OPEN = "auto"  # a case that is not dealt out yet is in no split
_MOVE = "let all images of a patient go to one split; scores are too good otherwise"


def judge_patients(facts: Sequence[Facts]) -> Iterator[Finding]:
    """What is wrong with patients and splits."""
    yield from _ids(facts)
    by_patient: dict[str, list[Facts]] = {}
    for one in facts:
        if one.unit.patient:
            by_patient.setdefault(one.unit.patient, []).append(one)
    if not by_patient:
        if facts:
            yield note(
                "patients-unknown",
                "nobody says which images are of one patient, so nobody can tell whether a split cuts one in two",
                "prepare the data with `patient` in the recipe",
            )
        return
    for patient, members in by_patient.items():
        splits = sorted({one.unit.split for one in members})
        if len(splits) > 1:
            yield error(
                "patient-in-two-splits",
                f"patient '{patient}' is in {' and '.join(splits)}",
                _MOVE,
                [one.unit.id for one in members],
                splits=splits,
            )
    yield from _spelled_twice(by_patient)


def _ids(facts: Sequence[Facts]) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for one in facts:
        first = seen.setdefault(one.unit.id, one.unit.split)
        if first != one.unit.split:
            yield error(
                "case-twice",
                f"'{one.unit.id}' is in {first} and in {one.unit.split}",
                "name every image in one list only; the score would be too good",
                (one.unit.id,),
            )


def _spelled_twice(by_patient: dict[str, list[Facts]]) -> Iterator[Finding]:
    """Patients whose names are the same but for case, blanks, punctuation and leading zeros."""
    spellings: dict[tuple[str, ...], list[str]] = {}
    for patient in by_patient:
        spellings.setdefault(spelling(patient) or (patient,), []).append(patient)
    for names in spellings.values():
        if len(names) > 1:
            members = [one for name in names for one in by_patient[name]]
            splits = sorted({one.unit.split for one in members})
            yield warning(
                "patient-spelled-twice",
                f"{' and '.join(repr(name) for name in names)} may be one patient"
                + (f", in {' and '.join(splits)}" if len(splits) > 1 else ""),
                f"give every patient one name; {_MOVE}",
                [one.unit.id for one in members],
            )


def judge_twins(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Pictures that are the same, or look the same."""
    same: dict[str, list[Facts]] = {}
    for one in facts:
        if one.digest:
            same.setdefault(one.digest, []).append(one)
    for members in same.values():
        if len(members) > 1:
            splits = sorted({one.unit.split for one in members} - {_OPEN})
            names = [one.unit.id for one in members]
            across = len(splits) > 1
            yield (error if across else warning)(
                "same-image",
                f"{named(names)} are the same picture" + (f", in {' and '.join(splits)}" if across else ""),
                "keep one of them" + ("; the score is too good" if across else ""),
                names,
                splits=splits,
            )
    yield from _near(facts)


def _near(facts: Sequence[Facts]) -> Iterator[Finding]:
    known = [(one, one.appearance) for one in facts if one.appearance is not None]
    groups = [one.unit.patient or f"{place} of nobody" for place, (one, _) in enumerate(known)]
    found = near_duplicates([look for _, look in known], groups=groups, turned=True)
    pairs = [(known[pair.first][0], known[pair.second][0], pair) for pair in found]
    pairs = [pair for pair in pairs if pair[0].digest != pair[1].digest]
    across = [pair for pair in pairs if len({pair[0].unit.split, pair[1].unit.split} - {_OPEN}) > 1]
    within = [pair for pair in pairs if pair not in across]
    for some, judge, where in ((across, warning, "in different splits "), (within, note, "")):
        if some:
            shown = named([f"{one.unit.id} and {other.unit.id}" for one, other, _ in some])
            cases = list(dict.fromkeys(one.unit.id for pair in some for one in pair[:2]))
            yield judge(
                "look-alike",
                f"{len(some)} pair(s) of pictures {where}are nearly the same: {shown}",
                "see whether they are of one patient or one picture stored twice; if so, keep them in one split",
                cases,
                pairs=[
                    [one.unit.id, other.unit.id, round(pair.correlation, 3), "turned" if pair.turned else ""]
                    for one, other, pair in some
                ],
            )
