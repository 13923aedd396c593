"""How the command line speaks: results to standard output, errors to standard error."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from medseg_paddle.core.text import visible
from medseg_paddle.errors import MedsegError


class _Console(Console):
    """Prints texts with their control characters spelt out: names of files are not ours."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **options)


# No markup, no emoji: a path such as `scans[bold]/a:b:.png` is printed as it is.
out = _Console(highlight=False, markup=False, emoji=False)
err = _Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_error(error: MedsegError) -> None:
    """Print what is wrong and what to do about it, without a traceback.

    Parameters
    ----------
    error : MedsegError
    """
    # soft_wrap: a path or a UID broken over two lines can be neither searched for nor copied
    err.print(Text.assemble(("error: ", "bold red"), visible(error.message)), soft_wrap=True)
    err.print(Text.assemble(("hint:  ", "bold"), visible(error.hint)), soft_wrap=True)
