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
import sys
from dataclasses import dataclass
from pathlib import Path

from networks import NETWORKS
from rounds import Process, take_turns

CONTENDERS = ("PyTorch", "PyTorch, compiled", "Paddle, as it comes", "Paddle, our settings", "medseg-paddle")
# Where the processor multiplies matrices in bf16.
IN_BF16 = ("PyTorch, bf16", "medseg-paddle, bf16")
_LOSS_TOLERANCE = 0.02  # relative; rounding grows over the steps
_BUSY = 0.3
_SETTLE_S = 0.3  # threads of the last process stop spinning


def start(contender: str, network: str, options: argparse.Namespace) -> Process:
    """The contender, with its network built."""
    python = options.torch_python if contender.startswith("PyTorch") else sys.executable
    settings = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")
    return Process(
        contender,
        [python, str(Path(__file__).with_name("contenders.py"))],
        {"contender": contender, "network": network, "threads": options.threads},
        settle_s=_SETTLE_S,
        verbose=options.verbose,
        environment={name: value for name, value in os.environ.items() if name not in settings},
    )


def seconds_used(process: int) -> float:
    """Processor time of a process by itself."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(process: Process, steps: int) -> tuple[float, float]:
    """Seconds per step, and cores that others used meanwhile."""
    answer, others = process.ask(steps, seconds_used)
    process.facts["peak_mb"] = answer["peak_mb"]
    return statistics.median(answer["seconds"]), others


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
            processes.append(start(contender, network, options))
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
        rounds = take_turns(
            processes,
            lambda process: train(process, options.steps),
            rounds=options.rounds,
            attempts=options.attempts,
            busy=_BUSY,
        )
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
        "--contenders",
        nargs="+",
        default=list(CONTENDERS),
        choices=(*CONTENDERS, *IN_BF16),
        help="first: the reference",
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
