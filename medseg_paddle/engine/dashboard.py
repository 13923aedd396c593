"""Curves, pictures and settings on disk for VisualDL."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from visualdl import LogReader, LogWriter
from visualdl.writer import record_writer

from medseg_paddle.engine.event_log import Reached, cut_curves
from medseg_paddle.errors import SetupError
from medseg_paddle.io.files import sync_file

# VisualDL shows only the newest file of a folder; a fixed name makes a resumed run append to it.
_EVENT_FILE = "vdlrecords.train.log"
# The writer takes `max_queue` for the seconds between flushes (the two are swapped inside, 2.5.3).
_FLUSH_SECONDS = 2


class _Records(record_writer.RecordWriter):  # type: ignore[misc]
    """Writes records, in VisualDL's thread, and keeps the error of the first one that could not be written.

    VisualDL 2.5.3 itself only prints a warning, and goes on behind the part of the record that was written.
    """

    failure: OSError | None = None

    def write(self, data: bytes) -> None:
        if self.failure is None:
            try:
                super().write(data)
            except OSError as error:
                self.failure = error


@contextmanager
def _failing_records() -> Iterator[list[_Records]]:
    """Let VisualDL's new writers use :class:`_Records`; gives those it made."""
    made: list[_Records] = []

    def make(stream: Any) -> _Records:
        made.append(_Records(stream))
        return made[-1]

    before = record_writer.RecordWriter
    record_writer.RecordWriter = make
    try:
        yield made
    finally:
        record_writer.RecordWriter = before


class Dashboard:
    """Writer of one run's event file; the run's folder is the run's name on the dashboard.

    It is also what `paddleseg.core.train()` gets as its writer: the loop's own scalars come in by
    :meth:`add_scalar`, and those that it mislabels are left out. Of an event file that is there, what a run
    had `reached` is kept, all of it by default.

    Every method raises SetupError when something that was given before could not be written.
    """

    def __init__(
        self,
        folder: Path,
        images_per_iteration: int,
        loss_parts: Sequence[str],
        reached: Reached | None = None,
    ) -> None:
        self._file = folder / _EVENT_FILE
        cut_curves(self._file, reached)
        with _failing_records() as made:
            self._writer = LogWriter(str(folder), file_name=_EVENT_FILE, max_queue=_FLUSH_SECONDS)
        (self._records,) = made
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
        self._require_written()
        if np.isfinite(value):
            self._writer.add_scalar(tag=_plain(tag), value=value, step=step)

    def image(self, tag: str, picture: NDArray[np.uint8], step: int) -> None:
        """A picture, HWC RGB uint8."""
        self._require_written()
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
        self._require_written()

    def sync(self) -> None:
        """Bring all points so far to the disk."""
        self.close()
        sync_file(self._file)

    def _require_written(self) -> None:
        failure = self._records.failure
        if failure is not None:
            raise SetupError(
                f"{self._file} cannot be written: {failure.strerror}",
                hint="mend that, then go on with --resume",
            ) from failure


def curve(folder: Path, tag: str) -> dict[int, float]:
    """Points of a curve of the run in `folder`: iteration to value; the last one where an iteration has several.

    The run's file is only read; values are of single precision.
    """
    if not (folder / _EVENT_FILE).is_file():
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / _EVENT_FILE
        shutil.copyfile(folder / _EVENT_FILE, copy)
        cut_curves(copy, None)
        reader = LogReader(file_path=str(copy))
        if tag not in reader.get_tags().get("scalar", ()):
            return {}
        return {record.id: record.value for record in reader.get_data("scalar", tag)}


def _plain(tag: str) -> str:
    return tag.replace("%", "percent")
