#!/usr/bin/env python3
"""Time the loading of augmented images: PyTorch with OpenCV, PaddleSeg, and ours, on the same images.

Each contender runs in a process of its own and loads some batches when it is its turn, in rounds of alternating
order, so that a noisy neighbour disturbs all alike. Ratios are taken within a round, against the first
contender; the tables give their median and range. Rounds in which other processes were busy are left out.

The images are photo-like PNGs that the script draws, or, with --images, all pictures of a folder with a label
of the same name in --labels. What the contenders make of them must have the same mean and spread.

    python benchmarks/loader.py --torch-python PATH/TO/ENVIRONMENT/bin/python --output results.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from loader_contenders import SIZE, seconds_used
from rounds import Process, take_turns

CONTENDERS = {  # name: kind, whether images are decoded once
    "PyTorch": ("PyTorch", False),
    "PyTorch, images in memory": ("PyTorch", True),
    "PaddleSeg": ("PaddleSeg", False),
    "medseg-paddle": ("medseg-paddle", True),
    "medseg-paddle, cache_mb: 0": ("medseg-paddle", False),
}
_SETTLE_S = 0.4  # processes load what they may load ahead
_TOLERANCE = 0.2  # of mean and spread, relative to the spread: the transforms draw for themselves


def draw_images(folder: Path, count: int) -> list[tuple[str, str]]:
    """Smooth blobs, edges and grain: PNGs that compress as photographs do, each with a label."""
    pairs = []
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = np.zeros((SIZE, SIZE, 3), np.float32)
        for scale, strength in ((4, 60), (16, 40), (64, 16), (256, 7)):
            rough = rng.standard_normal((scale, scale, 3)).astype(np.float32)
            picture += strength * cv2.resize(rough, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        picture += 3 * rng.standard_normal(picture.shape, dtype=np.float32) + 120
        label = np.zeros((SIZE, SIZE), np.uint8)
        centre = [int(value) for value in rng.integers(SIZE // 4, 3 * SIZE // 4, 2)]
        cv2.ellipse(label, centre, (SIZE // 6, SIZE // 9), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        picture[label == 1] += 40
        pair = folder / f"image{number}.png", folder / f"label{number}.png"
        for path, array in zip(pair, (np.clip(picture, 0, 255).astype(np.uint8), label), strict=True):
            cv2.imwrite(str(path), array)
        pairs.append((str(pair[0]), str(pair[1])))
    return pairs


def found_images(images: Path, labels: Path) -> list[tuple[str, str]]:
    """Pictures and labels of the same name."""
    pairs = [(path, labels / f"{path.stem}.png") for path in sorted(images.iterdir())]
    return [(str(image), str(label)) for image, label in pairs if label.is_file()]


def start(contender: str, job: dict[str, Any], options: argparse.Namespace) -> Process:
    """The contender, with its images found."""
    kind, cached = CONTENDERS[contender]
    python = options.torch_python if kind == "PyTorch" else sys.executable
    return Process(
        contender,
        [python, str(Path(__file__).with_name("loader_contenders.py"))],
        {**job, "kind": kind, "cached": cached},
        settle_s=_SETTLE_S,
        verbose=options.verbose,
    )


def load(process: Process, batches: int) -> tuple[tuple[float, float], float]:
    """Seconds and seconds of processor time, and cores that others used meanwhile."""
    answer, others = process.ask(batches, seconds_used)
    return (answer["seconds"], answer["used"]), others


@dataclass(frozen=True)
class Row:
    """What was measured of one contender."""

    contender: str
    version: str
    images_per_second: float
    speed: float
    speed_least: float
    speed_most: float
    core_ms_per_image: float


def compare(job: dict[str, Any], options: argparse.Namespace) -> tuple[list[Row], int, list[str]]:
    """Rows, rounds that counted, and what went wrong."""
    processes, troubles = [], []
    try:
        for contender in options.contenders:
            try:
                processes.append(start(contender, job, options))
            except (OSError, RuntimeError) as error:
                troubles.append(str(error))
        first = processes[0]
        troubles += [trouble for process in processes[1:] for trouble in differences(process, first)]
        size = job["batch"] or 1
        batches = max(1, options.load // size)
        rounds = take_turns(
            processes,
            lambda process: load(process, batches),
            rounds=options.rounds,
            attempts=options.attempts,
            busy=options.busy,
        )
    finally:
        for process in processes:
            process.end()
    images = batches * size
    return [_row(process, first, rounds, images) for process in processes if rounds], len(rounds), troubles


def differences(process: Process, first: Process) -> list[str]:
    """Where the images of two contenders are not alike."""
    theirs, ours = first.facts, process.facts
    limit = _TOLERANCE * theirs["deviation"]
    alike = (
        abs(ours["mean"] - theirs["mean"]) <= limit
        and abs(ours["deviation"] - theirs["deviation"]) <= limit
        and ours["values"] == theirs["values"]
        and abs(ours["foreground"] - theirs["foreground"]) <= 0.3 * theirs["foreground"]
    )
    return [] if alike else [f"{process.contender} loads other images: {ours}, {first.contender}: {theirs}"]


def _row(process: Process, first: Process, rounds: list[dict[str, tuple[float, float]]], images: int) -> Row:
    name = process.contender
    speeds = [times[first.contender][0] / times[name][0] for times in rounds]
    return Row(
        name,
        process.facts["version"],
        images / statistics.median(times[name][0] for times in rounds),
        statistics.median(speeds),
        min(speeds),
        max(speeds),
        1e3 * statistics.median(times[name][1] for times in rounds) / images,
    )


def steps(job: dict[str, Any], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds of each step, of those contenders that can be taken apart."""
    found = {}
    for contender in ("PyTorch", "medseg-paddle"):
        if contender in options.contenders:
            process = start(contender, {**job, "steps": True}, options)
            found[contender] = process.facts["steps"]
            process.end()
    return found


def measure(
    pairs: list[tuple[str, str]], folder: str, options: argparse.Namespace
) -> tuple[dict[str, Any], bool]:
    """All tables, printed as they come, and whether something failed."""
    results: dict[str, Any] = {}
    failed = False
    job = {"pairs": pairs, "folder": folder, "steps": False, "batch": options.batch}
    for workers in options.workers:
        for batch in (options.batch, None):
            rows, rounds, troubles = compare({**job, "workers": workers, "batch": batch}, options)
            title = f"{workers} processes, " + (f"batches of {batch}" if batch else "one by one")
            print(f"\n{title}: {rounds} undisturbed rounds\n")
            print("| | images/s | speed, first = 1 (range) | core ms per image |\n|---|---:|---:|---:|")
            for row in rows:
                print(
                    f"| {row.contender} | {row.images_per_second:.0f} | {row.speed:.2f} ({row.speed_least:.2f} to "
                    f"{row.speed_most:.2f}) | {row.core_ms_per_image:.2f} |"
                )
            for trouble in troubles:
                print(f"! {trouble}")
            sys.stdout.flush()
            failed |= bool(troubles) or not rows
            results[title] = {"rounds": rounds, "rows": [vars(row) for row in rows], "troubles": troubles}
    results["steps"] = steps({**job, "workers": 0}, options)
    print("\nmilliseconds of each step on one core\n")
    for contender, times in results["steps"].items():
        print(f"| {contender} | ms |\n|---|---:|")
        print("\n".join(f"| {name} | {time:.2f} |" for name, time in times.items()) + "\n")
    return results, failed


def main() -> int:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--torch-python", default=sys.executable, help="Python of an environment with PyTorch and OpenCV"
    )
    parser.add_argument(
        "--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, help="first: the reference"
    )
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2], help="processes that load")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch")
    parser.add_argument("--count", type=int, default=120, help="images to draw")
    parser.add_argument("--images", type=Path, help="folder of pictures, in place of drawn ones")
    parser.add_argument("--labels", type=Path, help="folder of their labels, 0 and 1, PNGs of the same names")
    parser.add_argument("--load", type=int, default=96, help="images of each contender in a round")
    parser.add_argument("--rounds", type=int, default=7, help="undisturbed rounds to measure")
    parser.add_argument("--attempts", type=int, default=14, help="most rounds")
    parser.add_argument(
        "--busy", type=float, default=0.3, help="cores that others may use in a round that counts"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--verbose", action="store_true", help="show what the contenders print")
    options = parser.parse_args()
    if (options.images is None) != (options.labels is None):
        parser.error("--images needs --labels")
    with tempfile.TemporaryDirectory() as folder:
        pairs = (
            found_images(options.images, options.labels)
            if options.images
            else draw_images(Path(folder), options.count)
        )
        results, failed = measure(pairs, folder, options)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
