"""Files of weights (``.pdparams``), of which nothing but arrays is read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from medseg_paddle.errors import ModelError

# All that Paddle's files of weights name: arrays, and how numpy 1 and 2 make one of bytes.
_OF_ARRAYS = frozenset(
    {
        ("builtins", "tuple"), ("__builtin__", "tuple"), ("collections", "OrderedDict"), ("_codecs", "encode"),
        ("numpy", "ndarray"), ("numpy", "dtype"),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    }
)  # fmt: skip


class _NoArrays(Exception):  # noqa: N818  (it names what was found)
    """The file would call something else."""


class _ArraysOnly(pickle.Unpickler):
    """Looks up nothing but arrays: a pickle may name any function of any module, and have it called."""

    def find_class(self, module: str, name: str) -> Any:
        """See :class:`pickle.Unpickler`."""
        if (module, name) not in _OF_ARRAYS:
            raise _NoArrays(f"{module}.{name}")
        return super().find_class(module, name)


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.pdparams`` file by name.

    Raises
    ------
    ModelError
        The file is missing, damaged or holds something else.
    """
    if not path.is_file():
        raise ModelError(f"checkpoint {path} is not there", hint="give a run that has been trained")
    try:
        with path.open("rb") as stream:
            _ArraysOnly(stream, encoding="latin1").load()
        state = paddle.load(str(path), return_numpy=True)
        return {name: np.asarray(value) for name, value in state.items()}
    except _NoArrays as found:
        raise ModelError(
            f"{path} holds more than weights: it would load {found}, which may run any code; it was not read on",
            hint="get a file that `paddle.save(model.state_dict(), ...)` wrote, from somebody you trust",
        ) from found
    except Exception as error:  # unpickling raises whatever it likes
        raise ModelError(
            f"checkpoint {path} cannot be read ({type(error).__name__})",
            hint="use another checkpoint of the run",
        ) from error
