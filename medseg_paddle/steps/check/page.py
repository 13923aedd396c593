"""The findings as one page for a browser: no script, no address outside it, every name escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from medseg_paddle.io.files import write_text
from medseg_paddle.preprocess.shift import Shift
from medseg_paddle.steps.check.displacement import is_measured, told
from medseg_paddle.steps.check.facts import Facts
from medseg_paddle.steps.check.findings import Finding, Result, Severity
from medseg_paddle.steps.check.inputs import Gathered
from medseg_paddle.steps.check.labels import MOST_LISTED
from medseg_paddle.steps.check.page_style import STYLE
from medseg_paddle.steps.check.scatter import scatter
from medseg_paddle.steps.check.thumbnails import Thumbnail, thumbnail

_MOST_OF_ONE = 8
_MOST_PICTURES = 72
_SAMPLE = 6
_MOST_NAMES = 40
_KINDS = {"manifest": "prepared data set", "lists": "PaddleSeg lists", "source": "source folder"}
_TITLES = {Severity.ERROR: "To mend", Severity.WARNING: "To look at", Severity.NOTE: "To know"}


def write_page(path: Path, result: Result, gathered: Gathered, facts: Sequence[Facts]) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    result : Result
    gathered : Gathered
    facts : sequence of Facts
        Whose pictures are read again for the page: a few of each finding.

    Raises
    ------
    SetupError
        It cannot be written.
    """
    write_text(path, "".join(_page(result, gathered, facts)))


def _page(result: Result, gathered: Gathered, facts: Sequence[Facts]) -> Iterator[str]:
    name = escape(gathered.root.resolve().name)
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{name}: data check</title><style>{STYLE}</style></head><body><main>\n"
    )
    yield from _head(name, result)
    album = _Album(result, facts)
    for severity in Severity:
        found = [one for one in result.findings if one.severity is severity]
        if found:
            yield f'<section><h2 class="{severity.value}">{_TITLES[severity]}</h2>\n'
            for finding in found:
                yield from _finding(finding, album)
            yield "</section>\n"
    yield from _shifts(result)
    yield from _tables(result)
    yield from _sample(album)
    yield (
        "<footer>Written by <code>medseg check</code>. Shares, ranges and shifts are measured on the files as they "
        "are; shifts are estimates, and only certain ones raise a warning.</footer>\n</main></body></html>\n"
    )


def _head(name: str, result: Result) -> Iterator[str]:
    errors, warnings, notes = (result.count(severity) for severity in Severity)
    verdict = "error" if errors else "warning" if warnings else "good"
    said = (
        f"{_counted(errors, 'error')} to mend before training"
        if errors
        else f"{_counted(warnings, 'warning')} to look at"
        if warnings
        else "Nothing wrong found"
    )
    yield f'<header><p class="kind">Data check · {_KINDS[result.kind]}</p><h1>{name}</h1>'
    yield f'<p class="verdict {verdict}">{said}</p>\n<dl class="tiles">'
    tiles = [("cases", sum(result.splits.values())), *sorted(result.splits.items(), key=_split_order)]
    tiles += [("errors", errors), ("warnings", warnings), ("notes", notes)]
    for title, count in tiles:
        yield f"<div><dt>{escape(title)}</dt><dd>{count}</dd></div>"
    yield (
        '</dl><p class="legend"><i class="stored"></i> mask as stored <i class="fits"></i> where it fits best '
        "<span>A click makes a picture large.</span></p></header>\n"
    )


def _split_order(item: tuple[str, int]) -> int:
    return ["train", "val", "test", "auto"].index(item[0])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


class _Album:
    """Draws pictures of cases, up to a number."""

    def __init__(self, result: Result, facts: Sequence[Facts]) -> None:
        self._together = result.set_shift
        self._all = facts
        self._by_name: dict[str, Facts] = {}
        for one in facts:
            self._by_name.setdefault(one.unit.id, one)
            for part in one.unit.parts:
                self._by_name.setdefault(part.id, one)
        self._left = _MOST_PICTURES
        self._drawn: dict[int, Thumbnail | None] = {}

    def of(self, finding: Finding) -> list[Thumbnail]:
        """Pictures of the first few cases of a finding; of what all have in common, the clearest ones."""
        if finding.code == "masks-shifted":
            clearest = sorted(self._all, key=lambda one: -(one.shift.score if one.shift else -1))
            return self._draw([(one, self._together) for one in clearest[:_SAMPLE]])
        if finding.severity is Severity.NOTE and finding.code != "look-alike":
            return []
        suspects = dict.fromkeys(self._by_name[name] for name in finding.cases if name in self._by_name)
        closely = finding.code == "mask-shifted"
        return self._draw([(one, one.shift if closely else None) for one in list(suspects)[:_MOST_OF_ONE]])

    def sample(self) -> list[Thumbnail]:
        """Pictures of a few cases, evenly out of all that have foreground."""
        some = [one for one in self._all if one.foreground] or [one for one in self._all if one.pictures]
        return self._draw([(one, None) for one in some[:: max(1, len(some) // _SAMPLE)][:_SAMPLE]])

    def _draw(self, wanted: Sequence[tuple[Facts, Shift | None]]) -> list[Thumbnail]:
        found = (self._picture(one, home) for one, home in wanted)
        return [picture for picture in found if picture is not None]

    def _picture(self, facts: Facts, home: Shift | None) -> Thumbnail | None:
        if home is None and id(facts) in self._drawn:
            return self._drawn[id(facts)]
        if self._left <= 0:
            return None
        self._left -= 1
        picture = thumbnail(facts, home)
        if home is None:
            self._drawn[id(facts)] = picture
        return picture


def _finding(finding: Finding, album: _Album) -> Iterator[str]:
    yield f'<article class="{finding.severity.value}"><h3><code>{escape(finding.code)}</code></h3>'
    yield f"<p>{_prose(finding.message)}</p>"
    if finding.remedy:
        yield f'<p class="remedy">{_prose(finding.remedy)}</p>'
    yield from _pictures(album.of(finding))
    if len(finding.cases) > 1:
        names = ", ".join(escape(name) for name in finding.cases[:_MOST_NAMES])
        more = f" and {len(finding.cases) - _MOST_NAMES} more" if len(finding.cases) > _MOST_NAMES else ""
        yield f"<details><summary>{len(finding.cases)} cases</summary><p>{names}{more}</p></details>"
    yield "</article>\n"


def _prose(text: str) -> str:
    """Escaped, what stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _pictures(pictures: Sequence[Thumbnail]) -> Iterator[str]:
    if not pictures:
        return
    yield '<div class="pictures">'
    for one in pictures:
        split = "" if one.split == "auto" else f" <span>{escape(one.split)}</span>"
        caption = f"<br>{escape(one.caption)}" if one.caption else ""
        yield (
            f'<figure><label><input type="checkbox"><img src="{one.source}" width="{one.width}" '
            f'height="{one.height}" loading="lazy" alt="{escape(one.case)}, with the outline of its mask"></label>'
            f"<figcaption><b>{escape(one.case)}</b>{split}{caption}</figcaption></figure>"
        )
    yield "</div>"


def _shifts(result: Result) -> Iterator[str]:
    if not result.shifts:
        return
    off = {name for one in result.findings if one.code == "mask-shifted" for name in one.cases}
    yield "<section><h2>Masks against images</h2><div class='shift'>"
    together = result.set_shift
    yield scatter(result.shifts, together if together is not None and is_measured(together) else None, off)
    said = "" if together is None else f"<p>All together: <b>{escape(told(together))}</b>.</p>"
    yield (
        f"<div>{said}<p>Each dot is a mask: how far it lies from where its outline fits the image's edges best. "
        "Blurred edges and few edges scatter the dots; only those that certainly lie elsewhere are marked.</p>"
        "</div>"
    )
    yield "</div></section>\n"


def _tables(result: Result) -> Iterator[str]:
    if result.classes:
        splits = sorted(result.splits, key=lambda split: _split_order((split, 0)))
        yield "<section><h2>Classes</h2><div class='wide'><table><tr><th>class<th>name<th>share of pixels"
        yield "".join(f"<th>{escape(split)} cases" for split in splits) + "</tr>"
        for one in result.classes[: MOST_LISTED + 1]:
            cells = "".join(f"<td>{one.cases.get(split, 0)}" for split in splits)
            yield f"<tr><td>{one.value}<td>{escape(one.name)}<td>{one.share:.2%}{cells}</tr>"
        more = len(result.classes) - MOST_LISTED - 1
        yield "</table></div>" + (f"<p>And {more} more.</p>" if more > 0 else "") + "</section>\n"
    if result.centers:
        yield (
            "<section><h2>Intensities</h2><div class='wide'><table><tr><th>centre<th>cases<th>1st percentile<th>middle"
            "<th>99th percentile</tr>"
        )
        for centre in result.centers:
            yield (
                f"<tr><td>{escape(centre.name) or 'not named'}<td>{centre.cases}<td>{centre.low:g}"
                f"<td>{centre.middle:g}<td>{centre.high:g}</tr>"
            )
        yield "</table></div><p>Medians over the cases, black 0 to white 255.</p></section>\n"


def _sample(album: _Album) -> Iterator[str]:
    pictures = album.sample()
    if pictures:
        yield "<section><h2>A sample, as stored</h2>"
        yield from _pictures(pictures)
        yield "</section>\n"
