"""Judging labels: values, empty and full masks, classes and their balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from medseg_paddle.config.prepare import IGNORE_INDEX
from medseg_paddle.steps.check.facts import Facts
from medseg_paddle.steps.check.findings import ClassShare, Finding, Severity, error, note, warning
from medseg_paddle.steps.check.inputs import Gathered

_SOFT_VALUES = 12  # more values than this that nobody declared are grey levels, not classes
_LEAST_GREY = 128  # the brightest value of a smoothed mask; few data sets number classes as high
_SMOOTHED = (
    "so many values are grey levels of smoothed or compressed masks, or numbered objects: export the masks "
    "again without smoothing, or threshold them on purpose"
)
MOST_LISTED = 12
"""Values or classes that are named one by one."""

_RARE = 0.001
_MANY_EMPTY = 0.1
_LEAST_ALIKE = 3
_LEAST_CASES = 8
_FEW_INVERTED = 0.25
_APART = 0.25
_ROOM = 1.5


def judge_labels(facts: Sequence[Facts], gathered: Gathered) -> Iterator[Finding]:
    """What is wrong with the labels, over the whole set."""
    lonely = [one.unit.id for one in facts if one.pictures and not one.labelled and not one.troubles]
    if lonely:
        yield error(
            "no-label",
            f"{_cases(len(lonely))} without a label",
            "add the labels, or take these images out of the data set",
            lonely,
        )
    values = [*_values(facts, gathered), *_left_out(facts, gathered)]
    yield from values
    bare = list(_bare(facts)) if not any(one.severity is Severity.ERROR for one in values) else []
    yield from bare
    yield from _extremes(facts)
    yield from _alike(facts)
    yield from _inverted(facts)
    if not bare and not any(_is_soft(one.values) for one in facts):
        yield from _balance(facts, gathered)


def class_shares(facts: Sequence[Facts], gathered: Gathered) -> tuple[ClassShare, ...]:
    """Pixels of each class over the set, and in how many cases of each split it occurs."""
    pixels: Counter[int] = Counter()
    cases: dict[int, Counter[str]] = {}
    for one in facts:
        for value, count in one.classes.items():
            pixels[value] += count
            cases.setdefault(value, Counter())[one.unit.split] += 1
    names = {} if gathered.labels is None else {label.index: label.name for label in gathered.labels}
    total = sum(count for value, count in pixels.items() if value != IGNORE_INDEX) or 1
    return tuple(
        ClassShare(
            value,
            "left out"
            if value == IGNORE_INDEX
            else names.get(value, "background" if value == 0 else f"class {value}"),
            pixels[value],
            0.0 if value == IGNORE_INDEX else pixels[value] / total,
            dict(cases.get(value, {})),
        )
        for value in sorted({*pixels, *names})
    )


def _values(facts: Sequence[Facts], gathered: Gathered) -> Iterator[Finding]:
    counts: Counter[int] = Counter()
    for one in facts:
        counts.update(one.values)
    if gathered.mapping is None:
        yield from _undeclared_classes(facts, counts)
        return
    unknown = {value: counts[value] for value in sorted(counts) if value not in gathered.mapping}
    if not unknown:
        return
    holders = [one.unit.id for one in facts if not unknown.keys().isdisjoint(one.values)]
    listed = ", ".join(f"{value} ({unknown[value]} pixels)" for value in list(unknown)[:MOST_LISTED])
    more = f" and {len(unknown) - MOST_LISTED} more" if len(unknown) > MOST_LISTED else ""
    message = f"label values that nobody declared, in {_cases(len(holders))}: {listed}{more}"
    if len(unknown) > _SOFT_VALUES:
        remedy = _SMOOTHED
    elif gathered.label_map_asked:
        line = ", ".join(f"{value}: {index}" for value, index in _proposal(counts, gathered.mapping).items())
        remedy = (
            f"say in `prepare` which class each value is, such as `label_map: {{{line}}}`, with {IGNORE_INDEX} for "
            "pixels to leave out"
        )
    else:
        remedy = "correct the labels, or name these classes in the recipe and prepare the data again"
    yield error("undeclared-values", message, remedy, holders, values={str(v): n for v, n in unknown.items()})


def _proposal(counts: Mapping[int, int], mapping: Mapping[int, int]) -> dict[int, int | str]:
    """The `label_map` to write: the usual 0 and 255 of a mask, else what must be filled in."""
    present = sorted(counts)
    unknown = [value for value in present if value not in mapping]
    if present[:1] == [0] and len(present) == 2 and len(mapping) == 2:
        return {0: 0, present[1]: 1}
    return {**{value: mapping[value] for value in present if value in mapping}, **dict.fromkeys(unknown, "?")}


def _undeclared_classes(facts: Sequence[Facts], counts: Mapping[int, int]) -> Iterator[Finding]:
    """Lists say nothing of classes: the values must count 0, 1, 2, ... by themselves."""
    values = sorted(value for value in counts if value != IGNORE_INDEX)
    listed = ", ".join(f"{value} ({counts[value]} pixels)" for value in sorted(counts)[:MOST_LISTED])
    if values in ([], [0]) and IGNORE_INDEX in counts:
        yield error(
            "undeclared-values",
            f"the labels hold 0 and {IGNORE_INDEX} only: {listed}; {IGNORE_INDEX} is left out of training and scores",
            "store the class as 1, or prepare the data with `label_map: {0: 0, 255: 1}`",
            values={str(value): count for value, count in counts.items()},
        )
    elif values == list(range(len(values))):
        return
    elif soft := [one.unit.id for one in facts if _is_soft(one.values)]:
        yield error(
            "undeclared-values",
            f"the labels of {_cases(len(soft))} hold more than {_SOFT_VALUES} values, up to "
            f"{max(value for one in facts if _is_soft(one.values) for value in one.values)}",
            f"{_SMOOTHED}; where they are classes, name the recipe with --config",
            soft,
        )
    else:
        yield warning(
            "undeclared-values",
            f"the label values are not 0, 1, 2, ...: {listed}",
            "name the recipe with --config so that they can be compared with its classes, or prepare the data with a "
            "`label_map`",
            values={str(value): count for value, count in counts.items()},
        )


def _is_soft(values: Mapping[int, int]) -> bool:
    return len(values) > _SOFT_VALUES and max(values) >= _LEAST_GREY


def _left_out(facts: Sequence[Facts], gathered: Gathered) -> Iterator[Finding]:
    """Masks of 0 and 255 alone, whose objects would be left out. Where 255 lies beside a class, it may be meant."""
    suspects = [
        one.unit.id for one in facts if IGNORE_INDEX in one.classes and one.pixels and not one.foreground
    ]
    classed = any(one.foreground for one in facts)
    if not suspects or not (classed or gathered.mapping is not None):
        return  # lists of nothing but 0 and 255, and nobody names classes: said with the values
    meant = any(one.foreground and IGNORE_INDEX in one.classes for one in facts)
    judge = error if gathered.kind == "lists" and not meant else warning
    beside = ", while others hold a class" if classed else " and no class"
    yield judge(
        "undeclared-values",
        f"the labels of {_cases(len(suspects))} hold 0 and {IGNORE_INDEX}{beside}; {IGNORE_INDEX} is left out of "
        "training and scores",
        f"if {IGNORE_INDEX} is the class there, store it as 1, or prepare the data with "
        f"`label_map: {{0: 0, {IGNORE_INDEX}: 1}}`; see that it is not meant as 'unclear'",
        suspects,
    )


def _bare(facts: Sequence[Facts]) -> Iterator[Finding]:
    """A set, or a split that a run cannot do without, that has no pixel of any class."""
    labelled = [one for one in facts if one.labelled]
    if not labelled:
        return
    splits = {split: [one for one in labelled if one.unit.split == split] for split in ("train", "val")}
    if not any(one.foreground for one in labelled):
        bare = {"the whole set": labelled}
    else:
        bare = {
            f"the {split} set": members
            for split, members in splits.items()
            if members and not any(one.foreground for one in members)
        }
    for where, members in bare.items():
        yield error(
            "no-foreground",
            f"no label of {where} holds a pixel of any class ({_cases(len(members))}): there is nothing to "
            f"{'score' if 'val' in where else 'learn'}",
            "see that the labels are the right ones; deal out anew if another split holds the annotated cases",
            [one.unit.id for one in members],
        )


def _extremes(facts: Sequence[Facts]) -> Iterator[Finding]:
    measured = [one for one in facts if one.labelled and one.classes]
    empty = [one.unit.id for one in measured if one.foreground == 0 and one.pixels and set(one.values) <= {0}]
    if empty:
        many = len(empty) > max(1, _MANY_EMPTY * len(measured))
        yield (note if many else warning)(
            "empty-mask",
            f"{_cases(len(empty))} of {len(measured)} with nothing but background",
            "see that nobody forgot to annotate them; cases without the object are worth keeping",
            empty,
        )
    full = [
        one.unit.id
        for one in measured
        if one.pixels
        and one.foreground == one.pixels
        and sum(value != IGNORE_INDEX for value in one.classes) == 1
    ]
    if full:
        yield warning(
            "full-mask",
            f"{_cases(len(full))} whose mask covers the whole picture with one class",
            "see that the mask was not inverted or filled by mistake",
            full,
        )
    ignored = [one.unit.id for one in measured if not one.pixels]
    if ignored:
        yield warning(
            "ignored-mask",
            f"{_cases(len(ignored))} with every pixel left out of training and scores ({IGNORE_INDEX})",
            "correct the labels, or take these cases out",
            ignored,
        )


def _alike(facts: Sequence[Facts]) -> Iterator[Finding]:
    """One mask under many images."""
    groups: dict[str, list[Facts]] = {}
    for one in facts:
        if 0 < one.foreground < one.pixels:
            groups.setdefault(one.label_digest, []).append(one)
    for members in groups.values():
        images = len({one.digest for one in members})
        if images >= _LEAST_ALIKE:
            yield warning(
                "same-mask",
                f"{_cases(len(members))} with {images} different images have the very same mask",
                "see that the export wrote each case's own mask; only frames of a video may share one",
                [one.unit.id for one in members],
            )


def _inverted(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Masks of one class whose background is as large as the others' class, where nothing lies between the two."""
    shares = {one.unit.id: one.foreground / one.pixels for one in facts if 0 < one.foreground < one.pixels}
    classes = {value for one in facts for value in one.classes} - {0, IGNORE_INDEX}
    if len(shares) < _LEAST_CASES or len(classes) != 1:
        return
    if sum(share > 0.5 for share in shares.values()) > len(shares) / 2:
        covered, how = {name: 1 - share for name, share in shares.items()}, "leaves out"
    else:
        covered, how = shares, "covers"
    odd = [name for name, share in covered.items() if share > 0.5]
    usual = max(share for share in covered.values() if share <= 0.5)
    if (
        0 < len(odd) <= _FEW_INVERTED * len(shares)
        and min(covered[name] for name in odd) > usual + _APART
        and 1 - min(covered[name] for name in odd) <= _ROOM * usual
    ):
        yield warning(
            "inverted-mask",
            f"{_cases(len(odd))} whose mask {how} {min(covered[name] for name in odd):.0%} of the picture or more; "
            f"the others' {usual:.0%} at most",
            "see whether background and class are exchanged there",
            odd,
        )


def _balance(facts: Sequence[Facts], gathered: Gathered) -> Iterator[Finding]:
    shares = [one for one in class_shares(facts, gathered) if one.value != IGNORE_INDEX]
    splits = Counter(one.unit.split for one in facts if one.labelled)
    if not splits:
        return
    for one in shares:
        what = f"class {one.value} ({one.name})"
        absent = [split for split in splits if split not in one.cases]
        if one.pixels == 0:
            yield warning(
                "class-missing",
                f"{what} occurs nowhere",
                "correct the labels or the `label_map`, or remove the class from the recipe",
            )
        elif absent:
            yield warning(
                "class-missing",
                f"{what} does not occur in {' and '.join(absent)}",
                "deal the cases out anew, so that every split holds every class",
                splits=absent,
            )
        if one.value and 0 < one.share < _RARE:
            yield note(
                "rare-class",
                f"{what} is {one.share:.2%} of the pixels",
                "sample patches with foreground, and use a loss that does not drown it, such as Dice",
                share=one.share,
            )


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def named(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    known = list(names)
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return f"{', '.join(known[:most])}{more}"
