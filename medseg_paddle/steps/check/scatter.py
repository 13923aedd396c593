"""A drawing of where the masks of a set lie, one dot each."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from html import escape

from medseg_paddle.preprocess.shift import REACH, Shift

_SIDE = 320
_MOST_DOTS = 1500
_STEPS = (2, 5, 10, REACH, 30, 60)


def scatter(shifts: Mapping[str, Shift], together: Shift | None, off: Collection[str]) -> str:
    """Draw displacements as SVG: right and down as on the picture, rings of equal distance.

    Parameters
    ----------
    shifts : mapping
        Case to displacement.
    together : Shift or None
        Of all masks; drawn as a cross.
    off : collection of str
        Cases to mark, drawn last.
    """
    known = list(shifts.items())
    step = max(1, len(known) // _MOST_DOTS)
    shown = [item for place, item in enumerate(known) if item[0] in off or place % step == 0]
    shown.sort(key=lambda item: item[0] in off)
    farthest = max((max(abs(one.right), abs(one.down)) for _, one in shown), default=0.0)
    limit = next((one for one in _STEPS if one >= farthest - 0.5), math.ceil(farthest))
    scale = (_SIDE / 2 - 14) / limit
    middle = _SIDE / 2
    parts = [
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="Where the masks lie, in pixels">',
        f'<line x1="0" x2="{_SIDE}" y1="{middle}" y2="{middle}"/>',
        f'<line y1="0" y2="{_SIDE}" x1="{middle}" x2="{middle}"/>',
    ]
    for ring in (limit / 2, limit):
        parts.append(f'<circle class="ring" cx="{middle}" cy="{middle}" r="{ring * scale:.1f}"/>')
        parts.append(f'<text x="{middle + 4}" y="{middle - ring * scale + 12:.1f}">{ring:g} px</text>')
    for name, one in shown:
        kind = "off" if name in off else "dot"
        x, y = middle + one.right * scale, middle + one.down * scale
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{4 if kind == "off" else 2.5}">'
            f"<title>{escape(name)}: {escape(str(one))}</title></circle>"
        )
    if together is not None:
        x, y = middle + together.right * scale, middle + together.down * scale
        parts.append(f'<path class="all" d="M{x - 7:.1f} {y:.1f}h14M{x:.1f} {y - 7:.1f}v14"/>')
    return "".join([*parts, "</svg>"])
