"""The data doctor's findings as a table for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from medseg_paddle.core.text import visible
from medseg_paddle.steps.check import Finding, Result, Severity
from medseg_paddle.steps.check.displacement import told
from medseg_paddle.steps.check.labels import MOST_LISTED

_SIGNS = {
    Severity.ERROR: Text("error", style="bold red"),
    Severity.WARNING: Text("warning", style="bold yellow"),
    Severity.NOTE: Text("note", style="cyan"),
}
_MOST_CASES = 5


def check_table(result: Result) -> RenderableType:
    """Lay out what was found: one row each, its remedy beneath it, then classes and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in result.findings:
        message = visible(f"  {finding.message}")
        table.add_row(_SIGNS[finding.severity], Text.assemble((finding.code, "bold"), message))
        if finding.cases and (cases := _cases(finding)):
            table.add_row("", Text(visible(cases), style="dim"))
        if finding.remedy:
            table.add_row("", Text(visible(f"→ {finding.remedy}"), style="italic"))
    parts: list[RenderableType] = [table] if result.findings else []
    return Group(*parts, *_summary(result), _verdict(result))


def _cases(finding: Finding) -> str:
    unsaid = [name for name in finding.cases if name not in finding.message]
    more = f" and {len(unsaid) - _MOST_CASES} more" if len(unsaid) > _MOST_CASES else ""
    return f"{', '.join(unsaid[:_MOST_CASES])}{more}"


def _summary(result: Result) -> list[RenderableType]:
    counted = ", ".join(f"{count} {split}" for split, count in result.splits.items())
    lines = [f" cases: {counted or 'none'}"]
    foreground = [one for one in result.classes if one.value and one.name != "left out"]
    if foreground:
        shares = ", ".join(f"{one.name} {one.share:.2%}" for one in foreground[:MOST_LISTED])
        more = f" and {len(foreground) - MOST_LISTED} more" if len(foreground) > MOST_LISTED else ""
        lines.append(f" share of the pixels: {shares}{more}")
    for one in result.centers:
        name = f" of {one.name}" if one.name else ""
        lines.append(f" intensities{name}: {one.low:.0f} to {one.high:.0f} of 255, middle {one.middle:.0f}")
    if result.set_shift is not None:
        lines.append(f" masks against images: {told(result.set_shift)}")
    return [Text(visible(line)) for line in lines]


def _verdict(result: Result) -> Text:
    errors, warnings = (result.count(one) for one in (Severity.ERROR, Severity.WARNING))
    took = f"  ({result.seconds:.0f} s)"
    if errors:
        return Text(f" {errors} to mend before training, {warnings} to look at{took}", style="bold red")
    if warnings:
        return Text(f" {warnings} to look at{took}", style="bold yellow")
    return Text(f" nothing wrong found{took}", style="bold green")
