"""Which computations oneDNN makes, told while it makes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch


@contextlib.contextmanager
def computed(kind: type[Any]) -> Iterator[list[str]]:
    """Names of what oneDNN computed of that kind in the block."""
    seen: list[str] = []
    forward, backward = kind.forward, kind.backward

    def note_forward(self, *arguments):
        seen.append("forward")
        forward(self, *arguments)

    def note_backward(self, *arguments, **named):
        seen.append("backward")
        backward(self, *arguments, **named)

    with (
        patch.object(kind, "forward", note_forward),
        patch.object(kind, "backward", note_backward),
    ):
        yield seen
