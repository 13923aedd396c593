"""What makes a split doubtful without being wrong for sure: near duplicates, names alike, patients nobody named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from medseg_paddle.core import Case, Manifest, Place
from medseg_paddle.core.splitting import alike_names
from medseg_paddle.preprocess.duplicates import Appearance, near_duplicates

_SHOWN = 5
_KEY = "near_duplicates"
_ONE_PATIENT_EACH = {
    "pairs": "image",
    "objects": "image",
    "lists": "image",
    "coco": "image",
    "stacks": "stack",
    "nnunet": "case",
    "volumes": "volume",
    "nifti": "volume",
}  # reader to what it takes for a patient by default
_NUMBERED = re.compile(
    r"([^/]*\d[^/]*?)([^/\d]+)\d+\D*$"
)  # a name with a number of its own, then a last number


def alone(settings: Mapping[str, Any]) -> str:
    """What is counted as a patient of its own; empty where the recipe or its table names patients.

    Parameters
    ----------
    settings : mapping
        A `prepare` section, or what a manifest notes of it.
    """
    table = settings.get("table") or {}
    if settings.get("patient") is not None or table.get("patient") is not None:
        return ""
    return _ONE_PATIENT_EACH.get(settings.get("reader", ""), "")


def lone_patients(settings: Mapping[str, Any], paths: Sequence[str]) -> list[str]:
    """Say that each image counts as a patient, and how to tell patients if the names look as if several are of one.

    Parameters
    ----------
    settings : mapping
        As for :func:`alone`.
    paths : sequence of str
        Of the images, below the source folder; empty where they are not known.
    """
    what = alone(settings)
    if not what:
        return []
    lines = [
        f"each {what} is counted as a patient of its own; set `patient` in `prepare` where several are of one"
    ]
    found = [_NUMBERED.search(path) for path in paths]
    between = {match[2] for match in found if match is not None}
    if found and None not in found and len(between) == 1:
        pattern = f"([^/]+){re.escape(between.pop())}\\d+\\D*$"
        matches = [re.search(pattern, path) for path in paths]
        patients = sorted({match[1] for match in matches if match is not None})
        if None not in matches and 1 < len(patients) < len(paths):
            lines.append(
                f"warning: by their names these may be {len(patients)} patients, such as '{patients[0]}': if so, add "
                f"`patient: '{pattern}'`"
            )
    return lines


def near_copies(
    cases: Sequence[Case], looks: Sequence[Appearance], places: Mapping[str, Place]
) -> dict[str, Any]:
    """Pictures that are nearly the same in two splits or folds, as an entry of a manifest's ``source``.

    Parameters
    ----------
    cases : sequence of Case
    looks : sequence of Appearance
        Of their pictures.
    places : mapping of str to Place
        By patient.
    """
    pairs = near_duplicates(looks, groups=[places[case.patient] for case in cases], turned=True)
    return {
        _KEY: [
            {
                "cases": [cases[pair.first].id, cases[pair.second].id],
                "correlation": round(pair.correlation, 3),
                "turned": pair.turned,
            }
            for pair in pairs
        ]
    }


def suspicions(manifest: Manifest) -> list[str]:
    """Warnings of near duplicates, and of patients in two splits or folds whose names may be one person's."""
    place = {case.id: _place(split, case) for split, cases in manifest.splits.items() for case in cases}
    patients = {
        case.patient: place[case.id] for cases in manifest.splits.values() for case in cases if case.patient
    }
    lines = []
    pairs = sorted(manifest.source.get(_KEY, ()), key=lambda pair: -pair["correlation"])
    pairs = [pair for pair in pairs if len({place.get(name) for name in pair["cases"]} - {None}) == 2]
    if pairs:
        named = [_named(pair, place) for pair in pairs[:_SHOWN]]
        lines.append(
            f"warning: {len(pairs)} pair(s) of pictures are nearly the same and in two splits or folds; look at them, "
            f"and give both one patient or leave one out: {_listed(named, len(pairs))}"
        )
    alike = alike_names(patients)
    if alike:
        named = [f"'{a}' ({patients[a]}) and '{b}' ({patients[b]})" for a, b in alike[:_SHOWN]]
        lines.append(
            f"warning: {len(alike)} patient(s) may be in two splits or folds under two spellings; correct `patient` if "
            f"they are one: {_listed(named, len(alike))}"
        )
    return lines


def _named(pair: Mapping[str, Any], place: Mapping[str, str]) -> str:
    one, other = pair["cases"]
    turned = ", mirrored or turned" if pair["turned"] else ""
    return f"{one} ({place[one]}) and {other} ({place[other]}){turned}"


def _place(split: str, case: Case) -> str:
    return split if case.fold is None else f"fold {case.fold}"


def _listed(named: Sequence[str], count: int) -> str:
    return "; ".join(named) + (f"; and {count - len(named)} more" if count > len(named) else "")
