"""Lengths of time as people write them."""

from __future__ import annotations

import math
import re

from medseg_paddle.errors import RecipeError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WRITTEN = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER.pattern}){unit})?" for unit in _UNITS))


def seconds(length: float | str, name: str) -> float:
    """Seconds of a length of time.

    Parameters
    ----------
    length : float or str
        Seconds, as a number or a text, or days, hours, minutes and seconds in this order: ``"2d"``, ``"1h30m"``,
        ``"45m"``, ``"90s"``.
    name : str
        Option or key that it is the value of.

    Raises
    ------
    RecipeError
        It is not understood, or not above 0.
    """
    if not isinstance(length, str) or _NUMBER.fullmatch(length.strip()):
        found = float(length)
    else:
        written = _WRITTEN.fullmatch(length.strip().lower())
        parts = {} if written is None else written.groupdict()
        found = sum(_UNITS[unit] * float(part) for unit, part in parts.items() if part is not None)
    if not 0 < found < math.inf:
        raise RecipeError(
            f"{name} is '{length}', which is no length of time",
            hint="write it like 2d, 1h30m, 45m, 90s, or as a number of seconds",
        )
    return found
