"""Synthetic patients to try everything on."""

from __future__ import annotations

import json
from pathlib import Path

from medseg_paddle.errors import DataError
from medseg_paddle.io.files import new_folder, write_text
from medseg_paddle.phantom import write_phantom
from medseg_paddle.steps.progress import ProgressBar

_MARKER = "phantom.json"


def phantom(
    output: Path, *, patients: int = 12, seed: int = 42, overwrite: bool = False, keep: bool = False
) -> list[Path]:
    """Write synthetic chest-CT patients with tumours: DICOM series, and a mask PNG per slice.

    Parameters
    ----------
    output : Path
        Gets a folder per patient, with ``ct/`` and ``mask/``.
    patients : int
    seed : int
        The same seed gives the same files.
    overwrite : bool
        Replace an earlier cohort in `output`.
    keep : bool
        Leave an earlier cohort of as many patients and the same seed as it is.

    Returns
    -------
    list of Path
        The patients' folders.

    Raises
    ------
    DataError
        The cohort to keep is another one.
    SetupError
        The folder is taken or cannot be written.
    """
    if keep and (output / _MARKER).is_file():
        return _kept(output, {"patients": patients, "seed": seed})
    with (
        new_folder(output, overwrite=overwrite, marker=_MARKER) as new,
        ProgressBar("synthetic patients", patients) as bar,
    ):
        written = write_phantom(new, patients=patients, seed=seed, progress=bar.advance)
        names = [folder.name for folder in written]
        write_text(new / _MARKER, json.dumps({"patients": patients, "seed": seed}))
    return [output / name for name in names]


def _kept(output: Path, wanted: dict[str, int]) -> list[Path]:
    try:
        made = json.loads((output / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{output / _MARKER} cannot be read: {error}", hint="make the cohort anew with --overwrite"
        ) from error
    if made != wanted:
        raise DataError(
            f"{output} was made with {json.dumps(made)}, now {json.dumps(wanted)} is wanted",
            hint="make it anew with --overwrite",
        )
    return sorted(path for path in output.iterdir() if path.is_dir())
