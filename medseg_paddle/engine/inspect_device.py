"""What Paddle and its companions say about this machine, asked in a process of its own.

A Paddle that does not fit the machine does not raise: it dies of an illegal instruction or hangs in a
driver. Asked in a child process, that is a finding and not the end of the one who asks.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

PADDLESEG_VERSION = "2.8.0"
"""The only version the adapter is written for; not in the package's metadata, see tools/build_backend."""

_MARK = "medseg-inspection:"


@dataclass(frozen=True)
class Inspection:
    """What the child process found.

    Attributes
    ----------
    versions : dict
        Version of each library that could be imported.
    failures : dict
        For each that could not: the error's last line.
    cuda : str
        CUDA version Paddle is compiled for, ``""`` for a CPU build.
    gpus : tuple of str
        Names of the devices Paddle sees.
    threads : str
        Threads the maths libraries use.
    mkl_kernels : str
        ``MKL_DEBUG_CPU_TYPE`` as Paddle sees it, ``""`` where unset.
    convolution : str
        ``"cpu"`` or ``"gpu"`` where a small convolution and its gradient came out right there;
        otherwise what went wrong.
    cpu_kernels : str
        oneDNN's version where its convolutions came out right; otherwise why Paddle's kernels are taken.
    """

    versions: dict[str, str]
    failures: dict[str, str]
    cuda: str = ""
    gpus: tuple[str, ...] = ()
    threads: str = ""
    mkl_kernels: str = ""
    convolution: str = "not tried"
    cpu_kernels: str = ""


def inspect_device(timeout: float = 120) -> Inspection:
    """Import Paddle, PaddleSeg and VisualDL in a child process and try a small convolution.

    Parameters
    ----------
    timeout : float
        Seconds until a silent child is given up.
    """
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Inspection({}, {"paddle": f"no answer within {timeout:.0f} s"})
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            found = json.loads(line.removeprefix(_MARK))
            return Inspection(**{**found, "gpus": tuple(found["gpus"])})
    death = f"died of signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return Inspection({}, {"paddle": f"{death}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"})


def _inspect() -> Inspection:
    import os

    from medseg_paddle.engine import cpu

    cpu.apply_defaults()
    versions: dict[str, str] = {}
    failures: dict[str, str] = {}
    for name in ("paddle", "paddleseg", "visualdl"):
        try:
            versions[name] = str(importlib.import_module(name).__version__)
        except Exception as error:  # noqa: BLE001  (whatever stops an import is the finding)
            failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    settings: dict[str, Any] = {
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "mkl_kernels": os.environ.get("MKL_DEBUG_CPU_TYPE", ""),
    }
    if "paddle" not in versions:
        return Inspection(versions, failures, **settings)

    import paddle

    cuda = str(paddle.version.cuda()) if paddle.is_compiled_with_cuda() else ""
    gpus: tuple[str, ...] = ()
    if cuda:
        gpus = tuple(paddle.device.cuda.get_device_name(n) for n in range(paddle.device.cuda.device_count()))
    return Inspection(
        versions,
        failures,
        cuda,
        gpus,
        convolution=_try_convolution("gpu" if gpus else "cpu"),
        cpu_kernels=_try_cpu_kernels(),
        **settings,
    )


def _try_convolution(device: str) -> str:
    """A 3x3 convolution of ones over ones: 9 in the middle, 4 in the corners, gradient 4 to 9 likewise."""
    import paddle

    try:
        paddle.set_device(device)
        layer = paddle.nn.Conv2D(1, 1, 3, padding=1, bias_attr=False)
        layer.weight.set_value(paddle.ones([1, 1, 3, 3]))
        image = paddle.ones([1, 1, 5, 5])
        image.stop_gradient = False
        result = layer(image)
        result.sum().backward()
        values = [float(t[0, 0, row, row]) for t in (result, image.grad) for row in (0, 2)]
    except Exception as error:  # noqa: BLE001  (Paddle raises many kinds; each is the finding)
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return device if values == [4, 9, 4, 9] else f"wrong result {values} on {device}"


def _try_cpu_kernels() -> str:
    import paddle

    from medseg_paddle.engine.onednn import Unavailable, accelerate, version

    paddle.set_device("cpu")
    try:
        accelerate(paddle.nn.Conv2D(1, 1, 3))
    except Unavailable as reason:
        return f"Paddle ({reason})"
    return f"oneDNN {version()}"


if __name__ == "__main__":
    print(_MARK + json.dumps(asdict(_inspect())))  # noqa: T201  (the answer to the parent process)
