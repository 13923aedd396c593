"""Patches of volumes a second on one thread, and the parts of the work beside scipy's ``map_coordinates``.

`python benchmarks/augmentation_3d.py [--seconds N]` prints Markdown. The volume is synthetic and held in memory, as a
file that was just read is. "As drawn" is the augmentation of the recipe's defaults: most patches are not turned.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import scipy.ndimage

from medseg_paddle.preprocess.augment.volume_augmentation import VolumeAugmentation
from medseg_paddle.preprocess.augment.volume_foreground import ForegroundVoxels
from medseg_paddle.preprocess.augment.volume_patch import rotation_matrix
from medseg_paddle.preprocess.augment.volume_sampling import Placement

SIZES = ((64, 128, 128), (32, 48, 32))
ALWAYS = dict.fromkeys(("rotation_prob", "scale_prob"), 1)
NEVER = dict.fromkeys(("rotation_prob", "scale_prob"), 0)
WAYS: dict[str, list[dict[str, Any]]] = {
    "as drawn, all": [{}, {"type": "RandomVolumeIntensity"}],
    "as drawn, elastic 0.2, all": [{"elastic_prob": 0.2}, {"type": "RandomVolumeIntensity"}],
    "copied": [NEVER],
    "turned, magnified": [ALWAYS],
    "turned, magnified within slices": [{**ALWAYS, "rotation": [180, 0, 0], "scale_axes": [1, 2]}],
    "turned, magnified, elastic": [{**ALWAYS, "elastic_prob": 1}],
    "copied, intensities as drawn": [NEVER, {"type": "RandomVolumeIntensity"}],
}


def volume(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Noise and two balls."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, *shape), dtype=np.float32)
    label = np.zeros(shape, np.uint8)
    places = np.indices(shape).reshape(3, -1).T
    for value, share in ((1, 0.3), (2, 0.6)):
        inside = np.linalg.norm(places - np.array(shape) * share, axis=1) < min(shape) / 5
        label.reshape(-1)[inside] = value
    return image, label


def each(work: Callable[[], object], seconds: float) -> float:
    """Mean seconds of the work, without the first time."""
    work()
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or count < 3:
        work()
        count += 1
    return passed / count


def by_scipy(image: np.ndarray, label: np.ndarray, place: Placement) -> tuple[np.ndarray, np.ndarray]:
    """What a placement shows, by `map_coordinates`."""
    half = (np.array(place.size) - 1) / 2
    places = np.indices(place.size, np.float32) - half[:, None, None, None].astype(np.float32)
    places = np.tensordot(place.matrix.astype(np.float32), places, 1)
    places += place.centre[:, None, None, None].astype(np.float32)
    patch = scipy.ndimage.map_coordinates(image[0], places, order=1, mode="grid-constant")
    mask = scipy.ndimage.map_coordinates(label, places, order=0, mode="grid-constant", cval=255)
    return patch[None], mask


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print("| patch | augmentation | ms | patches/s |\n| --- | --- | ---: | ---: |")
    for size in SIZES:
        measure(size, options.seconds)


def measure(size: tuple[int, int, int], seconds: float) -> None:
    """Rows of the table for patches of one size."""
    image, label = volume(tuple(2 * side for side in size))
    foreground, rng = ForegroundVoxels.of(label, 255), np.random.default_rng(0)
    place = Placement(size, np.array(size, float), rotation_matrix(np.radians([20, 15, -10])) / 1.1)
    works: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {}
    for way, (cut, *changes) in WAYS.items():
        specs = [{"type": "RandomVolumePatch", "size": size, **cut}, *changes]
        augmentation = VolumeAugmentation.from_specs(specs, ignore_index=255)
        works[way] = partial(augmentation.patch, image, label, foreground, rng)
    works["one placement, ours"] = partial(place.cut, image, label, ignore_index=255)
    works["one placement, scipy"] = partial(by_scipy, image, label, place)
    for way, work in works.items():
        took = each(work, seconds)
        print(f"| {'x'.join(map(str, size))} | {way} | {1000 * took:.1f} | {1 / took:.1f} |", flush=True)
    (ours, our_mask), (theirs, their_mask) = works["one placement, ours"](), works["one placement, scipy"]()
    difference, other = np.abs(ours - theirs).max(), np.count_nonzero(our_mask != their_mask)
    print(
        f"\nBeside scipy: the largest difference {difference:.0e}, other labels {other} of {label.size // 8}.\n"
    )


if __name__ == "__main__":
    main()
