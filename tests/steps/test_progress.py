"""Bars and lines: whatever stands in a name is printed as it is."""

from __future__ import annotations

import io
import sys

import pytest

from medseg_paddle.steps.progress import ProgressBar, say, warn

ODD = "br[bold]/c[/y]:cat:[1].png"


class Terminal(io.StringIO):
    """What a terminal shows."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal], ids=["file", "terminal"])
def test_names_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = stream()
    monkeypatch.setattr(sys, "stdout", screen)
    with ProgressBar(f"reading {ODD}", 2) as bar:
        bar.say(f"failed: {ODD}")
        bar.update(1, ODD)
        bar.update(2, f"note {ODD}")
    shown = screen.getvalue()
    for words in (f"reading {ODD}", f"failed: {ODD}", f"note {ODD}"):
        assert words in shown


def test_lines_are_whole_and_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{ODD} " + "x" * 300)
    warn(f"{ODD} is gone")
    said = capsys.readouterr()
    assert said.out == f"{ODD} {'x' * 300}\n"
    assert said.err == f"warning: {ODD} is gone\n"
