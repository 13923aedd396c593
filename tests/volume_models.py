"""3-D models whose answers are known without running them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import LabelSet, VolumeAcquisition
from medseg_paddle.core.acquisition import SpacingRange
from medseg_paddle.description import Description
from medseg_paddle.preprocess import InferencePlan, VolumePreprocessing

TILES = InferencePlan("tiles", (4, 8, 8), 0.5, 1)


def seen(units=("arbitrary",), slices=2.0, rows=0.8, columns=0.7, tilt=0.0) -> VolumeAcquisition:
    """A training set of volumes of one spacing."""
    one, two, three = (SpacingRange(mm, mm, mm) for mm in (slices, rows, columns))
    return VolumeAcquisition(units, (one, two, three), tilt)


def volume_description(**changes: Any) -> Description:
    """Of a bundle for volumes, whose numbers it takes as they are, on their own grid."""
    values = {
        "name": "bright",
        "created": "2026-01-31T12:00:00+00:00",
        "labels": LabelSet.from_names(["background", "bright"]),
        "in_channels": 1,
        "window": None,
        "trained_on": None,
        "preprocessing": VolumePreprocessing(),
        "plan": TILES,
        "tolerance": 1e-4,
        "provenance": {"git": "none"},
        "recipe": {"name": "bright", "device": "cpu"},
        "versions": {"medseg-paddle": "0"},
    }
    return Description(**{**values, **changes})


def bright(in_channels: int = 1, *, at: float = 100.0):
    """A network that says class 1 exactly where the last channel is above `at`."""
    import paddle
    from paddle import nn

    class Bright(nn.Layer):
        def __init__(self):
            super().__init__()
            self.head = nn.Conv3D(in_channels, 2, 1)
            weight = np.zeros((2, in_channels, 1, 1, 1), np.float32)
            weight[1, -1] = 1.0
            self.head.weight.set_value(weight)
            self.head.bias.set_value(np.array([0, -at], np.float32))

        def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
            return [self.head(x)]

    return Bright()


def write_volume_bundle(destination: Path, model, content: Description) -> Bundle:
    """Export `model` as the export step does."""
    import paddle
    import paddle.nn.functional as F

    from medseg_paddle.engine.static_graph import compare_patches, load_static, save_static

    def dynamic(batch):
        with paddle.no_grad():
            return F.softmax(model(paddle.to_tensor(batch))[0], axis=1).numpy()

    patch = np.random.default_rng(0).uniform(0, 200, (content.in_channels, 4, 8, 8)).astype(np.float32)
    with Bundle.create(destination, content) as draft:
        save_static(model, draft.graph_prefix, content.in_channels, 3)
        static = load_static(draft.graph_prefix, "cpu", threads=1)
        draft.accept(
            compare_patches(dynamic, static, [patch]), patch, content.answer_to_sample(static, patch)
        )
    return Bundle.open(destination)


def sealed(folder: Path) -> Path:
    """A bundle with checksums anew, as a person who edits it on purpose would write them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}" for p in files
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    return folder
