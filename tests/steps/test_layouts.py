"""Every layout of docs/howto/own-images.md: its YAML, tried on a small folder of that kind."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import yaml
from dicom_files import save_seg, x_ray
from PIL import Image
from pydantic import ValidationError

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet, Manifest
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.channels import read_channels
from medseg_paddle.io.images import read_label
from medseg_paddle.phantom import make_patient, write_phantom
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.dry_run import dry_run
from medseg_paddle.steps.recognise import recognise
from medseg_paddle.steps.sources import find_sources
from medseg_paddle.steps.sources.declared import LabelRules

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto" / "own-images.md"
CASES = 4
ROWS, COLUMNS = 12, 10
RAS = np.diag(
    [-0.7, -0.7, 3.0, 1.0]
)  # upright axial: voxel (k, j, i) of the file is slice k, row j, column i


def sections() -> dict[str, dict[str, Any]]:
    """The `prepare` section below each heading of the page's part on layouts."""
    text = HOWTO.read_text(encoding="utf-8").split("\n## Layouts\n")[1].split("\n## ")[0]
    found = {}
    for block in text.split("\n### ")[1:]:
        heading = block.splitlines()[0]
        (source,) = re.findall(r"```yaml\n(.*?)```", block, re.DOTALL)
        found[heading] = yaml.safe_load(source)["prepare"]
    return found


def picture(case: int, channels: int | None = None, dtype: Any = np.uint8) -> np.ndarray:
    """Noise that tells cases, channels, rows and columns apart."""
    shape = (ROWS, COLUMNS) if channels is None else (ROWS, COLUMNS, channels)
    return np.random.default_rng(case).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def disc(case: int) -> np.ndarray:
    """Class 1 where a case has something: a corner without symmetry."""
    label = np.zeros((ROWS, COLUMNS), np.uint8)
    label[2 : 5 + case, 1:4] = 1
    return label


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        Image.fromarray(array).save(path, quality=95)
    else:
        Image.fromarray(array).save(path)


def pages(path: Path, arrays: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = (Image.fromarray(one) for one in arrays)
    first.save(path, save_all=True, append_images=others)


def volume(path: Path, array: np.ndarray) -> None:
    """`array[slice, row, column]` as an upright axial volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".nrrd":
        lps = {"space": "left-posterior-superior", "space directions": np.diag([0.7, 0.7, 3.0]),
               "space origin": np.zeros(3)}  # fmt: skip
        nrrd.write(str(path), array.T, lps)
        return
    image = nib.Nifti1Image(array.T, RAS)
    image.set_sform(RAS, code="scanner")
    image.set_qform(RAS, code="scanner")
    nib.save(image, path)


# --- one builder a heading: writes the folder, gives back what each picture's label must be -----------------

Labels = dict[str, np.ndarray]


def pairs(root: Path) -> Labels:
    for case in range(CASES):
        save(root / "photos" / f"eye {case} photo.jpg", picture(case, 3))
        save(root / "masks" / f"{case}-mask.png", disc(case) * 255)
    return {str(case): disc(case) for case in range(CASES)}


def folders(root: Path) -> Labels:
    for case in range(CASES):
        folder = root / "cases" / f"p{case}"
        for channel, name in enumerate(("dapi", "actin")):
            save(folder / f"{name}.tif", picture(10 * case + channel))
        save(folder / "label.png", disc(case))
    return {f"cases-p{case}": disc(case) for case in range(CASES)}


def lists(root: Path) -> Labels:
    for name, numbers, separator in (("train", (0, 1, 2), " "), ("val", (3,), ",")):
        lines = []
        for case in numbers:
            save(root / "my images" / f"eye {case}.png", picture(case))
            save(root / "my labels" / f"eye {case} mask.png", disc(case))
            lines.append(f"my images/eye {case}.png{separator}my labels/eye {case} mask.png")
        (root / f"{name}_list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {f"eye-{case}": disc(case) for case in range(CASES)}


def coco(root: Path) -> Labels:
    labels: Labels = {}
    (root / "annotations").mkdir(parents=True)
    for split, numbers in (("train", (0, 1, 2)), ("val", (3,))):
        images, annotations = [], []
        for case in numbers:
            save(root / split / f"c{case}.png", picture(case, 3))
            images.append({"id": case + 1, "file_name": f"c{case}.png", "height": ROWS, "width": COLUMNS})
            label = np.zeros((ROWS, COLUMNS), np.uint8)
            for category, (x, y, w, h) in ((7, (1, 2, 3, 4)), (9, (5, 6, 4, 3))):
                if case == 2 and category == 9:
                    continue
                polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
                label[y : y + h, x : x + w] = {7: 1, 9: 2}[category]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": case + 1, "category_id": category, "iscrowd": 0,
                     "segmentation": [polygon], "area": w * h, "bbox": [x, y, w, h]}
                )  # fmt: skip
            labels[f"c{case}"] = label
        categories = [{"id": 7, "name": "cell"}, {"id": 9, "name": "nucleus"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return labels


def objects(root: Path) -> Labels:
    for case in range(CASES):
        save(root / f"id{case}" / "images" / f"id{case}.png", picture(case, 3))
        for number, part in enumerate((disc(case), np.roll(disc(case), 5, axis=1))):
            save(root / f"id{case}" / "masks" / f"{number}.png", part * 255)
    return {f"id{case}": np.maximum(disc(case), np.roll(disc(case), 5, axis=1)) for case in range(CASES)}


def instances(root: Path) -> Labels:
    for case in range(CASES):
        save(root / "images" / f"{case}.png", picture(case))
        numbered = disc(case).astype(np.uint16) * 700 + np.roll(disc(case), 5, axis=1).astype(np.uint16) * 3
        save(root / "masks" / f"{case}.png", numbered)
    return {f"{case}": np.maximum(disc(case), np.roll(disc(case), 5, axis=1)) for case in range(CASES)}


def stacks(root: Path) -> Labels:
    labels = {}
    for case in range(CASES):
        pages(root / f"volume-{case}.tif", [picture(10 * case + page) for page in range(3)])
        drawn = [np.roll(disc(case), page, axis=0) for page in range(3)]
        pages(root / f"labels-{case}.tif", [(1 - one) * 255 for one in drawn])
        labels |= {f"{case}_{page:03d}": one for page, one in enumerate(drawn)}
    return labels


def nnunet(root: Path) -> Labels:
    labels = {}
    for case in range(CASES):
        for channel in range(2):
            values = np.stack([picture(100 * case + 10 * channel + k) for k in range(3)]).astype(np.int16)
            volume(root / "imagesTr" / f"c{case}_{channel:04d}.nii.gz", values)
        drawn = [np.roll(disc(case), page, axis=0) for page in range(3)]
        volume(root / "labelsTr" / f"c{case}.nii.gz", np.stack(drawn))
        labels |= {f"c{case}_{page:03d}": one for page, one in enumerate(drawn)}
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "thing": 1},
               "numTraining": CASES, "file_ending": ".nii.gz"}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    return labels


def volumes(root: Path) -> Labels:
    labels = {}
    for case in range(CASES):
        values = np.stack([picture(10 * case + k) for k in range(3)]).astype(np.int16)
        volume(root / "images" / f"c{case}.nrrd", values)
        drawn = [np.roll(disc(case), page, axis=0) for page in range(3)]
        volume(root / "labels" / f"c{case}.nrrd", np.stack(drawn))
        labels |= {f"c{case}_{page:03d}": one for page, one in enumerate(drawn)}
    return labels


def head(image: pydicom.Dataset) -> float:
    """How far towards the head it lies."""
    return float(image.ImagePositionPatient[2])


def series(root: Path, kind: str = "nifti") -> Labels:
    """Phantoms whose masks, a PNG for each slice, are put into one file for each series."""
    labels = {}
    write_phantom(root, patients=3, seed=3, size=40, slices=9)
    for number, folder in enumerate(sorted(root.iterdir())):
        shutil.rmtree(folder / "mask")
        volume, truth = make_patient((3, number), size=40, slices=9)
        if kind == "nifti":
            # By hand, with the axes in another order and direction than the series'.
            affine = np.diag([-1.0, -1, 1, 1]) @ volume.geometry.affine @ np.eye(4)[[2, 1, 0, 3]]
            nib.save(nib.Nifti1Image(truth.array.T.astype(np.uint8), affine), folder / "seg.nii.gz")
        else:
            images = sorted(map(pydicom.dcmread, (folder / "ct").iterdir()), key=head)
            save_seg(folder / "seg" / "seg.dcm", images, (truth.array == 1).astype(np.uint8), ["tumour"])
        labels |= {f"{folder.name}_{place:03d}": one for place, one in enumerate(truth.array)}
    return labels


LAYOUTS: dict[str, tuple[Callable[[Path], Labels], int, int]] = {  # builder, classes, channels
    "Pictures with label pictures": (pairs, 2, 3),
    "One folder per case": (folders, 2, 2),
    "PaddleSeg's lists": (lists, 2, 1),
    "COCO": (coco, 3, 3),
    "One mask per object": (objects, 2, 3),
    "Numbered objects": (instances, 2, 1),
    "Stacks of pages": (stacks, 2, 1),
    "nnU-Net": (nnunet, 2, 2),
    "NIfTI, NRRD, MHA": (volumes, 2, 1),
    "DICOM series": (series, 2, 1),
}


def prepared(tmp_path: Path, section: dict[str, Any], classes: int, **options: Any) -> Manifest:
    return write_dataset(
        PrepareSpec.model_validate(section),
        source=tmp_path / "in",
        destination=tmp_path / "out",
        labels=LabelSet.generic(classes),
        name="set",
        **options,
    )


def cases_of(manifest: Manifest) -> dict[str, Any]:
    return {case.id: case for cases in manifest.splits.values() for case in cases}


def test_every_layout_of_the_page_is_tried():
    assert set(sections()) == set(LAYOUTS)


@pytest.mark.parametrize("heading", LAYOUTS)
def test_a_layout_of_the_page_is_read(tmp_path, heading):
    build, classes, channels = LAYOUTS[heading]
    (tmp_path / "in").mkdir()
    expected = build(tmp_path / "in")
    manifest = prepared(tmp_path, sections()[heading], classes)
    found = cases_of(manifest)
    assert found.keys() == expected.keys()
    for name, case in found.items():
        np.testing.assert_array_equal(read_label(case.label), expected[name])
        assert read_channels([case.image]).shape == (*expected[name].shape, channels)
    assert manifest.source["channels"] == channels
    assert manifest.splits["train"]
    assert manifest.splits["val"]


@pytest.mark.parametrize("heading", LAYOUTS)
def test_a_layout_is_recognised_and_the_proposal_reads_the_folder(tmp_path, heading):
    build, classes, _ = LAYOUTS[heading]
    (tmp_path / "in").mkdir()
    expected = build(tmp_path / "in")
    layout, *_ = recognise(tmp_path / "in")
    proposed = yaml.safe_load(str(layout).split("\n\n", 1)[1])  # what is printed is YAML
    spec = PrepareSpec.model_validate(proposed["prepare"])
    names = proposed.get("labels") or LabelSet.generic(classes).names
    assert len(names) == classes
    found = dry_run(spec, source=tmp_path / "in", labels=LabelSet.from_names(names))
    assert found.problems == ()
    assert any(f"{len({name.split('_')[0] for name in expected})} cases" in line for line in found.lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_folder_of_nothing_known_is_said_to_be_so(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"not recognised \(1 of \.txt\)"):
        recognise(tmp_path)


# --- pictures: channels, windows, bits --------------------------------------------------------------------


def test_channels_keep_their_order_and_depth(tmp_path):
    folder = tmp_path / "in" / "cases" / "a"
    stains = [picture(k, dtype=np.uint16) for k in range(2)]
    for name, stain in zip(("dapi", "actin"), stains, strict=True):
        save(folder / f"{name}.tif", stain)
    save(folder / "label.png", disc(0))
    section = sections()["One folder per case"] | {"val_fraction": 0, "test_fraction": 0}
    section["sets"][0]["split"] = "train"
    (case,) = cases_of(prepared(tmp_path, section, 2)).values()
    assert case.image.name == "cases-a.npy"
    image = np.load(case.image)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, np.stack(stains, axis=-1))


@pytest.mark.parametrize("ending", [".npy", ".tif"])
def test_five_channels_in_one_file_are_declared(tmp_path, ending):
    five = picture(0, 5)
    (tmp_path / "in" / "i").mkdir(parents=True)
    if ending == ".npy":
        np.save(tmp_path / "in" / "i" / "a.npy", five)
    else:
        pages(tmp_path / "in" / "i" / "a.tif", list(np.moveaxis(five, -1, 0)))
    save(tmp_path / "in" / "l" / "a.png", disc(0))
    section = {"channels": 5, "sets": [{"split": "train", "images": f"i/*{ending}", "labels": "l/*.png"}]}
    (case,) = cases_of(prepared(tmp_path, section, 2)).values()
    np.testing.assert_array_equal(np.load(case.image), five)
    with pytest.raises(DataError, match="holds 5 channels, `channels` says 4"):
        prepared(tmp_path, section | {"channels": 4}, 2, overwrite=True)


def test_images_of_different_channels_are_refused(tmp_path):
    (tmp_path / "in" / "i").mkdir(parents=True)
    for name, count in (("a", 2), ("b", 5)):
        np.save(tmp_path / "in" / "i" / f"{name}.npy", picture(0, count))
        save(tmp_path / "in" / "l" / f"{name}.png", disc(0))
    section = {"sets": [{"split": "train", "images": "i/*", "labels": "l/*"}]}
    with pytest.raises(DataError, match=r"different numbers of channels: 2 \('a'\), 5 \('b'\)"):
        prepared(tmp_path, section, 2)


def test_the_window_of_a_detector_s_twelve_bits_fills_the_range(tmp_path):
    values = np.linspace(0, 4095, ROWS * COLUMNS).astype(np.uint16).reshape(ROWS, COLUMNS)
    save(tmp_path / "in" / "i" / "a.png", values)
    save(tmp_path / "in" / "l" / "a.png", disc(0))
    section = {
        "window": {"level": 2047.5, "width": 4095},
        "sets": [{"split": "train", "images": "i/*", "labels": "l/*"}],
    }
    (case,) = cases_of(prepared(tmp_path, section, 2)).values()
    image = cv2.imread(str(case.image), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, np.rint(values / 4095 * 65535))
    (case,) = cases_of(prepared(tmp_path, section | {"bits": 8}, 2, overwrite=True)).values()
    image = cv2.imread(str(case.image), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, np.rint(values / 4095 * 255))
    save(tmp_path / "in" / "i" / "a.png", disc(0))
    with pytest.raises(DataError, match=r"a\.png: the picture has 8 bits"):
        prepared(tmp_path, section, 2, overwrite=True)


def test_sixteen_bits_keep_every_hounsfield_unit(tmp_path):
    values = np.arange(-1024, -1024 + ROWS * COLUMNS).reshape(1, ROWS, COLUMNS).astype(np.int16)
    volume(tmp_path / "in" / "images" / "a.nii.gz", values)
    volume(tmp_path / "in" / "labels" / "a.nii.gz", disc(0)[None])
    section = {
        "reader": "volumes",
        "window": {"level": -0.5, "width": 65535},
        "bits": 16,
        "units": "HU",
        "sets": [{"split": "train", "images": "images/*", "labels": "labels/*"}],
    }
    (case,) = cases_of(prepared(tmp_path, section, 2)).values()
    stored = cv2.imread(str(case.image), cv2.IMREAD_UNCHANGED).astype(int) - 32768
    np.testing.assert_array_equal(stored, values[0])
    assert case.slicing.units == "HU"


def test_every_channel_of_a_volume_has_its_own_window(tmp_path):
    (tmp_path / "in").mkdir()
    nnunet(tmp_path / "in")
    case = cases_of(prepared(tmp_path, sections()["nnU-Net"], 2))["c0_001"]
    image = np.load(case.image)
    for channel, (level, width) in enumerate(((40, 400), (300, 600))):
        stored = picture(10 * channel + 1).astype(float)
        grey = np.rint(np.clip((stored - (level - width / 2)) * 255 / width, 0, 255))
        np.testing.assert_array_equal(image[:, :, channel], grey)


# --- labels -----------------------------------------------------------------------------------------------


def labelled(tmp_path: Path, label: np.ndarray, **rules: Any) -> np.ndarray:
    save(tmp_path / "in" / "i" / "a.png", picture(0))
    save(tmp_path / "in" / "l" / "a.png", label)
    section = {"sets": [{"split": "train", "images": "i/*", "labels": "l/*"}], **rules}
    (case,) = cases_of(prepared(tmp_path, section, 3, overwrite=True)).values()
    return read_label(case.label)


def test_soft_edges_are_cut_at_the_threshold(tmp_path):
    soft = np.tile(np.array([0, 20, 127, 128, 200, 255], np.uint8), (ROWS, 2))[:, :COLUMNS]
    found = labelled(tmp_path, soft, label_threshold=128)
    assert found[0, :6].tolist() == [0, 0, 0, 1, 1, 1]
    found = labelled(tmp_path, soft, label_threshold=20, label_map={0: 2, 1: 0})
    assert found[0, :6].tolist() == [2, 0, 0, 0, 0, 0]


def test_soft_edges_that_nobody_declared_are_told_of_with_the_line_to_add(tmp_path):
    save(tmp_path / "in" / "i" / "a.png", picture(0))
    save(tmp_path / "in" / "l" / "a.png", np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS))
    section = {"sets": [{"split": "train", "images": "i/*", "labels": "l/*"}]}
    with pytest.raises(DataError, match="and 110 more values") as caught:
        prepared(tmp_path, section, 2)
    assert "`label_threshold: 128`" in caught.value.hint
    assert "`instances: 1`" in caught.value.hint


def test_colours_are_declared_in_yaml(tmp_path):
    colours = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    colours[:, 1] = (255, 0, 0)
    colours[:, 2] = (0, 128, 255)
    colours[:, 3] = 77  # a grey pixel among coloured ones
    table = yaml.safe_load('{0 0 0: 0, 255 0 0: 1, "#0080ff": 2, 77 77 77: 255}')
    assert labelled(tmp_path, colours, label_colors=table)[3, :5].tolist() == [0, 1, 2, 255, 0]
    with pytest.raises(
        DataError, match=r"colours that nobody declared, in .*a\.png: 0 128 255 \(12 pixels\)"
    ) as caught:
        labelled(tmp_path, colours, label_colors=yaml.safe_load("{0 0 0: 0, 255 0 0: 1, 77 77 77: 255}"))
    assert "0 128 255: ?" in caught.value.hint
    grey = np.full((ROWS, COLUMNS), 77, np.uint8)  # a label of one colour is stored in grey
    assert (labelled(tmp_path, grey, label_colors={"77 77 77": 1}) == 1).all()


def test_coco_categories_that_nobody_declared_are_counted_and_named(tmp_path):
    (tmp_path / "in").mkdir()
    coco(tmp_path / "in")
    with pytest.raises(
        DataError, match=r"categories that nobody declared: 9 'nucleus' \(2 objects\)"
    ) as caught:
        prepared(tmp_path, sections()["COCO"] | {"label_map": {7: 1}}, 3)
    assert "label_map: {7: 1, 9: ?}" in caught.value.hint


# --- lists ------------------------------------------------------------------------------------------------


def test_a_line_that_can_be_read_in_two_ways_asks_for_the_separator(tmp_path):
    root = tmp_path / "in"
    for name in ("a", "a b", "b c", "c"):
        save(root / name, disc(0)) if name.endswith(".png") else (root.mkdir(exist_ok=True))
    for name in ("a.png", "a.png b.png", "b.png c.png", "c.png"):
        save(root / name, disc(0))
    (root / "train_list.txt").write_text("a.png b.png c.png\n")
    section = {"reader": "lists", "sets": [{"split": "train", "index": "train_list.txt"}]}
    with pytest.raises(DataError, match="can be read in 2 ways"):
        prepared(tmp_path, section, 2)
    (root / "train_list.txt").write_text("a.png b.png|c.png\n")
    section["sets"][0]["separator"] = "|"
    assert list(cases_of(prepared(tmp_path, section, 2))) == ["a.png-b"]


def test_wrong_lines_are_all_told_and_images_alone_are_left_out(tmp_path):
    root = tmp_path / "in"
    lists(root)
    with (root / "train_list.txt").open("a") as stream:
        stream.write("my images/eye 9.png my labels/eye 9.png\nmy images/eye 3.png\nnonsense\n")
    spec = PrepareSpec.model_validate(sections()["PaddleSeg's lists"])
    found = dry_run(spec, source=root, labels=LabelSet.generic(2))
    assert [re.findall(r"line (\d+)", one.message) for one in found.problems] == [["4"], ["6"]]
    assert found.left_out == ("1 images without a label in train_list.txt: my images/eye 3.png",)


# --- nnU-Net ----------------------------------------------------------------------------------------------


def test_nnu_net_s_first_version_names_its_cases_and_labels_the_other_way_round(tmp_path):
    root = tmp_path / "in"
    for case in range(CASES):
        volume(root / "imagesTr" / f"c{case}.nii.gz", np.stack([picture(case)] * 2).astype(np.int16))
        volume(root / "labelsTr" / f"c{case}.nii.gz", np.stack([disc(case)] * 2))
    training = [
        {"image": f"./imagesTr/c{case}.nii.gz", "label": f"./labelsTr/c{case}.nii.gz"} for case in range(3)
    ]
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": training}
    (root / "dataset.json").write_text(json.dumps(content))
    layout, *_ = recognise(root)
    assert layout.labels == ("background", "liver")
    assert layout.prepare["units"] == "HU"
    found = dry_run(PrepareSpec.model_validate(layout.prepare), source=root, labels=LabelSet.generic(2))
    assert found.problems == ()
    assert "3 cases" in found.lines[0]
    assert found.left_out == (
        "2 files that dataset.json does not name: imagesTr/c3.nii.gz, labelsTr/c3.nii.gz",
    )


def test_nnu_net_s_pictures_and_test_folder_are_read(tmp_path):
    root = tmp_path / "in"
    for part, cases in (("Tr", range(3)), ("Ts", range(3, 5))):
        for case in cases:
            save(root / f"images{part}" / f"c{case}_0000.png", picture(case, 3))
            save(root / f"labels{part}" / f"c{case}.png", disc(case))
    content = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "disc": 1},
               "file_ending": ".png"}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))
    sets = [
        {"split": "train", "index": "dataset.json"},
        {"split": "test", "index": "dataset.json", "part": "Ts"},
    ]
    manifest = prepared(tmp_path, {"reader": "nnunet", "sets": sets}, 2)
    assert {s: [case.id for case in cases] for s, cases in manifest.splits.items()} == {
        "train": ["c0", "c1", "c2"],
        "val": [],
        "test": ["c3", "c4"],
    }


def test_a_case_that_lacks_a_channel_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    nnunet(tmp_path / "in")
    (tmp_path / "in" / "imagesTr" / "c1_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case 'c1' has channels \[0\], dataset.json names 2"):
        prepared(tmp_path, sections()["nnU-Net"], 2)


# --- DICOM ------------------------------------------------------------------------------------------------

DICOM = {
    "reader": "dicom",
    "window": {"level": -300, "width": 1400},
    "sets": [{"split": "train", "images": "*/ct/*", "labels": "*/seg/*.dcm"}],
}


def test_a_dicom_segmentation_is_read_on_the_series_grid(tmp_path):
    (tmp_path / "in").mkdir()
    expected = series(tmp_path / "in", "seg")
    found = cases_of(prepared(tmp_path, DICOM, 2))
    assert found.keys() == expected.keys()
    for name, case in found.items():
        np.testing.assert_array_equal(read_label(case.label), expected[name] == 1)
    layout, *_ = recognise(tmp_path / "in")
    assert "3 DICOM SEG" in layout.what
    assert layout.prepare["sets"] == [{"images": "*/ct/*.dcm", "labels": "*/seg/seg.dcm"}]


def test_a_label_volume_as_other_programs_turn_it_is_read_on_the_series_grid(tmp_path):
    (tmp_path / "in").mkdir()
    expected = series(tmp_path / "in")
    for path in (tmp_path / "in").glob("*/seg.nii.gz"):
        stored = nib.load(path)
        canonical = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine))
        assert (canonical.affine != stored.affine).any()
        nib.save(canonical, path)
    section = sections()["DICOM series"]
    found = dry_run(PrepareSpec.model_validate(section), source=tmp_path / "in", labels=LabelSet.generic(2))
    assert (
        "  masks that store their image's grid with axes flipped or exchanged are turned: 3 cases"
        in found.lines
    )
    cases = cases_of(prepared(tmp_path, section, 2))
    assert cases.keys() == expected.keys()
    for name, case in cases.items():
        np.testing.assert_array_equal(read_label(case.label), expected[name])


def test_a_series_without_mask_and_a_mask_without_series_are_named(tmp_path):
    (tmp_path / "in").mkdir()
    series(tmp_path / "in")
    (tmp_path / "in" / "PHANTOM-002" / "seg.nii.gz").rename(tmp_path / "in" / "other.nii.gz")
    section = sections()["DICOM series"]
    section["sets"][0]["labels"] = "**/*.nii.gz"
    found = dry_run(PrepareSpec.model_validate(section), source=tmp_path / "in", labels=LabelSet.generic(2))
    said = "\n".join(one.message for one in found.problems)
    assert "mask without a series: other.nii.gz" in said
    assert "no mask for the series in PHANTOM-002/ct" in said


def test_two_sequences_are_channels(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    series(root)
    for folder in sorted(root.iterdir()):
        for path in sorted((folder / "ct").iterdir()):
            other = pydicom.dcmread(path)
            other.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[folder.name, "late"])
            other.SOPInstanceUID = pydicom.uid.generate_uid()
            other.RescaleIntercept = float(other.RescaleIntercept) + 100
            (folder / "late").mkdir(exist_ok=True)
            other.save_as(folder / "late" / path.name)
    section = sections()["DICOM series"]
    section["sets"][0]["images"] = ["*/ct/*.dcm", "*/late/*.dcm"]
    manifest = prepared(tmp_path, section, 2)
    assert manifest.source["channels"] == 2
    image = np.load(cases_of(manifest)["PHANTOM-001_004"].image).astype(int)
    inside = (image[:, :, 0] > 0) & (image[:, :, 1] < 255)
    shift = (image[:, :, 1] - image[:, :, 0])[inside]
    assert np.abs(shift - 100 * 255 / 1400).max() <= 1
    for path in root.rglob("late/*.dcm"):
        moved = pydicom.dcmread(path)
        moved.FrameOfReferenceUID = "1.2.3.4"
        moved.save_as(path)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(DataError, match="two frames of reference"):
        prepared(tmp_path, section, 2)


# --- single DICOM images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_x_rays_become_pictures_of_their_full_depth_the_right_way_round(tmp_path, photometric):
    stored = np.linspace(0, 4095, ROWS * COLUMNS).astype(np.uint16).reshape(ROWS, COLUMNS)
    (tmp_path / "in" / "i").mkdir(parents=True)
    x_ray(stored, PhotometricInterpretation=photometric).save_as(
        tmp_path / "in" / "i" / "a.dcm", enforce_file_format=True
    )
    save(tmp_path / "in" / "l" / "a.png", disc(0))
    section: dict[str, Any] = {"sets": [{"split": "train", "images": "i/*", "labels": "l/*"}]}
    (case,) = cases_of(prepared(tmp_path, section, 2)).values()
    grey = np.rint(stored / 4095 * 65535)
    expected = grey if photometric == "MONOCHROME2" else 65535 - grey
    np.testing.assert_array_equal(cv2.imread(str(case.image), cv2.IMREAD_UNCHANGED), expected)
    section |= {"window": {"level": 1000, "width": 500}, "bits": 8}
    (case,) = cases_of(prepared(tmp_path, section, 2, overwrite=True)).values()
    grey = np.rint(np.clip((stored - 750.0) / 500 * 255, 0, 255))
    expected = grey if photometric == "MONOCHROME2" else 255 - grey
    np.testing.assert_array_equal(cv2.imread(str(case.image), cv2.IMREAD_UNCHANGED), expected)


# --- rules that make no sense -----------------------------------------------------------------------------

PAIRS = {"split": "train", "images": "i/*", "labels": "l/*"}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"sets": [{"split": "train", "images": "i/*"}]}, "reader 'pairs' needs `labels`"),
        ({"reader": "lists", "sets": [PAIRS]}, "reader 'lists' needs `index`"),
        ({"sets": [{**PAIRS, "index": "a.txt"}]}, "`index` is not read by reader 'pairs'"),
        ({"sets": [{**PAIRS, "images": ["a", "/b"]}]}, "pattern below the source folder"),
        ({"sets": [{**PAIRS, "images": ["a", "b"]}, {**PAIRS, "images": "c"}]}, "as many patterns"),
        ({"sets": [{**PAIRS, "images": ["a", "b"]}], "channels": 2}, "every channel has a file"),
        ({"sets": [PAIRS], "channels": 0}, "greater than or equal to 1"),
        ({"sets": [PAIRS], "bits": 16}, "there is no window"),
        ({"sets": [PAIRS], "window": [{"level": 1, "width": 1}] * 2}, "2 windows for 1 channel"),
        ({"sets": [PAIRS], "units": "HU"}, "`units` are for volumes"),
        ({"sets": [PAIRS], "label_map": {0: 0}, "instances": 1}, "keep one"),
        ({"sets": [PAIRS], "label_threshold": 3, "label_map": {0: 0, 255: 1}}, "the values are 0 and 1"),
        ({"sets": [PAIRS], "label_colors": {"0 0 256": 1}}, "is no colour"),
        ({"sets": [PAIRS], "label_colors": {"red": 1}}, "is no colour"),
        ({"sets": [PAIRS], "instances": 0}, "greater than or equal to 1"),
        ({"reader": "objects", "sets": [PAIRS]}, "needs `instances`"),
        ({"reader": "volumes", "sets": [PAIRS]}, "needs `window`"),
    ],
)
def test_rules_that_make_no_sense_are_refused(section, words):
    with pytest.raises(ValidationError, match=re.escape(words)):
        PrepareSpec.model_validate(section)


@pytest.mark.parametrize(
    "rules", [{"instances": 2}, {"label_colors": {"255 0 0": 2}}, {"label_map": {255: 2}}]
)
def test_a_class_that_is_not_there_is_refused(tmp_path, rules):
    save(tmp_path / "in" / "i" / "a.png", picture(0))
    save(tmp_path / "in" / "l" / "a.png", disc(0))
    (key,) = rules
    with pytest.raises(RecipeError, match=f"`{key}` names class 2, there are 2"):
        prepared(tmp_path, {"sets": [PAIRS], **rules}, 2)


# --- real data --------------------------------------------------------------------------------------------


def proposal(folder: Path, **changes: Any) -> tuple[PrepareSpec, LabelSet]:
    layout, *_ = recognise(folder)
    spec = PrepareSpec.model_validate({**layout.prepare, **changes})
    return spec, LabelSet.from_names(layout.labels) if layout.labels else LabelSet.generic(2)


def test_the_optic_discs_lists_are_recognised_and_their_splits_kept(real_data):
    spec, _ = proposal(real_data / "optic_disc_seg")
    found = find_sources(spec, real_data / "optic_disc_seg")
    assert Counter(one.split for one in found) == {"train": 267, "val": 76, "test": 38}


def test_the_nuclei_are_recognised_as_numbered_objects(real_data):
    spec, labels = proposal(real_data / "dsb2018_nuclei")
    assert spec.instances == 1
    found = find_sources(spec, real_data / "dsb2018_nuclei")
    assert len(found) == 120
    source = next(one for one in found if one.name.startswith("0"))
    (one,) = source.read()
    assert one.label.max() > 1
    assert set(np.unique(LabelRules.of(spec, labels).apply(one))) == {0, 1}


def test_real_nrrd_pairs_become_slices(tmp_path, real_data):
    section = {
        "reader": "volumes",
        "key": r"^([a-z]+\d)_",
        "sets": [{"split": "train", "images": "b*_image.nrrd", "labels": "b*_label.nrrd"}],
        "window": {"level": 500, "width": 1000},
    }
    manifest = write_dataset(
        PrepareSpec.model_validate(section),
        source=real_data / "radiomics_nrrd",
        destination=tmp_path / "out",
        labels=LabelSet.generic(2),
        name="set",
    )
    cases = manifest.splits["train"]
    assert {case.volume for case in cases} == {"brain1", "brain2", "breast1"}
    for name in ("brain1", "brain2", "breast1"):
        labels = nrrd.read(str(real_data / "radiomics_nrrd" / f"{name}_label.nrrd"))[0]
        own = [case for case in cases if case.volume == name]
        assert len(own) == labels.shape[2]
        assert sum(int((read_label(case.label) == 1).sum()) for case in own) == int((labels == 1).sum())


def test_a_real_dicom_segmentation_of_a_liver_is_read(tmp_path, real_data):
    folder = real_data / "ct_liver_seg"
    (seg, *_) = sorted(path for path in (folder / "seg").iterdir() if "liver" in path.name.lower())
    ct = sorted((folder / "ct").iterdir())
    root = tmp_path / "in" / "p"
    for kind, paths in (("ct", ct), ("seg", [seg])):
        (root / kind).mkdir(parents=True)
        for path in paths:
            shutil.copyfile(path, root / kind / path.name)
    section = {**DICOM, "sets": [{"split": "train", "images": "p/ct/*", "labels": "p/seg/*"}]}
    cases = cases_of(prepared(tmp_path, section, 2)).values()
    assert len(cases) == len(ct)
    found = np.stack([read_label(case.label) for case in cases])
    stored = pydicom.dcmread(seg)
    assert int((found == 1).sum()) == int(stored.pixel_array.astype(bool).sum())
