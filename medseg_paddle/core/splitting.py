"""Who is held out: patients dealt to splits and folds, whole and repeatably."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from medseg_paddle.core.manifest import Split
from medseg_paddle.errors import DataError

Wanted = Split | Literal["auto"]
Folds = int | Literal["centers"]

_WORDS = re.compile(r"\d+|[^\W\d_]+")


@dataclass(frozen=True)
class Unit:
    """A picture or a volume to deal out.

    Attributes
    ----------
    name : str
        For messages.
    patient : str
        Units of one patient go to the same place.
    center : str
        Where it was taken; read for leave-one-centre-out only.
    wanted : str
        An official split, or ``"auto"``.
    classes : frozenset of int
        Class indices that its label holds; read for a stratified deal only.
    """

    name: str
    patient: str
    center: str = ""
    wanted: Wanted = "auto"
    classes: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Place:
    """Where a patient went.

    Attributes
    ----------
    split : str
        With folds, fold 0 is ``"val"`` and the others are ``"train"``.
    fold : int or None
        None in the test, for official splits, and where there are no folds.
    """

    split: Split
    fold: int | None = None


def deal(
    units: Sequence[Unit],
    *,
    val_fraction: float = 0.0,
    test_fraction: float = 0.0,
    seed: int = 0,
    stratify: bool = False,
    folds: Folds | None = None,
) -> dict[str, Place]:
    """Give every patient a place; the order of `units` does not matter.

    Official splits stay. The others, the *pool*, are dealt: the units that want ``"auto"``, or those of
    ``"train"`` if there are none. Patients are put in order by a hash of seed and name, and the splits are cut
    from that order. So the deal is the same everywhere, and a patient who joins or leaves moves few others.

    Parameters
    ----------
    units : sequence of Unit
    val_fraction, test_fraction : float
        Shares of the pool's patients, rounded, at least one patient where not 0.
    seed : int
    stratify : bool
        Spread the patients who have a class over the places in proportion to the places' sizes, as
        Sechidis et al., *On the Stratification of Multi-Label Data*, ECML PKDD 2011, with a patient's set of
        classes as labels. Other than there, sizes are exactly those of the deal that is not stratified, and
        ties go by the hash.
    folds : int, ``"centers"`` or None
        Deal the pool, less the test's share, to so many folds of equal size (within one patient), or one for
        each centre, in alphabetical order. `val_fraction` must be 0 then.

    Returns
    -------
    dict of str to Place
        By patient.

    Raises
    ------
    DataError
        A patient wants two splits, or is in the pool with two centres; too few patients or centres; a unit
        without a centre where `folds` is ``"centers"``.
    """
    require_patients_apart(units)
    pool = "auto" if any(unit.wanted == "auto" for unit in units) else "train"
    places = {unit.patient: Place(_official(unit.wanted)) for unit in units}
    members: dict[str, list[Unit]] = {}
    for unit in units:
        if unit.wanted == pool:
            members.setdefault(unit.patient, []).append(unit)
    patients = sorted(members, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
    sizes = _sizes(len(patients), val_fraction, test_fraction, folds)
    if stratify:
        classes = {patient: frozenset().union(*(u.classes for u in own)) for patient, own in members.items()}
        dealt = _stratified(patients, classes, sizes)
    else:
        dealt = _consecutive(patients, sizes)
    places.update(dealt)
    if folds == "centers":
        held_out = {patient for patient, place in dealt.items() if place.split == "test"}
        places.update(_by_center({p: own for p, own in members.items() if p not in held_out}))
    return places


def require_patients_apart(units: Iterable[Unit]) -> None:
    """Refuse a patient whose units want different splits.

    Raises
    ------
    DataError
        Names the patient and two of the units.
    """
    first: dict[str, Unit] = {}
    for unit in units:
        other = first.setdefault(unit.patient, unit)
        if other.wanted != unit.wanted:
            raise DataError(
                f"patient '{unit.patient}' is in split '{other.wanted}' ({other.name}) "
                f"and in '{unit.wanted}' ({unit.name})",
                hint="let all images of a patient go to one split, or correct `patient` in `prepare`",
            )


def alike_names(places: Mapping[str, object]) -> list[tuple[str, str]]:
    """Patients in different places whose names may be two spellings of one.

    Compared are the words and numbers of a name, without case, leading zeros, blanks and other signs:
    ``P 007`` and ``p7``, ``DOE^JOHN`` and ``Doe John``.

    Parameters
    ----------
    places : mapping
        Place (of any kind that can be compared) by patient.

    Returns
    -------
    list of (str, str)
        Each name that is in another place than the first of its spelling, after that one; in order.
    """
    first: dict[tuple[str, ...], str] = {}
    found = []
    for name in sorted(places):
        words = spelling(name)
        other = first.setdefault(words, name)
        if words and places[other] != places[name]:
            found.append((other, name))
    return found


def spelling(name: str) -> tuple[str, ...]:
    """Words and numbers of a name, without case, leading zeros, blanks and other signs."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return tuple(word.lstrip("0") or "0" for word in _WORDS.findall(plain))


def _official(wanted: Wanted) -> Split:
    return "train" if wanted == "auto" else wanted


def _sizes(
    patients: int, val_fraction: float, test_fraction: float, folds: Folds | None
) -> list[tuple[Place, int]]:
    """How many patients each place gets, in the order they are cut; the rest is the last one's."""
    fractions: tuple[tuple[Split, float], ...] = (("val", val_fraction), ("test", test_fraction))
    drawn = {split: max(1, round(fraction * patients)) for split, fraction in fractions if fraction > 0}
    rest = patients - sum(drawn.values())
    if drawn and rest <= 0:
        raise DataError(
            f"{patients} patient(s) cannot be split into train, {' and '.join(drawn)} by the fractions",
            hint="add patients, lower `val_fraction` and `test_fraction`, or correct `patient` in `prepare`",
        )
    sizes = [(Place(split), size) for split, size in drawn.items()]
    if not isinstance(folds, int):
        return [*sizes, (Place("train"), rest)]
    if rest < folds:
        raise DataError(
            f"{rest} patient(s) cannot be dealt to {folds} folds",
            hint="add patients, lower `folds`, or correct `patient` in `prepare`",
        )
    return [*sizes, *((_fold(n), rest // folds + (n < rest % folds)) for n in range(folds))]


def _fold(number: int) -> Place:
    return Place("val" if number == 0 else "train", number)


def _consecutive(patients: Sequence[str], sizes: Iterable[tuple[Place, int]]) -> dict[str, Place]:
    dealt: dict[str, Place] = {}
    for place, size in sizes:
        dealt.update(dict.fromkeys(patients[len(dealt) : len(dealt) + size], place))
    return dealt


def _stratified(
    patients: Sequence[str], classes: Mapping[str, Collection[int]], sizes: Sequence[tuple[Place, int]]
) -> dict[str, Place]:
    """Deal the patients of the rarest class first, each to the place that lacks most of that class."""
    room = [size for _, size in sizes]
    counts: dict[int, int] = {}
    for patient in patients:
        for index in classes[patient]:
            counts[index] = counts.get(index, 0) + 1
    lacking = {i: [n * size / len(patients) for _, size in sizes] for i, n in counts.items()}
    dealt: dict[str, Place] = {}
    left = list(patients)
    while left:
        counts = {i: sum(i in classes[patient] for patient in left) for i in lacking}
        # those without any class come last: they fill up
        rarest = min((i for i, n in counts.items() if n > 0), key=lambda i: (counts[i], i), default=None)
        for patient in [p for p in left if rarest is None or rarest in classes[p]]:
            wants = room if rarest is None else lacking[rarest]
            best = max((k for k in range(len(sizes)) if room[k] > 0), key=lambda k: (wants[k], room[k], -k))
            dealt[patient] = sizes[best][0]
            room[best] -= 1
            for index in classes[patient]:
                lacking[index][best] -= 1
        left = [patient for patient in left if patient not in dealt]
    return dealt


def _by_center(members: Mapping[str, Sequence[Unit]]) -> dict[str, Place]:
    """One fold for each centre."""
    own: dict[str, Unit] = {}
    for patient, units in members.items():
        for unit in units:
            if not unit.center:
                raise DataError(
                    f"{unit.name} names no centre, and the folds are the centres",
                    hint="say in `prepare` how to tell: `center: '^([^/]+)/'`, or a column of a `table`",
                )
            other = own.setdefault(patient, unit)
            if other.center != unit.center:
                raise DataError(
                    f"patient '{patient}' is in centre '{other.center}' ({other.name}) and in '{unit.center}' "
                    f"({unit.name}); a fold for each centre would cut the patient",
                    hint="give all images of the patient one centre, or let the patient go to `train`",
                )
    centers = sorted({unit.center for unit in own.values()})
    if len(centers) < 2:
        named = "".join(f" ('{center}')" for center in centers)
        raise DataError(
            f"{len(centers)} centre(s){named}: there is no other to learn from",
            hint="correct `center` in `prepare`, or use `folds: 5`",
        )
    return {patient: _fold(centers.index(unit.center)) for patient, unit in own.items()}
