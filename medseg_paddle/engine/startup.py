"""Loading Paddle: with the right settings, and without its chatter."""

from __future__ import annotations

import contextlib
import importlib
import io
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib.abc import MetaPathFinder

from medseg_paddle.engine import cpu
from medseg_paddle.errors import SetupError

# Said at import of Paddle 3.2.2 whenever OMP_NUM_THREADS is above 1. It speaks of builds with OpenBLAS;
# the wheels carry MKL, and one thread would halve the speed.
_CHATTER = ("OMP_NUM_THREADS set to", "PLEASE USE OMP_NUM_THREADS WISELY")


def start_paddle(threads: int | None = None, *, paddleseg: bool = True) -> None:
    """Load Paddle with :func:`medseg_paddle.engine.cpu.apply_defaults`; every step's first call.

    Parameters
    ----------
    threads : int, optional
        Of the maths libraries.
    paddleseg : bool
        PaddleSeg, too. A bundle is used without it: it brings pandas and scikit-learn, 80 MiB.

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
        with contextlib.redirect_stderr(said), _sigterm_kept():
            importlib.import_module("paddle")
            if paddleseg:
                importlib.import_module("paddleseg")
    except ImportError as error:
        raise SetupError(
            f"{error.name or 'Paddle'} cannot be loaded: {error}",
            hint="install the package again (`make setup`, or `pip install .`); `medseg doctor` shows what is wrong",
        ) from error
    for line in said.getvalue().splitlines():
        if not any(word in line for word in _CHATTER):
            print(line, file=sys.stderr)  # noqa: T201


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Let SIGTERM do what it did before.

    Paddle 3.2.2 takes SIGTERM amid its import, and prints a C++ traceback when it comes. Its import goes
    on for seconds after that; so the former handler is put back whenever a module is asked for.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return

    class PutBack(MetaPathFinder):
        def find_spec(self, *_: object) -> None:
            signal.signal(signal.SIGTERM, before)

    finder = PutBack()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        signal.signal(signal.SIGTERM, before)
