"""Processor time and memory of surface distances on a volume of 512 x 512 x 300: this program, and distance transforms.

``python benchmarks/surfaces.py`` prints a table. Each way runs in a process of its own, on one thread. Two organs are
scored, a large one and one with a rough surface; the distance transforms are those of the box that holds the organ in
both masks, as in MONAI (scipy), and those of SimpleITK.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SHAPE, SPACING = (300, 512, 512), (1.5, 0.8, 0.8)
Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    """A mask of the whole volume, slice by slice, for what it takes would hide what the scores take."""
    rows, columns = np.ogrid[: SHAPE[1], : SHAPE[2]]
    plane = ((rows - centre[1]) / radii[1]) ** 2 + ((columns - centre[2]) / radii[2]) ** 2
    found = np.empty(SHAPE, np.bool_)
    for place in range(SHAPE[0]):
        found[place] = plane + ((place - centre[0]) / radii[0]) ** 2 <= 1
    return found


def smooth() -> Masks:
    """An organ of 5 million voxels and a good segmentation of it."""
    return ellipsoid((150, 256, 200), (90, 120, 110)), ellipsoid((151, 255, 201), (90, 121, 109))


def rough() -> Masks:
    """The same organ, and one with an error in every thousandth voxel of the volume."""
    truth, prediction = smooth()
    wrong = np.random.default_rng(0).integers(0, truth.size, truth.size // 1000)
    prediction.ravel()[wrong] ^= True
    return truth, prediction


def ours(masks: Masks) -> float:
    """As `medseg evaluate`."""
    from medseg_paddle.metrics.surface import surface_scores

    truth, prediction = (mask.view(np.uint8) for mask in masks)
    (found,) = surface_scores(truth, prediction, num_classes=2, spacing=SPACING, tolerance=2)
    return found.hd95


def scipy_transform(masks: Masks) -> float:
    """Borders by erosion, distances by Euclidean transforms of the box."""
    from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

    (box,) = find_objects((masks[0] | masks[1]).view(np.uint8), 1)
    borders = [mask[box] & ~binary_erosion(mask[box]) for mask in masks]
    far = [
        distance_transform_edt(~border, sampling=SPACING)[other] for border, other in (borders, borders[::-1])
    ]
    return max(float(np.percentile(one, 95)) for one in far)


def simpleitk(masks: Masks) -> float:
    """Contours and distance maps of the box."""
    import SimpleITK as sitk  # noqa: N813  (as its manual does)
    from scipy.ndimage import find_objects

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    (box,) = find_objects((masks[0] | masks[1]).view(np.uint8), 1)
    contours = []
    for mask in masks:
        image = sitk.GetImageFromArray(np.pad(mask[box], 1).view(np.uint8))
        image.SetSpacing(SPACING[::-1])
        contours.append(sitk.LabelContour(image))
    far = []
    for contour, other in (contours, contours[::-1]):
        distances = sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True)
        points = sitk.GetArrayViewFromImage(other) > 0
        far.append(np.abs(sitk.GetArrayViewFromImage(distances)[points]))
    return max(float(np.percentile(one, 95)) for one in far)


WAYS: dict[str, Callable[[Masks], float]] = {
    "this program": ours,
    "scipy": scipy_transform,
    "SimpleITK": simpleitk,
}
ORGANS = {"smooth": smooth, "rough": rough}


def measure(way: str, organ: str) -> None:
    """In a process of its own: seconds, MB above what the masks took, HD95."""
    masks = ORGANS[organ]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    found = WAYS[way](masks)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{organ:8} {way:14} {seconds:7.2f} s {peak / 1024:8.0f} MB   HD95 {found:.4f} mm", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
    else:
        for organ in ORGANS:
            for way in WAYS:
                subprocess.run([sys.executable, __file__, way, organ], check=True)
