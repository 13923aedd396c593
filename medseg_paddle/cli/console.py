"""How the command line speaks: results to standard output, errors to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from medseg_paddle.errors import MedsegError

# No markup, no emoji: a path such as `scans[bold]/a:b:.png` is printed as it is.
out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def print_error(error: MedsegError) -> None:
    """Print what is wrong and what to do about it, without a traceback.

    Parameters
    ----------
    error : MedsegError
    """
    # soft_wrap: a path or a UID broken over two lines can be neither searched for nor copied
    err.print(Text.assemble(("error: ", "bold red"), error.message), soft_wrap=True)
    err.print(Text.assemble(("hint:  ", "bold"), error.hint), soft_wrap=True)
