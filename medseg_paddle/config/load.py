"""From a YAML file to a Recipe: `_base_` inheritance, overrides, errors with file and line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medseg_paddle.config.base import did_you_mean
from medseg_paddle.config.recipe import Recipe
from medseg_paddle.errors import RecipeError

_KeyPath = tuple[str | int, ...]
_Marks = dict[_KeyPath, str]


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read, inherit, override and validate a recipe.

    Parameters
    ----------
    path : Path or str
        YAML file. ``_base_: other.yml`` (or a list) inherits as in PaddleSeg: mappings merge, all else
        replaces, ``_inherited_: false`` in a mapping starts it anew.
    overrides : sequence of str
        ``a.b=c`` with a YAML value; list items by number: ``train_dataset.transforms.0.size=[96,96]``.

    Raises
    ------
    RecipeError
        Names the key, the file and the line, and says what to write instead.
    """
    path = Path(path)
    data, marks = _read(path, ())
    for override in overrides:
        _override(data, marks, override)
    data.setdefault("name", path.stem)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _recipe_error(error, data, marks, path) from None


def dump_recipe(recipe: Recipe) -> str:
    """YAML text of a recipe with all defaults written out; loads to an equal recipe."""
    return yaml.safe_dump(
        recipe.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True, width=100
    )


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], _Marks]:
    resolved = path.resolve()
    if resolved in above:
        raise RecipeError(f"{path} inherits from itself", hint="remove the circle of `_base_` lines")
    if path.suffix not in (".yml", ".yaml"):
        raise RecipeError(f"{path} is not a YAML file", hint="give a recipe that ends in .yml or .yaml")
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise RecipeError(f"recipe {path} is not there", hint=_similar_files(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"recipe {path} cannot be read: {error}", hint="check the path and its rights"
        ) from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise RecipeError(
            f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)})",
            hint="check indentation, colons and brackets there",
        ) from None
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path} holds no recipe", hint="see `medseg recipe schema` for the keys")
    marks: _Marks = {}
    data = _construct(node, path, (), marks)

    bases = data.pop("_base_", [])
    for base in [bases] if isinstance(bases, str) else bases:
        base_data, base_marks = _read(path.parent / str(base), (*above, resolved))
        data, marks = _merge(data, marks, base_data, base_marks, ())
    return data, marks


def _construct(node: yaml.Node, path: Path, key_path: _KeyPath, marks: _Marks) -> Any:
    marks[key_path] = f"{path}, line {node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = f"{path}, line {key_node.start_mark.line + 1}"
            if key in result:
                raise RecipeError(f"{line}: '{key}' is given twice", hint="keep one of the two")
            here = (*key_path, key)
            result[key] = _construct(value_node, path, here, marks)
            marks[here] = line
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, path, (*key_path, i), marks) for i, item in enumerate(node.value)]
    return yaml.SafeLoader("").construct_object(node)


def _merge(
    data: dict[str, Any], marks: _Marks, base: dict[str, Any], base_marks: _Marks, at: _KeyPath
) -> tuple[dict[str, Any], _Marks]:
    """`data` over `base`; the marks follow."""
    if data.get("_inherited_", True) is False:
        return {key: value for key, value in data.items() if key != "_inherited_"}, marks
    merged = dict(base)
    merged_marks = {key: mark for key, mark in base_marks.items() if key[: len(at)] == at}
    for key, value in data.items():
        here = (*at, key)
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key], inner = _merge(value, marks, base[key], base_marks, here)
        else:
            merged[key] = value
            inner = marks
        merged_marks = {k: m for k, m in merged_marks.items() if k[: len(here)] != here}
        merged_marks.update({k: m for k, m in inner.items() if k[: len(here)] == here})
    if at in marks:
        merged_marks[at] = marks[at]
    return merged, merged_marks


def _override(data: dict[str, Any], marks: _Marks, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(
            f"--set {override}: no '='", hint="write --set key=value, for example --set iters=200"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(
            f"--set {override}: the value is not valid YAML", hint="quote it in the shell"
        ) from None
    parts = key.split(".")
    target: Any = data
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(target, list):
            if not part.isdigit() or int(part) >= len(target):
                raise RecipeError(
                    f"--set {override}: '{part}' is not an item of a list of {len(target)}",
                    hint="count the items from 0",
                )
            index: str | int = int(part)
        elif isinstance(target, dict):
            index = part
            if not last:
                target.setdefault(part, {})
        else:
            raise RecipeError(
                f"--set {override}: '{'.'.join(parts[:depth])}' holds a value, not keys",
                hint="see `medseg recipe show` for the keys",
            )
        if last:
            target[index] = value
        else:
            target = target[index]
    marks[tuple(int(p) if p.isdigit() else p for p in parts)] = f"--set {override}"


def _recipe_error(error: ValidationError, data: dict[str, Any], marks: _Marks, path: Path) -> RecipeError:
    """The first thing pydantic found, in a user's words."""
    first = error.errors()[0]
    context = first.get("ctx", {})
    at = _strip_tags(first["loc"], data)
    kind = first["type"]
    message, hint = first["msg"], "see `medseg recipe schema` or docs/reference/recipe.md"
    if kind == "unknown_key":
        at = (*at, context["key"])
        message = f"unknown key '{_dotted(at)}'"
        hint = did_you_mean(context["key"], context["known"])
    elif kind == "union_tag_invalid":
        known = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
        message = f"{_dotted(at)}: unknown type '{context['tag']}'"
        hint = did_you_mean(str(context["tag"]), known)
        at = (*at, "type")
    elif kind == "union_tag_not_found":
        message = f"{_dotted(at)} does not say its `type`"
        hint = "add a line `type: ...`"
    elif kind == "missing":
        message = f"'{_dotted(at)}' is missing"
        hint = f"add `{at[-1]}:` to the recipe"
        at = at[:-1]
    elif kind in ("disagreement", "inconsistent"):
        hint = "make the two lines agree"
    elif at:
        message = f"{_dotted(at)} = {first['input']!r}: {message[0].lower()}{message[1:]}"
    where = next((marks[at[:n]] for n in range(len(at), -1, -1) if at[:n] in marks), str(path))
    rest = error.error_count() - 1
    more = f" (and {rest} more)" if rest else ""
    return RecipeError(f"{where}: {message}{more}", hint=hint)


def _strip_tags(loc: tuple[str | int, ...], data: Any) -> _KeyPath:
    """A pydantic location without the names of union members it passed through."""
    at: list[str | int] = []
    for n, step in enumerate(loc):
        if isinstance(data, dict) and (step in data or n == len(loc) - 1) and data.get("type") != step:
            at.append(step)
            data = data.get(str(step))
        elif isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data):
            at.append(step)
            data = data[step]
    return tuple(at)


def _dotted(at: _KeyPath) -> str:
    return ".".join(map(str, at)) or "recipe"


def _similar_files(path: Path) -> str:
    if path.parent.is_dir():
        names = [p.name for p in path.parent.glob("*.y*ml")]
        close = difflib.get_close_matches(path.name, names, n=1)
        if close:
            return f"did you mean {path.parent / close[0]}?"
    return "see `medseg recipe list` for the recipes that come with the project"
