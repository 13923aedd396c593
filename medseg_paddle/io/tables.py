"""Tables as people keep them beside their images: CSV and TSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg_paddle.config.base import did_you_mean
from medseg_paddle.errors import DataError


def read_table(path: Path, columns: Sequence[str]) -> list[Mapping[str, str]]:
    """Read the named columns of a table with a line of column names.

    Parameters
    ----------
    path : Path
        UTF-8 text; fields are separated by tabs in ``.tsv`` and ``.tab``, elsewhere by commas, or by semicolons
        where the first line has these and no comma.
    columns : sequence of str
        The columns to read, spelled as in the first line.

    Returns
    -------
    list of dict
        One per row that is not blank, cells without blanks around them; BIDS's ``n/a`` is an empty cell.

    Raises
    ------
    DataError
        Missing, not text, no such column, a column named twice, or a row of another length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"table {path} cannot be read: {error}",
            hint="correct `table.file` in `prepare`, or save the table as UTF-8 text",
        ) from error
    head = text.partition("\n")[0]
    separator = ";" if ";" in head and "," not in head else ","
    if path.suffix.lower() in (".tsv", ".tab"):
        separator = "\t"
    try:
        names, *rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)) or [
            []
        ]
    except csv.Error as error:
        raise DataError(f"table {path} is damaged: {error}", hint="export it again as CSV or TSV") from error
    names = [name.strip() for name in names]
    for column in columns:
        if names.count(column) != 1:
            twice = column in names
            raise DataError(
                f"table {path} has {'two columns' if twice else 'no column'} '{column}'",
                hint="name each column once" if twice else did_you_mean(column, names),
            )
    found: list[Mapping[str, str]] = []
    for number, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(names):
            raise DataError(
                f"table {path}, row {number}: {len(row)} cells under {len(names)} columns",
                hint="quote cells that hold the separator, and fill the row",
            )
        cells = dict(zip(names, (cell.strip() for cell in row), strict=True))
        found.append({column: "" if cells[column] == "n/a" else cells[column] for column in columns})
    return found
