"""From a YAML file to a Recipe: `_base_` inheritance, overrides, errors with file and line."""

from __future__ import annotations

import copy
import difflib
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from medseg_paddle.config.base import Spec, did_you_mean
from medseg_paddle.config.codes import LabelFile
from medseg_paddle.config.document import KeyPath, Marks, read_yaml
from medseg_paddle.config.recipe import Recipe
from medseg_paddle.errors import RecipeError

_INHERITED = "_inherited_"
_Part = TypeVar("_Part", bound=Spec)

# Keys of PaddleSeg's files after 2.8 (configs/_base_/runtime.yml), and where their values stand here.
_STANDS_ELSEWHERE = {
    "global": "write `device:` and `num_workers:` without `global:` above them",
    "train": "write `save_interval:`, `log_iters:`, `keep_checkpoint_max:`, `seed:`, `precision:` and `amp_level:` "
    "without `train:` above them; the run's folder is named by --output",
    "test": "write `test_config: {auc_roc: true}` for the area under the ROC curve; `inference:` says how whole "
    "images are predicted",
}


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
    return draft_recipe(path, overrides).recipe()


def as_recipe(recipe: Path | str | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe, see :func:`load_recipe`, where it has not been loaded.

    Raises
    ------
    RecipeError
        As :func:`load_recipe`; `overrides` for one that is loaded.
    """
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, overrides)
    if overrides:
        raise RecipeError(
            "overrides change a recipe file, not a loaded Recipe", hint="give them to load_recipe"
        )
    return recipe


@dataclass(frozen=True)
class Draft:
    """A recipe as it was written: bases merged, overrides in place, not checked, no defaults.

    Attributes
    ----------
    data : dict
    marks : dict
        Where each value stands.
    where : str
        The file.
    """

    data: dict[str, Any]
    marks: Marks
    where: str

    def recipe(self, values: Mapping[str, Any] | None = None) -> Recipe:
        """Check it.

        Parameters
        ----------
        values : mapping, optional
            Values by dotted key that a search sets; an error about one names its line in `search.parameters`.

        Raises
        ------
        RecipeError
            As :func:`load_recipe`.
        """
        data, marks = copy.deepcopy(self.data), dict(self.marks)
        for key, value in (values or {}).items():
            said = marks.get(("search", "parameters", key), f"search.parameters.{key}")
            _set(data, marks, key, value, {}, said)
        return _validated(Recipe, data, marks, self.where)


def draft_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Draft:
    """Read a recipe as :func:`load_recipe` does, without checking it."""
    path = Path(path)
    data, marks = _read(path, ())
    data.setdefault("name", path.stem)
    for override in overrides:
        _override(data, marks, override)
    return Draft(data, marks, str(path))


def change_recipe(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A recipe with changes, checked as a whole once more.

    Parameters
    ----------
    recipe : Recipe
    overrides : sequence of str
        As in :func:`load_recipe`.

    Raises
    ------
    RecipeError
    """
    where = f"recipe {recipe.name}"
    data, marks = read_yaml(dump_recipe(recipe), lambda line: f"{where}, line {line}")
    for override in overrides:
        _override(data, marks, override)
    return _validated(Recipe, data, marks, where)


def load_labels(path: Path | str) -> LabelFile:
    """Read and validate a file of labels, with `_base_` as in a recipe.

    Raises
    ------
    RecipeError
        As :func:`load_recipe`.
    """
    data, marks = _read(Path(path), ())
    return _validated(LabelFile, data, marks, str(path))


def _validated(kind: type[_Part], data: dict[str, Any], marks: Marks, where: str) -> _Part:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _recipe_error(error, data, marks, where) from None


def dump_recipe(recipe: Recipe) -> str:
    """YAML text of a recipe with all defaults written out; loads to an equal recipe."""
    return yaml.safe_dump(_written(recipe), sort_keys=False, allow_unicode=True, width=100)


def _written(value: Any) -> Any:
    """A part of a recipe as YAML writes it, without the nulls that are there by default."""
    if isinstance(value, Spec):
        parts = {name: (getattr(value, name), field) for name, field in type(value).model_fields.items()}
        return {
            name: _written(part)
            for name, (part, field) in parts.items()
            if part is not None or field.default is not None
        }
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    return [_written(item) for item in value] if isinstance(value, (tuple, list)) else value


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], Marks]:
    if path.suffix not in (".yml", ".yaml"):
        raise RecipeError(f"{path} is not a YAML file", hint="give a recipe that ends in .yml or .yaml")
    try:
        resolved = path.resolve()
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"recipe {path} is not there", hint=_similar_files(path)) from None
    except (OSError, ValueError, RuntimeError) as error:  # a path of odd characters, a circle of links
        raise RecipeError(
            f"recipe {str(path)!r} cannot be read: {error}", hint="check the path and its rights"
        ) from None
    if resolved in above:
        raise RecipeError(f"{path} inherits from itself", hint="remove the circle of `_base_` lines")
    data, marks = read_yaml(text, lambda line: f"{path}, line {line}")
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds no recipe", hint="see `medseg recipe schema` for the keys")

    bases = data.pop("_base_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise RecipeError(
            f"{marks['_base_',]}: `_base_` must name a recipe or a list of recipes",
            hint="write `_base_: other.yml`, or remove the line",
        )
    for base in bases:
        base_data, base_marks = _read(path.parent / base, (*above, resolved))
        data, marks = _merge(data, marks, base_data, base_marks, ())
    return _without_inherited(data, marks, ()), marks


def _without_inherited(value: Any, marks: Marks, at: KeyPath) -> Any:
    """The value without `_inherited_`, which has said what it had to say once the bases are merged."""
    if isinstance(value, list):
        return [_without_inherited(item, marks, (*at, i)) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if not isinstance(value.get(_INHERITED, True), bool):
        here = (*at, _INHERITED)
        raise RecipeError(
            f"{marks[here]}: `_inherited_` must be true or false",
            hint="write `_inherited_: false` to start the mapping anew, or remove the line",
        )
    return {
        key: _without_inherited(item, marks, (*at, key)) for key, item in value.items() if key != _INHERITED
    }


def _merge(
    data: dict[str, Any], marks: Marks, base: dict[str, Any], base_marks: Marks, at: KeyPath
) -> tuple[dict[str, Any], Marks]:
    """`data` over `base`; the marks follow."""
    if data.get(_INHERITED, True) is False:
        return data, marks
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


def _override(data: dict[str, Any], marks: Marks, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(
            f"--set {override}: no '='", hint="write --set key=value, for example --set iters=200"
        )
    value, inner = read_yaml(text, lambda _: f"--set {override}")
    _set(data, marks, key, value, inner, f"--set {override}")


def _set(data: dict[str, Any], marks: Marks, key: str, value: Any, inner: Marks, said: str) -> None:
    """Put a value at a dotted key; `inner` says where its parts stand, `said` where it does itself."""
    parts = key.split(".")
    at: KeyPath = ()
    target: Any = data
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(target, list):
            if not part.isdecimal() or int(part) >= len(target):
                raise RecipeError(
                    f"{said}: '{part}' is not an item of a list of {len(target)}",
                    hint="count the items from 0",
                )
            index: str | int = int(part)
        elif isinstance(target, dict):
            index = part
            if not last and part not in target:
                target[part] = {}
                here = (*at, part)
                marks[here] = said
        else:
            raise RecipeError(
                f"{said}: '{'.'.join(parts[:depth])}' holds a value, not keys",
                hint="see `medseg recipe show` for the keys",
            )
        at = (*at, index)
        if last:
            target[index] = value
        else:
            target = target[index]
    marks[at] = said
    marks.update({(*at, *below): mark for below, mark in inner.items()})


def _recipe_error(error: ValidationError, data: dict[str, Any], marks: Marks, whole: str) -> RecipeError:
    """The first thing pydantic found, in a user's words."""
    first = error.errors()[0]
    context = first.get("ctx", {})
    at = _strip_tags(first["loc"], data)
    kind = first["type"]
    message, hint = first["msg"], "see `medseg recipe schema` or docs/reference/recipe.md"
    if kind == "unknown_key":
        at = _strip_tags((*first["loc"], context["key"]), data)
        message = f"unknown key '{_dotted(at)}'"
        elsewhere = _STANDS_ELSEWHERE.get(context["key"]) if len(at) == 1 else None
        hint = elsewhere or did_you_mean(context["key"], context["known"])
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
    elif kind == "inconsistent":
        at = (*at, *context["at"])
        hint = context["hint"]
    elif at:
        message = f"{_dotted(at)} = {_short(first['input'])}: {message[0].lower()}{message[1:]}"
    where = next((marks[at[:n]] for n in range(len(at), -1, -1) if at[:n] in marks), whole)
    rest = error.error_count() - 1
    more = f" (and {rest} more)" if rest else ""
    return RecipeError(f"{where}: {message}{more}", hint=hint)


def _strip_tags(loc: tuple[str | int, ...], data: Any) -> KeyPath:
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


def _short(value: Any) -> str:
    """How a value is quoted: in full if it is a word or a few numbers."""
    form = reprlib.Repr()
    form.maxstring = form.maxother = 80
    return form.repr(value)


def _dotted(at: KeyPath) -> str:
    return ".".join(map(str, at)) or "recipe"


def _similar_files(path: Path) -> str:
    if path.parent.is_dir():
        names = [p.name for p in path.parent.glob("*.y*ml")]
        close = difflib.get_close_matches(path.name, names, n=1)
        if close:
            return f"did you mean {path.parent / close[0]}?"
    return "see `medseg recipe list` for the recipes that come with the project"
