"""Loading Paddle: with the right settings, and without its chatter."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import warnings

from medseg_paddle.engine import cpu
from medseg_paddle.errors import SetupError

# Said at import of Paddle 3.2.2 whenever OMP_NUM_THREADS is above 1. It speaks of builds with OpenBLAS;
# the wheels carry MKL, and one thread would halve the speed.
_CHATTER = ("OMP_NUM_THREADS set to", "PLEASE USE OMP_NUM_THREADS WISELY")


def start_paddle(threads: int | None = None) -> None:
    """Load Paddle with :func:`medseg_paddle.engine.cpu.apply_defaults`; every step's first call.

    Raises
    ------
    SetupError
        Paddle or PaddleSeg is not installed, or cannot be loaded.
    """
    cpu.apply_defaults(threads)
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="When training, we now always track global mean")
    warnings.filterwarnings(
        "ignore", message="Conversion of an array with ndim > 0", category=DeprecationWarning
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            importlib.import_module("paddle")
            importlib.import_module("paddleseg")
    except ImportError as error:
        raise SetupError(
            f"{error.name or 'Paddle'} cannot be loaded: {error}",
            hint="install the package again (`make setup`, or `pip install .`); `medseg doctor` shows what is wrong",
        ) from error
    finally:
        for line in said.getvalue().splitlines():
            if not any(word in line for word in _CHATTER):
                print(line, file=sys.stderr)  # noqa: T201
