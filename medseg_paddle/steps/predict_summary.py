"""What `medseg predict` says of all answers together: printed, and as ``summary.json`` and ``summary.csv``."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.io.files import write_bytes
from medseg_paddle.steps.predict_inputs import Failure
from medseg_paddle.steps.predict_outputs import in_millilitres

_JSON, _CSV = "summary.json", "summary.csv"


@dataclass(frozen=True)
class ClassExtent:
    """How much of a class was found.

    Attributes
    ----------
    name : str
    elements : int
        Pixels of a picture, voxels of a volume.
    millilitres : float or None
        Of a volume; None for a picture.
    """

    name: str
    elements: int
    millilitres: float | None


@dataclass(frozen=True)
class Result:
    """What was written for one input.

    Attributes
    ----------
    name : str
    source : Path
    files : tuple of str
        Names in the output folder.
    extents : tuple of ClassExtent
        Of every class but the background.
    seconds : float
        Time of the prediction.
    """

    name: str
    source: Path
    files: tuple[str, ...]
    extents: tuple[ClassExtent, ...]
    seconds: float


@dataclass(frozen=True)
class PredictionSummary:
    """All results, and all that failed.

    Attributes
    ----------
    output : Path
    bundle_id : str
    results : tuple of Result
    failures : tuple of Failure
    left_out : tuple of str
        What lies in the input folders and was not meant; see :class:`Found`.
    notes : tuple of str
        What to know of the results, for people.
    """

    output: Path
    bundle_id: str
    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f", results in {self.output}" if self.results else ""
        lines = [f"{len(self.results)} segmented by bundle {self.bundle_id}{where}"]
        for result in self.results:
            found = ", ".join(
                f"{extent.name} {extent.elements} px"
                if extent.millilitres is None
                else f"{extent.name} {in_millilitres(extent.millilitres)}"
                for extent in result.extents
            )
            nothing = "" if any(extent.elements for extent in result.extents) else " (nothing found)"
            lines.append(f"  {result.name}: {found}{nothing}")
        lines += [f"left out: {what}" for what in self.left_out]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def require_complete(self) -> None:
        """Raise if anything failed.

        Raises
        ------
        DataError
            With the list of failures.
        """
        if self.failures:
            listed = "".join(f"\n  {failure.message} ({failure.hint})" for failure in self.failures)
            total = len(self.results) + len(self.failures)
            raise DataError(
                f"{len(self.failures)} of {total} inputs could not be segmented:{listed}",
                hint="mend these and predict them again"
                + (f"; the other results are in {self.output}" if self.results else ""),
            )


def write_summary(summary: PredictionSummary) -> PredictionSummary:
    """Write a summary into its output folder, and give it back.

    Raises
    ------
    SetupError
        It cannot be written.
    """
    for name, text in ((_CSV, _csv(summary)), (_JSON, _json(summary))):
        # Bytes of a file's name that are no UTF-8 stand as \udcXX, which JSON's readers make the same name of.
        write_bytes(summary.output / name, text.encode("utf-8", "backslashreplace"))
    return summary


def remove_earlier(output: Path) -> None:
    """Remove the results that an earlier summary in `output` lists, so that two bundles' never mix.

    Raises
    ------
    SetupError
        The summary is none.
    """
    try:
        earlier = json.loads((output / _JSON).read_text(encoding="utf-8"))
        names = [str(name) for result in earlier["results"] for name in result["files"]]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(
            f"{output / _JSON} is no summary of predictions", hint="name a new folder for the results"
        ) from error
    for name in [*names, _CSV, _JSON]:
        if Path(name).name == name:
            (output / name).unlink(missing_ok=True)


def _csv(summary: PredictionSummary) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("name", "source", "class", "pixels_or_voxels", "millilitres"))
    for result in summary.results:
        for extent in result.extents:
            volume = "" if extent.millilitres is None else f"{extent.millilitres:.6g}"
            writer.writerow((result.name, result.source, extent.name, extent.elements, volume))
    return buffer.getvalue()


def _json(summary: PredictionSummary) -> str:
    content = {
        "bundle": summary.bundle_id,
        "results": [
            {
                "name": result.name,
                "source": str(result.source),
                "files": result.files,
                "seconds": round(result.seconds, 3),
                "classes": [vars(extent) for extent in result.extents],
            }
            for result in summary.results
        ],
        "failures": [
            {"source": str(failure.source), "message": failure.message, "hint": failure.hint}
            for failure in summary.failures
        ],
        "left_out": summary.left_out,
        "notes": summary.notes,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
