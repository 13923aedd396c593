"""Source folders that could be read wrongly in silence: every one is refused, or read as it means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pydicom
import pytest
from dicom_files import save_seg
from PIL import Image

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet, Manifest
from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_label
from medseg_paddle.phantom import write_phantom
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.dry_run import dry_run

ORGANS = ("background", "liver", "tumour")
SIZE = 16


def picture(path: Path, number: int, dtype: Any = np.uint8, high: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    Image.fromarray(rng.integers(0, high, (SIZE, SIZE), dtype=dtype, endpoint=True)).save(path)


def drawn(number: int, value: int = 1) -> np.ndarray:
    label = np.zeros((SIZE, SIZE), np.uint8)
    label[2 : 5 + number % 8, 1:6] = value
    return label


def mask(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def problems(root: Path, section: dict[str, Any], names: tuple[str, ...] = ORGANS) -> list[DataError]:
    """What the dry run finds; preparing must end with the first of it, and with no data set."""
    spec, labels = PrepareSpec.model_validate(section), LabelSet.from_names(names)
    found = dry_run(spec, source=root, labels=labels, workers=1)
    out = root.parent / "out"
    if found.problems:
        with pytest.raises(DataError) as caught:
            write_dataset(spec, source=root, destination=out, labels=labels, name="set", workers=1)
        assert caught.value.message in {one.message for one in found.problems}
    return list(found.problems)


def written(root: Path, section: dict[str, Any], names: tuple[str, ...] = ORGANS, **options: Any) -> Manifest:
    return write_dataset(
        PrepareSpec.model_validate(section),
        source=root,
        destination=root.parent / "out",
        labels=LabelSet.from_names(names),
        name="set",
        workers=1,
        **options,
    )


def label(manifest: Manifest, case: str) -> np.ndarray:
    (found,) = [one for cases in manifest.splits.values() for one in cases if one.id == case]
    assert found.label is not None
    return read_label(found.label)


# --- names of label values --------------------------------------------------------------------------------


def coco_file(path: Path, numbers: range, categories: dict[int, str], corner: int = 2) -> None:
    """One square of each category in every picture."""
    annotations = []
    for number in numbers:
        for place, category in enumerate(categories):
            x, y = 1 + 7 * place, corner
            square = [[x, y, x + 5, y, x + 5, y + 5, x, y + 5]]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category,
                                "iscrowd": 0, "segmentation": square})  # fmt: skip
    images = [{"id": one, "file_name": f"{one}.png", "height": SIZE, "width": SIZE} for one in numbers]
    listed = [{"id": number, "name": name} for number, name in categories.items()]
    path.write_text(json.dumps({"images": images, "categories": listed, "annotations": annotations}))


COCO = {
    "reader": "coco",
    "sets": [
        {"split": "train", "images": "im/*.png", "index": "train.json"},
        {"split": "val", "images": "im/*.png", "index": "val.json"},
    ],
}


def coco_folder(root: Path, train: dict[int, str], val: dict[int, str]) -> Path:
    for number in range(6):
        picture(root / "im" / f"{number}.png", number)
    coco_file(root / "train.json", range(4), train)
    coco_file(root / "val.json", range(4, 6), val)
    return root


@pytest.mark.parametrize("rules", [{}, {"label_map": {1: 1, 2: 2}}])
def test_coco_files_that_number_their_categories_differently_are_refused(tmp_path, rules):
    root = coco_folder(tmp_path / "in", {1: "liver", 2: "tumour"}, {1: "tumour", 2: "liver"})
    found = problems(root, COCO | rules)
    assert [one.message for one in found] == [
        f"'tumour' is label value 2 in {root}/train.json and 1 in {root}/val.json",
        f"'liver' is label value 1 in {root}/train.json and 2 in {root}/val.json",
    ]


def test_coco_categories_are_those_of_the_recipe_s_classes(tmp_path):
    root = coco_folder(tmp_path / "in", {1: "Tumour", 2: "liver"}, {1: "tumour", 2: "liver"})
    (found,) = problems(root, COCO)
    assert (
        found.message == f"label value 1 is 'Tumour' in {root}/train.json; in the recipe class 1 is 'liver'"
    )
    assert "`label_map: {0: 0, 1: 2, 2: 1}`" in found.hint
    manifest = written(root, COCO | {"label_map": {0: 0, 1: 2, 2: 1}})
    assert label(manifest, "0")[3, 2] == 2


def test_one_category_with_two_names_is_refused(tmp_path):
    root = coco_folder(tmp_path / "in", {1: "liver"}, {1: "spleen"})
    (found,) = problems(root, COCO, ("background", "organ"))
    assert "label value 1 is 'liver' in" in found.message
    assert "and 'spleen' in" in found.message


def nnunet_folder(root: Path, **content: Any) -> Path:
    for number in range(4):
        picture(root / "imagesTr" / f"c{number}_0000.png", number)
        mask(root / "labelsTr" / f"c{number}.png", drawn(number))
    said = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "tumour": 1, "liver": 2},
            "numTraining": 4, "file_ending": ".png"}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(said | content))
    return root


NNUNET = {"reader": "nnunet", "sets": [{"index": "dataset.json"}], "val_fraction": 0.25}


def test_nnu_net_s_labels_in_another_order_are_refused(tmp_path):
    root = nnunet_folder(tmp_path / "in")
    (found,) = problems(root, NNUNET)
    assert "label value 1 is 'tumour'" in found.message
    assert not problems(root, NNUNET, ("background", "tumour", "liver"))


def slicer(path: Path, names: dict[int, str]) -> None:
    """A label volume with Slicer's names of its segments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((SIZE, SIZE, 2), np.uint8)
    for place, value in enumerate(names):
        values[1 + 7 * place : 6 + 7 * place, 2:9] = value
    header: dict[str, Any] = {"space": "left-posterior-superior", "space directions": np.diag([0.7, 0.7, 3.0]),
                              "space origin": np.zeros(3)}  # fmt: skip
    for number, (value, name) in enumerate(names.items()):
        header |= {f"Segment{number}_Name": name, f"Segment{number}_LabelValue": str(value)}
    nrrd.write(str(path), values, header)


VOLUMES = {
    "reader": "volumes",
    "sets": [{"split": "train", "images": "im/*.nrrd", "labels": "seg/*.nrrd"}],
    "window": {"level": 1, "width": 4},
}


def test_slicer_s_segment_names_must_agree(tmp_path):
    root = tmp_path / "in"
    for number in range(3):
        slicer(root / "im" / f"{number}.nrrd", {1: "Segment_1", 2: "Segment_2"})
        slicer(root / "seg" / f"{number}.nrrd", {1: "liver", 2: "tumour"})
    assert not problems(root, VOLUMES)
    slicer(root / "seg" / "2.nrrd", {1: "tumour", 2: "liver"})
    found = problems(root, VOLUMES)
    assert f"'tumour' is label value 2 in {root}/seg/0.nrrd and 1 in {root}/seg/2.nrrd" in found[0].message
    slicer(root / "seg" / "2.nrrd", {1: "hepar", 2: "tumour"})
    (only,) = problems(root, VOLUMES)
    assert "`label_map: {0: 0, 1: 1}`" in only.hint
    assert not problems(root, VOLUMES | {"label_map": {0: 0, 1: 1, 2: 2}})


def test_segments_of_dicom_that_are_numbered_differently_are_refused(tmp_path):
    root = tmp_path / "in"
    write_phantom(root, patients=3, seed=3, size=32, slices=9)
    for number, folder in enumerate(sorted(root.iterdir())):
        names = ["liver", "tumour"] if number < 2 else ["tumour", "liver"]
        images = [pydicom.dcmread(path) for path in sorted((folder / "ct").iterdir())]
        pixels = np.zeros((len(images), 32, 32), np.uint8)
        pixels[:, 3:9, 3:9], pixels[:, 12:18, 3:9] = 1, 2
        save_seg(folder / "seg" / "seg.dcm", images, pixels, names)
    section = {
        "reader": "dicom",
        "sets": [{"split": "train", "images": "*/ct/*", "labels": "*/seg/*.dcm"}],
        "window": {"level": 40, "width": 400},
    }
    found = problems(root, section)
    assert "'tumour' is label value 2 in" in found[0].message


# --- gone on with, and again in one process ---------------------------------------------------------------


class Stop(BaseException):
    """As KeyboardInterrupt."""


def interrupted(root: Path, section: dict[str, Any], names: tuple[str, ...]) -> None:
    def stop(done: int, _total: int, _name: str) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        written(root, section, names, progress=stop)


def test_polygons_that_were_corrected_after_an_interruption_are_drawn_anew(tmp_path):
    root = coco_folder(tmp_path / "in", {1: "liver"}, {1: "liver"})
    interrupted(root, COCO, ("background", "liver"))
    coco_file(root / "train.json", range(4), {1: "liver"}, corner=8)
    manifest = written(root, COCO, ("background", "liver"))
    for number in range(4):
        assert label(manifest, str(number)).nonzero()[0].min() == 8


def test_channels_in_another_order_after_an_interruption_are_read_anew(tmp_path):
    root = nnunet_folder(tmp_path / "in", channel_names={"0": "a", "1": "b"})
    for number in range(4):
        picture(root / "imagesTr" / f"c{number}_0001.png", 10 + number)

    def order(*names: int) -> None:
        content = json.loads((root / "dataset.json").read_text())
        content["dataset"] = {
            f"c{number}": {
                "images": [f"imagesTr/c{number}_{name:04d}.png" for name in names],
                "label": f"labelsTr/c{number}.png",
            }
            for number in range(4)
        }
        (root / "dataset.json").write_text(json.dumps(content))

    names = ("background", "tumour", "liver")
    order(1, 0)
    interrupted(root, NNUNET, names)
    order(0, 1)
    manifest = written(root, NNUNET, names)
    for case in (one for cases in manifest.splits.values() for one in cases):
        first = np.asarray(Image.open(root / "imagesTr" / f"{case.id}_0000.png"))
        np.testing.assert_array_equal(np.load(case.image)[:, :, 0], first)


def test_a_second_preparation_in_one_process_reads_the_annotations_as_they_are_then(tmp_path):
    root = coco_folder(tmp_path / "in", {1: "liver"}, {1: "liver"})
    written(root, COCO, ("background", "liver"))
    coco_file(root / "train.json", range(4), {1: "liver"}, corner=8)
    manifest = written(root, COCO, ("background", "liver"), overwrite=True)
    assert label(manifest, "0").nonzero()[0].min() == 8


# --- palettes ---------------------------------------------------------------------------------------------

PAIRS = {"sets": [{"images": "im/*.png", "labels": "lab/*.png"}], "val_fraction": 0.25}
ONE = ("background", "object")


def pairs(root: Path, save: Any = mask) -> Path:
    for number in range(4):
        picture(root / "im" / f"{number}.png", number)
        save(root / "lab" / f"{number}.png", drawn(number))
    return root


def indexed(path: Path, label: np.ndarray, colors: list[int]) -> None:
    """A palette picture; `colors` are red, green and blue of index 0, 1, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label).convert("L")
    image.putpalette(colors)
    image.save(path)


def test_a_mask_whose_palette_begins_with_white_is_not_taken_inverted(tmp_path):
    def save(path: Path, label: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label * 255).quantize(2).save(path)

    root = pairs(tmp_path / "in", save)
    assert (np.asarray(Image.open(root / "lab" / "0.png")) == 1 - drawn(0)).all()  # what Pillow does
    found = problems(root, PAIRS, ONE)
    assert "0 is grey 255, 1 is grey 0" in found[0].message
    assert "`label_colors: {0 0 0: ?, 255 255 255: ?}`" in found[0].hint
    manifest = written(root, PAIRS | {"label_colors": {"0 0 0": 0, "255 255 255": 1}}, ONE)
    np.testing.assert_array_equal(label(manifest, "0"), drawn(0))


def test_a_palette_that_differs_from_the_others_is_refused(tmp_path):
    red, blue = [0, 0, 0, 255, 0, 0], [0, 0, 0, 0, 0, 255]
    root = pairs(tmp_path / "in", lambda path, array: indexed(path, array, red))
    assert not problems(root, PAIRS, ONE)
    indexed(root / "lab" / "2.png", drawn(2), blue)
    (found,) = problems(root, PAIRS, ONE)
    assert "value 1 is the colour 255 0 0 in '0' and 0 0 255 in '2'" in found.message
    assert "`label_colors: {255 0 0: ?, 0 0 255: ?}`" in found.hint
    numbered = PAIRS | {"instances": 1}
    assert not problems(root, numbered, ONE)


# --- labels without objects -------------------------------------------------------------------------------


def test_categories_counted_from_0_are_not_taken_for_background(tmp_path):
    root = coco_folder(tmp_path / "in", {0: "liver", 1: "tumour"}, {0: "liver", 1: "tumour"})
    said = [one for one in problems(root, COCO) if "counts its categories from 0" in one.message]
    assert "4 objects are of 0 'liver'" in said[0].message
    assert "`label_map: {0: 1, 1: 2}`" in said[0].hint
    manifest = written(root, COCO | {"label_map": {0: 1, 1: 2}})
    assert label(manifest, "0")[3, 2] == 1


def test_labels_that_are_all_empty_are_refused(tmp_path):
    root = pairs(tmp_path / "in", lambda path, array: mask(path, 0 * array))
    (found,) = problems(root, PAIRS, ONE)
    assert "none of the 4 labels has a pixel" in found.message


def test_a_class_that_no_label_has_is_told_of(tmp_path):
    root = pairs(tmp_path / "in")
    said: list[str] = []
    written(root, PAIRS, ORGANS, say=said.append)
    assert "class 2 'tumour' is in no label" in said


# --- files that lead out of the source folder, and hostile JSON ---------------------------------------------


@pytest.mark.parametrize("form", ["relative", "absolute"])
def test_a_list_may_not_name_files_outside(tmp_path, form):
    root = pairs(tmp_path / "in")
    picture(tmp_path / "secret.png", 9)
    mask(tmp_path / "secret-label.png", drawn(9))
    above = ".." if form == "relative" else str(tmp_path)
    lines = [f"im/{number}.png lab/{number}.png" for number in range(4)]
    section = {"reader": "lists", "sets": [{"split": "train", "index": "list.txt"}]}
    (root / "list.txt").write_text("\n".join([*lines, f"{above}/secret.png {above}/secret-label.png"]))
    (found,) = problems(root, section, ONE)
    assert f"list.txt, line 5: '{above}/secret.png" in found.message
    inside = f"{root if form == 'absolute' else 'lab/..'}/im/3.png lab/3.png"
    (root / "list.txt").write_text("\n".join([*lines[:3], inside]))
    assert not problems(root, section, ONE)
    assert "im/3.png" in written(root, section, ONE).source["files"]


@pytest.mark.parametrize("form", ["relative", "absolute", "missing"])
def test_a_dataset_json_may_not_name_files_outside(tmp_path, form):
    picture(tmp_path / "secret.png", 9)
    above = ".." if form == "relative" else str(tmp_path)
    name = f"{above}/{'secret' if form != 'missing' else 'gone'}.png"
    training = [{"image": name, "label": f"labelsTr/{Path(name).name}"}]
    root = nnunet_folder(tmp_path / "in", training=training, modality={"0": "grey"}, channel_names=None)
    content = json.loads((root / "dataset.json").read_text())
    del content["channel_names"]
    (root / "dataset.json").write_text(json.dumps(content))
    found = problems(root, NNUNET, ("background", "tumour", "liver"))
    assert f"names '{name}', which is not below {root}" in found[0].message


def test_a_dataset_json_without_end_is_refused(tmp_path):
    root = nnunet_folder(tmp_path / "in")
    (root / "dataset.json").write_text("[" * 200_000)
    found, *_ = problems(root, NNUNET)
    assert "is no dataset.json of nnU-Net (RecursionError" in found.message


# --- which image, which label -----------------------------------------------------------------------------


def two_folders(root: Path) -> Path:
    for place, folder in enumerate("AB"):
        for number in range(3):
            picture(root / folder / "im" / f"{number}.png", 10 * place + number)
            mask(root / folder / "lab" / f"{number}.png", drawn(number))
    return root


FOLDERS = {
    "key": r"^(.)/.*/(\d+)",
    "sets": [{"images": "*/im/*.png", "labels": "*/lab/*.png", "only": "list.txt"}],
    "val_fraction": 0.25,
}


def test_a_list_s_name_that_two_images_have_is_refused(tmp_path):
    root = two_folders(tmp_path / "in")
    (root / "list.txt").write_text("0.png\nB/im/1.png\n2\n")
    said = [one.message for one in problems(root, FOLDERS, ONE)]
    assert said[:2] == [
        f"{root}/list.txt: '0.png' can be A/im/0.png, B/im/0.png",
        f"{root}/list.txt: '2' can be A/im/2.png, B/im/2.png",
    ]
    (root / "list.txt").write_text("A/im/0.png A/lab/0.png\nB/im/1.png\n")
    manifest = written(root, FOLDERS | {"val_fraction": 0.5}, ONE)
    assert sorted(one.id for cases in manifest.splits.values() for one in cases) == ["A-0", "B-1"]


def test_the_first_word_of_a_line_is_a_name_only_with_its_ending(tmp_path):
    root = pairs(tmp_path / "in")
    picture(root / "im" / "scan.png", 7)
    mask(root / "lab" / "scan.png", drawn(7))
    section = {**PAIRS, "sets": [{**PAIRS["sets"][0], "only": "list.txt"}]}  # type: ignore[index]
    (root / "list.txt").write_text("0.png\n1.png\nscan 9.png\n")
    (found,) = problems(root, section, ONE)
    assert "list.txt names scan 9.png, not among the images" in found.message
    (root / "list.txt").write_text("0.png\n1\nscan.png 9\n")
    manifest = written(root, section, ONE)
    assert sorted(one.id for cases in manifest.splits.values() for one in cases) == ["0", "1", "scan"]


def test_a_row_of_a_table_is_not_that_of_two_images_with_one_name(tmp_path):
    root = two_folders(tmp_path / "in")
    section = {
        **FOLDERS,
        "sets": [{"images": "*/im/*.png", "labels": "*/lab/*.png"}],
        "table": {"file": "t.csv", "id": "name", "patient": "who"},
    }
    (root / "t.csv").write_text("name,who\n0.png,P0\n1.png,P1\n2.png,P2\n")
    found = problems(root, section, ONE)
    assert found[0].message == f"table {root}/t.csv has one row '0.png' for A/im/0.png and B/im/0.png"
    # By patient, a row is that of many images.
    (root / "t.csv").write_text("name,where\nA,H1\nB,H2\n")
    table = {"file": "t.csv", "id": "name", "center": "where"}
    assert not problems(root, section | {"patient": "^(.)/", "table": table}, ONE)


TUMOUR = ("background", "tumour", "liver")


def test_one_grey_file_is_not_two_channels(tmp_path):
    root = nnunet_folder(tmp_path / "in", channel_names={"0": "T1", "1": "T2"})
    found = problems(root, NNUNET, TUMOUR)
    assert "case 'c0' has channels [0], dataset.json names 2" in found[0].message
    nnunet_folder(root, channel_names={"0": "R", "1": "G", "2": "B"})
    assert "case 'c0' has channels [0], dataset.json names 3" in problems(root, NNUNET, TUMOUR)[0].message
    for number in range(4):
        rng = np.random.default_rng(number)
        colours = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(colours).save(root / "imagesTr" / f"c{number}_0000.png")
    assert not problems(root, NNUNET, TUMOUR)


def nnunet_training(root: Path, *entries: tuple[int, int]) -> Path:
    training = [
        {"image": f"./imagesTr/c{image}.png", "label": f"./labelsTr/c{own}.png"} for image, own in entries
    ]
    nnunet_folder(root, training=training, modality={"0": "grey"})
    content = json.loads((root / "dataset.json").read_text())
    del content["channel_names"]
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_a_case_that_is_named_twice_or_with_another_s_label_is_refused(tmp_path):
    root = nnunet_training(tmp_path / "in", (0, 0), (1, 1), (2, 2))
    assert not problems(root, NNUNET, TUMOUR)
    nnunet_training(root, (0, 0), (1, 1), (1, 1))
    assert "names case 'c1' twice" in problems(root, NNUNET, TUMOUR)[0].message
    nnunet_training(root, (0, 0), (1, 2))
    assert (
        "pairs image 'imagesTr/c1.png' with label 'labelsTr/c2.png'"
        in problems(root, NNUNET, TUMOUR)[0].message
    )


def test_a_named_case_lacks_no_channel(tmp_path):
    dataset = {
        f"c{n}": {"images": [f"imagesTr/c{n}_0000.png"], "label": f"labelsTr/c{n}.png"} for n in range(4)
    }
    root = nnunet_folder(tmp_path / "in", dataset=dataset, channel_names={"0": "T1", "1": "T2"})
    assert "case 'c0' has 1 images, channel_names 2" in problems(root, NNUNET, TUMOUR)[0].message


def test_one_label_of_several_images_is_refused(tmp_path):
    root = pairs(tmp_path / "in")
    section = {"reader": "lists", "sets": [{"split": "train", "index": "list.txt"}]}
    (root / "list.txt").write_text("".join(f"im/{number}.png lab/{number // 3}.png\n" for number in range(4)))
    (found,) = problems(root, section, ONE)
    assert found.message == f"{root}/lab/0.png is the label of 3 images: im/0.png, im/1.png, im/2.png"


# --- intensities ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hot", ["one picture", "every picture", "no picture"])
def test_hot_pixels_do_not_hide_that_pictures_are_nearly_black(tmp_path, hot):
    root = pairs(tmp_path / "in")
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 4096, (150, 150), dtype=np.uint16)
        if hot == "every picture" or (hot == "one picture" and number == 0):
            values[0, 0] = 65535
        Image.fromarray(values).save(root / "im" / f"{number}.png")
        mask(root / "lab" / f"{number}.png", np.pad(drawn(number), (0, 150 - SIZE)))
    (found,) = problems(root, PAIRS, ONE)
    assert "they are nearly black" in found.message
    assert "`window: {level: 2047.5, width: 4095}`" in found.hint
    assert not problems(root, PAIRS | {"window": {"level": 2047.5, "width": 4095}}, ONE)


def mr(path: Path, low: int, high: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"space": "left-posterior-superior", "space directions": np.diag([0.7, 0.7, 3.0]),
              "space origin": np.zeros(3)}  # fmt: skip
    values = np.linspace(low, high, SIZE * SIZE * 2).reshape(SIZE, SIZE, 2)
    nrrd.write(str(path), values.astype(np.int16), header)


def test_a_window_that_shows_nothing_of_a_volume_is_refused_with_one_that_does(tmp_path):
    root = tmp_path / "in"
    for number in range(3):
        mr(root / "im" / f"{number}.nrrd", 2000, 9000)
        slicer(root / "seg" / f"{number}.nrrd", {1: "liver", 2: "tumour"})
    found = problems(root, VOLUMES | {"window": {"level": 40, "width": 400}})
    assert len(found) >= 3
    assert "0, channel 1: 100.00% of the voxels lie outside the window" in found[0].message
    assert "most lie in 2035..8964" in found[0].message
    assert "`window: {level: 5500, width: 6929}`" in found[0].hint
    assert not problems(root, VOLUMES | {"window": {"level": 5500, "width": 6930}})
    # A few voxels of a bright thing in much air are a picture.
    assert not problems(root, VOLUMES | {"window": {"level": 2000, "width": 400}})
