#!/usr/bin/env python3
"""Peaks of training steps of networks for volumes, measured by `batch_find`, beside the forecast of `medseg plan`.

Each configuration trains three steps in a process of its own. The first eight rows are what the constants of
`medseg_paddle/config/network_cost.py` were fitted to; the others were not.

    python benchmarks/planned_memory.py --config configs/unet3d_hippocampus.yml
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from medseg_paddle.config import change_recipe, load_recipe
from medseg_paddle.config.network_cost import network_cost, training_memory
from medseg_paddle.steps.batch_find import batch_find

SGD = "{type: Momentum, momentum: 0.99, use_nesterov: true}"
THICK = "[[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]"
FLAT = "[[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]"


@dataclass(frozen=True)
class Configuration:
    """What is measured with batches up to `batches`, doubled."""

    patch: tuple[int, int, int]
    width: int
    depth: int
    batches: int = 1
    kind: str = "UNet3D"
    supervised: int = 0
    thick: bool = False


CONFIGURATIONS = (
    Configuration((32, 32, 32), 8, 2),
    Configuration((48, 48, 48), 16, 3, batches=2),
    Configuration((64, 64, 64), 16, 4),
    Configuration((64, 64, 64), 32, 4),
    Configuration((32, 32, 32), 32, 3, batches=2),
    Configuration((16, 96, 96), 16, 4, thick=True),
    Configuration((48, 64, 48), 24, 3, batches=2, supervised=1),
    Configuration((96, 96, 96), 16, 4),
    Configuration((32, 32, 32), 16, 3, batches=4, kind="ResUNet3D"),
    Configuration((64, 64, 64), 16, 3, kind="ResUNet3D"),
    Configuration((64, 64, 64), 16, 3, kind="AttentionUNet3D"),
)


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--config", required=True, help="recipe of a network for volumes; its data set is used"
    )
    options = parser.parse_args()
    recipe = load_recipe(options.config, [f"optimizer={SGD}", "device=cpu", "num_workers=0"])
    print("| network | patch | width | depth | batch | peak, MB | forecast |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for one in CONFIGURATIONS:
        patch = list(one.patch)
        words = (
            f"type: {one.kind}, width: {one.width}, depth: {one.depth}, deep_supervision: {one.supervised}"
        )
        levels = f", strides: {THICK}, kernels: {FLAT}" if one.thick else ""
        changed = change_recipe(
            recipe,
            [
                f"model={{{words}{levels}}}",
                f"loss.coef={[0.5**level for level in range(one.supervised + 1)]}",
                f"train_dataset.transforms.1.size={patch}",
                f"inference={{mode: tiles, tile: {patch}, divisor: {2**one.depth if not one.thick else 4}}}",
                f"batch_size={one.batches}",
            ],
        )
        cost = network_cost(changed.model, one.patch)
        for probe in batch_find(changed, at_most=one.batches).probes:
            forecast = training_memory(cost, probe.batch_size)
            where = f"| {one.kind} | {' x '.join(map(str, patch))} | {one.width} | {one.depth} | {probe.batch_size} "
            print(f"{where}| {probe.peak / 1e6:.0f} | {forecast / probe.peak - 1:+.0%} |", flush=True)


if __name__ == "__main__":
    main()
