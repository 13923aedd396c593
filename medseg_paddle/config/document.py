"""YAML text to plain mappings, lists and scalars, with the place of every key; what is odd is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from medseg_paddle.errors import RecipeError

KeyPath = tuple[str | int, ...]
Marks = dict[KeyPath, str]

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("null", "bool", "int", "float", "timestamp", "str")}
# Aliases of aliases grow exponentially; recipes have some hundred values.
_MOST_VALUES = 10_000


def read_yaml(text: str, place: Callable[[int], str]) -> tuple[Any, Marks]:
    """Values of a YAML document and where each of them stands.

    Parameters
    ----------
    text : str
    place : callable
        Line number, from 1, to words such as ``recipe.yml, line 7``.

    Raises
    ------
    RecipeError
        The text is no YAML, or uses what a recipe cannot hold: keys given twice or that are no words,
        merge keys, tags, values that contain themselves, numbers and dates that do not exist.
    """
    marks: Marks = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None, marks
        return _construct(node, place, (), marks, ()), marks
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(
            f"{place(mark.line + 1 if mark else 1)}: not valid YAML ({problem})",
            hint="check indentation, colons and brackets there",
        ) from None
    except RecursionError:
        raise RecipeError(
            f"{place(1)}: nested too deeply", hint="check the brackets; a recipe is a few levels deep"
        ) from None


def _construct(
    node: yaml.Node, place: Callable[[int], str], at: KeyPath, marks: Marks, above: tuple[yaml.Node, ...]
) -> Any:
    here = place(node.start_mark.line + 1)
    marks[at] = here
    if node in above or len(marks) > _MOST_VALUES:
        raise RecipeError(
            f"{here}: aliases (`*name`) repeat without end", hint="write the values out in place of the alias"
        )
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = place(key_node.start_mark.line + 1)
            key = _key(key_node, line)
            if key in result:
                raise RecipeError(f"{line}: '{key}' is given twice", hint="keep one of the two")
            below = (*at, key)
            result[key] = _construct(value_node, place, below, marks, (*above, node))
            marks[below] = line
        return result
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_construct(item, place, (*at, i), marks, (*above, node)) for i, item in enumerate(node.value)]
    if node.tag not in _SCALARS or not isinstance(node, yaml.ScalarNode):
        raise RecipeError(
            f"{here}: the tag {node.tag.replace(_TAG, '!!')} is not known in a recipe",
            hint="write the value without a tag",
        )
    return _scalar(node, here)


def _key(node: yaml.Node, line: str) -> str:
    if node.tag == _TAG + "merge":
        raise RecipeError(
            f"{line}: merge keys (`<<`) are not known in a recipe",
            hint="inherit from a file with `_base_`, or write the values out",
        )
    if not isinstance(node, yaml.ScalarNode):
        raise RecipeError(
            f"{line}: a list or a mapping cannot be a key", hint="write a word before the colon"
        )
    return _text(node.value, line)


def _scalar(node: yaml.ScalarNode, line: str) -> Any:
    try:
        value = yaml.SafeLoader("").construct_object(node)
    # PyYAML lets whatever int(), float() or date() raise pass, and looks tagged values up unchecked.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError):
        kind = node.tag.removeprefix(_TAG)
        raise RecipeError(
            f"{line}: {ascii(node.value)[:80]} is no valid {kind}",
            hint="put quotes around it if it is a text",
        ) from None
    if isinstance(value, int) and value.bit_length() > 64:
        raise RecipeError(f"{line}: the number is too large", hint="write a number below 2^64")
    return _text(value, line) if isinstance(value, str) else value


def _text(text: str, line: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecipeError(
            f"{line}: {ascii(text)[:80]} is half of a character", hint="write the character itself"
        ) from None
    return text
