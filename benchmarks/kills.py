#!/usr/bin/env python3
"""Kill trainings again and again, go on, and compare with one that was never stopped.

    python benchmarks/kills.py --minutes 10 --seed 1

Each training is a process of its own that is ended by SIGKILL: at a random moment, while it writes a checkpoint, or
right before one of its file operations. It is started anew, with `--resume`, until it is finished. Then the files of
its last and best checkpoints, its validations, the points of its curves and the lines of its log must be those of the
training that was never stopped; only what is measured in seconds may differ. The network has dropout, and a moving
average; some trainings have a learning rate that follows the scores, and stop early; others mix images.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RECIPE = """\
name: discs
labels: [background, disc]
batch_size: 2
iters: 40
save_interval: 3
log_iters: 4
overlays: 1
model_graph: false
device: cpu
use_ema: true
train_dataset:
  type: OpticDiscSeg
  dataset_root: {root}
  transforms: [{{type: RandomAffinePatch, size: [32, 32], flip_horizontal: 0.5}}, {{type: Normalize}}]
  mode: train
val_dataset:
  type: OpticDiscSeg
  dataset_root: {root}
  transforms: [{{type: Normalize}}]
  mode: val
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01}}
loss:
  types: [{{type: MixedLoss, losses: [{{type: CrossEntropyLoss}}, {{type: DiceLoss}}], coef: [1, 1]}}]
  coef: [1]
model: {{type: ScalableUNet, width: 4, depth: 2, dropout: 0.3}}
"""
KINDS = {
    "plain": [],
    "plateau, early stopping": [
        "lr_scheduler={type: ReduceOnPlateau, learning_rate: 0.02, patience: 1, factor: 0.5}",
        "early_stopping={patience: 6}",
    ],
    "mixed images, foreground, accumulation": [
        "train_dataset.mixup={}",
        "train_dataset.sampling={foreground: 0.5}",
        "gradient_accumulation=2",
    ],
}
_SECONDS = ("Train/images per second", "Train/reader_cost")
_NO_PROGRESS = 40  # kills without a new checkpoint, until it is left alone


def write_data(root: Path) -> None:
    """Noisy pictures, each with a bright disc."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    rows, columns = np.mgrid[:48, :48]
    for split, count in (("train", 5), ("val", 2)):
        lines = []
        for number in range(count):
            centre = rng.integers(12, 36, 2)
            disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 64
            picture = np.clip(80 + 90 * disc + rng.normal(0, 20, (48, 48)), 0, 255).astype(np.uint8)
            name = f"{split}{number}.png"
            Image.fromarray(np.stack([picture] * 3, axis=-1)).save(root / "images" / name)
            Image.fromarray(disc.astype(np.uint8)).save(root / "labels" / name)
            lines.append(f"images/{name} labels/{name}")
        (root / f"{split}_list.txt").write_text("\n".join(lines) + "\n")


def strike_at(operation: int) -> None:
    """Let this process be killed before so many renamings, removals, new folders and flushes of files."""
    count = itertools.count(1)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:
            if next(count) == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*words, **options)

        return call

    for name in ("replace", "rename", "unlink", "mkdir", "rmdir", "fsync", "truncate"):
        setattr(os, name, counted(getattr(os, name)))


def start(recipe: Path, output: Path, overrides: list[str], operation: int = 0) -> int:
    """Train in a process of its own, a fork of this one, which has loaded Paddle and computed nothing; its number.

    It is killed before a file operation, counted from 1.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        said = os.open(output.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        from medseg_paddle.steps.train import train

        strike_at(operation)
        train(recipe, output=output, overrides=overrides, resume=True)
        code = 0
    except BaseException:  # noqa: BLE001  (nothing may leave a fork)
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def ended(process: int) -> int | None:
    """How a process ended, None while it runs."""
    found, status = os.waitpid(process, os.WNOHANG)
    return None if found == 0 else os.waitstatus_to_exitcode(status)


def finish(process: int, output: Path) -> None:
    """Wait for a training that nobody kills."""
    _, status = os.waitpid(process, 0)
    require_success(os.waitstatus_to_exitcode(status), output)


def require_success(code: int, output: Path) -> None:
    """End with what the training said, if it failed."""
    if code:
        sys.exit(f"a training failed ({code}):\n{output.with_suffix('.said').read_text()}")


def kill(process: int, output: Path, when: Callable[[], bool]) -> bool:
    """Kill the training as soon as `when` says so; whether it was there to be killed."""
    while not when():
        code = ended(process)
        if code is not None:
            require_success(code, output)
            return False
        time.sleep(0.0002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def left(run: Path) -> dict[str, Any]:
    """Everything that a finished run must have in common with another one of its recipe."""
    from visualdl import LogReader

    checkpoints = run / "checkpoints"
    found: dict[str, Any] = {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(checkpoints.rglob("*"))
        if path.is_file() and path.suffix in {".pdparams", ".pdopt", ""}
    }
    found["validation.jsonl"] = (run / "validation.jsonl").read_text()
    reader = LogReader(file_path=str(run / "vdlrecords.train.log"))
    for tag in reader.get_tags()["scalar"]:
        points = [(record.id, record.value) for record in reader.get_data("scalar", tag)]
        found[tag] = [step for step, _ in points] if tag in _SECONDS else points
    for tag in reader.get_tags()["image"]:
        found[tag] = [(record.id, record.image) for record in reader.get_data("image", tag)]
    log = (run / "train.log").read_text()
    found["train.log"] = re.findall(r"\[TRAIN\] (epoch: \d+, iter: \S+, loss: \S+, lr: \S+,)", log)
    found["train.log, scores"] = re.findall(r"\[EVAL\].*", log)
    return found


def checkpoint_is_written(run: Path) -> bool:
    """Whether this moment falls into the writing of a checkpoint or of the best weights."""
    folders = (
        run / "checkpoints",
        run / "checkpoints" / "best_model",
        run / "checkpoints" / "ema_best_model",
    )
    for folder in folders:
        try:
            if any(entry.name.endswith(".tmp") for entry in os.scandir(folder)):
                return True
        except OSError:
            continue
    return False


def torment(
    recipe: Path, run: Path, overrides: list[str], draw: random.Random, most: int, length: float
) -> Counter[str]:
    """Train, killed up to `most` times; what the kills fell into."""
    kills: Counter[str] = Counter()
    before, idle = 0, 0
    while True:
        if sum(kills.values()) >= most or idle >= _NO_PROGRESS:
            finish(start(recipe, run, overrides), run)
            return kills
        way = draw.choice(("moment", "checkpoint", "operation"))
        process = start(recipe, run, overrides, draw.randrange(1, 200) if way == "operation" else 0)
        begun, pause, moments = time.monotonic(), draw.uniform(0, length), iter(range(draw.randrange(1, 200)))
        if way == "moment":
            killed = kill(process, run, lambda: time.monotonic() - begun > pause)  # noqa: B023
        elif way == "checkpoint":
            killed = kill(process, run, lambda: checkpoint_is_written(run) and next(moments, None) is None)  # noqa: B023
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            killed = code == -signal.SIGKILL
            require_success(0 if killed else code, run)
        if not killed:
            return kills
        amid = "amid a checkpoint" if checkpoint_is_written(run) else "elsewhere"
        kills["before a file operation" if way == "operation" else amid] += 1
        now = (
            len(re.findall(r"\[TRAIN\]", (run / "train.log").read_text()))
            if (run / "train.log").exists()
            else 0
        )
        idle = 0 if now > before else idle + 1
        before = max(now, before)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="time to spend")
    parser.add_argument("--kills", type=int, default=10**9, help="end after so many")
    parser.add_argument("--per-run", type=int, default=25, help="most kills of one training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    from medseg_paddle.engine.startup import start_paddle

    start_paddle()
    import medseg_paddle.engine.training  # noqa: F401  (loaded once, for all the processes to come)

    total: Counter[str] = Counter()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "discs")
        recipe = folder / "discs.yml"
        recipe.write_text(RECIPE.format(root=folder / "discs"))
        wholes: dict[str, tuple[float, dict[str, Any]]] = {}
        runs = 0
        while (time.monotonic() < end and sum(total.values()) < options.kills) or not runs:
            kind = draw.choice(list(KINDS))
            if kind not in wholes:
                begun, whole = time.monotonic(), folder / f"whole{len(wholes)}"
                finish(start(recipe, whole, KINDS[kind]), whole)
                wholes[kind] = (time.monotonic() - begun, left(whole))
            length, expected = wholes[kind]
            overrides = [*KINDS[kind], f"num_workers={draw.choice((0, 0, 1, 2))}"]
            run = folder / f"run{runs}"
            most = min(options.per_run, options.kills - sum(total.values()))
            total += torment(recipe, run, overrides, draw, most, length)
            found = left(run)
            differing = [
                what for what in expected.keys() | found.keys() if expected.get(what) != found.get(what)
            ]
            if differing:
                what = "\n".join(
                    f"{name}: {expected.get(name)!r:.300} {found.get(name)!r:.300}" for name in differing
                )
                sys.exit(
                    f"seed {options.seed}, training {runs} ({kind}): not as in the one that was not killed:\n{what}"
                )
            runs += 1
    fell = ", ".join(f"{count} {what}" for what, count in total.most_common())
    print(
        f"{runs} trainings, killed {sum(total.values())} times ({fell}): all ended like the one that was not"
    )


if __name__ == "__main__":
    main()
