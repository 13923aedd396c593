#!/usr/bin/env python3
"""Memory of `medseg predict` from a DICOM series to all its formats, beside its own forecast.

A made CT (a body with three kinds of organs, noise of 20 HU, 512 x 512 pixels of 0.8 mm, slices of 2.5 mm) is answered
by a network of one layer, which knows the organs by their HU: its own memory is next to nothing, so that what is
measured is all the rest. Peaks are the most that was ever resident (VmHWM), libraries included, of the program and of
the process that it reads DICOM in.

    python benchmarks/prediction_memory.py --slices 100 800
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WAYS = {
    "NIfTI": ["--no-overlays"],
    "all formats": [
        *("--format", "nifti", "--format", "seg", "--format", "rtstruct"),
        *("--report", "--key-images", "--mesh", "stl"),
    ],
}
CLASSES = ["background", "liver", "kidney", "bone"]
BORDERS = [120.0, 250.0, 500.0]  # HU between them
TILE = (64, 160, 160)


def write_bundle(folder: Path) -> None:
    """A network whose classes are ranges of HU, as `medseg export` writes it."""
    from medseg_paddle.engine.startup import start_paddle

    start_paddle()
    import paddle
    from paddle import nn

    from medseg_paddle.bundle import Bundle
    from medseg_paddle.core import LabelSet
    from medseg_paddle.description import Description
    from medseg_paddle.engine.static_graph import compare_patches, load_static, save_static
    from medseg_paddle.preprocess import InferencePlan, VolumePreprocessing

    class Ranges(nn.Layer):
        """Lines whose greatest is that of the range."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv3D(1, len(CLASSES), 1)
            slopes = np.arange(len(CLASSES), dtype=np.float32) / 10
            self.head.weight.set_value(slopes.reshape(-1, 1, 1, 1, 1))
            self.head.bias.set_value(-np.cumsum([0.0, *BORDERS]).astype(np.float32) / 10)

        def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
            return [self.head(x)]

    model = Ranges()
    content = Description(
        name="ranges",
        created="2026-01-31T12:00:00+00:00",
        labels=LabelSet.from_names(CLASSES),
        in_channels=1,
        window=None,
        trained_on=None,
        preprocessing=VolumePreprocessing(spacing=(2.5, 0.8, 0.8)),
        plan=InferencePlan("tiles", TILE, 0.25, 1),
        tolerance=1e-3,
        provenance={},
        recipe={"name": "ranges", "device": "cpu"},
        versions={},
    )

    def dynamic(batch: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return nn.functional.softmax(model(paddle.to_tensor(batch))[0], axis=1).numpy()

    patch = np.random.default_rng(0).uniform(-100, 800, (1, 8, 8, 8)).astype(np.float32)
    with Bundle.create(folder, content) as draft:
        save_static(model, draft.graph_prefix, 1, 3)
        static = load_static(draft.graph_prefix, "cpu", threads=1)
        draft.accept(
            compare_patches(dynamic, static, [patch]), patch, content.answer_to_sample(static, patch)
        )


def write_study(folder: Path, slices: int, side: int = 512) -> None:
    """A body with organs, one file a slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    random = np.random.default_rng(0)
    noise = random.normal(0, 20, (side * 2, side * 2)).astype(np.int16)
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    ds.PatientName, ds.PatientID, ds.Modality = "Made^Up", "M1", "CT"
    ds.PatientBirthDate = ds.PatientSex = ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ""
    ds.ReferringPhysicianName = ""
    ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = [1, 0, 0, 0, 1, 0], [0.8, 0.8], 2.5
    ds.Rows = ds.Columns = side
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    for k in range(slices):
        height = 2 * k / max(slices - 1, 1) - 1

        def inside(x: float, y: float, z: float, radius: float, height: float = height) -> np.ndarray:
            return (columns - x) ** 2 + (rows - y) ** 2 + 0.3 * (height - z) ** 2 < radius**2

        hu = np.full((side, side), -1000, np.int16)
        hu[(columns / 0.9) ** 2 + (rows / 0.7) ** 2 < 1] = 40
        hu[inside(-0.4, 0, 0.2, 0.35)] = 180
        hu[inside(0.4, 0.3, 0, 0.15) | inside(-0.4, 0.45, -0.4, 0.12)] = 360
        hu[(columns**2 + (rows - 0.5) ** 2 < 0.01)] = 800
        dy, dx = random.integers(0, side, 2)
        ds.PixelData = (hu + noise[dy : dy + side, dx : dx + side] + 1024).astype(np.int16).tobytes()
        ds.ImagePositionPatient, ds.InstanceNumber = [-205, -205, 2.5 * k], k + 1
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)


def held(pid: int, what: str) -> int:
    """MiB of a process; 0 of one that ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    return 0 if found is None else int(found[1]) // 1024


def children(pid: int) -> list[int]:
    """Processes that one has started."""
    try:
        found = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [int(one) for line in found for one in line.split()]


def measure(bundle: Path, study: Path, output: Path, options: list[str], *, trace: bool) -> dict[str, float]:
    """Run the command, and look at it ten times a second."""
    command = [sys.executable, "-m", "medseg_paddle", "predict", str(bundle), str(study), "-o", str(output)]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *options, "--overwrite"], stdout=log, stderr=log)
        peak = reading = together = 0
        while process.poll() is None:
            below = [(held(one, "VmHWM"), held(one, "VmRSS")) for one in children(process.pid)]
            now = held(process.pid, "VmRSS")
            peak = max(peak, held(process.pid, "VmHWM"))
            reading = max([reading, *(most for most, _ in below)])
            together = max(together, now + sum(one for _, one in below))
            if trace:
                files = len(list(output.iterdir())) if output.is_dir() else 0
                print(f"{time.monotonic() - start:6.1f} s {now:6} MiB, {files} files", flush=True)
            time.sleep(0.1 if not trace else 0.5)
        log.seek(0)
        said = log.read()
    if process.returncode:
        raise SystemExit(said)
    if trace:
        print(said)
    return {
        "peak": peak, "reading": reading, "together": together, "seconds": round(time.monotonic() - start),
    }  # fmt: skip


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[100])
    parser.add_argument(
        "--folder", type=Path, help="where the made files are kept; a temporary one otherwise"
    )
    parser.add_argument("--way", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--trace", action="store_true", help="print what is held, as time goes by")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = options.folder or Path(made)
        place.mkdir(exist_ok=True)
        if not (place / "bundle").is_dir():
            subprocess.run(  # Paddle stays out of this process
                [sys.executable, __file__, "--bundle", str(place / "bundle")], check=True
            )
        print("| slices | written | program, MiB | reading DICOM, MiB | both at once, MiB | seconds |")
        print("| ---: | --- | ---: | ---: | ---: | ---: |")
        for slices in options.slices:
            study = place / f"ct{slices}"
            if not study.is_dir():
                write_study(study, slices)
            for way in options.way:
                found = measure(place / "bundle", study, place / "answers", WAYS[way], trace=options.trace)
                row = (found[name] for name in ("peak", "reading", "together", "seconds"))
                print(f"| {slices} | {way} | {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bundle"]:
        write_bundle(Path(sys.argv[2]))
    else:
        main()
