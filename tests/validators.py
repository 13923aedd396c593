"""Programs of others that judge DICOM files, or read them; a test that needs one skips where it is not installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813


def require_no_error(path: Path) -> None:
    """See that David Clunie's `dciodvfy` knows the class of an object, and finds no error in it."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian's dicom3tools)")
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    assert not [line for line in lines if line.startswith("Error")], lines
    assert set(lines) & {
        "Segmentation",
        "RTStructureSet",
        "SCImage",
        "ComprehensiveSR",
        "CTImage",
        "MRImage",
    }, lines


def read_by_dcmqi(seg: Path, folder: Path) -> dict[str, np.ndarray]:
    """Places ``(n, 3)`` of every segment's voxels by its label, in LPS mm, as dcmqi finds them."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("segimage2itkimage", path=places)
    if program is None:
        pytest.skip("segimage2itkimage is not installed (dcmqi, of the extra `dev`)")
    folder.mkdir()
    subprocess.run(
        [program, "--inputDICOM", seg, "--outputDirectory", folder, "-t", "nrrd", "-p", "a"],
        capture_output=True,
        check=True,
    )
    names = {}
    for group in json.loads((folder / "a-meta.json").read_text())["segmentAttributes"]:
        names |= {segment["labelID"]: segment["SegmentLabel"] for segment in group}
    found = {}
    for path in folder.glob("a-*.nrrd"):
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        origin, spacing = np.array(image.GetOrigin()), np.array(image.GetSpacing())
        axes = np.array(image.GetDirection()).reshape(3, 3)
        for number in set(np.unique(array)) - {0}:
            indices = np.argwhere(array == number)[:, ::-1]
            found[names[int(number)]] = origin + (indices * spacing) @ axes.T
    return found
