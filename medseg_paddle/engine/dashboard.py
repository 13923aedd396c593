"""Curves, pictures and settings on disk for VisualDL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from visualdl import LogWriter

# VisualDL shows only the newest file of a folder; a fixed name makes a resumed run append to it.
_EVENT_FILE = "vdlrecords.train.log"
# The writer takes `max_queue` for the seconds between flushes (the two are swapped inside, 2.5.3).
_FLUSH_SECONDS = 2


class Dashboard:
    """Writer of one run's event file; the run's folder is the run's name on the dashboard.

    It is also what `paddleseg.core.train()` gets as its writer: the loop's own scalars come in by
    :meth:`add_scalar`, and those that it mislabels are left out.
    """

    def __init__(self, folder: Path, images_per_iteration: int, loss_parts: Sequence[str]) -> None:
        self._writer = LogWriter(str(folder), file_name=_EVENT_FILE, max_queue=_FLUSH_SECONDS)
        self._images = images_per_iteration
        self._names = {f"Train/loss_{n}": f"Train/{name}" for n, name in enumerate(loss_parts)}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """One point of a curve that `train()` logs."""
        if tag == "Train/batch_cost":
            self.scalar("Train/images per second", self._images / max(float(value), 1e-9), step)
        elif not tag.startswith(
            "Evaluate/"
        ):  # a Dice under the name mIoU; ours are written by the validation
            self.scalar(self._names.get(tag, tag), float(np.asarray(value).ravel()[0]), step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """One point of a curve; NaN is no point."""
        if np.isfinite(value):
            self._writer.add_scalar(tag=_plain(tag), value=value, step=step)

    def image(self, tag: str, picture: NDArray[np.uint8], step: int) -> None:
        """A picture, HWC RGB uint8."""
        self._writer.add_image(tag=_plain(tag), img=picture, step=step, dataformats="HWC")

    def hyper_parameters(self, values: Mapping[str, Any], metrics: list[str]) -> None:
        """The run's settings, shown beside the last value of the named curves."""
        flat = {
            k: v if isinstance(v, (int, float, str)) and not isinstance(v, bool) else str(v)
            for k, v in values.items()
        }
        self._writer.add_hparams(hparams_dict=flat, metrics_list=[_plain(m) for m in metrics])

    def close(self) -> None:
        """Write what is left; `train()` calls this too, and points may follow."""
        self._writer.flush()


def _plain(tag: str) -> str:
    return tag.replace("%", "percent")
