"""Tables for people: complete, at the width of a small terminal."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from medseg_paddle.cli.check_table import check_table
from medseg_paddle.cli.tables import score_table
from medseg_paddle.core import LabelSet
from medseg_paddle.metrics.overlap import METRICS, CaseCounts
from medseg_paddle.metrics.report import Report
from medseg_paddle.steps.check import Result
from medseg_paddle.steps.check.findings import Centre, error


def test_scores_of_every_class_are_whole_on_80_columns(capsys):
    truth = np.zeros((10, 10), np.uint8)
    truth[:2], truth[2:4] = 1, 2
    counts = {}
    for case, shift in (("a", 0), ("b", 1)):
        counts[case] = CaseCounts(3)
        counts[case].add(truth, np.roll(truth, shift, axis=0), None, None)
    report = Report.from_counts(
        counts, LabelSet.from_names(("background", "tumour", "a_structure_with_a_long_name"))
    )
    Console(width=80).print(score_table(report))
    lines = capsys.readouterr().out.splitlines()
    assert not any("…" in line for line in lines)
    for metric in METRICS:
        assert sum(metric in line.split() for line in lines) == 3
    dice = next(line for line in lines if line.startswith(" tumour")).split()
    assert dice == ["tumour", "dice", "0.7500", "0.3536", "0.7500", "2"]


def test_names_that_a_terminal_would_obey_are_spelt_out(capsys):
    name = "a\x1b[31mred"
    finding = error("constant-image", f"{name} is empty", f"look at {name}", ["b\x1b]0;title\x07"])
    result = Result("data", "lists", {name: 1}, (finding,), (), (Centre(name, 1, 0, 1, 2),), None, {}, 0)
    Console(width=80).print(check_table(result))
    told = capsys.readouterr().out
    assert told.count("a\\x1b[31mred") == 4
    assert "\x1b" not in told
    assert "\x07" not in told
