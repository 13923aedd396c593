"""How fast `medseg prepare` writes many small pictures, with one process and with several, and what memory it takes.

    python benchmarks/prepare.py --images 5000 --size 256 --workers 1 2

Pictures are noise with a disc, grey PNGs with label PNGs; they are made in a temporary folder and removed. Memory is
the greatest resident set of the program and, apart, of its largest worker process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.io.images import write_image, write_label
from medseg_paddle.steps.dataset import write_dataset

RULES = {
    "sets": [{"images": "images/*", "labels": "labels/*"}],
    "label_map": {0: 0, 255: 1},
    "val_fraction": 0.1,
}


def make(root: Path, images: int, size: int) -> None:
    """Write the pictures to prepare."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    noise = rng.integers(0, 120, (size, 2 * size), dtype=np.uint8)
    for number in range(images):
        row, column, start = (int(one) for one in rng.integers(size // 4, 3 * size // 4, 3))
        disc = ((rows - row) ** 2 + (columns - column) ** 2 < (size // 6) ** 2).astype(np.uint8)
        picture = noise[:, start : start + size] + 100 * disc
        write_image(root / "images" / f"{number:05d}.png", picture, flush=False)
        write_label(root / "labels" / f"{number:05d}.png", disc * 255, flush=False)


def measure(source: Path, destination: Path, workers: int) -> None:
    """Prepare once and print what it took."""
    started = time.perf_counter()
    manifest = write_dataset(
        PrepareSpec.model_validate(RULES),
        source=source,
        destination=destination,
        labels=LabelSet.generic(2),
        name="noise",
        workers=workers,
    )
    seconds = time.perf_counter() - started
    images = sum(map(len, manifest.splits.values()))
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{workers} process(es): {images} images in {seconds:.1f} s, {2 * images / seconds:.0f} files/s; "
        f"at most {own:.0f} MiB, a worker {children:.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Measure each number of workers in a program of its own, whose memory is then its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root / "in", options.images, options.size)
        for workers in options.workers:
            work = fresh.Process(target=measure, args=(root / "in", root / f"out{workers}", workers))
            work.start()
            work.join()
            if work.exitcode:
                sys.exit(work.exitcode)


if __name__ == "__main__":
    main()
