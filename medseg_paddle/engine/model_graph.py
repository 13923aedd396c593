"""The network's graph for VisualDL, drawn by a process of its own.

VisualDL 2.5.3 reads only Paddle's former program format, which Paddle 3 writes in a process that was
started with ``FLAGS_enable_pir_api=0``; such a process must not export models, so it is not the trainer.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from medseg_paddle.io.files import write_bytes
from medseg_paddle.run import Run

_FILE = "vdlgraph.model.log"


def is_drawn(run_folder: Path) -> bool:
    """Whether the graph is there; a run that was stopped early may lack it."""
    return (run_folder / _FILE).is_file()


def start_drawing(run_folder: Path) -> subprocess.Popen[bytes]:
    """Start the process that draws; it ends by itself, and says in the run's log why if it fails."""
    with Run.open(run_folder).log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(run_folder)],
            env={**os.environ, "FLAGS_enable_pir_api": "0", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the training
        )


def wait(drawing: subprocess.Popen[bytes]) -> None:
    """Let the process end, for a while: a training shall not fail for a picture."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        drawing.wait(timeout=120)


def end(drawing: subprocess.Popen[bytes]) -> None:
    """End the process, if it has not ended."""
    drawing.kill()
    drawing.wait()


def _draw(run_folder: Path) -> None:
    import paddle
    from visualdl import LogWriter

    from medseg_paddle.engine import networks_3d
    from medseg_paddle.engine.models import build_model

    # Paddle need not translate their Python, which asks for no value of a tensor: a third of the time.
    paddle.jit.ignore_module([networks_3d])
    # Paddle 3.2.2's own knows no more of the former program format (tests/engine/test_model_graph.py).
    paddle.nn.functional.sigmoid = _sigmoid
    recipe = Run.open(run_folder).recipe
    model = build_model(recipe)
    model.eval()
    space = [256, 256] if recipe.model.dimensions == 2 else [64, 64, 64]
    shape = [-1, recipe.in_channels, *space]
    # The writer makes an event file too, which would hide the training's own.
    with tempfile.TemporaryDirectory() as scratch, LogWriter(scratch) as writer:
        writer.add_graph(model, [paddle.static.InputSpec(shape, "float32", "image")])
        (drawn,) = Path(scratch).glob("vdlgraph*")
        write_bytes(run_folder / _FILE, drawn.read_bytes())


def _sigmoid(x: Any, name: str | None = None) -> Any:  # noqa: ARG001  (Paddle's signature)
    from paddle.base.layer_helper import LayerHelper

    helper = LayerHelper("sigmoid")
    result = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type="sigmoid", inputs={"X": x}, outputs={"Out": result})
    return result


if __name__ == "__main__":
    _draw(Path(sys.argv[1]))
