"""Where the time of a training's iterations goes: Paddle's profiler, its events summed up by operator and by part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paddle
from paddle.base.core import TracerEventType
from paddle.profiler import Profiler, ProfilerTarget

from medseg_paddle.errors import SetupError

_NANO = 1e-9
# Paddle's own names for the parts of a step, recorded by its layers, `backward()`, its optimisers and its loader.
_PARTS = {
    TracerEventType.Dataloader: "loader",
    TracerEventType.Forward: "forward and loss",
    TracerEventType.Backward: "backward",
    TracerEventType.Optimization: "optimiser",
}
_OPERATORS = (TracerEventType.Operator, TracerEventType.PythonOp)
# What Paddle adds to the name of an operator, by the way it was called; and its names of gradients: the gradient of
# an operator `ReluGradNode`, that of a Python function of ours `GradNodePyLayer__Convolve_backward`.
_SUFFIXES = (" dygraph", " compute", " pybind_imperative_func", " infer_meta")
_GRADIENT = re.compile(r"Global_(\w+)GradNode")
_OWN_GRADIENT = re.compile(r"Global_GradNodePyLayer_(\w+)_backward")


@dataclass
class OperatorTime:
    """One operator in the traced iterations.

    Attributes
    ----------
    name : str
    calls : int
    seconds : float
        On the processor, without the operators that it called.
    device_seconds : float
        Of the kernels that it started on a GPU.
    """

    name: str
    calls: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0


@dataclass(frozen=True)
class Traced:
    """What the profiler saw of some iterations.

    Attributes
    ----------
    iterations : int
    seconds : float
        All of them together. Tracing takes time itself: these are longer than others.
    parts : dict
        Seconds by part; the rest is PaddleSeg's loop itself.
    operators : tuple of OperatorTime
        The longest first.
    """

    iterations: int
    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    operators: tuple[OperatorTime, ...] = ()


class Tracer:
    """Paddle's profiler around some iterations; each method is called between two of them."""

    def __init__(self) -> None:
        self._result: Any = None
        targets = [ProfilerTarget.CPU]
        if paddle.is_compiled_with_cuda():
            targets.append(ProfilerTarget.GPU)
        # Without a function of ours it would write files into a folder `profiler_log`.
        self._profiler: Any = Profiler(targets=targets, on_trace_ready=lambda _: None)

    def start(self) -> None:
        """Trace from now on.

        Raises
        ------
        SetupError
            Another profiler of Paddle's is there: a process can have one.
        """
        if self._profiler.profiler is None:
            raise SetupError(
                "Paddle's profiler is in use in this process already",
                hint="end that one, or profile in a process of its own",
            )
        self._profiler.start()

    def step(self) -> None:
        """Note that another iteration begins."""
        self._profiler.step()

    def stop(self) -> Traced:
        """End the tracing; what it saw."""
        self._profiler.stop()
        self._result = self._profiler.profiler_result
        self._profiler = None  # it goes now, and not when Python collects it: until then there is no other
        return summed(self._result.get_data())

    def save(self, path: Path) -> None:
        """Write the events as Chrome's trace format, which chrome://tracing and Perfetto open."""
        self._result.save(str(path), "json")


def summed(trees: dict[int, Any]) -> Traced:
    """Sum up the thread that trains: the one with the profiler's steps in it.

    Parameters
    ----------
    trees : dict
        Thread to the root of its events, as Paddle's profiler gives them.
    """
    steps = [step for root in trees.values() for step in _of_type(root, TracerEventType.ProfileStep)]
    parts = dict.fromkeys(_PARTS.values(), 0.0)
    operators: dict[str, OperatorTime] = {}
    for step in steps:
        _add_parts(step, parts)
        _add_operators(step, operators)
    longest = sorted(operators.values(), key=lambda one: (one.device_seconds, one.seconds), reverse=True)
    return Traced(len(steps), sum(map(_seconds, steps)), parts, tuple(longest))


def _of_type(node: Any, kind: Any) -> Iterator[Any]:
    """The outermost events of a type."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.type == kind:
            yield one
        else:
            waiting.extend(one.children_node)


def _add_parts(step: Any, parts: dict[str, float]) -> None:
    waiting = list(step.children_node)
    while waiting:
        node = waiting.pop()
        part = _PARTS.get(node.type)
        if part is None:
            waiting.extend(node.children_node)
        else:
            parts[part] += _seconds(node)


def _add_operators(step: Any, operators: dict[str, OperatorTime]) -> None:
    waiting: list[tuple[Any, OperatorTime | None]] = [(step, None)]
    while waiting:
        node, inside = waiting.pop()
        if node.type in _OPERATORS:
            name = _plain(node.name)
            operator = operators.setdefault(name, OperatorTime(name))
            if operator is not inside:  # an operator's way through Paddle's layers is one call
                operator.calls += 1
                operator.seconds += _seconds(node)
                if inside is not None:
                    inside.seconds -= _seconds(node)
            inside = operator
        if inside is not None:
            inside.device_seconds += _NANO * sum(
                device.end_ns - device.start_ns for call in node.runtime_node for device in call.device_node
            )
        waiting.extend((child, inside) for child in node.children_node)


def _plain(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    if own := _OWN_GRADIENT.fullmatch(name):
        return f"{own[1]} (Python)"
    if gradient := _GRADIENT.fullmatch(name):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", gradient[1]).lower() + "_grad"
    return name.removeprefix("Global_")


def _seconds(node: Any) -> float:
    return float(node.end_ns - node.start_ns) * _NANO


def gpu_memory() -> tuple[int, int]:
    """Bytes of the GPU in use, and the most that this process ever had allocated on it."""
    return (
        int(paddle.device.cuda.get_device_properties().total_memory),
        int(paddle.device.cuda.max_memory_allocated()),
    )
