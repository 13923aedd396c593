"""A contender's process: builds one network in one framework, then trains steps of it when told to.

Started by training_step.py with a JSON job as its argument; reads numbers of steps from standard input, and
answers each with a JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import networks
from rounds import MARK

_STEPS_BEFORE = 3


class Framework:
    """What both frameworks call alike."""

    _f: Any

    def pool(self, axes: int, x: Any) -> Any:
        return (self._f.max_pool2d, self._f.max_pool3d)[axes - 2](x, 2)

    def resize(self, axes: int, x: Any) -> Any:
        return self._f.interpolate(
            x, scale_factor=2, mode=("bilinear", "trilinear")[axes - 2], align_corners=False
        )


class Torch(Framework):
    """PyTorch, eager or compiled."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(job["threads"])
        self._torch, self._nn, self._f = torch, torch.nn, torch.nn.functional
        self._compiled = job["contender"] == "PyTorch, compiled"
        self._bf16 = job["contender"].endswith("bf16")
        self.Module, self.ModuleList, self.Sequential = (
            torch.nn.Module,
            torch.nn.ModuleList,
            torch.nn.Sequential,
        )
        self.version = f"PyTorch {torch.__version__}"

    def relu(self) -> Any:
        return self._nn.ReLU(inplace=True)

    def convolution(self, axes: int, inputs: int, outputs: int, kernel: int, stride: int) -> Any:
        kind = (self._nn.Conv2d, self._nn.Conv3d)[axes - 2]
        return kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)

    def transposed(self, axes: int, inputs: int, outputs: int) -> Any:
        return (self._nn.ConvTranspose2d, self._nn.ConvTranspose3d)[axes - 2](
            inputs, outputs, 2, 2, bias=False
        )

    def norm(self, kind: str, axes: int, channels: int) -> Any:
        if kind == "batch":
            return (self._nn.BatchNorm2d, self._nn.BatchNorm3d)[axes - 2](channels)
        return (self._nn.InstanceNorm2d, self._nn.InstanceNorm3d)[axes - 2](channels, affine=True)

    def concat(self, parts: list[Any]) -> Any:
        return self._torch.cat(parts, dim=1)

    def trainable(self, model: Any) -> list[Any]:
        return list(model.parameters())

    def assign(self, parameter: Any, values: Any) -> None:
        with self._torch.no_grad():
            parameter.copy_(self._torch.from_numpy(values))

    def make_step(self, model: Any, image: Any, label: Any) -> Any:
        x, y = self._torch.from_numpy(image), self._torch.from_numpy(label)
        optimizer = self._torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        if self._compiled:
            model = self._torch.compile(model)

        def step() -> float:
            with self._torch.autocast("cpu", self._torch.bfloat16, enabled=self._bf16):
                logits = model(x)
            loss = self._f.cross_entropy(logits.float(), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return float(loss.detach())

        return step


class Paddle(Framework):
    """PaddlePaddle: as it comes, with this project's settings, and with its operators on oneDNN."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._accelerated = job["contender"].startswith("medseg-paddle")
        self._bf16 = job["contender"].endswith("bf16")
        if job["contender"] != "Paddle, as it comes":
            sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
            from medseg_paddle.engine import cpu

            cpu.apply_defaults(job["threads"])
        import paddle

        paddle.set_device("cpu")
        self._paddle, self._nn, self._f = paddle, paddle.nn, paddle.nn.functional
        self.Module, self.ModuleList, self.Sequential = (
            paddle.nn.Layer,
            paddle.nn.LayerList,
            paddle.nn.Sequential,
        )
        self.version = f"Paddle {paddle.__version__}"

    def relu(self) -> Any:
        return self._nn.ReLU()

    def convolution(self, axes: int, inputs: int, outputs: int, kernel: int, stride: int) -> Any:
        kind = (self._nn.Conv2D, self._nn.Conv3D)[axes - 2]
        return kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias_attr=False)

    def transposed(self, axes: int, inputs: int, outputs: int) -> Any:
        kind = (self._nn.Conv2DTranspose, self._nn.Conv3DTranspose)[axes - 2]
        return kind(inputs, outputs, 2, 2, bias_attr=False)

    def norm(self, kind: str, axes: int, channels: int) -> Any:
        if kind == "batch":
            return (self._nn.BatchNorm2D, self._nn.BatchNorm3D)[axes - 2](channels)
        return (self._nn.InstanceNorm2D, self._nn.InstanceNorm3D)[axes - 2](channels)

    def concat(self, parts: list[Any]) -> Any:
        return self._paddle.concat(parts, axis=1)

    def trainable(self, model: Any) -> list[Any]:
        return [parameter for parameter in model.parameters() if not parameter.stop_gradient]

    def assign(self, parameter: Any, values: Any) -> None:
        parameter.set_value(values)

    def make_step(self, model: Any, image: Any, label: Any) -> Any:
        if self._accelerated:
            from medseg_paddle.engine.onednn import accelerate

            accelerate(model, bf16=self._bf16)
        x, y = self._paddle.to_tensor(image), self._paddle.to_tensor(label).unsqueeze(-1)
        optimizer = self._paddle.optimizer.Momentum(0.01, 0.9, parameters=model.parameters())

        def step() -> float:
            logits = model(x)
            # as PaddleSeg's CrossEntropyLoss does
            logits = logits.transpose([0, *range(2, logits.ndim), 1])
            loss = self._f.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad(set_to_zero=not self._accelerated)  # as our training does
            return float(loss)

        return step


def peak_megabytes() -> float:
    """The most memory that this process ever held."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def main() -> None:
    """Answer the parent's orders."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    job = json.loads(sys.argv[1])
    network = networks.NETWORKS[job["network"]]
    lib = (Torch if job["contender"].startswith("PyTorch") else Paddle)(job)
    model = networks.build(lib, network)
    step = lib.make_step(model, *networks.make_batch(network))
    reply: dict[str, Any] = {"version": lib.version, "losses": [step() for _ in range(_STEPS_BEFORE)]}
    while True:
        print(MARK + json.dumps({**reply, "peak_mb": peak_megabytes()}), file=answers, flush=True)
        order = sys.stdin.readline()
        if not order:
            return
        step()  # wakes threads and caches
        seconds = []
        for _ in range(int(order)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        reply = {"seconds": seconds}


if __name__ == "__main__":
    main()
