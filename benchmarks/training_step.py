#!/usr/bin/env python3
"""Time a training step of U-Nets on the CPU: PyTorch, Paddle as it comes, Paddle with our settings, and ours.

Each contender runs in a process of its own and trains a few steps when it is its turn, in rounds of alternating
order, so that a noisy neighbour disturbs all alike. Ratios are taken within a round, against PyTorch; the table
gives their median and range. Rounds in which other processes were busy are left out.

All start from the same weights with the same images; their first losses must agree.

    python benchmarks/training_step.py --torch-python PATH/TO/ENVIRONMENT/bin/python --output results.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import MARK
from networks import NETWORKS

CONTENDERS = ("PyTorch", "PyTorch, compiled", "Paddle, as it comes", "Paddle, our settings", "medseg-paddle")
_LOSS_TOLERANCE = 0.02  # relative; rounding grows over the steps
_BUSY = 0.3
_SETTLE_S = 0.3  # threads of the last process stop spinning


class Process:
    """A contender at work."""

    def __init__(self, contender: str, network: str, options: argparse.Namespace) -> None:
        self.contender = contender
        python = options.torch_python if contender.startswith("PyTorch") else sys.executable
        job = {"contender": contender, "network": network, "threads": options.threads}
        settings = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("contenders.py")), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if options.verbose else subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in settings},
            text=True,
        )
        self.facts = self._answer()

    def train(self, steps: int) -> tuple[float, float]:
        """Seconds per step, and cores that others used meanwhile."""
        time.sleep(_SETTLE_S)
        before, own, start = machine_seconds(), self._seconds(), time.perf_counter()
        print(steps, file=self._process.stdin, flush=True)
        answer = self._answer()
        span = time.perf_counter() - start
        others = (machine_seconds() - before) - (self._seconds() - own)
        self.facts["peak_mb"] = answer["peak_mb"]
        return statistics.median(answer["seconds"]), max(0.0, others / span)

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

    def _seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> float:
    """Processor time that the machine has spent on anything."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """What was measured of one contender."""

    contender: str
    version: str
    steps_per_second: float
    speed: float
    speed_least: float
    speed_most: float
    peak_mb: float
    memory: float


def compare(network: str, options: argparse.Namespace) -> tuple[list[Row], int, list[str]]:
    """Rows, rounds that counted, and what went wrong; the first contender is the reference."""
    processes, troubles = [], []
    for contender in options.contenders:
        try:
            processes.append(Process(contender, network, options))
        except (OSError, RuntimeError) as error:
            if not processes:
                raise SystemExit(f"the reference does not run: {error}") from error
            troubles.append(str(error))
    try:
        first = processes[0]
        for process in processes[1:]:
            for ours, theirs in zip(process.facts["losses"], first.facts["losses"], strict=True):
                if not abs(ours - theirs) <= _LOSS_TOLERANCE * abs(theirs):
                    troubles.append(
                        f"{process.contender}: loss {ours:.5f}, {first.contender}'s is {theirs:.5f}"
                    )
        rounds: list[dict[str, float]] = []
        for number in range(options.attempts):
            order = processes if number % 2 == 0 else processes[::-1]
            measured = {process.contender: process.train(options.steps) for process in order}
            if max(others for _, others in measured.values()) <= _BUSY:
                rounds.append({contender: seconds for contender, (seconds, _) in measured.items()})
            if len(rounds) == options.rounds:
                break
    finally:
        for process in processes:
            process.end()
    return [_row(process, first, rounds) for process in processes if rounds], len(rounds), troubles


def _row(process: Process, first: Process, rounds: list[dict[str, float]]) -> Row:
    speeds = [times[first.contender] / times[process.contender] for times in rounds]
    return Row(
        process.contender,
        process.facts["version"],
        1 / statistics.median(times[process.contender] for times in rounds),
        statistics.median(speeds),
        min(speeds),
        max(speeds),
        process.facts["peak_mb"],
        process.facts["peak_mb"] / first.facts["peak_mb"],
    )


def main() -> int:
    """Measure, print a table for each network, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch-python", metavar="PYTHON", help="Python of an environment with PyTorch")
    parser.add_argument(
        "--networks", nargs="+", default=list(NETWORKS), metavar="PART", help="parts of names"
    )
    parser.add_argument(
        "--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, help="first: the reference"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="undisturbed rounds to measure")
    parser.add_argument("--attempts", type=int, default=14, help="most rounds")
    parser.add_argument("--steps", type=int, default=2, help="timed steps per round, after one untimed")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--verbose", action="store_true", help="show what the contenders print")
    options = parser.parse_args()
    if options.torch_python is None and any(name.startswith("PyTorch") for name in options.contenders):
        parser.error("--torch-python is needed for PyTorch; or name other --contenders")
    results, failed = {}, False
    for network in NETWORKS:
        if not any(part in network for part in options.networks):
            continue
        rows, rounds, troubles = compare(network, options)
        print(f"\n{network}: {options.threads} threads, {rounds} undisturbed rounds\n")
        print(f"| | steps/s | speed, {options.contenders[0]} = 1 (range) | peak memory, MB |")
        print("|---|---:|---:|---:|")
        for row in rows:
            print(
                f"| {row.contender} | {row.steps_per_second:.2f} | {row.speed:.2f} ({row.speed_least:.2f} to "
                f"{row.speed_most:.2f}) | {row.peak_mb:.0f} ({row.memory:.2f}) |"
            )
        for trouble in troubles:
            print(f"! {trouble}")
        sys.stdout.flush()
        failed |= any("loss" in trouble for trouble in troubles) or not rows
        results[network] = {"rounds": rounds, "rows": [vars(row) for row in rows], "troubles": troubles}
        if options.output:
            options.output.write_text(json.dumps(results, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
