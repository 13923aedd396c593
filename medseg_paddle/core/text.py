"""Text that came from outside, made fit to be shown."""

from __future__ import annotations

# What a terminal would obey, but for the end of a line and the tab.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """A text whose control characters, such as the escape in the name of a file, are spelt out."""
    return text.translate(_CONTROLS)
