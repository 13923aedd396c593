"""How much memory a training step of a recipe takes, measured in a process that may be killed for it.

``python -m medseg_paddle.engine.batch_probe FOLDER`` reads ``recipe.yml`` and ``probe.json`` there and writes
``result.json``. It ends when its standard input does: with the process that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from medseg_paddle.config import load_recipe
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import MedsegError
from medseg_paddle.io.memory import memory_ran_out

RECIPE, ORDER, RESULT = "recipe.yml", "probe.json", "result.json"

_STATUS = Path("/proc/self/status")


def _probe(folder: Path) -> dict[str, Any]:
    """Make a few training steps and say what they took.

    Returns
    -------
    dict
        ``peak`` bytes, ``images_per_second`` after the first step, ``device``, and on a GPU ``free`` bytes of
        its memory before; or ``out_of_memory``.
    """
    recipe, order = load_recipe(folder / RECIPE), json.loads((folder / ORDER).read_text(encoding="utf-8"))
    # What is drawn more often takes no more memory, and only a few images are read.
    dataset = recipe.train_dataset.model_copy(update={"sampling": None})
    recipe = recipe.model_copy(update={"train_dataset": dataset})
    start_paddle()
    import paddle

    from medseg_paddle.engine.data import targets_of
    from medseg_paddle.engine.device import set_training_device
    from medseg_paddle.engine.finders import try_out
    from medseg_paddle.engine.streams import require_stackable, survey, training_stream
    from medseg_paddle.io.cases import load_cases
    from medseg_paddle.io.decoded import DecodedImages

    chosen = set_training_device(recipe)
    free = None if chosen == "cpu" else free_on_gpu(int(chosen.partition(":")[2]))
    _limit_growth(order["limit"])
    cases = load_cases(recipe.train_dataset, recipe.dimensions, recipe.neighbours)
    stream = training_stream(cases, recipe)
    used = {
        stream.case_at(place).id: stream.case_at(place) for place in range(order["steps"] * recipe.batch_size)
    }
    times: list[float] = []

    def hear(_step: int, _loss: float) -> bool:
        times.append(time.perf_counter())
        return True

    try:
        with DecodedImages(recipe.train_dataset.cache_mb << 20) as decoded:
            found = survey(tuple(used.values()), recipe, decoded=decoded, targets=targets_of(recipe))
            require_stackable(recipe, found)
            try_out(
                recipe,
                cases,
                found=found,
                decoded=decoded,
                device=chosen,
                iters=order["steps"],
                told=hear,
                class_weights=(1.0,) * recipe.num_classes,
            )
    except Exception as error:
        if memory_ran_out(error):
            return {"out_of_memory": True, "device": chosen, "free": free}
        raise
    images = recipe.batch_size * (len(times) - 1)
    return {
        "peak": _peak() if chosen == "cpu" else int(paddle.device.cuda.max_memory_reserved()),
        "images_per_second": images / (times[-1] - times[0]),
        "device": chosen,
        "free": free,
    }


def _limit_growth(size: int) -> None:
    """Let no more than `size` bytes be taken from here on, should the one who watches be too slow."""
    found = re.search(r"^VmData:\s+(\d+) kB", _status(), re.MULTILINE)
    if found is not None:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = int(found[1]) * 1024 + size
        resource.setrlimit(
            resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
        )


def _peak() -> int:
    """Most bytes that this process ever held; 0 where nothing says so."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", _status(), re.MULTILINE)
    return 0 if found is None else int(found[1]) * 1024


def _status() -> str:
    try:
        return _STATUS.read_text(encoding="ascii")
    except OSError:
        return ""


def free_on_gpu(number: int) -> int | None:
    """Bytes of a GPU's memory that are free, as `nvidia-smi` tells them; None where it does not.

    Parameters
    ----------
    number : int
        As Paddle counts: those that ``CUDA_VISIBLE_DEVICES`` names, from 0; `nvidia-smi` counts all.
    """
    tool = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if visible is None else [name.strip() for name in visible.split(",")]
    if tool is None or (names is not None and number >= len(names)):
        return None
    name = str(number) if names is None else names[number]
    words = [tool, f"--id={name}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return int(said) << 20 if said.isdigit() else None


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def main(folder: Path) -> None:
    """Measure, and write what was found or what was wrong."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(
        OSError
    ):  # where memory runs out, the system shall end this process and no other
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        result = _probe(folder)
    except MedsegError as error:
        result = {"error": [type(error).__name__, error.message, error.hint]}
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
