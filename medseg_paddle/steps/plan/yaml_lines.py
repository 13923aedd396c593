"""YAML with a comment above each key that has a reason, which PyYAML cannot write."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

_WIDE = 110


@dataclass(frozen=True)
class Line:
    """A key.

    Attributes
    ----------
    key : str
    value : object
        A scalar, a list of scalars, a tuple of `Line` (a mapping), or a sequence of `Item` and `Alias`.
    why : str
        Stands above it.
    """

    key: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class Item:
    """An item of a list that is a mapping; an anchor is a name by which others repeat it."""

    lines: tuple[Line, ...]
    anchor: str = ""


@dataclass(frozen=True)
class Alias:
    """An item that repeats another."""

    anchor: str


def yaml_lines(lines: Sequence[Line], indent: str = "") -> list[str]:
    """The lines of a mapping."""
    text = []
    for line in lines:
        text += comment(line.why, indent) if line.why else []
        if isinstance(line.value, (list, tuple)) and any(
            isinstance(one, (Line, Item, Alias)) for one in line.value
        ):
            text.append(f"{indent}{line.key}:")
            for one in line.value:
                text += (
                    yaml_lines([one], indent + "  ") if isinstance(one, Line) else _item(one, indent + "  ")
                )
        else:
            text.append(f"{indent}{line.key}: {_flow(line.value)}")
    return text


def comment(text: str, indent: str = "") -> list[str]:
    """Lines of a comment."""
    mark = indent + "# "
    return textwrap.wrap(text, _WIDE, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False)


def _item(item: Item | Alias, indent: str) -> list[str]:
    if isinstance(item, Alias):
        return [f"{indent}- *{item.anchor}"]
    inner = yaml_lines(item.lines, indent + "  ")
    if item.anchor:
        return [f"{indent}- &{item.anchor}", *inner]
    first = next(number for number, line in enumerate(inner) if not line.lstrip().startswith("#"))
    inner[first] = f"{indent}- {inner[first].lstrip()}"
    # A comment above the item stands where the item stands.
    return [indent + line.lstrip() if number < first else line for number, line in enumerate(inner)]


def _flow(value: Any) -> str:
    """A value on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
