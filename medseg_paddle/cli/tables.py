"""Results as tables for a terminal and as JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from medseg_paddle.metrics.overlap import METRICS
from medseg_paddle.metrics.report import Report
from medseg_paddle.steps.batch_find import BatchSearch
from medseg_paddle.steps.doctor import Finding, Status
from medseg_paddle.steps.lr_find import RangeTest

_STATISTICS = ("mean", "SD", "median", "n")  # the order of Report.table_rows, class by class
_RATES_SHOWN = 14
_SIGNS = {
    Status.OK: Text("ok", style="green"),
    Status.WARN: Text("warn", style="bold yellow"),
    Status.BAD: Text("bad", style="bold red"),
}


def score_table(report: Report) -> Table:
    """Lay out a report's summary: a section per class, a row per score, so that it fits 80 columns."""
    rows = report.table_rows()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", style="bold")
    table.add_column("score", no_wrap=True)
    for statistic in _STATISTICS:
        table.add_column(statistic, justify="right", no_wrap=True)
    for first in range(0, len(rows), len(_STATISTICS)):
        name, *_ = rows[first]
        columns = zip(*(row[2:] for row in rows[first : first + len(_STATISTICS)]), strict=True)
        for number, (metric, values) in enumerate(zip(METRICS, columns, strict=True)):
            table.add_row("" if number else name, report.named(metric, metric), *values)
        table.add_section()
    return table


def rates_table(result: RangeTest) -> Table:
    """Lay out a range test of the learning rate: some of its iterations, evenly spread, the first and the last."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("learning rate", "loss", "smoothed"):
        table.add_column(title, justify="right", no_wrap=True)
    last = len(result.rates) - 1
    for place in dict.fromkeys(round(last * part / _RATES_SHOWN) for part in range(_RATES_SHOWN + 1)):
        values = result.losses[place], result.smoothed[place]
        table.add_row(f"{result.rates[place]:.1e}", *(f"{value:.4f}" for value in values))
    return table


def batches_table(found: BatchSearch) -> Table:
    """Lay out which batch sizes were tried, and what each took."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("batch_size", "peak MB", "images/s", "fits"):
        table.add_column(title, justify="right", no_wrap=True)
    for probe in found.probes:
        peak = "-" if probe.peak is None else f"{probe.peak / 1e6:,.0f}"
        speed = "-" if probe.images_per_second is None else f"{probe.images_per_second:.1f}"
        table.add_row(str(probe.batch_size), peak, speed, "yes" if probe.fits else "no")
    return table


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """Lay out the doctor's findings: one row each, its remedy beneath it, a verdict at the end."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, (name, group) in enumerate(groupby(findings, key=lambda finding: finding.group)):
        if number:
            table.add_section()
        table.add_row(Text(name, style="bold"), "", "")
        for finding in group:
            table.add_row(_SIGNS[finding.status], finding.name, Text(finding.value))
            if finding.remedy:
                table.add_row("", "", Text(f"→ {finding.remedy}", style="italic"))
    return Group(table, _verdict(findings))


def findings_json(findings: Sequence[Finding]) -> str:
    """Write the doctor's findings as a JSON list of objects."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _verdict(findings: Sequence[Finding]) -> Text:
    bad = sum(finding.status is Status.BAD for finding in findings)
    warn = sum(finding.status is Status.WARN for finding in findings)
    if bad:
        return Text(f" {bad} to mend before anything runs, {warn} to look at", style="bold red")
    if warn:
        return Text(f" ready; {warn} to look at", style="bold yellow")
    return Text(" ready", style="bold green")
