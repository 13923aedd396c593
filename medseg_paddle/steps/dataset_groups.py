"""Which patient, centre and official split each source belongs to, by the recipe's expressions and table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg_paddle.config.splitting import SplitOptions, TableSpec
from medseg_paddle.core import SPLITS, Wanted
from medseg_paddle.errors import DataError
from medseg_paddle.io.tables import read_table

_Row = Mapping[str, str]
_SHOWN = 5
_ENDING = re.compile(r"(\.nii)?\.[^.]+$", re.IGNORECASE)


@dataclass(frozen=True)
class Member:
    """One source, as far as it matters who is held out.

    Attributes
    ----------
    image : Path
        Its picture, volume, or first slice.
    key : str
        What it has in common with its label; may be empty.
    patient : str
    wanted : str
        An official split, or ``"auto"``.
    center : str
        Where it was taken; empty where nobody said.
    """

    image: Path
    key: str
    patient: str
    wanted: Wanted
    center: str = ""


def grouped(options: SplitOptions, root: Path, members: Sequence[Member]) -> list[Member]:
    """The members with the centre that `center` finds, and what a table says of patient, centre and split.

    Parameters
    ----------
    options : SplitOptions
    root : Path
        Source folder, which the table and all images are below.
    members : sequence of Member
        As found; their patients are those of the expression `patient` or its default.

    Returns
    -------
    list of Member
        In the same order.

    Raises
    ------
    DataError
        `center` finds nothing in a path; the table cannot be read, has no row or two different rows for a member,
        an empty cell that is needed, or a split that is none.
    """
    if options.center is not None:
        members = [replace(one, center=_center(options.center, one, root)) for one in members]
    if options.table is None:
        return list(members)
    table = options.table
    path = root / table.file
    rows = _rows(table, path)
    found = [(one, _row_of(one, rows, root, table, path)) for one in members]
    _require_own_rows([(one, row[table.id]) for one, row in found if row is not None], root, path)
    missing = [one.image.relative_to(root).as_posix() for one, row in found if row is None]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"table {path} has no row for {', '.join(missing[:_SHOWN])}{more}",
            hint=f"fill column '{table.id}' with file names, keys or patients as `prepare` finds them, or leave these "
            "images out with `only`",
        )
    dealt = options.val_fraction + options.test_fraction > 0 or options.folds is not None
    return [_moved(one, row, table, path, dealt=dealt) for one, row in found if row is not None]


def _center(pattern: str, member: Member, root: Path) -> str:
    name = member.image.relative_to(root).as_posix()
    match = re.search(pattern, name)
    found = "" if match is None else "-".join(group for group in match.groups() if group)
    if not found:
        raise DataError(
            f"the `center` pattern '{pattern}' finds nothing in '{name}'",
            hint="correct `center` in `prepare`",
        )
    return found


def _rows(table: TableSpec, path: Path) -> dict[str, _Row]:
    columns = [name for name in (table.id, table.patient, table.center, table.split) if name is not None]
    rows: dict[str, _Row] = {}
    for row in read_table(path, list(dict.fromkeys(columns))):
        name = row[table.id]
        if not name:
            raise DataError(
                f"table {path} has a row without '{table.id}'", hint="fill the cell, or remove the row"
            )
        if rows.setdefault(name, row) != row:
            raise DataError(
                f"table {path} has two different rows for '{name}'",
                hint="keep one of them; a patient, a centre and a split are read for each",
            )
    return rows


def _row_of(
    member: Member, rows: Mapping[str, _Row], root: Path, table: TableSpec, path: Path
) -> _Row | None:
    stem = _ENDING.sub("", member.image.name)
    names = (member.key, member.image.relative_to(root).as_posix(), member.image.name, stem, member.patient)
    found = [rows[name] for name in dict.fromkeys(names) if name in rows]
    facts = {tuple(v for k, v in row.items() if k != table.id or k == table.patient) for row in found}
    if len(facts) > 1:
        raise DataError(
            f"table {path} has rows for '{found[0][table.id]}' and '{found[1][table.id]}', and both are names of "
            f"{member.image.name}",
            hint="name every image in one way",
        )
    return found[0] if found else None


def _require_own_rows(found: Sequence[tuple[Member, str]], root: Path, path: Path) -> None:
    """Refuse a row that several images take who are not those of one patient: a file name can be in many folders."""
    first: dict[str, Member] = {}
    for member, name in found:
        before = first.setdefault(name, member)
        if before.patient != member.patient:
            one, two = (each.image.relative_to(root).as_posix() for each in (before, member))
            raise DataError(
                f"table {path} has one row '{name}' for {one} and {two}",
                hint="name images by their paths below the source folder, one row each",
            )


def _moved(member: Member, row: _Row, table: TableSpec, path: Path, *, dealt: bool) -> Member:
    changes: dict[str, Any] = {}
    for field, column in (("patient", table.patient), ("center", table.center)):
        if column is not None:
            if not row[column]:
                raise DataError(
                    f"table {path}: column '{column}' is empty for {member.image.name}", hint="fill the cell"
                )
            changes[field] = row[column]
    if table.split is not None:
        changes["wanted"] = split = row[table.split].lower() or "auto"
        if split != "auto" and split not in SPLITS:
            raise DataError(
                f"table {path}: column '{table.split}' says '{row[table.split]}' for {member.image.name}",
                hint="write train, val, test, or nothing for what is dealt out",
            )
        if split == "auto" and not dealt:
            raise DataError(
                f"table {path}: column '{table.split}' is empty for {member.image.name}",
                hint="write train, val or test, or set `val_fraction`, `test_fraction` or `folds` to deal the others",
            )
    return replace(member, **changes)
