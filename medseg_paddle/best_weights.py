"""The best weights of a training, kept beside its checkpoints, which come and go."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_paddle.checkpoint_folder import EMA_WEIGHTS, WEIGHTS, iteration_of, name_of
from medseg_paddle.io.files import whole_file, write_text

_FILES = {"model": ("best_model", WEIGHTS), "ema": ("ema_best_model", EMA_WEIGHTS)}
_NOTE = "iteration"
_BEING_REPLACED = 0
"""In place of the iteration of the weights; no validation is of it."""


@dataclass(frozen=True)
class BestWeights:
    """The weights with the best score, of ``"model"`` and of ``"ema"``, the moving average, and whose they are.

    Attributes
    ----------
    checkpoints : Path
        Folder of the checkpoints.
    """

    checkpoints: Path

    def kind_of(self, weights: Path) -> str | None:
        """Whose best weights are kept in a file: ``"model"``, ``"ema"`` or, of any other file, None."""
        if weights.parent.parent != self.checkpoints:
            return None
        return next((kind for kind, (folder, _) in _FILES.items() if folder == weights.parent.name), None)

    def keep(self, checkpoint: Path, kind: str = "model") -> None:
        """Let the weights of `checkpoint` be the best ones; they are copied."""
        kept = self._file(kind)
        with self.replaced(kept, iteration_of(checkpoint)), whole_file(kept) as copy:
            shutil.copyfile(checkpoint / kept.name, copy)

    @contextlib.contextmanager
    def replaced(self, weights: Path, iteration: int) -> Iterator[None]:
        """While a file is replaced by weights of an iteration, note beside it which it is.

        Should the block be cut short, nobody takes the weights before it for those after it, nor the other way.
        """
        note = weights.with_name(_NOTE)
        if weights.is_file():
            write_text(note, f"{_BEING_REPLACED}\n")
        yield
        write_text(note, f"{iteration}\n")

    def of(self, entry: dict[str, Any]) -> Path | None:
        """Where the weights of an evaluation still are, None where they are no more.

        Those that are kept can be of an iteration that the history has lost: a run that went back past a damaged
        checkpoint has yet to come to it again.
        """
        kept = self._file(entry["weights"])
        if kept.is_file() and self._iteration(kept) in (entry["iter"], None):
            return kept
        saved = self.checkpoints / name_of(entry["iter"]) / kept.name
        return saved if saved.is_file() else None

    def unkept(self, best_first: Sequence[dict[str, Any]], until: int) -> dict[str, Path]:
        """What is to be kept, and is not: ``"model"`` or ``"ema"``, and a checkpoint that has it.

        So it is where the training was killed before it kept its latest weights, or went back past a damaged
        checkpoint whose weights had taken the place of better ones.

        Parameters
        ----------
        best_first : sequence of dict
            Evaluations, the best first.
        until : int
            Those after this iteration are not looked at.
        """
        found = {}
        for kind in _FILES:
            scored = (entry["iter"] for entry in best_first if entry["weights"] == kind)
            best = next((iteration for iteration in scored if iteration <= until), None)
            kept = self._file(kind)
            if best is None or (kept.is_file() and self._iteration(kept) == best):
                continue
            checkpoint = self.checkpoints / name_of(best)
            if (checkpoint / kept.name).is_file():
                found[kind] = checkpoint
        return found

    def tidy(self) -> None:
        """Remove what a killed process was about to write."""
        for folder, _ in _FILES.values():
            for file in (self.checkpoints / folder).glob(".*.tmp"):
                file.unlink(missing_ok=True)

    def _file(self, kind: str) -> Path:
        folder, name = _FILES[kind]
        return self.checkpoints / folder / name

    @staticmethod
    def _iteration(weights: Path) -> int | None:
        """The iteration of kept weights; None where an earlier version noted none."""
        note = weights.with_name(_NOTE)
        return int(note.read_text(encoding="utf-8")) if note.is_file() else None
