from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg_paddle.errors import DataError, ModelError, SetupError
from medseg_paddle.steps.predict import predict
from medseg_paddle.steps.predict_channels import read_volumes
from medseg_paddle.steps.predict_inputs import find_inputs

RNG = np.random.default_rng(8)


def grey(path: Path, size: tuple[int, int] = (21, 34)) -> np.ndarray:
    """Write a picture; what the threshold model must say of it."""
    values = RNG.integers(0, 256, size).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return (values > 127).astype(np.uint8)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_pictures_of_any_size_get_masks_of_their_size(exported, tmp_path):
    one = grey(tmp_path / "in" / "one.png", (17, 33))
    two = grey(tmp_path / "two.bmp", (101, 64))
    summary = predict(exported, [tmp_path / "in", tmp_path / "two.bmp"], tmp_path / "out")
    assert summary.failures == ()
    summary.require_complete()
    assert names(tmp_path / "out") == {
        *("one_mask.png", "one_overlay.png", "two_mask.png", "two_overlay.png"),
        *("summary.json", "summary.csv"),
    }
    assert pixels(tmp_path / "out" / "one_mask.png").dtype == np.uint8
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "one_mask.png"), one)
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "two_mask.png"), two)
    assert pixels(tmp_path / "out" / "one_overlay.png").shape[2] == 3
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))
    assert [(r["name"], r["class"], int(r["pixels_or_voxels"]), r["millilitres"]) for r in rows] == [
        ("one", "bright", one.sum(), ""),
        ("two", "bright", two.sum(), ""),
    ]
    assert f"one: bright {one.sum()} px" in str(summary)


def test_probabilities_only_on_request_and_overlays_only_when_wanted(exported, tmp_path):
    expected = grey(tmp_path / "a.png")
    predict(exported, [tmp_path / "a.png"], tmp_path / "out", probabilities=True, overlays=False)
    assert names(tmp_path / "out") == {"a_mask.png", "a_probabilities.npz", "summary.json", "summary.csv"}
    kept = np.load(tmp_path / "out" / "a_probabilities.npz")["probabilities"]
    assert kept.shape == (2, *expected.shape)
    np.testing.assert_array_equal(kept.argmax(axis=0), expected)


def test_a_marker_on_the_left_stays_on_the_left(exported, tmp_path, write_series):
    """The patient's left front, upper end: found again there by nibabel, in RAS millimetres."""
    hounsfield = np.full((5, 40, 60), -1000, np.int16)
    hounsfield[3:, 4:9, 45:55] = 200
    write_series(tmp_path / "case" / "ct", hounsfield, origin=(-21.0, -16.0, 100.0))
    summary = predict(exported, [tmp_path / "case"], tmp_path / "out")
    image = nibabel.load(tmp_path / "out" / "case_ct_mask.nii.gz")
    found = np.argwhere(np.asarray(image.dataobj) == 1)
    assert len(found) == 2 * 5 * 10
    low, high = (
        (nibabel.affines.apply_affine(image.affine, found)).min(0),
        nibabel.affines.apply_affine(image.affine, found).max(0),
    )
    # LPS x = -21 + 0.7 column, y = -16 + 0.8 row, z = 100 + 2 slice; RAS is (-x, -y, z).
    np.testing.assert_allclose(high, [21 - 0.7 * 45, 16 - 0.8 * 4, 108], atol=1e-4)
    np.testing.assert_allclose(low, [21 - 0.7 * 54, 16 - 0.8 * 8, 106], atol=1e-4)
    assert high[0] < 0 < low[1]
    (extent,) = summary.results[0].extents
    assert extent.elements == 100
    assert extent.millilitres == pytest.approx(100 * 2 * 0.8 * 0.7 / 1000)
    assert (tmp_path / "out" / "case_ct_overlay.png").is_file()


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIL", "SAR"])
def test_a_nifti_mask_lies_on_the_grid_of_its_volume(exported, tmp_path, axes):
    values = RNG.integers(0, 256, (9, 7, 8)).astype(np.int16)
    target = nibabel.orientations.axcodes2ornt(axes)
    image = nibabel.Nifti1Image(values, np.diag([0.5, 0.6, 3, 1])).as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), target)
    )
    nibabel.save(image, tmp_path / "v.nii.gz")
    summary = predict(exported, [tmp_path / "v.nii.gz"], tmp_path / "out")
    mask = nibabel.load(tmp_path / "out" / "v_mask.nii.gz")
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(image.dataobj) > 127)
    assert summary.results[0].extents[0].millilitres == pytest.approx(
        (values > 127).sum() * 0.5 * 0.6 * 3 / 1000
    )


def test_an_overlay_is_drawn_where_nothing_is_found(exported, tmp_path, write_series):
    write_series(tmp_path / "air", np.full((3, 16, 16), -1000, np.int16))
    summary = predict(exported, [tmp_path / "air"], tmp_path / "out")
    assert summary.results[0].extents[0].elements == 0
    assert (tmp_path / "out" / "air_overlay.png").is_file()


def test_a_folder_of_several_series_gives_a_result_for_each(exported, tmp_path, write_series):
    for number in (5, 6):
        write_series(
            tmp_path / "both", np.full((2, 16, 16), 100 * (number - 4), np.int16), uid=f"1.2.{number}"
        )
        (tmp_path / "both" / "000.dcm").rename(tmp_path / "both" / f"{number}-0.dcm")
        (tmp_path / "both" / "001.dcm").rename(tmp_path / "both" / f"{number}-1.dcm")
    summary = predict(exported, [tmp_path / "both"], tmp_path / "out", overlays=False)
    assert {r.name: r.extents[0].elements for r in summary.results} == {"both_5": 0, "both_6": 512}


def test_a_bad_file_is_carried_past_and_listed(exported, tmp_path, write_series):
    folder = tmp_path / "in"
    good = [grey(folder / "a.png"), grey(folder / "z.png")]
    (folder / "m.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "empty.jpg").write_bytes(b"")
    Image.fromarray(RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(folder / "colour.png")
    (folder / "v.nii").write_bytes(b"no volume")
    write_series(tmp_path / "gap", np.zeros((4, 8, 8), np.int16))
    (tmp_path / "gap" / "002.dcm").unlink()
    (tmp_path / "nothing").mkdir()
    missing = tmp_path / "missing.png"
    inputs = [missing, folder, tmp_path / "gap", tmp_path / "nothing"]
    summary = predict(exported, inputs, tmp_path / "out")
    assert [result.name for result in summary.results] == ["a", "z"]
    for name, expected in zip("az", good, strict=True):
        np.testing.assert_array_equal(pixels(tmp_path / "out" / f"{name}_mask.png"), expected)
    failed = {failure.source.name for failure in summary.failures}
    assert failed == {"missing.png", "m.png", "empty.jpg", "colour.png", "v.nii", "gap", "nothing"}
    assert all(failure.message and failure.hint for failure in summary.failures)
    assert len(names(tmp_path / "out")) == 2 * 2 + 2
    with pytest.raises(DataError, match=r"(?s)7 of 9 inputs.*in/m\.png.*/gap: series") as caught:
        summary.require_complete()
    assert caught.value.exit_code == 3
    listed = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {Path(f["source"]).name for f in listed["failures"]} == failed
    assert listed["bundle"] == summary.bundle_id


def test_inputs_of_one_name_do_not_overwrite_each_other(exported, tmp_path):
    expected = {
        "left_scan": grey(tmp_path / "left" / "scan.png"),
        "right_scan": grey(tmp_path / "right" / "scan.png"),
        "right_scan_2": grey(tmp_path / "right" / "SCAN.bmp"),
    }
    inputs = [tmp_path / "left", tmp_path / "right" / "scan.png", tmp_path / "right" / "SCAN.bmp"]
    summary = predict(exported, [*inputs, inputs[1]], tmp_path / "out", overlays=False)
    assert [r.name.casefold() for r in summary.results] == list(expected)
    for result, mask in zip(summary.results, expected.values(), strict=True):
        np.testing.assert_array_equal(pixels(tmp_path / "out" / f"{result.name}_mask.png"), mask)


def test_a_made_up_name_gives_way_to_a_real_one(tmp_path):
    for name in ("d/a.png", "d/a.bmp", "d/d_a.png"):
        grey(tmp_path / name)
    found = find_inputs([tmp_path / "d"], unpack_to=tmp_path)
    assert found.failures == found.left_out == ()
    assert len({one.name for one in found.inputs}) == 3
    assert [one.name for one in found.inputs if one.source.name == "d_a.png"] == ["d_a"]


def test_a_name_that_leaves_no_room_for_endings_is_shortened_and_said(exported, tmp_path):
    """File names have 255 bytes, of which 'ö' takes two."""
    long = ["ö" * 120 + "x" * number for number in (10, 11)]  # alike as far as they are kept
    expected = [grey(tmp_path / "in" / f"{name}.png") for name in long]
    fits = "a" * 160
    grey(tmp_path / "in" / f"{fits}.png")
    summary = predict(exported, [tmp_path / "in"], tmp_path / "out", probabilities=True)
    assert summary.failures == ()
    kept, *results = sorted(summary.results, key=lambda result: result.name[0] != "a")
    assert kept.name == fits
    assert len({result.name for result in results}) == 2
    for result in results:
        assert result.name.startswith("ö" * 70)
        assert len(result.name.encode()) <= 160
        np.testing.assert_array_equal(
            pixels(tmp_path / "out" / f"{result.name}_mask.png"), expected[long.index(result.source.stem)]
        )
        assert any(str(result.source) in note and result.name in note for note in summary.notes)
    assert len(summary.notes) == 2
    again = predict(exported, [results[1].source], tmp_path / "alone")
    assert again.results[0].name == results[1].name


def test_a_name_that_is_no_utf_8_is_listed_and_its_results_are_replaced(exported, tmp_path):
    grey(tmp_path / "a.png")
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xf6\xdfe.png"))  # Latin-1
    (tmp_path / "a.png").rename(source)
    for _ in range(2):
        predict(exported, [source], tmp_path / "out", overwrite=True)
        (listed,) = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["results"]
        assert Path(listed["source"]) == source
        assert names(tmp_path / "out") == {*listed["files"], "summary.json", "summary.csv"}
        (row,) = csv.DictReader((tmp_path / "out" / "summary.csv").open(encoding="utf-8"))
        assert row["name"] == r"gr\udcf6\udcdfe"


def test_shortened_names_are_told_apart_as_others_are(tmp_path):
    for folder in ("b" * 200, "c" * 200):
        for name in ("x" * 200 + ".png", "x" * 200 + ".bmp"):
            grey(tmp_path / folder / name)
    inputs = find_inputs(sorted(tmp_path.iterdir()), unpack_to=tmp_path).inputs
    assert len({one.name for one in inputs}) == 4
    assert max(len(one.name) for one in inputs) <= 160
    assert all(one.is_shortened for one in inputs)


def test_numbers_in_names_count_as_numbers(tmp_path):
    for name in ("s10.png", "s2.png", "s1.png"):
        grey(tmp_path / name)
    assert [one.name for one in find_inputs([tmp_path], unpack_to=tmp_path).inputs] == ["s1", "s2", "s10"]


def test_files_of_another_kind_are_said_to_be_left_out(tmp_path):
    grey(tmp_path / "a.png")
    (tmp_path / "README.txt").write_text("notes")
    (tmp_path / "scan.mat").write_text("MATLAB 5.0")
    (tmp_path / ".hidden.png").write_bytes(b"")
    found = find_inputs([tmp_path], unpack_to=tmp_path)
    assert [one.name for one in found.inputs] == ["a"]
    assert found.failures == ()
    (line,) = found.left_out
    assert line == f"{tmp_path}: 2 files (README.txt, ...), no picture, volume or DICOM image"


def test_a_picture_on_top_hides_no_series_below(exported, tmp_path, write_series):
    grey(tmp_path / "in" / "note.png")
    write_series(tmp_path / "in" / "one" / "ct", np.full((2, 16, 16), 100, np.int16))
    write_series(tmp_path / "in" / "two", np.full((2, 16, 16), 100, np.int16), uid="1.2.9")
    summary = predict(exported, [tmp_path / "in"], tmp_path / "out", overlays=False)
    assert [result.name for result in summary.results] == ["note", "in_one_ct", "in_two"]
    assert summary.left_out == summary.failures == ()


def test_pictures_below_a_folder_are_said_to_be_left_out(exported, tmp_path, write_series):
    """They are often masks; named by themselves they are segmented."""
    write_series(tmp_path / "in" / "ct", np.full((2, 16, 16), 100, np.int16))
    for name in ("mask/a.png", "mask/b.png", "more/c.png", "more/deep/v.nii.gz"):
        grey(tmp_path / "in" / name.replace(".nii.gz", ".png"))
    (tmp_path / "in" / "more" / "deep" / "v.png").rename(tmp_path / "in" / "more" / "deep" / "v.nii.gz")
    inputs = [tmp_path / "in", tmp_path / "in" / "more"]
    summary = predict(exported, inputs, tmp_path / "out", overlays=False)
    assert [result.name for result in summary.results] == ["in_ct", "c"]
    first, second = summary.left_out
    assert first.startswith(f"{tmp_path / 'in' / 'mask'}: 2 files (a.png, ...), in a subfolder")
    assert second.startswith(f"{tmp_path / 'in' / 'more' / 'deep'}: 1 file (v.nii.gz), in a subfolder")
    assert f"left out: {first}" in str(summary)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["left_out"] == [first, second]
    summary.require_complete()


def test_a_folder_with_pictures_only_below_is_refused_and_says_where_they_are(tmp_path):
    for name in "ab":
        grey(tmp_path / "in" / "deep" / f"{name}.png")
    (failure,) = find_inputs([tmp_path / "in"], unpack_to=tmp_path).failures
    assert "nothing to segment in it itself; 2 pictures or volumes lie in subfolders" in failure.message
    assert f"such as {tmp_path / 'in' / 'deep'}" in failure.hint


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", "cut"])
def test_one_bad_dicom_file_fails_alone(exported, tmp_path, write_series, content):
    for number in (5, 6):
        write_series(tmp_path / "in" / f"s{number}", np.full((3, 8, 8), 100, np.int16), uid=f"1.2.{number}")
    whole = (tmp_path / "in" / "s5" / "000.dcm").read_bytes()
    (tmp_path / "in" / "note.dcm").write_bytes(whole[:200] if content == "cut" else content)
    summary = predict(exported, [tmp_path / "in"], tmp_path / "out", overlays=False)
    assert [result.name for result in summary.results] == ["in_s5", "in_s6"]
    assert [failure.source.name for failure in summary.failures] == ["note.dcm"]
    with pytest.raises(DataError, match=r"1 of 3 inputs(?s:.*)note\.dcm") as caught:
        summary.require_complete()
    assert caught.value.exit_code == 3


def test_a_slice_that_was_cut_short_fails_its_own_series_alone(exported, tmp_path, write_series):
    """Its header still says which series it belongs to."""
    for number in (5, 6):
        write_series(tmp_path / "in" / f"s{number}", np.full((3, 8, 8), 100, np.int16), uid=f"1.2.{number}")
    last = tmp_path / "in" / "s5" / "002.dcm"
    data = last.read_bytes()
    last.write_bytes(data[: data.index(b"\x28\x00\x02\x00US")])  # from SamplesPerPixel on
    summary = predict(exported, [tmp_path / "in"], tmp_path / "out", overlays=False)
    assert [result.name for result in summary.results] == ["in_s6"]
    (failure,) = summary.failures
    assert "002.dcm is an image without its size" in failure.message


def test_headers_with_any_byte_wrong_are_read_or_refused_with_words(tmp_path, write_series):
    write_series(tmp_path / "good", np.full((1, 8, 8), 100, np.int16))
    good = (tmp_path / "good" / "000.dcm").read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    for place in range(128, good.index(b"\xe0\x7f\x10\x00"), 3):
        for wrong in (0x00, 0xFF, good[place] ^ 0x10):
            (folder / "000.dcm").write_bytes(good[:place] + bytes([wrong]) + good[place + 1 :])
            found = find_inputs([folder], unpack_to=tmp_path)
            assert len(found.inputs) + len(found.failures) == 1
            for one in found.inputs:
                with contextlib.suppress(DataError):
                    read_volumes(one)


def test_a_folder_that_cannot_be_read_is_a_failure(tmp_path, monkeypatch):
    grey(tmp_path / "a.png")
    closed = tmp_path / "closed"
    closed.mkdir()
    usual = os.scandir

    def scandir(place):  # as for any user but root
        if Path(place) == closed:
            raise PermissionError(13, "Permission denied", str(place))
        return usual(place)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_inputs([tmp_path], unpack_to=tmp_path)
    assert [one.name for one in found.inputs] == ["a"]
    assert [failure.message for failure in found.failures] == [f"{closed} cannot be read: Permission denied"]


def test_links_that_lead_in_a_circle_end(tmp_path, write_series):
    write_series(tmp_path / "in" / "ct", np.zeros((2, 8, 8), np.int16))
    (tmp_path / "in" / "ct" / "again").symlink_to(tmp_path / "in")
    assert [one.name for one in find_inputs([tmp_path / "in"], unpack_to=tmp_path).inputs] == ["in_ct"]


def test_a_single_dicom_file_is_told_from_its_series(exported, tmp_path, write_series):
    write_series(tmp_path / "in", np.zeros((2, 8, 8), np.int16))
    (failure,) = predict(exported, [tmp_path / "in" / "000.dcm"], tmp_path / "out").failures
    assert "one DICOM file" in failure.message
    assert "folder" in failure.hint


def test_results_inside_the_input_folder_are_no_input_the_second_time(exported, tmp_path):
    grey(tmp_path / "a.png")
    for again in (False, True):
        summary = predict(exported, [tmp_path], tmp_path / "out", overwrite=again)
        assert [result.name for result in summary.results] == ["a"]
        assert summary.left_out == ()


@pytest.mark.parametrize("overwrite", [True, False])
def test_results_among_the_inputs_are_refused(exported, tmp_path, overwrite):
    grey(tmp_path / "a.png")
    for inputs in ([tmp_path], [tmp_path / "a.png"]):
        with pytest.raises(SetupError, match="holds inputs"):
            predict(exported, inputs, tmp_path, overwrite=overwrite)
    assert names(tmp_path) == {"a.png"}


def test_earlier_results_are_replaced_as_a_whole_and_only_when_asked(exported, tmp_path):
    grey(tmp_path / "a.png")
    grey(tmp_path / "b.png")
    out = tmp_path / "out"
    predict(exported, [tmp_path / "a.png"], out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(SetupError, match="not empty") as caught:
        predict(exported, [tmp_path / "b.png"], out)
    assert "--overwrite" in caught.value.hint
    predict(exported, [tmp_path / "b.png"], out, overwrite=True)
    assert names(out) == {"b_mask.png", "b_overlay.png", "summary.json", "summary.csv", "notes.txt"}


def test_a_summary_that_names_files_elsewhere_removes_nothing(exported, tmp_path):
    grey(tmp_path / "a.png")
    (tmp_path / "keep.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    spoilt = {"results": [{"files": ["../keep.txt", str(tmp_path / "keep.txt")]}]}
    (tmp_path / "out" / "summary.json").write_text(json.dumps(spoilt))
    predict(exported, [tmp_path / "a.png"], tmp_path / "out", overwrite=True)
    assert (tmp_path / "keep.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_said_before_anything_is_computed(exported, tmp_path, monkeypatch):
    grey(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("medseg_paddle.steps.predict.Predictor", None)  # a call would be a TypeError
    with pytest.raises(SetupError):
        predict(exported, [tmp_path / "a.png"], tmp_path / "file" / "out")
    if os.getuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(SetupError):
            predict(exported, [tmp_path / "a.png"], tmp_path / "closed" / "out")


def test_a_full_disk_stops_the_work_and_leaves_no_half_file(exported, tmp_path, monkeypatch):
    for name in "ab":
        grey(tmp_path / f"{name}.png")

    from medseg_paddle.io import files

    flush, calls = files.os.fsync, iter(range(99))

    def full_for_a_moment(descriptor):
        if next(calls) == 0:
            raise OSError(28, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr("medseg_paddle.io.files.os.fsync", full_for_a_moment)
    with pytest.raises(SetupError, match="No space left"):
        predict(exported, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out")
    assert names(tmp_path / "out") == set()


def test_a_spoilt_bundle_leaves_earlier_results_alone(bundle, tmp_path):
    grey(tmp_path / "a.png")
    predict(bundle, [tmp_path / "a.png"], tmp_path / "out")
    before = names(tmp_path / "out")
    (bundle / "model.json").write_text("{}")
    with pytest.raises(ModelError):
        predict(bundle, [tmp_path / "a.png"], tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == before


def test_the_command_prints_the_answer_and_none_of_paddle_s_chatter(exported, tmp_path):
    grey(tmp_path / "a.png")
    command = [sys.executable, "-m", "medseg_paddle", "predict", exported, tmp_path / "a.png"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [*command, "-o", tmp_path / "out"], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
    assert "1 segmented" in done.stdout
    assert "WISELY" not in done.stdout
