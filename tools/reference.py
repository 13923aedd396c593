"""Write docs/reference/cli.md and docs/reference/recipe.md from the command line and the recipe's schema.

`python tools/reference.py` writes them; `tests/test_gates.py` fails when they are not what this writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main

from medseg_paddle.cli import app
from medseg_paddle.config import Recipe

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Written by tools/reference.py (`make reference`); do not edit. -->\n"


def pages() -> dict[Path, str]:
    """Each page's path and text."""
    folder = ROOT / "docs" / "reference"
    return {folder / "cli.md": cli_page(), folder / "recipe.md": recipe_page()}


def commands(command: Any = None, name: str = "medseg") -> Iterator[tuple[str, Any]]:
    """Every command of the program with its full name, groups before their members."""
    command = command or typer.main.get_command(app)
    yield name, command
    for child_name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {child_name}")


def cli_page() -> str:
    """Page of the command line."""
    lines = [NOTE, "# Command line\n"]
    lines.append(
        "Exit codes: 0 done, 1 a defect of ours, or trainings that were compared differ, 2 a wrong recipe or "
        "option, 3 wrong data, 4 a wrong model, 5 something the machine lacks, 130 stopped by Ctrl-C.\n"
    )
    for name, command in commands():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        words = "".join(f" {_metavar(a)}" for a in arguments)
        following = " COMMAND" if hasattr(command, "commands") else ""
        lines += [f"## {name}\n", f"{_one_line(command.help)}\n", f"    {name}{words} [OPTIONS]{following}\n"]
        rows = [(_param_name(p), _one_line(p.help), _param_default(p)) for p in command.params]
        lines += [_table(("word", "what", "default"), rows)] if rows else []
    return "\n".join(lines)


def recipe_page() -> str:
    """Page of the recipe's keys."""
    schema = Recipe.model_json_schema()
    lines = [NOTE, "# Recipe\n", f"{_one_line(schema['description'].split('Raises')[0])}\n", _keys(schema)]
    for name, definition in sorted(schema.get("$defs", {}).items()):
        lines += [f"## {name}\n", f"{_one_line(definition.get('description', ''))}\n"]
        if "properties" in definition:
            lines.append(_keys(definition))
        else:
            lines.append(f"{_type(definition)}\n")
    return "\n".join(lines)


def _keys(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        (
            f"`{key}`",
            _type(value),
            _one_line(value.get("description", "")),
            "required" if key in required else _default(value.get("default")),
        )
        for key, value in schema["properties"].items()
    ]
    return _table(("key", "type", "what", "default"), rows)


def _type(schema: dict[str, Any]) -> str:  # noqa: PLR0911  (one return per kind of schema reads best)
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{_yaml(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{_yaml(value)}`" for value in schema["enum"])
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(option) for option in schema[key]))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return "[" + ", ".join(_type(item) for item in schema["prefixItems"]) + "]"
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and "additionalProperties" in schema:
        return f"mapping to {_type(schema['additionalProperties'])}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    return " ".join([str(schema.get("type", "any")), ", ".join(limits)]).strip()


def _default(value: Any) -> str:
    return "" if value in (None, "") else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _metavar(argument: Any) -> str:
    text = (argument.metavar or argument.name).upper()
    text += "..." if argument.nargs == -1 else ""
    return text if argument.required else f"[{text}]"


def _param_name(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{_metavar(param)}`"
    return ", ".join(f"`{opt}`" for opt in [*param.opts, *param.secondary_opts])


def _param_default(param: Any) -> str:
    default = param.default.value if isinstance(param.default, Enum) else param.default
    if param.required:
        return "required"
    return (
        ""
        if default is None or default is False or callable(default)
        else f"`{default}`".replace("True", "yes")
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
