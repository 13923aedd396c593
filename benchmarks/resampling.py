"""Resampling of volumes beside SimpleITK: time in turn (A B A B ...) in one process, peak memory in one process each.

`python benchmarks/resampling.py [--runs N] [CASE ...]` prints Markdown. Synthetic volumes; nothing is read. SimpleITK's
image is made before its clock starts, and its answer stays an image; ours is from array to array. Both take all
processors. "Beside" names what SimpleITK is asked for: the same values (the largest difference is printed), or where it
has no equal the nearest thing: it does not smooth where a grid gets coarser, nor mix cubic with linear.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medseg_paddle.core import Geometry, LabelMap, LabelSet, Volume
from medseg_paddle.preprocess import Interpolation, resample, resample_labels
from medseg_paddle.preprocess.restoring import restored_slabs

LABELS = LabelSet.from_names(["background", "one", "two"])
AXIAL = np.array([[0, 0, 1.0], [0, 1.0, 0], [1.0, 0, 0]])


class Case(NamedTuple):
    """What is compared; each function does the whole work once and returns an array or an image."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    beside: str


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Geometry:
    """Axial, slices to the head."""
    affine = np.eye(4)
    affine[:3, :3] = AXIAL * spacing
    return Geometry(shape, affine)


def turned(geometry: Geometry, degrees: float) -> Geometry:
    """The same grid, turned about its centre and about all axes."""
    centre = geometry.to_lps((np.array(geometry.shape) - 1) / 2)
    affine = geometry.affine.copy()
    affine[:3, :3] = Rotation.from_euler("xyz", [degrees] * 3, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(geometry.shape) - 1) / 2)
    return Geometry(geometry.shape, affine)


def body(geometry: Geometry, dtype: type) -> Volume:
    """Soft tissue with noise in air."""
    rng = np.random.default_rng(0)
    array = rng.normal(0, 40, geometry.shape).astype(np.float32)
    rows, columns = geometry.shape[1:]
    array[:, rows // 4 : -rows // 4, columns // 4 : -columns // 4] += 1000
    return Volume((array - 1000).astype(dtype), geometry, "HU")


def placed(image: Any, geometry: Geometry) -> Any:
    """`image` at its place in the patient."""
    spacing, direction, origin = place(geometry)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    image.SetOrigin(origin)
    return image


def place(geometry: Geometry) -> tuple[tuple[float, ...], list[float], list[float]]:
    """Spacing, direction and origin as SimpleITK wants them."""
    axes = geometry.affine[:3, :3][:, ::-1] / geometry.spacing[::-1]
    return geometry.spacing[::-1], axes.ravel().tolist(), geometry.affine[:3, 3].tolist()


def itk(image: Any, onto: Geometry, interpolator: int, pixel: int, fill: float = 0) -> Any:
    """Resample an image with SimpleITK."""
    spacing, direction, origin = place(onto)
    return SimpleITK.Resample(
        image, onto.shape[::-1], SimpleITK.Transform(), interpolator, origin, spacing, direction, fill, pixel
    )


def intensities(
    shape: Any, spacing: Any, onto: Any, dtype: type, kind: str, **way: Any
) -> Callable[[], Case]:
    """A volume to another spacing."""

    def make() -> Case:
        source = grid(shape, spacing)
        target = (
            source.respaced(onto) if isinstance(onto, tuple) else turned(source.respaced((1, 1, 1)), onto)
        )
        volume = body(source, dtype)
        image = placed(SimpleITK.GetImageFromArray(volume.array), source)
        interpolator = SimpleITK.sitkBSpline if kind == "cubic" else SimpleITK.sitkLinear
        interpolation = Interpolation(kind, **{"across": kind, "antialias": False, **way})  # type: ignore[arg-type]
        return Case(
            lambda: resample(volume, target, interpolation=interpolation, fill=-1000).array,
            lambda: itk(image, target, interpolator, SimpleITK.sitkFloat32, -1000),
            "sitkBSpline" if kind == "cubic" else "sitkLinear",
        )

    return make


def labels(shape: Any, spacing: Any, onto: Any) -> Callable[[], Case]:
    """A label map to another spacing, by the nearest voxel."""

    def make() -> Case:
        source = grid(shape, spacing)
        array = (body(source, np.float32).array > -500).astype(np.uint8)
        image = placed(SimpleITK.GetImageFromArray(array), source)
        return Case(
            lambda: resample_labels(LabelMap(array, source, LABELS), source.respaced(onto)).array,
            lambda: itk(image, source.respaced(onto), SimpleITK.sitkNearestNeighbor, SimpleITK.sitkUInt8),
            "sitkNearestNeighbor",
        )

    return make


def way_back(shape: Any, spacing: Any, network: Any) -> Callable[[], Case]:
    """Probabilities of three classes back onto the scanner's grid, and the greatest of them."""

    def make() -> Case:
        source = grid(shape, spacing)
        on = source.respaced(network)
        rng = np.random.default_rng(0)
        drawn = np.stack([rng.random(on.shape, np.float32) for _ in range(3)])
        images = [placed(SimpleITK.GetImageFromArray(one), on) for one in drawn]

        def theirs() -> Any:
            whole = [itk(one, source, SimpleITK.sitkLinear, SimpleITK.sitkFloat32) for one in images]
            arrays = np.stack([SimpleITK.GetArrayViewFromImage(one) for one in whole])
            return SimpleITK.GetImageFromArray(arrays.argmax(axis=0).astype(np.uint8))

        def ours() -> NDArray[Any]:
            found = np.empty(source.shape, np.uint8)
            for part, values in restored_slabs([drawn], on, source, len(drawn)):
                found[part] = values.argmax(axis=0)
            return found

        return Case(
            ours,
            theirs,
            "sitkLinear of each class, then numpy's argmax",
        )

    return make


CT, CT_MM = (200, 512, 512), (1.5, 0.7, 0.7)
MR, MR_MM = (40, 256, 256), (4.0, 0.9, 0.9)
CASES = {
    "CT float32 to 1 mm, linear": intensities(CT, CT_MM, (1, 1, 1), np.float32, "linear"),
    "CT int16 to 1 mm, linear": intensities(CT, CT_MM, (1, 1, 1), np.int16, "linear"),
    "CT int16 to 1 mm, linear, smoothed": intensities(
        CT, CT_MM, (1, 1, 1), np.int16, "linear", antialias=True
    ),
    "CT int16 of 50 slices to 1 mm, cubic": intensities((50, 512, 512), CT_MM, (1, 1, 1), np.int16, "cubic"),
    "MR float32 to 3 x 0.7 x 0.7 mm, linear": intensities(MR, MR_MM, (3, 0.7, 0.7), np.float32, "linear"),
    "MR float32 to 3 x 0.7 x 0.7 mm, cubic": intensities(MR, MR_MM, (3, 0.7, 0.7), np.float32, "cubic"),
    "MR float32 to 3 x 0.7 x 0.7 mm, as by default": intensities(
        MR, MR_MM, (3, 0.7, 0.7), np.float32, "cubic", across="linear", antialias=True
    ),
    "CT labels to 1 mm, nearest": labels(CT, CT_MM, (1, 1, 1)),
    "3 classes from 1 mm back to the CT": way_back((100, 512, 512), CT_MM, (1, 1, 1)),
    "MR float32 to a grid turned by 10 degrees, linear": intensities(MR, MR_MM, 10.0, np.float32, "linear"),
}


def main() -> None:
    """Measure the cases that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help="beginnings of their names; all where absent")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = [
        name for name in CASES if not arguments.cases or any(name.startswith(one) for one in arguments.cases)
    ]
    if arguments.memory:
        print(grown(getattr(CASES[chosen[0]](), arguments.memory)))
        return
    print("| case | beside | ours s | SimpleITK s | times as fast | ours MiB | SimpleITK MiB | difference |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in chosen:
        print(compared(name, CASES[name](), arguments.runs), flush=True)


def compared(name: str, case: Case, runs: int) -> str:
    """A line of the table: medians, and the median of the ratios run by run with their range."""
    ours, theirs = case.ours(), SimpleITK.GetArrayFromImage(case.theirs())
    if ours.dtype == np.float32:
        apart = f"{np.abs(ours - theirs).max():.1g}"
    else:
        apart = f"{np.mean(ours != theirs):.1%} of voxels"
    del ours, theirs
    pairs = [(seconds(case.ours), seconds(case.theirs)) for _ in range(runs)]
    mine, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(b / a for a, b in pairs)
    peaks = [
        subprocess.run(
            [sys.executable, __file__, name, "--memory", who], check=True, capture_output=True, text=True
        ).stdout.strip()
        for who in ("ours", "theirs")
    ]
    return (
        f"| {name} | {case.beside} | {mine:.2f} | {other:.2f} | {statistics.median(ratios):.1f} "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f}) | {peaks[0]} | {peaks[1]} | {apart} |"
    )


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def grown(work: Callable[[], Any]) -> int:
    """MiB by which the process grew at most: the answer, and what it took to make. Linux only."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the most that was held so far
    kept = work()
    after = memory("VmHWM")
    del kept
    return (after - before) // 1024


def memory(name: str) -> int:
    """KiB, as the kernel counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
