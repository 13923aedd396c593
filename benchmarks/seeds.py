"""Scores of one recipe trained from several seeds: each run's mean over its cases, and their mean and SD.

python benchmarks/seeds.py outputs/drive_42 outputs/drive_43 outputs/drive_44
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
from pathlib import Path

from medseg_paddle.core import Split
from medseg_paddle.metrics.report import METRICS
from medseg_paddle.run import Run


def main() -> None:
    """Print a table for docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", choices=["test", "val"], default="test")
    options = parser.parse_args()
    runs = [Run.open(folder) for folder in options.runs]
    split: Split = options.split
    summaries = [
        json.loads((run.evaluation_folder(split) / "summary.json").read_text(encoding="utf-8"))["summary"]
        for run in runs
    ]
    print(f"| {split} | " + " | ".join(f"seed {run.recipe.seed}" for run in runs) + " | mean | SD |")
    print("| --- " * (len(runs) + 3) + "|")
    for label in [name for name in summaries[0] if name != "mean" or len(summaries[0]) > 2]:
        for metric in METRICS:
            if metric not in summaries[0][label]:
                continue
            values = [summary[label][metric]["mean"] for summary in summaries]
            cells = " | ".join(f"{value:.3f}" for value in values)
            mean, sd = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else float("nan")
            print(f"| {label} {metric} | {cells} | {mean:.3f} | {sd:.3f} |")
    for run in runs:
        if not run.provenance.get("resumed"):
            begun = dt.datetime.fromisoformat(run.provenance["started"]).timestamp()
            ended = (run.path / "train.log").stat().st_mtime
            print(f"seed {run.recipe.seed} took {dt.timedelta(seconds=round(ended - begun))}")


if __name__ == "__main__":
    main()
