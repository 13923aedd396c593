"""A bundle on new pictures and volumes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import LabelMap, LabelSet, Volume
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import DataError, MedsegError, MemoryShortError, RecipeError, SetupError
from medseg_paddle.io.dicom_made import Algorithm
from medseg_paddle.io.files import require_writable, write_text
from medseg_paddle.io.mesh import MeshFormat
from medseg_paddle.predictor import Predictor, Segmentation
from medseg_paddle.steps.predict_inputs import Failure, Input, find_inputs, together
from medseg_paddle.steps.predict_outputs import Answered, Format, Outputs, reference_of, write_answer
from medseg_paddle.steps.progress import ProgressBar

SUMMARY_JSON = "summary.json"
SUMMARY_CSV = "summary.csv"


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
        lines = [f"{len(self.results)} segmented by bundle {self.bundle_id}, results in {self.output}"]
        for result in self.results:
            found = ", ".join(
                f"{extent.name} {extent.elements} px"
                if extent.millilitres is None
                else f"{extent.name} {extent.millilitres:.2f} ml"
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
                hint=f"mend these and predict them again; the other results are in {self.output}",
            )


def predict(
    bundle: Path,
    inputs: Sequence[Path],
    output: Path,
    *,
    formats: Sequence[Format] = ("nifti",),
    labelmap: bool = False,
    report: bool = False,
    key_images: bool = False,
    mesh: MeshFormat | None = None,
    probabilities: bool = False,
    overlays: bool = True,
    max_memory: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> PredictionSummary:
    """Segment pictures and volumes; go on past bad ones.

    For a picture, `output` gets ``<name>_mask.png`` (class indices in the picture's size) and
    ``<name>_overlay.png``; for a volume ``<name>_mask.nii.gz`` on its own grid and an overlay of the
    slices with findings; on request ``<name>_seg.dcm``, ``<name>_rtstruct.dcm``, ``<name>_report.dcm``,
    ``<name>_key_<number>.dcm`` (or ``.png``), ``<name>_mesh_<label>.stl`` (or ``.obj``) and
    ``<name>_probabilities.npz`` (array ``probabilities``, float32, as in :class:`Segmentation`); for all together
    ``summary.json`` and ``summary.csv``, with the volume of every structure in ml.

    Parameters
    ----------
    bundle : Path
    inputs : sequence of Path
        Pictures, volumes, and folders; see :func:`find_inputs`. Where a model takes several files for a case,
        they are named ``CASE_0000``, ``CASE_0001``, ...
    output : Path
        Folder for the results; none of the inputs may lie directly in it.
    formats, labelmap, report, key_images, mesh, probabilities, overlays
        What to write for each; see :class:`Outputs`.
    max_memory : int, optional
        Bytes for each volume, see :meth:`Predictor.predict`; larger ones are passed over. For 3-D models.
    device : str, optional
        ``"auto"``, ``"cpu"`` or ``"gpu"``; auto where absent.
    overwrite : bool
        Write into a folder that holds something; an earlier prediction's results are removed.

    Returns
    -------
    PredictionSummary
        Its ``failures`` tell what could not be segmented.

    Raises
    ------
    SetupError
        `output` is not empty, cannot be written or holds inputs; the disk is full; no such device.
    ModelError
        The bundle is not whole.
    RecipeError, DataError
        Formats that do not go together; a limit of memory for a model of pictures; DICOM is to be written, and cannot
        hold the name of the bundle or of a label.
    """
    outputs = Outputs(tuple(formats), labelmap, report, key_images, mesh, probabilities, overlays)
    found = find_inputs(inputs, results=output)
    _require_apart(output, found.inputs)
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise SetupError(f"{output} is not empty", hint="name a new folder, or pass --overwrite")
    require_writable(output)
    whole = Bundle.open(bundle)  # before Paddle, whose start takes seconds
    algorithm = outputs.require_labels(whole)
    if max_memory is not None and whole.description.dimensions == 2:
        raise RecipeError(
            f"{bundle} is a model of pictures, and a limit of memory is for 3-D models", hint="leave it out"
        )
    start_paddle()
    predictor = Predictor(whole, device or "auto")
    _remove_earlier(output)
    results: list[Result] = []
    notes: list[str] = []
    cases, incomplete = together(found.inputs, whole.description.files_per_case)
    failed = [*found.failures, *incomplete]
    with ProgressBar("predicting", len(cases)) as bar:
        for done, one in enumerate(cases, start=1):
            try:
                result, said = _one(
                    predictor, one, output, outputs, algorithm, max_memory, _parts_of(bar, done - 1, one)
                )
                results.append(result)
                notes += [f"{one.name}: {note}" for note in said]
            except MedsegError as error:
                # A full disk does not get better with the next file; the next volume may be a smaller one.
                if isinstance(error, SetupError) and not isinstance(error, MemoryShortError):
                    raise
                failed.append(Failure.of(one.source, error))
                bar.say(f"failed: {failed[-1].message}")
            bar.update(done, one.name)
    summary = PredictionSummary(
        output,
        predictor.bundle.id,
        tuple(results),
        tuple(failed),
        found.left_out,
        (*outputs.notes(whole), *notes),
    )
    write_text(output / SUMMARY_CSV, _csv(summary))
    write_text(output / SUMMARY_JSON, _json(summary))
    return summary


def _parts_of(bar: ProgressBar, done: int, one: Input) -> Callable[[int, int], None]:
    """What says how far an input is."""
    return lambda part, parts: bar.update(done, f"{one.name}, part {part} of {parts}")


def _one(
    predictor: Predictor,
    one: Input,
    output: Path,
    outputs: Outputs,
    algorithm: Algorithm | None,
    max_memory: int | None,
    on_part: Callable[[int, int], None],
) -> tuple[Result, tuple[str, ...]]:
    """Predict one input, and what to know of it; what it cannot be answered by is refused before that."""
    outputs.require_fit(one)
    description = predictor.bundle.description
    reference = reference_of(one, outputs)
    if one.is_volume:
        source: tuple[Volume, ...] | NDArray[np.float32] = one.read_volumes(whole=description.dimensions == 3)
    else:
        source = predictor.read_picture(one.source, *one.others)
    answer = predictor.predict(
        source, probabilities=outputs.probabilities, max_memory=max_memory, on_part=on_part
    )
    extents = _extents(answer, predictor.bundle.labels)
    millilitres = {
        number: extent.millilitres
        for number, extent in enumerate(extents, start=1)
        if extent.millilitres is not None
    }
    answered = Answered(one, source, answer, reference, millilitres)
    files = write_answer(answered, predictor.bundle, outputs, algorithm, output)
    return Result(one.name, one.source, files, extents, answer.seconds), answer.notes


def _extents(answer: Segmentation, labels: LabelSet) -> tuple[ClassExtent, ...]:
    counts = np.bincount(answer.array.ravel(), minlength=len(labels))
    millilitres = None
    if isinstance(answer.labels, LabelMap):
        millilitres = abs(float(np.linalg.det(answer.labels.geometry.affine[:3, :3]))) / 1000
    return tuple(
        ClassExtent(
            label.name,
            int(counts[label.index]),
            None if millilitres is None else float(counts[label.index]) * millilitres,
        )
        for label in labels.foreground
    )


def _require_apart(output: Path, inputs: Sequence[Input]) -> None:
    """See that results do not lie among the inputs: a second run would take masks for pictures."""
    folder = output.resolve()
    for one in inputs:
        if folder in (one.source.resolve(), one.source.resolve().parent):
            raise SetupError(
                f"{output} holds inputs ({one.source}); results would be taken for pictures the next time",
                hint="name another folder for the results, for example a new one inside it",
            )


def _remove_earlier(output: Path) -> None:
    """Remove the results that an earlier summary in `output` lists, so that two bundles' never mix."""
    try:
        earlier = json.loads((output / SUMMARY_JSON).read_text(encoding="utf-8"))
        names = [str(name) for result in earlier["results"] for name in result["files"]]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(
            f"{output / SUMMARY_JSON} is no summary of predictions", hint="name a new folder for the results"
        ) from error
    for name in [*names, SUMMARY_CSV, SUMMARY_JSON]:
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
