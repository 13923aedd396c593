"""`medseg check` on a clean set, and on copies of it with one thing wrong each."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from medseg_paddle.cli import main
from medseg_paddle.cli.check_table import check_table
from medseg_paddle.errors import DataError
from medseg_paddle.steps.check import Severity, check
from medseg_paddle.steps.check.findings import CODES
from medseg_paddle.steps.prepare import prepare

TRAIN, OTHER, VAL, TEST = "P01_1", "P02_1", "P09_1", "P11_1"


def found(result, code):
    """The findings of a code; there must be some."""
    some = [one for one in result.findings if one.code == code]
    assert some, [one.code for one in result.findings]
    return some


def the(result, code):
    (only,) = found(result, code)
    return only


def printed(result):
    console = Console(width=300, file=io.StringIO())
    console.print(check_table(result))
    return console.file.getvalue()


def loud(result):
    return [one.code for one in result.findings if one.severity is not Severity.NOTE]


# --- what is clean ----------------------------------------------------------------------------------------


def test_a_clean_set_raises_nothing_however_it_is_stored(clean_blobs, tmp_path):
    lists = check(clean_blobs.lists)
    source = check(clean_blobs.source, clean_blobs.recipe)
    prepare(clean_blobs.recipe, clean_blobs.source, output=tmp_path / "prepared")
    prepared = check(tmp_path / "prepared")
    assert [one.kind for one in (lists, source, prepared)] == ["lists", "source", "manifest"]
    for result in (lists, source, prepared):
        assert loud(result) == []
        assert result.is_fit(strict=True)
        assert sum(result.splits.values()) == 12
        assert result.set_shift.distance < 0.3
    # the same pictures give the same shares, counted here by hand
    pixels = [clean_blobs.label(name).mean() for name in [f"P{number:02d}_1" for number in range(1, 13)]]
    for result in (lists, source, prepared):
        assert result.classes[1].share == pytest.approx(np.mean(pixels))


def test_what_is_no_data_set_is_refused_with_what_to_name(tmp_path):
    for folder, said in ((tmp_path / "none", "is no folder"), (tmp_path, "neither manifest.json nor")):
        with pytest.raises(DataError, match=said):
            check(folder)


# --- files ------------------------------------------------------------------------------------------------


def test_every_problem_is_found_in_one_go(blobs):
    (blobs.lists / f"labels/{TRAIN}.png").unlink()
    (blobs.lists / f"images/{OTHER}.png").write_bytes(b"no picture")
    blobs.write_label(VAL, blobs.label(VAL)[:-3])
    result = check(blobs.lists)
    assert the(result, "missing-file").cases == (f"images/{TRAIN}",)
    assert the(result, "unreadable").cases == (f"images/{OTHER}",)
    mismatch = the(result, "size-mismatch")
    assert mismatch.figures == {"image": [160, 160], "label": [157, 160]}
    assert result.count(Severity.ERROR) == 3
    assert not result.is_fit()


def test_many_of_a_kind_are_said_once(blobs):
    for path in (blobs.lists / "labels").glob("*.png"):
        path.unlink()
    finding = the(check(blobs.lists), "missing-file")
    assert finding.message.startswith("12 times: ")
    assert len(finding.cases) == len(finding.figures["messages"]) == 12


def test_a_label_with_rows_and_columns_exchanged_is_called_that(blobs):
    picture = blobs.image(TRAIN)[:120]
    blobs.write_image(TRAIN, picture)
    blobs.write_label(TRAIN, blobs.label(TRAIN)[:120].T)
    assert "exchanged" in the(check(blobs.lists), "size-mismatch").message


def test_a_source_folder_is_told_of_every_lonely_file(blobs):
    (blobs.source / f"masks/{TRAIN}.png").unlink()
    result = check(blobs.source, blobs.recipe)
    assert TRAIN in the(result, "unpaired").message
    assert str(blobs.source) not in the(result, "unpaired").message  # paths are those below the folder


def test_a_jpeg_mask_is_named_as_one(blobs):
    stored = io.BytesIO()
    Image.fromarray(blobs.label(TRAIN) * 255).save(stored, format="JPEG")
    (blobs.lists / f"labels/{TRAIN}.png").write_bytes(stored.getvalue())
    assert the(check(blobs.lists), "jpeg-mask").severity is Severity.ERROR


def test_a_mask_that_was_a_jpeg_once_is_no_class_map(blobs):
    stored = io.BytesIO()
    Image.fromarray(blobs.label(TRAIN) * 255).save(stored, format="JPEG", quality=60)
    Image.open(stored).save(blobs.source / f"masks/{TRAIN}.png")
    finding = the(check(blobs.source, blobs.recipe), "undeclared-values")
    assert "compressed" in finding.remedy
    assert finding.cases == (TRAIN,)


def test_image_and_mask_exchanged(blobs):
    mask, picture = blobs.label(TRAIN), blobs.image(TRAIN)
    Image.fromarray(mask * 255).save(blobs.lists / f"images/{TRAIN}.png")
    Image.fromarray(picture).save(blobs.lists / f"labels/{TRAIN}.png")
    assert the(check(blobs.lists), "swapped").cases == (f"images/{TRAIN}",)


def store(path, array, **options):
    Image.fromarray(np.ascontiguousarray(array)).save(path, **options)


@pytest.mark.parametrize("how", ["jpeg photographs", "colour", "mask as jpeg"])
def test_exchanged_in_any_file_format(blobs, how):
    """One remedy, whatever the reader of labels thinks of a photograph."""
    rows = []
    for name in [TRAIN] if how == "mask as jpeg" else [f"P{number:02d}_1" for number in range(1, 13)]:
        mask, picture = blobs.label(name), blobs.image(name)
        if how == "jpeg photographs":
            store(blobs.lists / f"{name}-photo.jpg", picture)
            rows.append(f"labels/{name}.png {name}-photo.jpg")
        elif how == "colour":
            store(blobs.lists / f"images/{name}.png", np.dstack([picture, picture // 2, 255 - picture]))
            rows.append(f"labels/{name}.png images/{name}.png")
        else:
            store(blobs.lists / f"{name}-mask.jpg", mask * 255)
            store(blobs.lists / f"labels/{name}.png", picture // 4)  # fewer than 64 values
            rows = (blobs.lists / "train_list.txt").read_text().splitlines()
            rows[0] = f"{name}-mask.jpg labels/{name}.png"
    (blobs.lists / "train_list.txt").write_text("\n".join(rows))
    if how != "mask as jpeg":
        for split in ("val", "test"):
            (blobs.lists / f"{split}_list.txt").unlink()
    result = check(blobs.lists)
    assert len(the(result, "swapped").cases) == (1 if how == "mask as jpeg" else 12)
    assert loud(result) == ["swapped"]


def test_numbered_objects_on_a_black_and_white_picture_are_not_exchanged(blobs):
    rows, columns = np.mgrid[:160, :160]
    blobs.write_label(TRAIN, (rows // 20 * 8 + columns // 20).astype(np.uint8))
    blobs.write_image(TRAIN, ((rows // 20 + columns // 20) % 2 * 200).astype(np.uint8))
    assert "swapped" not in loud(check(blobs.lists))


def test_a_picture_in_no_list_is_noted(blobs):
    shutil.copy(blobs.lists / f"images/{TRAIN}.png", blobs.lists / "images/extra.png")
    assert the(check(blobs.lists), "not-listed").cases == ("images/extra.png",)


def test_lines_of_a_list(blobs):
    spaced = blobs.lists / "images/a b.png"
    shutil.copy(blobs.lists / f"images/{TRAIN}.png", spaced)
    lines = [
        f"images/a b.png labels/{TRAIN}.png",
        f"images/{OTHER}.png,labels/{OTHER}.png",
        "one two three",
        "",
    ]
    lines += [f"images/{OTHER}.png labels/{OTHER}.png"]
    (blobs.lists / "train_list.txt").write_text("\n".join(lines))
    result = check(blobs.lists)
    assert result.splits["train"] == 2
    assert "line 3" in the(result, "list-line").message
    assert "line 2 and in line 5" in the(result, "listed-twice").message


@pytest.mark.parametrize(("split", "severity"), [("train", Severity.ERROR), ("val", Severity.NOTE)])
def test_a_list_without_a_line(blobs, split, severity):
    (blobs.lists / f"{split}_list.txt").write_text("\n \n")
    finding = the(check(blobs.lists), "empty-list")
    assert finding.severity is severity
    assert f"{split}_list.txt" in finding.message


# --- labels -----------------------------------------------------------------------------------------------


def test_undeclared_values_are_counted_and_the_line_is_proposed(blobs):
    text = blobs.recipe.read_text().replace("  label_map: {0: 0, 255: 1}\n", "")
    blobs.recipe.write_text(text)
    finding = the(check(blobs.source, blobs.recipe), "undeclared-values")
    total = sum(int(blobs.label(path.stem).sum()) for path in (blobs.source / "masks").glob("*.png"))
    assert f"255 ({total} pixels)" in finding.message
    assert "`label_map: {0: 0, 255: 1}`" in finding.remedy
    assert len(finding.cases) == 12


def test_lists_of_0_and_255_would_train_on_nothing(blobs):
    for name in [path.stem for path in (blobs.lists / "labels").glob("*.png")]:
        Image.fromarray(blobs.label(name) * 255).save(blobs.lists / f"labels/{name}.png")
    finding = the(check(blobs.lists), "undeclared-values")
    assert finding.severity is Severity.ERROR
    assert "{0: 0, 255: 1}" in finding.remedy


def with_lists_recipe(blobs):
    """The recipe without its `prepare`, so that lists are compared with its classes."""
    text = blobs.recipe.read_text()
    blobs.recipe.write_text(text[: text.index("prepare:")] + text[text.index("train_dataset:") :])
    return blobs.recipe


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("many", [1, 6, 12])
def test_masks_of_0_and_255_among_others_would_be_left_out(blobs, named, many):
    names = [path.stem for path in sorted((blobs.lists / "labels").glob("*.png"))][:many]
    for name in names:
        Image.fromarray(blobs.label(name) * 255).save(blobs.lists / f"labels/{name}.png")
    result = check(blobs.lists, with_lists_recipe(blobs) if named else None)
    finding = the(result, "undeclared-values")
    assert finding.severity is Severity.ERROR
    assert "`label_map: {0: 0, 255: 1}`" in finding.remedy
    if many < 12:
        assert finding.cases == tuple(f"images/{name}" for name in names)


def test_255_beside_classes_elsewhere_may_mean_unclear(blobs):
    unclear = blobs.label(OTHER)
    unclear[:5] = 255
    blobs.write_label(OTHER, unclear)
    blobs.write_label(TRAIN, blobs.label(TRAIN) * 255)
    finding = the(check(blobs.lists), "undeclared-values")
    assert (finding.severity, finding.cases) == (Severity.WARNING, (f"images/{TRAIN}",))


@pytest.mark.parametrize(
    ("splits", "said"), [(("train", "val", "test"), "whole"), (("val",), "val"), (("train",), "train")]
)
def test_a_set_without_any_foreground_cannot_be_trained_on(blobs, splits, said):
    for split in splits:
        for line in (blobs.lists / f"{split}_list.txt").read_text().splitlines():
            name = Path(line.split()[0]).stem
            blobs.write_label(name, blobs.label(name) * 0)
    result = check(blobs.lists)
    assert f"the {said} set" in the(result, "no-foreground").message
    assert not result.is_fit()
    if said == "whole":
        assert "no-foreground" in loud(check(blobs.source, blobs.recipe))


def test_smoothed_masks_in_lists_are_one_finding(blobs):
    for name in (TRAIN, OTHER):
        soft = Image.fromarray(blobs.label(name) * 255).resize((80, 80), 2).resize((160, 160), 2)
        store(blobs.lists / f"labels/{name}.png", np.array(soft))
    result = check(blobs.lists)
    finding = the(result, "undeclared-values")
    assert finding.severity is Severity.ERROR
    assert "grey levels of smoothed" in finding.remedy
    assert finding.cases == (f"images/{TRAIN}", f"images/{OTHER}")
    assert loud(result) == ["undeclared-values"]
    assert not [one for one in result.findings if one.code == "rare-class"]


def test_of_many_classes_a_dozen_are_listed(blobs, tmp_path):
    rows, columns = np.mgrid[:160, :160]
    for number in range(1, 13):
        blobs.write_label(f"P{number:02d}_1", (rows // 32 * 5 + columns // 32).astype(np.uint8))  # 0..24
    result = check(blobs.lists, page=tmp_path / "page.html")
    assert len(result.classes) == 25
    shown = printed(result)
    assert "class 12 4.00%" in shown
    assert "and 12 more" in shown
    assert "class 13" not in shown
    assert "<td>class 12" in (tmp_path / "page.html").read_text()
    assert "<td>class 13" not in (tmp_path / "page.html").read_text()


def test_empty_and_full_masks(blobs):
    blobs.write_label(TRAIN, blobs.label(TRAIN) * 0)
    blobs.write_label(OTHER, blobs.label(OTHER) * 0 + 1)
    result = check(blobs.lists)
    assert the(result, "empty-mask").cases == (f"images/{TRAIN}",)
    assert the(result, "full-mask").cases == (f"images/{OTHER}",)


@pytest.mark.parametrize("many", [3, 12])
def test_one_mask_under_several_images(blobs, many):
    names = [f"P{number:02d}_1" for number in range(1, many + 1)]
    for name in names:
        blobs.write_label(name, blobs.label(names[0]))
    finding = the(check(blobs.lists), "same-mask")
    assert finding.cases == tuple(f"images/{name}" for name in names)


@pytest.mark.parametrize("usual", ["small", "large"])
def test_one_inverted_mask(blobs, usual):
    for number in range(1, 13):
        name = f"P{number:02d}_1"
        if (name == TRAIN) == (usual == "small"):
            blobs.write_label(name, 1 - blobs.label(name))
    assert the(check(blobs.lists), "inverted-mask").cases == (f"images/{TRAIN}",)


def test_a_class_that_a_split_lacks(blobs):
    blobs.write_label(VAL, blobs.label(VAL) * 2)
    result = check(blobs.lists)
    assert any(
        "class 2" in one.message and "train and test" in one.message for one in found(result, "class-missing")
    )


# --- images -----------------------------------------------------------------------------------------------


def test_constant_flat_and_saturated_images(blobs):
    blobs.write_image("P03_1", blobs.image("P03_1") * 0 + 7)
    blobs.write_image("P04_1", (blobs.image("P04_1") > 100).astype(np.uint8) + 60)
    white = blobs.image("P05_1").copy()
    white[:70] = 255
    blobs.write_image("P05_1", white)
    result = check(blobs.lists)
    assert the(result, "constant-image").cases == ("images/P03_1",)
    assert the(result, "flat-image").cases == ("images/P04_1",)
    saturated = the(result, "saturated-image")
    assert saturated.cases == ("images/P05_1",)
    assert saturated.figures["shares"]["images/P05_1"] == pytest.approx(70 / 160, abs=0.01)


def test_an_image_of_far_less_contrast_than_the_others_is_named(blobs):
    assert "low-contrast" not in {one.code for one in check(blobs.lists).findings}
    blobs.write_image("P03_1", blobs.image("P03_1") // 8 + 100)
    assert the(check(blobs.lists), "low-contrast").cases == ("images/P03_1",)


def test_sixteen_bits_are_dark_if_half_of_the_images_are(blobs):
    for number in range(1, 13):
        name = f"P{number:02d}_1"
        bright = 256 if number == 1 else 16  # the others have 12 bits
        blobs.write_image(name, blobs.image(name).astype(np.uint16) * bright)
    dark = the(check(blobs.lists), "dark-sixteen-bit")
    assert "images/P01_1" not in dark.cases
    assert "of 12 images" in dark.message
    for number in range(2, 8):
        name = f"P{number:02d}_1"
        blobs.write_image(name, blobs.image(name) * 16)
    assert "dark-sixteen-bit" not in {one.code for one in check(blobs.lists).findings}


def test_few_levels_stretched_over_many_show_as_a_comb(blobs):
    coarse = (blobs.image(TRAIN) // 8 * 8).astype(np.uint8)  # 32 levels
    blobs.write_image(TRAIN, coarse)
    deep = blobs.image(OTHER).astype(np.uint16) * 257  # 256 levels in 16 bits
    blobs.write_image(OTHER, deep)
    true = (blobs.image(VAL).astype(np.uint16) << 8) + np.random.default_rng(0).integers(0, 256, (160, 160))
    blobs.write_image(VAL, true.astype(np.uint16))
    result = check(blobs.lists)
    assert {one.cases for one in found(result, "squeezed-depth")} == {
        (f"images/{TRAIN}",),
        (f"images/{OTHER}",),
    }
    assert found(result, "mixed-depth")


@pytest.mark.parametrize("names", [[TRAIN], [f"P{number:02d}_1" for number in range(1, 13)]])
def test_four_bits_of_eight_are_few(blobs, names):
    for name in names:
        blobs.write_image(name, blobs.image(name) // 16)
    finding = the(check(blobs.lists), "squeezed-depth")
    assert finding.cases == tuple(f"images/{name}" for name in names)
    assert max(finding.figures["levels"].values()) <= 16


def test_a_mask_in_the_place_of_the_image(blobs):
    blobs.write_image(TRAIN, blobs.label(TRAIN) * 255)
    blobs.write_image(OTHER, blobs.label(OTHER))
    black_and_white = (blobs.image(VAL) > 120).astype(np.uint8) * 255
    blobs.write_image(VAL, black_and_white)
    result = check(blobs.lists)
    assert the(result, "image-is-label").cases == (f"images/{TRAIN}", f"images/{OTHER}")
    assert the(result, "binary-image").cases == (f"images/{VAL}",)
    assert set(loud(result)) <= {"image-is-label", "binary-image"}


def test_without_centres_there_is_one_with_the_intensities_of_all(blobs):
    result = check(blobs.lists)
    assert [one.name for one in result.centers] == [""]
    pictures = np.concatenate([blobs.image(f"P{n:02d}_1").ravel() for n in range(1, 13)])
    assert result.centers[0].middle == pytest.approx(np.median(pictures), abs=6)


def test_centres_with_other_intensities_are_told_apart(blobs, monkeypatch):
    dark = {f"P{number:02d}" for number in range(1, 6)}
    for patient in dark:
        blobs.write_image(f"{patient}_1", blobs.image(f"{patient}_1") // 4)
    # stands in for a recipe that says which centre a picture is of
    monkeypatch.setattr(
        "medseg_paddle.steps.check.inputs._center", lambda of: "south" if of.patient in dark else "north"
    )
    result = check(blobs.source, blobs.recipe)
    assert [(one.name, one.cases) for one in result.centers] == [("north", 7), ("south", 5)]
    assert result.centers[0].middle == pytest.approx(4 * result.centers[1].middle, rel=0.15)
    assert "south" in the(result, "centres-differ").message


# --- patients and twins -----------------------------------------------------------------------------------


def test_a_manifest_that_cuts_a_patient_in_two_is_looked_at_all_the_same(blobs, tmp_path):
    manifest = prepare(blobs.recipe, blobs.source, output=tmp_path / "prepared")
    path = tmp_path / "prepared/manifest.json"
    raw = json.loads(path.read_text())
    patient = raw["splits"]["train"][0]["patient"]
    raw["splits"]["test"][0]["patient"] = patient
    raw["splits"]["val"][0]["patient"] = patient.lower() + " "
    path.write_text(json.dumps(raw))
    result = check(tmp_path / "prepared")
    assert sum(result.splits.values()) == sum(len(cases) for cases in manifest.splits.values())
    assert the(result, "patient-in-two-splits").figures["splits"] == ["test", "train"]
    assert repr(patient) in the(result, "patient-spelled-twice").message


def test_the_same_picture_in_two_splits_is_an_error_in_any_file_format(blobs):
    Image.fromarray(blobs.image(TRAIN)).save(blobs.lists / "images/copy.tif")
    with (blobs.lists / "test_list.txt").open("a") as listing:
        listing.write(f"images/copy.tif labels/{TRAIN}.png\n")
    finding = the(check(blobs.lists), "same-image")
    assert finding.severity is Severity.ERROR
    assert set(finding.cases) == {f"images/{TRAIN}", "images/copy"}


def test_a_copy_compressed_again_and_resized_is_nearly_the_same(blobs):
    picture = Image.fromarray(blobs.image(TRAIN)).resize((150, 150))
    picture.save(blobs.lists / "images/copy.jpg", quality=70)
    Image.fromarray(blobs.label(TRAIN)).resize((150, 150), 0).save(blobs.lists / "labels/copy.png")
    with (blobs.lists / "test_list.txt").open("a") as listing:
        listing.write("images/copy.jpg labels/copy.png\n")
    finding = the(check(blobs.lists), "look-alike")
    assert finding.severity is Severity.WARNING
    assert set(finding.cases) == {f"images/{TRAIN}", "images/copy"}


# --- masks beside their images ----------------------------------------------------------------------------


@pytest.mark.parametrize(("down", "right"), [(0, 3), (-5, 0), (4, -4)])
def test_one_shifted_mask_is_found_and_measured(blobs, down, right):
    blobs.write_label(TRAIN, np.roll(blobs.label(TRAIN), (down, right), (0, 1)))
    result = check(blobs.lists)
    assert the(result, "mask-shifted").cases == (f"images/{TRAIN}",)
    shift = result.shifts[f"images/{TRAIN}"]
    assert np.hypot(shift.down - down, shift.right - right) < 0.7
    assert loud(result) == ["mask-shifted"]


def test_all_masks_shifted_alike_are_one_finding(blobs):
    for path in (blobs.lists / "labels").glob("*.png"):
        blobs.write_label(path.stem, np.roll(blobs.label(path.stem), 2, 1))
    result = check(blobs.lists)
    assert the(result, "masks-shifted").figures["right"] == pytest.approx(2, abs=0.3)
    assert loud(result) == ["masks-shifted"]


def test_a_mirrored_mask_is_found(blobs):
    blobs.write_label(TRAIN, blobs.label(TRAIN)[:, ::-1])
    finding = the(check(blobs.lists), "mask-turned")
    assert finding.figures["turn"] == "mirrored left to right"
    assert finding.cases == (f"images/{TRAIN}",)


def test_what_cannot_be_measured_is_not_shown_as_measured(blobs, tmp_path):
    """Masks of other patients have a best place as well; it means nothing."""
    labels = [blobs.label(f"P{number:02d}_1") for number in range(1, 13)]
    for number in range(1, 13):
        blobs.write_label(f"P{number:02d}_1", labels[number % 12])
    result = check(blobs.lists, page=tmp_path / "page.html")
    assert result.set_shift.score < 0.25
    for shown in (printed(result), (tmp_path / "page.html").read_text()):
        assert "cannot be measured (the outlines fit no edges" in shown
        assert str(result.set_shift) not in shown


def test_turned_masks_are_named_beneath_the_message_only(blobs):
    names = [f"P{number:02d}_1" for number in range(1, 5)]
    for name in names:
        blobs.write_label(name, blobs.label(name)[::-1])
    result = check(blobs.lists)
    finding = the(result, "mask-turned")
    assert finding.cases == tuple(f"images/{name}" for name in names)
    assert not [name for name in names if name in finding.message]
    assert ", ".join(finding.cases) in printed(result)


# --- volumes ----------------------------------------------------------------------------------------------


def volumes(root, *, offset=0.0, spacing=1.0, grow=0):
    """Three volumes with a ball each; the last one's label, or its pixels, are not like the others'."""
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    grid = np.stack(np.mgrid[:48, :48, :10])
    for number in range(3):
        last = number == 2
        ball = (
            ((grid - np.array([24, 20 + number, 5])[:, None, None, None]) / [[[[10]]], [[[10]]], [[[4]]]])
            ** 2
        ).sum(0)
        label = (ball < 1).astype(np.uint8)
        affine = np.diag([spacing if last else 1.0, spacing if last else 1.0, 3.0, 1.0])
        nib.save(
            nib.Nifti1Image((200.0 * label + rng.normal(0, 20, label.shape)).astype(np.float32), affine),
            root / f"images/v{number}.nii.gz",
        )
        shifted = affine.copy()
        shifted[0, 3] = offset if last else 0.0
        if last and grow:
            label = np.pad(label, ((0, grow), (0, 0), (0, 0)))
        nib.save(nib.Nifti1Image(label, shifted), root / f"labels/v{number}.nii.gz")
    return root


@pytest.fixture
def volume_recipe(blobs):
    text = blobs.recipe.read_text()
    start, end = text.index("prepare:"), text.index("train_dataset:")
    section = (
        "prepare:\n  reader: nifti\n  sets:\n    - {images: 'images/*.nii.gz', labels: 'labels/*.nii.gz'}\n"
        "  window: {level: 100, width: 400}\n  val_fraction: 0.34\n"
    )
    blobs.recipe.write_text(text[:start] + section + text[end:])
    return blobs.recipe


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"offset": 3.0}, "grid-mismatch"),
        ({"grow": 2}, "size-mismatch"),
        ({"spacing": 1.6}, "spacing-outlier"),
        ({}, None),
    ],
)
def test_volumes_and_labels_on_one_grid(volume_recipe, tmp_path, change, code):
    result = check(volumes(tmp_path / "volumes", **change), volume_recipe)
    assert sum(result.splits.values()) == 3
    assert loud(result) == ([code] if code else [])
    if code:
        assert the(result, code).cases[0].startswith("v2")


# --- the command ------------------------------------------------------------------------------------------


def run(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


def test_exit_codes_table_page_and_json(blobs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("check", blobs.lists, "--json", "found.json") == 0
    assert "nothing wrong found" in capsys.readouterr().out
    assert (tmp_path / "outputs/check-lists.html").is_file()
    written = json.loads((tmp_path / "found.json").read_text())
    assert (written["version"], written["kind"], written["errors"]) == (1, "lists", 0)

    blobs.write_label(TRAIN, blobs.label(TRAIN) * 0)
    assert run("check", blobs.lists) == 0  # a warning
    assert "empty-mask" in capsys.readouterr().out
    assert run("check", blobs.lists, "--strict") == 3

    (blobs.lists / f"labels/{OTHER}.png").unlink()
    capsys.readouterr()
    assert run("check", blobs.lists, "--json", "-", "--html", "page.html") == 3
    printed = json.loads(capsys.readouterr().out)
    assert {one["code"] for one in printed["findings"]} >= {"missing-file", "empty-mask"}
    assert (tmp_path / "page.html").is_file()
    assert run("check", tmp_path / "nowhere") == 3


def test_the_json_has_what_the_how_to_says(blobs, real_document):
    (blobs.lists / f"labels/{OTHER}.png").unlink()
    written = json.loads(check(blobs.lists).to_json())
    for key in [
        *written,
        *written["findings"][0],
        *written["classes"][0],
        *written["centers"][0],
        *written["shift"],
    ]:
        assert f"`{key}`" in real_document, key
    for key in written["shift"]["set"]:
        assert f"`{key}`" in real_document, key


def test_every_code_is_in_the_how_to(real_document):
    assert {code for code in CODES if f"`{code}`" not in real_document} == set()


@pytest.fixture
def real_document():
    return (Path(__file__).resolve().parents[2] / "docs/howto/check.md").read_text(encoding="utf-8")
