"""What makes a split doubtful without being wrong for sure: near duplicates and names alike across it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg_paddle.core import Case, Manifest, Place
from medseg_paddle.core.splitting import alike_names
from medseg_paddle.preprocess.duplicates import Appearance, near_duplicates

_SHOWN = 5
_KEY = "near_duplicates"


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
