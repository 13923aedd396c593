#!/usr/bin/env python3
"""Memory and time of a training step: as it is, in parts (gradient_accumulation), with gradient_checkpointing.

Each way trains a few steps in a process of its own; its peak is the most that the process ever held (VmHWM),
libraries and weights included.

    python benchmarks/training_memory.py --batch 8 --size 256
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

WAYS = {
    "as it is": (1, False),
    "gradient_accumulation: 2": (2, False),
    "gradient_accumulation: 4": (4, False),
    "gradient_accumulation: 8": (8, False),
    "gradient_checkpointing": (1, True),
    "gradient_accumulation: 4, gradient_checkpointing": (4, True),
}


def peak_mb() -> float:
    """The most that this process ever held."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def train(options: argparse.Namespace) -> None:
    """Some steps in this process; says what they took as JSON."""
    from medseg_paddle.engine.startup import start_paddle

    start_paddle()
    import numpy as np
    import paddle
    import paddle.nn.functional as F

    from medseg_paddle.engine.accumulation import compute_in_parts
    from medseg_paddle.engine.models import ScalableUNet
    from medseg_paddle.engine.onednn import accelerate
    from medseg_paddle.engine.recomputation import checkpoint_blocks

    parts, blocks = WAYS[options.way]
    paddle.seed(0)
    model = accelerate(ScalableUNet(2, width=options.width, depth=4))
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
    if blocks:
        checkpoint_blocks(model)
    if parts > 1:
        compute_in_parts(model, parts)
    random = np.random.default_rng(0)
    images = paddle.to_tensor(
        random.standard_normal((options.batch, 3, options.size, options.size), np.float32)
    )
    labels = paddle.to_tensor(random.integers(0, 2, (options.batch, options.size, options.size)))
    model.train()
    before, seconds = peak_mb(), []
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        loss = F.cross_entropy(model(images)[0], labels, axis=1)
        loss.backward()
        optimizer.step()
        for parameter in model.parameters():
            parameter.clear_gradient(set_to_zero=False)
        seconds.append(time.perf_counter() - start)
    took = statistics.median(seconds[1:])
    print(json.dumps({"before_mb": before, "peak_mb": peak_mb(), "seconds": took, "loss": float(loss)}))


def main() -> int:
    """Train in each way, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="height and width of the images")
    parser.add_argument("--width", type=int, default=32, help="channels of the first level")
    parser.add_argument("--steps", type=int, default=2, help="timed steps, after one untimed")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        train(options)
        return 0
    print(f"{'way':50} {'peak MB':>8} {'of it before':>13} {'s/step':>8}  loss")
    for way in options.ways:
        numbers = [f"--{key}={getattr(options, key)}" for key in ("batch", "size", "width", "steps")]
        said = subprocess.run(
            [sys.executable, __file__, *numbers, "--way", way],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ,
        ).stdout
        found = json.loads(said.splitlines()[-1])
        print(
            f"{way:50} {found['peak_mb']:8.0f} {found['before_mb']:13.0f} {found['seconds']:8.2f}  {found['loss']:.5f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
