"""What a run that goes on from a checkpoint keeps of its curves and its log: all up to there, nothing beyond.

A run that was killed has logged iterations after its last checkpoint. It comes to them again.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from visualdl.proto.record_pb2 import Record

from medseg_paddle.io.files import write_text

VALIDATION = "Validation/"
AVERAGE = "EMA "

_LINE = re.compile(r"\[(?P<what>TRAIN|EVAL)\] (?:epoch: \d+, )?iter: (?P<iteration>\d+)/\d+, (?P<rest>.*)")


@dataclass(frozen=True)
class Reached:
    """How far a run has come that goes on.

    Attributes
    ----------
    iteration : int
        Of its checkpoint.
    unscored : collection of str
        Validations of that iteration that are still to be made, ``"model"`` and ``"ema"``.
    """

    iteration: int
    unscored: Collection[str] = ()

    def holds(self, tag: str, step: int) -> bool:
        """Whether a point of a curve was made on the way here."""
        if step == self.iteration and tag.startswith(VALIDATION):
            kind = "ema" if tag.startswith(VALIDATION + AVERAGE) else "model"
            return kind not in self.unscored
        return step <= self.iteration


def eval_line(iteration: int, iters: int, name: str, score: float, prefix: str) -> str:
    """The line of a validation in a run's text log, with the score's name; `prefix` is that of its curves."""
    return f"[EVAL] iter: {iteration}/{iters}, {prefix}{name}: {score:.4f}\n"


def cut_curves(event_file: Path, reached: Reached | None) -> None:
    """Shorten an event file of VisualDL to what was `reached`; all of it for None.

    A record is its length, 8 bytes little-endian, and its content. One at the end that a kill or a full
    disk left incomplete goes in any case: no reader gets past it.
    """
    if not event_file.is_file():
        return
    size, end = event_file.stat().st_size, 0
    with event_file.open("rb") as stream:
        while len(head := stream.read(8)) == 8 and (length := struct.unpack("<Q", head)[0]) <= size - end - 8:
            if reached is not None and not _was_reached(stream.read(length), reached):
                break
            end = stream.seek(end + 8 + length)
    if end < size:
        os.truncate(event_file, end)


def _was_reached(content: bytes, reached: Reached) -> bool:
    record = Record()
    try:
        record.ParseFromString(content)
    except DecodeError:
        return False
    return all(reached.holds(value.tag, value.id) for value in record.values)


def cut_log(log: Path, reached: Reached) -> None:
    """Take the lines of iterations and validations after what was `reached` out of a run's text log.

    Whatever else was said stays.
    """
    if not log.is_file():
        return
    text = log.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    kept = "".join(line for line in whole.splitlines(keepends=True) if _line_holds(line, reached))
    if kept != text:
        write_text(log, kept)


def _line_holds(line: str, reached: Reached) -> bool:
    found = _LINE.search(line)
    if found is None:
        return True
    tag = VALIDATION + found["rest"] if found["what"] == "EVAL" else "Train/loss"
    return reached.holds(tag, int(found["iteration"]))
