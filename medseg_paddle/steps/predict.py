"""A bundle on new pictures and volumes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.bundle import Bundle
from medseg_paddle.core import LabelMap, LabelSet, Volume
from medseg_paddle.engine.startup import start_paddle
from medseg_paddle.errors import DataError, MedsegError, MemoryShortError, RecipeError, SetupError
from medseg_paddle.io.dicom_made import Algorithm
from medseg_paddle.io.files import require_writable
from medseg_paddle.io.mesh import MeshFormat
from medseg_paddle.predictor import Predictor, Segmentation
from medseg_paddle.steps.predict_channels import chosen_series, read_volumes, require_channels, together
from medseg_paddle.steps.predict_inputs import Failure, Found, Input, find_inputs
from medseg_paddle.steps.predict_outputs import Answered, Format, Outputs, draw, reference_of, write_answer
from medseg_paddle.steps.predict_summary import (
    ClassExtent,
    PredictionSummary,
    Result,
    remove_earlier,
    write_summary,
)
from medseg_paddle.steps.progress import ProgressBar

_WRITING = 0.99  # of the work on a volume, when the answer is there


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
    series: Sequence[str] = (),
    resample_channels: bool = False,
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
    ``summary.json`` and ``summary.csv``, with the volume of every structure in ml. Inputs that cannot be answered so
    are refused before anything is computed; where that is all of them, `output` stays as it is.

    Parameters
    ----------
    bundle : Path
    inputs : sequence of Path
        Pictures, volumes, folders, and zip archives; see :func:`find_inputs`. Where a model takes several files for a
        case, they are named ``CASE_0000``, ``CASE_0001``, ...
    output : Path
        Folder for the results; none of the inputs may lie directly in it.
    formats, labelmap, report, key_images, mesh, probabilities, overlays
        What to write for each; see :class:`Outputs`.
    series : sequence of str
        UIDs of the DICOM series that are meant; for a model of several channels those of one case, in their order.
        What is written refers to the first.
    resample_channels : bool
        Bring channels of a case that lie on another grid to that of the first.
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
        hold the name of the bundle or of a label; a series that is named is not there.
    """
    outputs = Outputs(tuple(formats), labelmap, report, key_images, mesh, probabilities, overlays)
    with tempfile.TemporaryDirectory(prefix="medseg-") as unpacked:  # of archives
        found = find_inputs(inputs, results=output, unpack_to=Path(unpacked))
        asked = _Asked(
            bundle, output, outputs, tuple(series), resample_channels, max_memory, device or "auto", overwrite
        )
        return _predict(asked, found)


@dataclass(frozen=True)
class _Asked:
    """What is to be done with all inputs; see :func:`predict`."""

    bundle: Path
    output: Path
    outputs: Outputs
    series: tuple[str, ...]
    resample_channels: bool
    max_memory: int | None
    device: str
    overwrite: bool


def _predict(asked: _Asked, found: Found) -> PredictionSummary:
    output, outputs = asked.output, asked.outputs
    _require_apart(output, found.inputs)
    if output.is_dir() and any(output.iterdir()) and not asked.overwrite:
        raise SetupError(f"{output} is not empty", hint="name a new folder, or pass --overwrite")
    whole = Bundle.open(asked.bundle)  # before Paddle, whose start takes seconds
    algorithm = outputs.require_labels(whole)
    if asked.max_memory is not None and whole.description.dimensions == 2:
        raise RecipeError(
            f"{asked.bundle} is a model of pictures, and a limit of memory is for 3-D models",
            hint="leave it out",
        )
    description, left_out = whole.description, found.left_out
    chosen: Sequence[Input] = found.inputs
    if asked.series:
        chosen, others = chosen_series(found.inputs, asked.series, description.volumes_per_case)
        left_out = (*left_out, *others)
    cases, incomplete = together(chosen, description.files_per_case)
    cases, unfit = _fitting(cases, outputs, description.volumes_per_case)
    failed = [*found.failures, *incomplete, *unfit]
    if not cases:
        return PredictionSummary(output, whole.id, (), tuple(failed), left_out)
    require_writable(output)
    start_paddle(paddleseg=False)
    predictor = Predictor(whole, asked.device)
    remove_earlier(output)
    results: list[Result] = []
    notes = [
        f"{one.source}: its results are called {one.name}, for with its own name they would be too long for a file's"
        for one in cases
        if one.is_shortened
    ]

    def summary(*more: str) -> PredictionSummary:
        said = (*outputs.notes(whole), *notes, *more)
        return PredictionSummary(output, whole.id, tuple(results), tuple(failed), left_out, said)

    try:
        with ProgressBar("predicting", len(cases)) as bar:
            for done, one in enumerate(cases, start=1):
                try:
                    result, said = _one(predictor, asked, algorithm, one, bar, done - 1)
                    results.append(result)
                    notes += [f"{one.name}: {note}" for note in said]
                except MedsegError as error:
                    # A full disk does not get better with the next file; the next volume may be a smaller one.
                    if isinstance(error, SetupError) and not isinstance(error, MemoryShortError):
                        raise
                    failed.append(one.failure(error))
                    bar.say(f"failed: {failed[-1].message}")
                bar.update(done, one.name)
    except BaseException:
        if results:  # listed, they are removed when others take their place
            with contextlib.suppress(SetupError):
                write_summary(summary(f"stopped before all {len(cases)} inputs were segmented"))
        raise
    return write_summary(summary())


def _fitting(cases: Sequence[Input], outputs: Outputs, channels: int) -> tuple[list[Input], list[Failure]]:
    """Those that can be answered, in the formats that are asked for, and why the others cannot."""
    fitting, failures = [], []
    for one in cases:
        try:
            require_channels(one, channels, cases)
            outputs.require_fit(one)
            fitting.append(one)
        except DataError as error:
            failures.append(one.failure(error))
    return fitting, failures


def _one(
    predictor: Predictor,
    asked: _Asked,
    algorithm: Algorithm | None,
    one: Input,
    bar: ProgressBar,
    done: int,
) -> tuple[Result, tuple[str, ...]]:
    """Predict one input, and what to know of it; a series that nothing can refer to is refused before that."""
    outputs = asked.outputs
    notes: tuple[str, ...] = ()
    reference = reference_of(one, outputs)
    if one.is_volume:
        source: tuple[Volume, ...] | NDArray[np.float32]
        source, notes = read_volumes(
            one,
            channels_in_file=predictor.bundle.description.dimensions == 3,
            bring_together=asked.resample_channels,
        )
    else:
        source = predictor.read_picture(one.path, *one.others)

    def on_part(part: int, parts: int) -> None:
        bar.update(done + _WRITING * part / parts, f"{one.name}, part {part} of {parts}")

    answer = predictor.predict(
        source,
        probabilities=outputs.probabilities,
        max_memory=asked.max_memory,
        on_part=on_part,
        on_forecast=lambda said: bar.say(f"{one.name}: {said}"),
    )
    extents = _extents(answer, predictor.bundle.labels)
    millilitres = {
        number: extent.millilitres
        for number, extent in enumerate(extents, start=1)
        if extent.millilitres is not None
    }
    pictures = draw(source, answer, millilitres, predictor.bundle, outputs)
    del source  # the largest of all, and not needed any more
    if one.is_volume:
        bar.update(done + _WRITING, f"{one.name}, writing")
    answered = Answered(one, pictures, answer, reference, millilitres)
    files = write_answer(answered, predictor.bundle, outputs, algorithm, asked.output)
    return Result(one.name, one.source, files, extents, answer.seconds), (*notes, *answer.notes)


def _extents(answer: Segmentation, labels: LabelSet) -> tuple[ClassExtent, ...]:
    # Part by part, for NumPy counts in 64 bits.
    counts = np.sum([np.bincount(part.ravel(), minlength=len(labels)) for part in answer.array], axis=0)
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
        if folder in (one.given.resolve(), one.given.resolve().parent):
            raise SetupError(
                f"{output} holds inputs ({one.given}); results would be taken for pictures the next time",
                hint="name another folder for the results, for example a new one inside it",
            )
