"""Contenders in processes of their own, which take turns. Standard library only: all frameworks' Pythons read it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

MARK = "@@medseg-benchmark@@ "
"""What a contender's answers begin with; the rest of the line is JSON."""

Measure = TypeVar("Measure")


class Process:
    """A contender at work: a script that is given a job, says what it is, and answers each number that it reads."""

    def __init__(
        self,
        contender: str,
        command: Sequence[str],
        job: Mapping[str, Any],
        *,
        settle_s: float,
        verbose: bool,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.contender, self._settle_s = contender, settle_s
        self._process = subprocess.Popen(
            [*command, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self.facts = self._answer()

    def ask(self, number: int, seconds_used: Callable[[int], float]) -> tuple[dict[str, Any], float]:
        """Its answer, and the cores that others used meanwhile; `seconds_used` tells its own time from its number."""
        time.sleep(self._settle_s)
        own = seconds_used(self._process.pid)
        before, start = machine_seconds(), time.perf_counter()
        print(number, file=self._process.stdin, flush=True)
        answer = self._answer()
        span = time.perf_counter() - start
        others = machine_seconds() - before - (seconds_used(self._process.pid) - own)
        return answer, max(0.0, others / span)

    def end(self) -> None:
        """Stop it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=30)

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout or ():
            if line.startswith(MARK):
                return dict(json.loads(line.removeprefix(MARK)))
        raise RuntimeError(f"{self.contender} ended with exit code {self._process.wait()}; try --verbose")


def machine_seconds() -> float:
    """Processor time that the machine has spent on anything."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def take_turns(
    processes: Sequence[Process],
    measure: Callable[[Process], tuple[Measure, float]],
    *,
    rounds: int,
    attempts: int,
    busy: float,
) -> list[dict[str, Measure]]:
    """What was measured of each contender in each undisturbed round; rounds go to and fro.

    Parameters
    ----------
    processes : sequence of Process
    measure : callable
        Lets one work; what counts, and the cores that others used meanwhile.
    rounds, attempts : int
        Undisturbed rounds wanted, and the most that are tried.
    busy : float
        Cores that others may use in a round that counts.
    """
    kept: list[dict[str, Measure]] = []
    for number in range(attempts):
        order = processes if number % 2 == 0 else processes[::-1]
        measured = {process.contender: measure(process) for process in order}
        if max(others for _, others in measured.values()) <= busy:
            kept.append({contender: value for contender, (value, _) in measured.items()})
        if len(kept) == rounds:
            break
    return kept
