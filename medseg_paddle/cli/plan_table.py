"""What a plan was made from and what was chosen, as a table for a terminal."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.table import Table

from medseg_paddle.core.text import visible
from medseg_paddle.steps.plan import PlannedRecipe

_GB = 1e9


def plan_table(planned: PlannedRecipe) -> Table:
    """Lay out a plan: what was found in the training volumes, then what the recipe says."""
    plan = planned.plan
    cases, network = plan.data.cases, plan.network
    voxels, mm = (np.array([getattr(case, name) for case in cases]) for name in ("shape", "spacing"))
    found = [
        ("training volumes", f"{len(cases)}, {plan.data.channels} channel(s), units {plan.data.units}"),
        ("voxels", _range(voxels)),
        ("spacing, mm", _range(mm)),
        ("left by the crop", f"{plan.kept:.0%} (median)"),
    ]
    chosen = [
        ("spacing, mm", _times(plan.spacing)),
        ("median volume there", _times(plan.shape)),
        ("patch", f"{_times(network.patch)} ({plan.share:.0%} of it)"),
        ("batch", str(plan.batch_size)),
        ("network", f"{plan.model}, width {plan.width}, depth {network.topology.depth}"),
        ("normalisation", "of the foreground's HU" if plan.intensities else _zscore(plan.masked)),
        ("mirrored axes", ", ".join(map(str, plan.mirror))),
        (
            "after the network",
            f"keep the largest part: {', '.join(plan.whole_classes)}" if plan.whole_classes else "nothing",
        ),
        (
            "memory, forecast",
            f"{plan.memory / _GB:.1f} GB of {plan.machine.memory / _GB:.1f}, {plan.machine.device}",
        ),
        ("iterations", _iterations(plan.iters, plan.seconds)),
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for part in (found, chosen):
        for name, value in part:
            table.add_row(name, visible(value))
        table.add_section()
    return table


def _range(values: np.ndarray) -> str:
    low, middle, high = values.min(axis=0), np.median(values, axis=0), values.max(axis=0)
    if (low == high).all():
        return _times(low)
    return f"{_times(low)} to {_times(high)}, median {_times(middle)}"


def _times(sides: object) -> str:
    return " x ".join(f"{side:.4g}" for side in np.asarray(sides).tolist())


def _zscore(masked: bool) -> str:
    return "z-score of what is not 0" if masked else "z-score"


def _iterations(iters: int, seconds: float | None) -> str:
    if seconds is None:
        return f"{iters:,}"
    return f"{iters:,}, about {iters * seconds / 3600:.2g} hours"
