"""A slice between its neighbours: those of its volume alone, in the patient's order, from every way of storing them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg_paddle.config.datasets import TrainManifest
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import MANIFEST_NAME, Case, LabelSet, Manifest, Slicing, Within
from medseg_paddle.errors import DataError
from medseg_paddle.io.cases import load_cases
from medseg_paddle.io.neighbours import middle, read_stacked, with_neighbours
from medseg_paddle.steps.dataset import write_dataset

SLICES = 4


@pytest.mark.parametrize(
    ("within", "count", "places"),
    [
        (Within(2, 6, 5.0, "S"), 2, (0, 1, 2, 3, 4)),
        (Within(2, 6, 5.0, "I"), 2, (4, 3, 2, 1, 0)),
        (Within(0, 6, 5.0, "L"), 2, (0, 0, 0, 1, 2)),  # beyond the first slice it repeats
        (Within(0, 6, 5.0, "R"), 2, (2, 1, 0, 0, 0)),
        (Within(5, 6, 5.0, "P"), 1, (4, 5, 5)),
        (Within(4, 6, 5.0, "A"), 1, (5, 4, 3)),
        (Within(0, 1, 5.0, "S"), 1, (0, 0, 0)),
    ],
)
def test_places_beside_a_slice_by_hand(within: Within, count: int, places: tuple[int, ...]) -> None:
    assert within.beside(count) == places


def test_a_manifest_that_names_no_side_is_damaged_and_one_without_is_of_an_earlier_version() -> None:
    entry = {"plane": "axial", "spacing": [1, 1], "units": "HU"}
    where = {"place": 0, "slices": 1, "spacing": 2}
    assert Slicing.from_json({**entry, "within": where}).within == Within(0, 1, 2.0)
    assert Slicing.from_json({**entry, "within": {**where, "towards": "I"}}).within == Within(0, 1, 2.0, "I")
    with pytest.raises(ValueError, match="towards 'up'"):
        Slicing.from_json({**entry, "within": {**where, "towards": "up"}})


def heights(number: int) -> np.ndarray:
    """Grey values of a volume's slices, from the feet to the head."""
    return 100 * (number % 2) + 10 * (1 + np.arange(SLICES)) + number


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four axial volumes, every other one stored from the head to the feet."""
    folder = tmp_path_factory.mktemp("heights")
    source = folder / "source"
    source.mkdir()
    for number in range(4):
        values = np.broadcast_to(heights(number), (6, 5, SLICES)).astype(np.int16)
        step = 2.0
        affine = np.diag([-1.0, -1.0, step, 1.0])
        if number % 2:
            values, affine[2, 2], affine[2, 3] = values[:, :, ::-1], -step, step * (SLICES - 1)
        label = np.zeros(values.shape, np.uint8)
        label[2:4, 2:4] = 1
        split = "train" if number < 3 else "val"
        for what, array in (("image", values), ("label", label)):
            nib.save(nib.Nifti1Image(array, affine), source / f"{split}{number}_{what}.nii.gz")
    spec = PrepareSpec.model_validate(
        {
            "reader": "volumes",
            "window": {"level": 127.5, "width": 255},
            "key": r"(train\d|val\d)",
            "sets": [
                {"split": split, "images": f"{split}*_image.nii.gz", "labels": f"{split}*_label.nii.gz"}
                for split in ("train", "val")
            ],
        }
    )
    labels = LabelSet.from_names(("background", "block"))
    write_dataset(spec, source=source, destination=folder / "data", labels=labels, name="heights", workers=1)
    return folder / "data"


def spec_of(root: Path, mode: str = "train") -> TrainManifest:
    return TrainManifest(type="Manifest", dataset_root=str(root), mode=mode, img_channels=1, transforms=())


@pytest.mark.parametrize("mode", ["train", "val"])
def test_channels_are_the_slices_of_the_same_volume_from_the_feet_to_the_head(root: Path, mode: str) -> None:
    cases = load_cases(spec_of(root, mode), neighbours=1)
    numbers = (0, 1, 2) if mode == "train" else (3,)
    assert len(cases) == len(numbers) * SLICES
    seen = {
        tuple(np.unique(read_stacked(case, 1, 1), axis=0).reshape(-1, 3)[0].astype(int)) for case in cases
    }
    wanted = set()
    for number in numbers:
        grey = heights(number)
        wanted |= {(grey[max(z - 1, 0)], grey[z], grey[min(z + 1, SLICES - 1)]) for z in range(SLICES)}
    assert seen == wanted
    own = {case.image for case in cases}
    for case in cases:
        assert set(case.stack) <= own  # of the split alone
        assert case.stack[1] == case.image
        np.testing.assert_array_equal(middle(read_stacked(case, 1, 1), 1), read_stacked(case, 1, 0))


def test_without_the_key_cases_are_what_they_were(root: Path) -> None:
    assert load_cases(spec_of(root)) == Manifest.load(root).cases("train")
    assert "stack" not in (root / MANIFEST_NAME).read_text()


def test_all_channels_of_a_slice_stand_together(tmp_path: Path) -> None:
    cases = []
    for place in range(3):
        image = tmp_path / f"{place}.npy"
        np.save(image, np.array([10 * place, 10 * place + 1], np.uint8) * np.ones((2, 3, 1), np.uint8))
        slicing = Slicing("axial", (1.0, 1.0), "HU", Within(place, 3, 2.0, "I"))
        cases.append(Case(str(place), image, volume="a", slicing=slicing))
    one, two, three = with_neighbours(cases, 1, "here")
    assert read_stacked(two, 2, 1)[0, 0].tolist() == [20, 21, 10, 11, 0, 1]
    assert read_stacked(one, 2, 1)[0, 0].tolist() == [10, 11, 0, 1, 0, 1]
    assert middle(read_stacked(three, 2, 1), 1)[1, 2].tolist() == [20, 21]


def slices(folder: Path, name: str, count: int = 3) -> list[Case]:
    found = []
    for place in range(count):
        image = folder / f"{name}{place}.png"
        Image.fromarray(np.full((4, 5), place, np.uint8)).save(image)
        slicing = Slicing("axial", (1.0, 1.0), "HU", Within(place, count, 2.0, "S"))
        found.append(Case(image.stem, image, volume=name, slicing=slicing))
    return found


def moved(case: Case, **changes) -> Case:
    assert case.slicing is not None
    assert case.slicing.within is not None
    return replace(case, slicing=replace(case.slicing, within=replace(case.slicing.within, **changes)))


def test_pictures_and_volumes_with_gaps_are_refused(tmp_path: Path) -> None:
    whole, other = slices(tmp_path, "a"), slices(tmp_path, "b")
    assert len(with_neighbours([*whole, *other], 2, "here")) == 6
    first, second, third = other
    for cases, words in (
        ([replace(first, slicing=None)], "b0 is a picture by itself"),
        ([replace(first, volume="")], "b0 is a picture by itself"),
        (
            [replace(first, slicing=replace(first.slicing, within=None))],
            "does not say where in its volume b0",
        ),
        ([moved(first, towards=""), second, third], "does not say where in its volume b0"),
        ([first, third], "of b 2 slices are there"),
        ([first, second], "of b 2 slices are there"),
        ([first, second, moved(third, place=1)], "of b 3 slices are there"),
        ([first, second, moved(third, towards="I")], "of b 3 slices are there"),
        ([first, second, moved(third, spacing=3.0)], "of b 3 slices are there"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            with_neighbours([*whole, *cases], 1, "here")
        assert caught.value.hint


def test_a_slice_that_nobody_gave_neighbours_is_refused(tmp_path: Path) -> None:
    whole = slices(tmp_path, "a")
    with pytest.raises(DataError, match="has no neighbours, and the network sees 1"):
        read_stacked(whole[0], 1, 1)
    with pytest.raises(DataError, match="has no neighbours, and the network sees 1"):
        read_stacked(with_neighbours(whole, 2, "here")[0], 1, 1)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(whole[1].image)
    with pytest.raises(DataError, match=r"differ in size: a0\.png .*a1\.png"):
        read_stacked(with_neighbours(whole, 1, "here")[0], 1, 1)
