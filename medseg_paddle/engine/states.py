"""What a checkpoint holds, as plain arrays that can be compared without Paddle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.engine.models import load_paddle_file

_WEIGHTS, _OPTIMIZER = "*.pdparams", "*.pdopt"


def arrays_in(checkpoint: Path) -> dict[str, NDArray[Any]]:
    """Every array and number of a checkpoint: weights in the order of the layers, then the optimiser's state.

    Parameters
    ----------
    checkpoint : Path
        Folder, or one file of weights.

    Returns
    -------
    dict
        Name to array; names of the optimiser's begin with ``optimizer: ``, those of a moving average with the
        name of its file.
    """
    if checkpoint.is_file():
        return dict(_arrays(load_paddle_file(checkpoint), ""))
    found: dict[str, NDArray[Any]] = {}
    for pattern in (_WEIGHTS, _OPTIMIZER):
        for path in sorted(checkpoint.glob(pattern), reverse=True):  # the model before its moving average
            prefix = (
                "optimizer: " if pattern == _OPTIMIZER else ("" if path.stem == "model" else f"{path.stem}: ")
            )
            found.update(_arrays(load_paddle_file(path), prefix))
    return found


def _arrays(state: Any, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield from _arrays(value, f"{name}{key}" if not name or name.endswith(": ") else f"{name}.{key}")
    elif isinstance(state, (np.ndarray, bool, int, float)):
        yield name, np.asarray(state)
