"""Everything that can go wrong because of what a user gave us.

The tree::

    MedsegError            message, hint, exit code
    ├── RecipeError   (2)  a recipe, an option or an argument is wrong
    ├── DataError     (3)  an image, a label, a list or a series is wrong
    ├── ModelError    (4)  a checkpoint, a bundle or an export is wrong
    │   └── DivergenceError  the numbers of a training are infinite or NaN
    └── SetupError    (5)  the machine lacks something: device, disk, package, port
        └── MemoryShortError  what is asked needs more memory than there is

The command line prints ``message`` and ``hint`` without a traceback and exits with the code.
Anything that is not a :class:`MedsegError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

# Paddle's DataLoader raises what happened in a worker anew, as ``type(error)(its traceback as text)``.
_PASSED_ON = "mend what the last lines of the message name"


class MedsegError(Exception):
    """Base of all errors a user can cause and mend.

    Parameters
    ----------
    message : str
        What is wrong, with the name of the file, key or device.
    hint : str
        What to do about it, in the imperative. Every place that finds an error gives one; it may be
        absent only where another process's error is passed on as text.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = _PASSED_ON) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}"


class RecipeError(MedsegError):
    """A recipe, an option or an argument is wrong (exit code 2)."""

    exit_code = 2


class DataError(MedsegError):
    """An image, a label, a list or a series is wrong (exit code 3)."""

    exit_code = 3


class ModelError(MedsegError):
    """A checkpoint, a bundle or an export is wrong (exit code 4)."""

    exit_code = 4


class DivergenceError(ModelError):
    """The loss or the weights of a training are infinite or NaN (exit code 4)."""


class SetupError(MedsegError):
    """The machine lacks something: a device, disk, a package, a port (exit code 5)."""

    exit_code = 5


class MemoryShortError(SetupError):
    """What is asked, say a batch of that size, needs more memory than there is (exit code 5)."""
