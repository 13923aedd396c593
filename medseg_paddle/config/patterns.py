"""Texts of a recipe that find files: patterns below the source folder, regular expressions for paths."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


def _glob(pattern: str) -> str:
    path = PurePosixPath(pattern)
    if not pattern or path.is_absolute() or ".." in path.parts:
        raise PydanticCustomError(
            "glob",
            "'{pattern}' must be a pattern below the source folder, such as 'images/*.png'",
            {"pattern": pattern},
        )
    return pattern


def _regex(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise PydanticCustomError(
            "regex",
            "'{pattern}' is not a regular expression ({error})",
            {"pattern": pattern, "error": str(error)},
        ) from None
    if groups == 0:
        raise PydanticCustomError(
            "regex", "'{pattern}' needs a group in parentheses, such as '(\\d+)_'", {"pattern": pattern}
        )
    return pattern


Glob = Annotated[str, AfterValidator(_glob)]
Regex = Annotated[str, AfterValidator(_regex)]
