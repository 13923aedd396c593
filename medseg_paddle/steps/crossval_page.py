"""A cross-validation to look at: a picture, and a page for a browser with no script and no address outside it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_paddle.io.files import write_bytes, write_text
from medseg_paddle.run import Run
from medseg_paddle.steps.check.page_style import STYLE
from medseg_paddle.steps.crossval_summary import PICTURE, CrossValidation, Line, number, span

_PAGE = "crossval.html"
_WORST = 12
_SIDE = 960  # of a drawing on the page


def write_page(result: CrossValidation) -> None:
    """Write ``crossval.png`` and ``crossval.html`` into the folder of the cross-validation."""
    picture = _picture(result)
    write_bytes(result.path / PICTURE, picture)
    write_text(result.path / _PAGE, "".join(_page(result, picture)))


def _page(result: CrossValidation, picture: bytes) -> Iterator[str]:
    name = escape(result.name)
    lines, overall = result.lines(("dice",)), result.overall
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{name}: cross-validation</title><style>{STYLE}</style></head><body><main>\n"
    )
    yield f'<header><p class="kind">Cross-validation, {result.checkpoint} checkpoint</p><h1>{name}</h1>'
    yield '<p></p><dl class="tiles">'
    tiles = [
        ("mean Dice", number(overall.mean)),
        ("95 % CI", span(overall)),
        ("folds", f"{len(result.folds)} of {len(result.every)}"),
        ("patients", overall.patients),
        ("cases", overall.cases),
    ]
    yield "".join(f"<div><dt>{title}</dt><dd>{value}</dd></div>" for title, value in tiles)
    yield "</dl>" + "".join(f"<p>{escape(note)}</p>" for note in result.notes) + "</header>\n"
    yield "<section><h2>Every case</h2>"
    yield f'<figure><img src="{_data(picture)}" alt="Dice of every case, fold by fold"></figure></section>\n'
    yield "<section><h2>Folds</h2>"
    yield _table(lines)
    yield "</section>\n"
    yield from _worst(result)
    yield "<footer>Written by <code>medseg crossval</code>; all scores are in <code>crossval.csv</code>.</footer>\n"
    yield "</main></body></html>\n"


def _table(lines: list[Line]) -> str:
    head = "<tr><th>fold<th>class<th>cases<th>patients<th>Dice<th>SD<th>95 % CI</tr>"
    rows = (
        f"<tr><td>{line.fold}<td>{escape(line.name)}<td>{line.cases}<td>{line.patients}"
        f"<td>{number(line.mean)}<td>{number(line.sd)}<td>{span(line)}</tr>"
        for line in lines
    )
    return f"<div class='wide'><table>{head}{''.join(rows)}</table></div>"


def _worst(result: CrossValidation) -> Iterator[str]:
    """The cases to look at first, with the drawing of those that have one."""
    found = [
        (row.scores.dice, fold, row)
        for fold in result.folds
        for row in fold.report.rows
        if not math.isnan(row.scores.dice)
    ]
    found.sort(key=lambda one: one[0])
    yield f"<section><h2>Lowest scores</h2><p>The first {min(_WORST, len(found))} of {len(found)}"
    yield "; image, truth and prediction where the fold's evaluation drew them.</p><div class='pictures'>"
    for dice, fold, row in found[:_WORST]:
        drawn = _overlay(result.path, fold.fold, row.case)
        image = "" if drawn is None else f'<label><input type="checkbox"><img src="{drawn}" alt=""></label>'
        patient = fold.patients[row.case]
        whose = "" if patient == row.case else f", patient {escape(patient)}"
        yield (
            f"<figure>{image}<figcaption><b>{escape(row.case)}</b> <span>{escape(row.name)} {number(dice)}</span>"
            f"<br>fold {fold.fold}{whose}</figcaption></figure>"
        )
    yield "</div></section>\n"


def _overlay(folder: Path, fold: int, case: str) -> str | None:
    run = Run.open(folder / f"fold_{fold}")
    path = run.evaluation_folder("val") / "overlays" / f"{case}.png"
    if not path.is_file():
        return None
    buffer = io.BytesIO()
    with Image.open(path) as drawn:
        drawn.thumbnail((_SIDE, _SIDE))
        drawn.save(buffer, format="png")
    return _data(buffer.getvalue())


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _picture(result: CrossValidation) -> bytes:
    """Every case's Dice, the mean over its classes, fold by fold; the mean of all and its interval behind them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    overall = result.overall
    if not math.isnan(overall.low):
        axes.axhspan(
            overall.low, overall.high, color="tab:blue", alpha=0.15, lw=0, label="95 % CI of the mean"
        )
    axes.axhline(overall.mean, color="tab:blue", lw=1, label=f"mean {number(overall.mean)}")
    for place, fold in enumerate(result.folds):
        by_case: dict[str, list[float]] = {}
        for row in fold.report.rows:
            if not math.isnan(row.scores.dice):
                by_case.setdefault(row.case, []).append(row.scores.dice)
        values = [float(np.mean(found)) for found in by_case.values()]
        shifts = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(len(values))
        axes.plot(place + shifts, values, "o", ms=4, alpha=0.6, color="tab:gray")
        mean = fold.report.mean_foreground_dice
        axes.plot([place - 0.3, place + 0.3], [mean, mean], color="black", lw=2)
    axes.set_xticks(range(len(result.folds)), [f"fold {fold.fold}" for fold in result.folds])
    axes.set_ylabel("Dice of a case")
    axes.set_title(f"{result.name}, {result.checkpoint} checkpoint")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
