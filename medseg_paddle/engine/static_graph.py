"""The trained model as a static graph: save, load with Paddle Inference, compare."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import inference, nn
from paddle.static import InputSpec

from medseg_paddle.description import Parity
from medseg_paddle.engine import cpu
from medseg_paddle.errors import ModelError, SetupError
from medseg_paddle.preprocess import Forward, InferencePlan, Preprocessing, segment

_AGAIN = "export the run again with this version of Paddle"
_GPU_MEMORY_MB = 256  # first allocation; Paddle grows it as needed


class _ProbabilityHead(nn.Layer):  # type: ignore[misc]
    """Probabilities of a model that returns a list of logits, the main output first."""

    def __init__(self, model: nn.Layer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: paddle.Tensor) -> paddle.Tensor:
        return F.softmax(self.model(image)[0].astype("float32"), axis=1)


class _MeanHead(nn.Layer):  # type: ignore[misc]
    """Mean of the probabilities of several models, computed one after the other."""

    def __init__(self, models: Sequence[nn.Layer]) -> None:
        super().__init__()
        self.members = nn.LayerList([_ProbabilityHead(model) for model in models])

    def forward(self, image: paddle.Tensor) -> paddle.Tensor:
        total = self.members[0](image)
        for member in self.members[1:]:
            total = total + member(image)
        return total / len(self.members)


def save_static(
    model: nn.Layer | Sequence[nn.Layer], prefix: Path, in_channels: int, dimensions: int = 2
) -> None:
    """Write ``<prefix>.json`` (graph) and ``<prefix>.pdiparams`` (weights).

    The graph takes ``image``, float32 ``[N, C, (D,) H, W]`` with all but C free, and returns the
    probabilities ``[N, K, (D,) H, W]`` float32.

    Parameters
    ----------
    model : nn.Layer or sequence of nn.Layer
        Returns a list of logits; put into evaluation mode. Of several, the graph returns the mean of their
        probabilities.
    prefix : Path
        Path without suffix; its folder exists.
    in_channels : int
        C.
    dimensions : int
        Of space: 2 of pictures, 3 of volumes.

    Raises
    ------
    ModelError
        Paddle wrote no graph or no weights.
    """
    head = _ProbabilityHead(model) if isinstance(model, nn.Layer) else _MeanHead(model)
    head.eval()
    spec = InputSpec([None, in_channels, *[None] * dimensions], "float32", "image")
    paddle.jit.save(paddle.jit.to_static(head, input_spec=[spec], full_graph=True), str(prefix))
    if missing := _missing(prefix):
        raise ModelError(
            f"Paddle {paddle.__version__} wrote no {missing}",
            hint="use the Paddle version that this program's requirements pin (`medseg doctor` names it)",
        )


def graph_files(prefix: Path) -> tuple[Path, Path]:
    """Graph and weights of a prefix, as Paddle 3 names them."""
    return prefix.with_name(f"{prefix.name}.json"), prefix.with_name(f"{prefix.name}.pdiparams")


def load_static(prefix: Path, device: str, *, threads: int) -> Forward:
    """Load a graph that :func:`save_static` wrote into Paddle Inference.

    Parameters
    ----------
    prefix : Path
        Path without suffix.
    device : str
        ``"cpu"``, ``"gpu"`` or ``"gpu:N"``.
    threads : int
        Of the CPU's maths library.

    Returns
    -------
    callable
        Batch ``[N, C, (D,) H, W]`` float32 to probabilities ``[N, K, (D,) H, W]`` float32. Not for several
        threads at once. Raises ModelError if Paddle cannot process a batch.

    Raises
    ------
    ModelError
        The files are missing or not a graph that this Paddle reads.
    SetupError
        A GPU is asked of a Paddle without CUDA.
    """
    graph, weights = graph_files(prefix)
    # Paddle 3.2.2 loads a graph whose weights are missing without a word, and computes with none.
    if missing := _missing(prefix):
        raise ModelError(f"{graph} cannot be loaded: no {missing}", hint=_AGAIN)
    config = inference.Config(str(graph), str(weights))
    config.disable_glog_info()
    if device.startswith("gpu"):
        if not paddle.is_compiled_with_cuda():
            raise SetupError(
                "this Paddle has no GPU support", hint="use device 'cpu', or install paddlepaddle-gpu"
            )
        config.enable_use_gpu(_GPU_MEMORY_MB, int(device.partition(":")[2] or 0))
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(threads)
    try:
        with _threads_kept():
            predictor = inference.create_predictor(config)
        source = predictor.get_input_handle(predictor.get_input_names()[0])
        result = predictor.get_output_handle(predictor.get_output_names()[0])
    except (RuntimeError, ValueError, MemoryError, IndexError) as error:
        raise ModelError(
            f"{graph} cannot be loaded by Paddle {paddle.__version__}: {_reason(error)}",
            hint=_AGAIN,
        ) from error

    def forward(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        source.copy_from_cpu(np.ascontiguousarray(batch, dtype=np.float32))
        try:
            with _threads_kept():
                predictor.run()
        except (RuntimeError, ValueError, MemoryError) as error:
            raise ModelError(
                f"the model cannot process a batch of shape {batch.shape} on {device}: {_reason(error)}",
                hint="if memory ran out, export with `--set inference.mode=tiles`, or predict on the CPU",
            ) from error
        return np.asarray(result.copy_to_cpu(), dtype=np.float32)

    return forward


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """Let the process go on with the threads that it computed with before.

    Paddle Inference (3.2.2) leaves the maths libraries of the whole process at one thread after each batch. What
    is trained after it would take longer, and add in another order. (`test_stock_predictions_leave_it_one` tells when
    this can go.)
    """
    try:
        yield
    finally:
        paddle.base.core.set_num_threads(cpu.maths_threads())


def compare(
    dynamic: Forward,
    static: Forward,
    images: Sequence[NDArray[np.float32]],
    preprocessing: Preprocessing,
    plan: InferencePlan,
) -> Parity:
    """Run two models on the same pictures, by the very path that predicts, and measure the difference.

    Parameters
    ----------
    dynamic, static : callable
        Batch ``[N, C, H, W]`` to probabilities ``[N, K, H, W]``.
    images : sequence of ndarray
        Pictures ``[H, W, C]``, 0..255, of any size.
    preprocessing, plan
        As in the bundle. One batch of two is added to those that the plan makes of each picture.

    Raises
    ------
    ModelError
        The two return different shapes.
    """
    both = _Both(dynamic, static)
    for index, image in enumerate(images):
        segment(both.and_mirrored if index == 0 else both, image, preprocessing, plan)
    return both.parity


def compare_patches(dynamic: Forward, static: Forward, patches: Sequence[NDArray[np.float32]]) -> Parity:
    """Run two 3-D models on the same parts of volumes and measure the difference.

    Parameters
    ----------
    dynamic, static : callable
        Batch ``[N, C, D, H, W]`` to probabilities ``[N, K, D, H, W]``.
    patches : sequence of ndarray
        ``[C, D, H, W]`` as the network takes them. One batch of two is added.

    Raises
    ------
    ModelError
        The two return different shapes.
    """
    both = _Both(dynamic, static)
    for index, patch in enumerate(patches):
        (both.and_mirrored if index == 0 else both)(patch[None])
    return both.parity


class _Both:
    """Two models that answer as one, and how far apart they were."""

    def __init__(self, dynamic: Forward, static: Forward) -> None:
        self._dynamic, self._static = dynamic, static
        self._shapes: dict[tuple[int, ...], None] = {}
        self._largest, self._differing, self._pixels = 0.0, 0, 0

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        expected, found = self._dynamic(batch), self._static(batch)
        if expected.shape != found.shape:
            raise ModelError(
                f"the exported graph returns shape {found.shape}, the trained model {expected.shape}",
                hint="look for parts of the model whose shapes depend on Python values of the first input",
            )
        self._shapes[batch.shape] = None
        # np.maximum, unlike max(), keeps a NaN, and a NaN never passes the tolerance.
        self._largest = float(np.maximum(self._largest, np.abs(expected - found).max()))
        self._differing += int((expected.argmax(axis=1) != found.argmax(axis=1)).sum())
        self._pixels += expected[:, 0].size
        return expected

    def and_mirrored(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """As for a call, after one of a batch of two."""
        one = batch[:1]
        self(np.concatenate([one, one[..., ::-1]]))
        return self(batch)

    @property
    def parity(self) -> Parity:
        """Of all that was asked."""
        return Parity(tuple(self._shapes), self._largest, self._differing / max(self._pixels, 1))


def _missing(prefix: Path) -> str:
    """Names of the graph's files that are not there or empty."""
    return ", ".join(p.name for p in graph_files(prefix) if not p.is_file() or p.stat().st_size == 0)


def _reason(error: BaseException) -> str:
    """Pick the line of Paddle's message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or line.startswith("(")]
    return (named or lines or [type(error).__name__])[0][:300]
