"""What sources call their label values: one value has one name, and the recipe's classes are those it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medseg_paddle.config.prepare import ALWAYS_VOLUMES, IGNORE_INDEX, PrepareSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.errors import DataError

ValueNames = tuple[Path, Mapping[int, str]]  # a file, and what it calls each stored value
_NO_NAME = re.compile(r"(segment|label|class)?\W*\d*")


def name_problems(spec: PrepareSpec, said: Sequence[ValueNames], labels: LabelSet | None) -> list[DataError]:
    """What does not fit among the names of values: values alone would mix classes in silence.

    Parameters
    ----------
    spec : PrepareSpec
        Its `label_map` may say which value is which class.
    said : sequence of (path, names)
        What each file calls its values.
    labels : LabelSet or None
        The recipe's classes; None compares the files with one another alone.
    """
    told = [
        (path, value, name, _class_of(spec, value))
        for path, names in said
        for value, name in names.items()
        if not _NO_NAME.fullmatch(_plain(name))
    ]
    problems = list(_two_classes(told)) or list(_two_names(spec, told))
    if not problems and labels is not None:
        problems = list(_another_class(spec, told, labels))
    return problems


_Told = tuple[Path, int, str, "int | None"]  # file, value, its name there, its class


def _two_classes(told: Sequence[_Told]) -> Iterator[DataError]:
    """One name that stands for two classes."""
    first: dict[str, _Told] = {}
    faulty: set[str] = set()
    for path, value, name, index in told:
        before = first.setdefault(_plain(name), (path, value, name, index))
        if before[3] != index and _plain(name) not in faulty:
            faulty.add(_plain(name))
            yield DataError(
                f"'{name}' is label value {before[1]} in {before[0]} and {value} in {path}",
                hint="export the labels again with the same value for a class in every file, or prepare these files "
                "apart",
            )


def _two_names(spec: PrepareSpec, told: Sequence[_Told]) -> Iterator[DataError]:
    """One value that has two names."""
    first: dict[int, _Told] = {}
    faulty: set[int] = set()
    for path, value, name, index in told:
        before = first.setdefault(value, (path, value, name, index))
        # Who draws names segments freely; a recipe that says what the value is has the last word there.
        said = spec.label_map is not None and spec.reader in ALWAYS_VOLUMES
        if _plain(before[2]) != _plain(name) and value not in faulty and not said:
            faulty.add(value)
            way = ""
            if spec.reader in ALWAYS_VOLUMES:
                way = f"; if both are one class, say so in `prepare`: `label_map: {{0: 0, {value}: {index}}}`"
            yield DataError(
                f"label value {value} is '{before[2]}' in {before[0]} and '{name}' in {path}",
                hint=f"give a class the same value and name in every file{way}",
            )


def _another_class(spec: PrepareSpec, told: Sequence[_Told], labels: LabelSet) -> Iterator[DataError]:
    """A value whose name is that of another class of the recipe."""
    index_of = {_plain(name): index for index, name in enumerate(labels.names)}
    wrong = [
        one
        for one in told
        if one[3] not in (None, IGNORE_INDEX) and index_of.get(_plain(one[2]), one[3]) != one[3]
    ]
    if not wrong:
        return
    path, value, name, index = wrong[0]
    line = {0: 0, **(spec.label_map or {value: index for _, value, _, index in told if index is not None})}
    line |= {value: index_of[_plain(name)] for _, value, name, _ in wrong}
    own = f"'{labels.names[index]}'" if index is not None and index < len(labels) else "not there"
    yield DataError(
        f"label value {value} is '{name}' in {path}; in the recipe class {index} is {own}",
        hint="set in `prepare` "
        f"`label_map: {{{', '.join(f'{value}: {index}' for value, index in sorted(line.items()))}}}`, or name the "
        "classes in `labels` in the order of their values",
    )


def _class_of(spec: PrepareSpec, value: int) -> int | None:
    """Class of a stored value; None where the recipe does not say it."""
    if spec.instances is not None:
        return spec.instances if value else 0
    if spec.label_threshold is not None:
        value = int(value >= spec.label_threshold)
    return value if spec.label_map is None else spec.label_map.get(value)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
