"""Synthetic patients to try everything on."""

from __future__ import annotations

import json
from pathlib import Path

from medseg_paddle.io.files import new_folder, write_text
from medseg_paddle.phantom import write_phantom

_MARKER = "phantom.json"


def phantom(output: Path, *, patients: int = 12, seed: int = 42, overwrite: bool = False) -> list[Path]:
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

    Returns
    -------
    list of Path
        The patients' folders.

    Raises
    ------
    SetupError
        The folder is taken or cannot be written.
    """
    with new_folder(output, overwrite=overwrite, marker=_MARKER) as new:
        names = [folder.name for folder in write_phantom(new, patients=patients, seed=seed)]
        write_text(new / _MARKER, json.dumps({"patients": patients, "seed": seed}))
    return [output / name for name in names]
