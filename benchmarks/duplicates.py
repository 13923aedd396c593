#!/usr/bin/env python3
"""What the search for near duplicates flags in public data sets, what it finds of changed copies, and how fast.

    python benchmarks/duplicates.py --data FOLDER

FOLDER holds `drive`, `optic_disc_seg`, `isbi2012_membrane`, `dsb2018_nuclei`, `lung_ct` and `msd_hippocampus`; those
that are not there are left out. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.io.images import read_samples
from medseg_paddle.io.nifti import read_nifti
from medseg_paddle.preprocess.duplicates import Appearance, appearance, near_duplicates

Picture = NDArray[Any]

SETS = {
    "drive": "*/images/*.tif",
    "optic_disc_seg": "JPEGImages/*.jpg",
    "isbi2012_membrane": "train/image/*.png",
    "dsb2018_nuclei": "images/*.png",
}
VOLUMES = {"lung_ct": "images/*.nii.gz", "msd_hippocampus": "images/*.nii.gz"}


def jpeg(quality: int) -> Callable[[Picture], Picture]:
    """Through a JPEG of this quality."""
    return lambda image: cv2.imdecode(
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED
    )


def scaled(factor: float) -> Callable[[Picture], Picture]:
    """To this multiple of its sides."""
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=method)


def values(change: Callable[[NDArray[np.float32]], NDArray[Any]]) -> Callable[[Picture], Picture]:
    """Change intensities of 0..255."""
    return lambda image: np.clip(np.rint(change(image.astype(np.float32))), 0, 255).astype(np.uint8)


def noise(deviation: float) -> Callable[[Picture], Picture]:
    """Add normal noise, the same in every run."""
    return values(lambda x: x + np.random.default_rng(0).normal(0, deviation, x.shape))


def cropped(share: float) -> Callable[[Picture], Picture]:
    """Without this share of each side."""

    def crop(image: Picture) -> Picture:
        rows, columns = (max(1, round(share * side)) for side in image.shape[:2])
        return image[rows:-rows, columns:-columns]

    return crop


def rotated(degrees: float) -> Callable[[Picture], Picture]:
    """Rotate about the centre, in a picture of the same size."""

    def rotate(image: Picture) -> Picture:
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
        return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)

    return rotate


def together(*changes: Callable[[Picture], Picture]) -> Callable[[Picture], Picture]:
    """One after the other."""

    def change(image: Picture) -> Picture:
        for one in changes:
            image = one(image)
        return image

    return change


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "none": lambda image: image,
    "JPEG, quality 90": jpeg(90),
    "JPEG, quality 50": jpeg(50),
    "JPEG, quality 20": jpeg(20),
    "half size": scaled(0.5),
    "quarter size": scaled(0.25),
    "double size": scaled(2),
    "256 x 256 pixels": lambda image: cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA),
    "brightness + 20": values(lambda x: x + 20),
    "brightness - 20": values(lambda x: x - 20),
    "contrast x 0.8": values(lambda x: (x - 128) * 0.8 + 128),
    "contrast x 1.2": values(lambda x: (x - 128) * 1.2 + 128),
    "gamma 0.7": values(lambda x: 255 * (x / 255) ** 0.7),
    "gamma 1.4": values(lambda x: 255 * (x / 255) ** 1.4),
    "colour to grey": lambda image: image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
    "8 to 16 bits": lambda image: image.astype(np.uint16) * 257,
    "noise, deviation 5": noise(5),
    "noise, deviation 20": noise(20),
    "blur, deviation 2": lambda image: cv2.GaussianBlur(image, (0, 0), 2),
    "half size, JPEG 50, + 20": together(scaled(0.5), jpeg(50), values(lambda x: x + 20)),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "quarter turn": lambda image: np.ascontiguousarray(np.rot90(image)),
    "half turn, JPEG 50": together(lambda image: np.ascontiguousarray(image[::-1, ::-1]), jpeg(50)),
    "1 % cut off each side": cropped(0.01),
    "2 % cut off each side": cropped(0.02),
    "5 % cut off each side": cropped(0.05),
    "rotated by 1 degree": rotated(1),
    "rotated by 3 degrees": rotated(3),
    "inverted": lambda image: 255 - image,
}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    options.add_argument("--many", type=int, default=20_000, help="pictures to time the search with")
    given = options.parse_args()
    pictures = {
        name: [read_samples(path) for path in sorted((given.data / name).glob(pattern))]
        for name, pattern in SETS.items()
    }
    pictures = {name: own for name, own in pictures.items() if own}
    looks = {name: [appearance(picture) for picture in own] for name, own in pictures.items()}
    print_unchanged(looks)
    for name, pattern in VOLUMES.items():
        print_slices(name, sorted((given.data / name).glob(pattern)))
    print_recall(pictures, looks)
    print_times(given.many)


def print_unchanged(looks: dict[str, list[Appearance]]) -> None:
    """What is flagged among the pictures as they are, each taken for a group of its own."""
    print("| pictures | pairs compared | flagged | flagged, turns too | greatest correlation of others |")
    print("| --- | --- | --- | --- | --- |")
    everything = [look for own in looks.values() for look in own]
    for name, own in {**looks, "all together": everything}.items():
        upright, turned = (near_duplicates(own, turned=turns) for turns in (False, True))
        others = greatest_correlation(own, {(pair.first, pair.second) for pair in upright})
        pairs = len(own) * (len(own) - 1) // 2
        print(f"| {name} ({len(own)}) | {pairs} | {len(upright)} | {len(turned)} | {others:.2f} |")


def print_slices(name: str, paths: Sequence[Path]) -> None:
    """What is flagged among slices of different volumes; a row for the same table."""
    looks, groups = [], []
    for path in paths:
        array = read_nifti(path).array.astype(np.float32)
        low, high = np.percentile(array, (1, 99))
        looks += [appearance(np.clip((each - low) / (high - low), 0, 1) * 255) for each in array]
        groups += [path.name] * len(array)
    if looks:
        pairs = (len(looks) ** 2 - sum(groups.count(group) ** 2 for group in set(groups))) // 2
        upright, turned = (near_duplicates(looks, groups=groups, turned=turns) for turns in (False, True))
        print(
            f"| {name}, {len(looks)} slices of {len(paths)} volumes | {pairs} | {len(upright)} | {len(turned)} | |"
        )


def greatest_correlation(own: Sequence[Appearance], flagged: set[tuple[int, int]]) -> float:
    """How alike the details of any two other pictures are, whatever their hashes say."""
    rows = np.stack([one.details for one in own]).reshape(len(own), -1).astype(np.float32)
    correlation = np.corrcoef(rows)
    np.fill_diagonal(correlation, -1)
    for pair in flagged:
        correlation[pair] = correlation[pair[::-1]] = -1
    return float(correlation.max())


def print_recall(pictures: dict[str, list[Picture]], looks: dict[str, list[Appearance]]) -> None:
    """Share of the changed copies that are told to be copies of their originals."""
    for name, own in looks.items():  # a picture that is there twice has two originals
        again = {pair.second for pair in near_duplicates(own)}
        pictures[name] = [picture for i, picture in enumerate(pictures[name]) if i not in again]
        looks[name] = [look for i, look in enumerate(own) if i not in again]
    print("\n| change | " + " | ".join(f"{name} ({len(own)})" for name, own in pictures.items()) + " |")
    print("| --- |" + " --- |" * len(pictures))
    for change, function in CHANGES.items():
        cells = []
        for name, own in pictures.items():
            count = len(own)
            copies = [appearance(function(picture)) for picture in own]
            pairs = near_duplicates([*looks[name], *copies], groups=[0] * count + [1] * count, turned=True)
            right = sum(pair.second - pair.first == count for pair in pairs)
            cells.append(
                f"{right / count:.1%}".replace(".0%", "%").replace("%", " %")
                + (f", {len(pairs) - right} wrong" if len(pairs) > right else "")
            )
        print(f"| {change} | " + " | ".join(cells) + " |")


def print_times(many: int) -> None:
    """Seconds for so many pictures of 512 x 512 pixels in colour."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
    start = time.process_time()
    for _ in range(200):
        appearance(picture)
    each = (time.process_time() - start) / 200
    smooth = cv2.GaussianBlur(rng.normal(size=(64, 64, 64)).astype(np.float32), (0, 0), 3)
    looks = [
        appearance(128 + 400 * (smooth[..., i % 64] + 0.5 * np.roll(smooth[..., i // 64 % 64], i, axis=0)))
        for i in range(many)
    ]
    groups = [i % 5 for i in range(many)]
    times = []
    for turned in (False, True):
        start = time.process_time()
        near_duplicates(looks, groups=groups, turned=turned)
        times.append(time.process_time() - start)
    print(
        f"\n{each * 1000:.2f} ms to describe a picture of 512 x 512 pixels in colour, {each * many:.0f} s for {many};"
    )
    print(f"{times[0]:.1f} s to compare {many} in 5 groups, {times[1]:.1f} s with turns (one core)")


if __name__ == "__main__":
    main()
