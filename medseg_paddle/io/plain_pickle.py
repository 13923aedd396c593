"""Pickled numbers, read without running what a pickle may hold besides.

Paddle's ``.pdparams`` and ``.pdopt`` files are pickles. Who unpickles a file runs whatever its author wrote into it.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from medseg_paddle.errors import ModelError

# What numbers, texts, their containers and numpy's arrays are made of, in files of this numpy and of earlier ones.
_HARMLESS = frozenset(
    {
        ("builtins", "tuple"),
        ("__builtin__", "tuple"),  # its name up to protocol 2
        ("collections", "OrderedDict"),
        ("_codecs", "encode"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        *(
            (f"numpy.{core}.{module}", name)
            for core in ("core", "_core")
            for module, name in (
                ("multiarray", "_reconstruct"),
                ("multiarray", "scalar"),
                ("numeric", "_frombuffer"),
            )
        ),
    }
)


class _Reader(pickle.Unpickler):
    def __init__(self, stream: Any, path: Path) -> None:
        super().__init__(stream, encoding="latin1")  # as Paddle, for files of Python 2
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise ModelError(
                f"{self._path} is not loaded: it holds more than numbers ({module}.{name}), which would be run",
                hint="take weights from whom you trust, saved as a state dict: `paddle.save(model.state_dict(), ...)`",
            )
        return super().find_class(module, name)


def load_plain(path: Path) -> Any:
    """What a file holds: numbers, texts, arrays of numpy, and lists, tuples and dicts of them.

    Raises
    ------
    ModelError
        It holds something else.
    OSError
        It cannot be read. Of a damaged file, whatever pickle raises.
    """
    with path.open("rb") as stream:
        return _Reader(stream, path).load()
