"""Events of a profiler, summed up by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import paddle
import pytest
from paddle.base.core import TracerEventType

from medseg_paddle.engine.profiler import Tracer, summed
from medseg_paddle.errors import SetupError


def event(kind: str, name: str, start: int, end: int, *children: SimpleNamespace, kernel: int = 0):
    """An event as Paddle's profiler gives it; times in ms. `kernel` is what it started on a GPU."""
    milli = 1_000_000
    calls = [SimpleNamespace(device_node=[SimpleNamespace(start_ns=0, end_ns=kernel * milli)])]
    return SimpleNamespace(
        type=getattr(TracerEventType, kind),
        name=name,
        start_ns=start * milli,
        end_ns=end * milli,
        children_node=list(children),
        runtime_node=calls if kernel else [],
    )


def test_a_process_has_one_profiler_after_the_other(tmp_path) -> None:
    """Paddle has one in a process, and says so with an AttributeError."""
    done = Tracer()
    done.start()
    (paddle.ones([4]) + 1).numpy()
    assert done.stop().iterations == 1
    again = Tracer()
    again.start()
    with pytest.raises(SetupError, match="in use in this process already"):
        Tracer().start()
    (paddle.ones([4]) + 1).numpy()
    assert "scale" in [one.name for one in again.stop().operators]
    done.save(tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_time_is_summed_by_part_and_each_operator_has_its_own_only() -> None:
    convolution = event("PythonOp", "conv2d (oneDNN)", 22, 32)
    relu = event("OperatorInner", "relu compute", 41, 49, event("Operator", "relu", 41, 48, kernel=3))
    inner = event("Forward", "Conv2D", 20, 35, convolution)
    forward = event("Forward", "UNet", 10, 60, inner, event("Operator", "relu dygraph", 40, 50, relu))
    own = event("PythonOp", "conv2d_grad (oneDNN)", 72, 80)
    backward = event(
        "Backward",
        "Gradient Backward",
        60,
        90,
        event("Operator", "Global_GradNodePyLayer__Convolve_backward", 70, 81, own),
        event("Operator", "Global_Pool2dGradNode", 82, 88),
    )
    step = event(
        "ProfileStep", "ProfileStep#0", 0, 100, event("Dataloader", "reader", 0, 5), forward, backward
    )
    other = event("Operator", "assign", 0, 1000)  # a thread that loads images
    found = summed(
        {1: event("UserDefined", "root", 0, 0, step), 2: event("UserDefined", "root", 0, 0, other)}
    )

    assert (found.iterations, found.seconds) == (1, pytest.approx(0.1))
    assert found.parts == pytest.approx(
        {"loader": 0.005, "forward and loss": 0.05, "backward": 0.03, "optimiser": 0}
    )
    times = {one.name: (one.calls, round(1000 * one.seconds)) for one in found.operators}
    assert times == {
        "conv2d (oneDNN)": (1, 10),
        "relu": (1, 10),
        "_Convolve (Python)": (1, 3),
        "conv2d_grad (oneDNN)": (1, 8),
        "pool2d_grad": (1, 6),
    }
    assert {one.name: one.device_seconds for one in found.operators}["relu"] == pytest.approx(0.003)
