"""`medseg convert`: what goes in lies at the same places when it comes out, or nothing is written."""

import json
import subprocess
import sys
import zipfile

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import NOBODY, ct_image, save_seg
from pydicom.dataset import Dataset

from medseg_paddle.cli import main
from medseg_paddle.errors import DataError
from medseg_paddle.io.volumes import read_label_volume, read_volume
from medseg_paddle.steps.convert import Wishes, convert

ROWS, COLUMNS = 4, 5
SECRETS = {"PatientName": "Doe^Jane", "PatientID": "H4711", "PatientBirthDate": "19701231"}


def ct(z, values=None, **changes) -> Dataset:
    """A slice of an oblique plane, so that no axis can be mistaken for another."""
    values = np.arange(ROWS * COLUMNS) + 100 * z if values is None else np.asarray(values)
    own = NOBODY | {"BitsStored": 12, "HighBit": 11, "RescaleIntercept": -1024}
    return ct_image(
        values.reshape(ROWS, COLUMNS) if values.ndim == 1 else values,
        position=(-10 - 0.6 * z, 20 + 0.8 * z, 30),
        orientation=(0.8, 0.6, 0, 0, 0, -1),
        signed=False,
        **(own | SECRETS | changes),
    )


def save(folder, *slices):
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(slices):
        ds.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def series(tmp_path):
    return save(tmp_path / "study", ct(4), ct(0), ct(2))


def lps(path, index):
    """Value and place of voxel (i, j, k) as another program's reader has them, in LPS mm."""
    if path.name.endswith((".nii", ".nii.gz")):
        image = nib.load(path)
        place = (image.affine @ [*index, 1])[:3] * (-1, -1, 1)
        return float(np.asarray(image.dataobj)[tuple(index)]), place
    if path.suffix == ".nrrd":
        data, header = nrrd.read(str(path))
        return float(data[tuple(index)]), header["space origin"] + index @ header["space directions"]
    image = sitk.ReadImage(str(path))
    return float(image[tuple(int(i) for i in index)]), np.array(
        image.TransformIndexToPhysicalPoint([int(i) for i in index])
    )


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_other_programs_find_each_voxel_at_its_place(series, tmp_path, name):
    made = convert(series, tmp_path / name)
    assert (made.shape, made.dtype, made.units) == ((3, ROWS, COLUMNS), "int16", "HU")
    for column, row, number in ((0, 0, 0), (4, 3, 2), (1, 2, 1)):
        value, place = lps(tmp_path / name, np.array([column, row, number]))
        z = 2 * number
        assert value == row * COLUMNS + column + 100 * z - 1024
        origin = np.array([-10 - 0.6 * z, 20 + 0.8 * z, 30])
        assert place == pytest.approx(
            origin + column * 0.5 * np.array([0.8, 0.6, 0]) + row * 0.7 * np.array([0, 0, -1])
        )


@pytest.mark.parametrize("names", [("a.nrrd", "b.mha", "c.nii.gz"), ("a.mha", "b.nii", "c.nrrd")])
def test_formats_turn_into_each_other_without_loss(series, tmp_path, names):
    source = series
    first = None
    for name in names:
        convert(source, tmp_path / name)
        source = tmp_path / name
        volume = read_volume(source)
        first = first or volume
        assert (volume.array == first.array).all()
        assert volume.geometry.affine == pytest.approx(first.geometry.affine, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(24, dtype=np.uint8), "uint8"),
        (np.arange(24, dtype=np.float64) - 7, "int16"),
        (np.arange(24, dtype=np.float32) / 4, "float32"),
        (np.arange(24, dtype=np.float64) / 3, "float64"),
        (np.arange(24, dtype=np.float64) + 40_000, "uint16"),
        (np.arange(24, dtype=np.int32) * 70_000, "int32"),
    ],
)
def test_the_type_of_the_output_holds_every_value(tmp_path, values, kind):
    array = values.reshape(2, 3, 4)
    nib.save(nib.Nifti1Image(array, np.diag([2, 3, 4, 1.0])), tmp_path / "a.nii.gz")
    assert convert(tmp_path / "a.nii.gz", tmp_path / "b.mha").dtype == kind
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.mha"))) == array.T).all()


def test_a_slope_and_intercept_of_a_nifti_are_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2, -1000)
    image.to_filename(tmp_path / "a.nii")
    convert(tmp_path / "a.nii", tmp_path / "b.nrrd")
    assert (
        nrrd.read(str(tmp_path / "b.nrrd"))[0].tolist()
        == np.asarray(nib.load(tmp_path / "a.nii").dataobj).tolist()
    )


def test_monochrome1_keeps_its_hounsfield_units(tmp_path):
    convert(save(tmp_path / "x", ct(0, PhotometricInterpretation="MONOCHROME1")), tmp_path / "a.nii")
    assert np.asarray(nib.load(tmp_path / "a.nii").dataobj)[1, 0, 0] == 1 - 1024


def test_a_fraction_of_a_slope_is_kept(tmp_path):
    convert(save(tmp_path / "x", ct(0, RescaleSlope=0.5)), tmp_path / "a.nii")
    image = nib.load(tmp_path / "a.nii")
    assert image.get_data_dtype() == np.float32
    assert image.dataobj[1, 0, 0] == 0.5 - 1024


def test_nobody_is_named_in_what_is_written_and_said(series, tmp_path, capsys):
    (series / "notes.txt").write_text("beside it")
    for name in ("a.nii", "a.nrrd", "a.mha"):
        with pytest.raises(SystemExit) as left:
            main(["convert", str(series), str(tmp_path / name)])
        assert left.value.code == 0
        said = capsys.readouterr()
        assert "1 file(s) passed over, no DICOM" in said.err.replace("\n", " ")
        data = (tmp_path / name).read_bytes()
        for secret in (*SECRETS.values(), "Jane", "1.2.3", "1.2.1"):
            assert secret.encode() not in data
            assert secret not in said.out + said.err


@pytest.fixture
def refused(tmp_path, capsys):
    """Run `medseg convert`, which is to exit 3 and write nothing; what it says."""

    def refused(source, *options, code=3) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(SystemExit) as left:
            main(["convert", str(source), str(tmp_path / "new" / "out.nii.gz"), *options])
        said = capsys.readouterr()
        assert left.value.code == code
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        assert said.err.startswith("error: ")
        assert "hint:" in said.err
        assert "Traceback" not in said.err
        assert not any(secret in said.err for secret in SECRETS.values())
        return said.err

    return refused


def test_a_second_series_is_refused_unless_chosen(series, tmp_path, refused):
    save(series / "more", ct(0, SeriesInstanceUID="1.2.9", SeriesDescription="lung"))
    message = refused(series)
    assert "1.2.3  CT -, 3 files" in message
    assert "1.2.9  CT lung, 1 files" in message
    assert convert(series, tmp_path / "a.nii", wishes=Wishes(series="1.2.3")).shape[0] == 3
    assert "no series 1.2.7" in refused(series, "--series", "1.2.7")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "1.dcm").write_bytes((folder / "1.dcm").read_bytes()[:-9]), "1.dcm"),
        (lambda folder: (folder / "1.dcm").write_bytes(b""), "1.dcm is empty"),
        (lambda folder: ct(9).save_as(folder / "9.dcm", enforce_file_format=True), "gap"),
        (lambda folder: ct(2).save_as(folder / "9.dcm", enforce_file_format=True), "doubled"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no DICOM image"),
    ],
)
def test_what_is_in_doubt_is_refused_and_nothing_is_written(series, refused, spoil, words):
    spoil(series)
    assert words in refused(series)


def test_wishes_that_do_not_fit_are_errors_of_the_command(series, tmp_path, refused):
    convert(series, tmp_path / "a.nii")
    assert "for DICOM" in refused(tmp_path / "a.nii", "--untilt", code=2)
    assert "series of images" in refused(series, "--segment", "1", code=2)
    assert "is not there" in refused(tmp_path / "nothing")
    with pytest.raises(SystemExit) as left:
        main(["convert", str(series), str(tmp_path / "a.png")])
    assert left.value.code == 2


def test_an_output_that_is_there_stays(series, tmp_path, capsys):
    (tmp_path / "a.nii").write_text("mine")
    with pytest.raises(SystemExit) as left:
        main(["convert", str(series), str(tmp_path / "a.nii")])
    assert left.value.code == 5
    assert (tmp_path / "a.nii").read_text() == "mine"
    with pytest.raises(SystemExit) as left:
        main(["convert", str(series), str(tmp_path / "a.nii"), "--overwrite"])
    assert left.value.code == 0
    assert nib.load(tmp_path / "a.nii").shape == (COLUMNS, ROWS, 3)
    capsys.readouterr()


# Zip archives


def zipped(folder, path, prefix="study/"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in sorted(folder.iterdir()):
            archive.write(one, prefix + one.name)
    return path


def test_a_zip_archive_is_read_like_its_folder(series, tmp_path):
    convert(series, tmp_path / "a.nii")
    made = convert(zipped(series, tmp_path / "study.zip"), tmp_path / "b.nii")
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()
    assert made.notes == ()


def test_names_that_climb_out_of_an_archive_go_nowhere(series, tmp_path):
    path = zipped(series, tmp_path / "study.zip", prefix="../../evil/")
    before = sorted(tmp_path.parent.rglob("evil*"))
    convert(path, tmp_path / "a.nii")
    assert sorted(tmp_path.parent.rglob("evil*")) == before


def test_a_file_in_an_archive_is_named_as_there(series, tmp_path, refused):
    (series / "1.dcm").write_bytes((series / "1.dcm").read_bytes()[:-9])
    assert f"{tmp_path / 'study.zip'}: study/1.dcm" in refused(zipped(series, tmp_path / "study.zip"))


def test_archives_made_to_do_harm_are_refused(tmp_path, refused):
    zeros = bytes(16 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0", zeros)
    # The one file 300 times over: the directory's entries all point to it.
    data = (tmp_path / "a.zip").read_bytes()
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    entry, count = data[start:end], 300
    tail = bytearray(data[end:])
    tail[8:12] = count.to_bytes(2, "little") * 2
    tail[12:16] = (count * len(entry)).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data[:start] + entry * count + tail)
    assert "unpacks to" in refused(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(b"PK\3\4 no archive")
    assert "no zip archive" in refused(tmp_path / "b.zip")


# Segmentations


def segmentation(folder, path, marks, labels):
    return save_seg(path, [pydicom.dcmread(one) for one in sorted(folder.iterdir())], marks, labels)


def test_a_segmentation_lies_on_its_images(series, tmp_path):
    marks = np.zeros((3, ROWS, COLUMNS), np.uint8)  # in the order of the files: z = 4, 0, 2
    marks[0, 1, 2], marks[1, 3, 4] = 1, 2
    path = segmentation(series, tmp_path / "seg.dcm", marks, ["a", "b"])
    made = convert(path, tmp_path / "own.nii.gz")
    onto = convert(path, tmp_path / "onto.nii.gz", wishes=Wishes(reference=series))
    assert made.dtype == onto.dtype == "uint8"
    for name in ("own.nii.gz", "onto.nii.gz"):
        label = read_label_volume(tmp_path / name)
        places = {int(label.array[tuple(i)]): label.geometry.to_lps(i) for i in np.argwhere(label.array)}
        assert places[1] == pytest.approx(
            [-10 - 0.6 * 4 + 2 * 0.5 * 0.8, 20 + 0.8 * 4 + 2 * 0.5 * 0.6, 30 - 0.7], abs=1e-4
        )
        assert places[2] == pytest.approx([-10 + 4 * 0.5 * 0.8, 20 + 4 * 0.5 * 0.6, 30 - 3 * 0.7], abs=1e-4)
    convert(path, tmp_path / "one.nii", wishes=Wishes(segments=(2,)))
    assert set(np.unique(read_label_volume(tmp_path / "one.nii").array)) == {0, 2}


@pytest.mark.parametrize(
    ("name", "truth"), [("liver", "liver_seg"), ("partial_overlaps", "partial_overlaps-1")]
)
def test_real_segmentations_equal_what_dcmqi_made_them_from(real_data, tmp_path, name, truth):
    folder = real_data / "ct_liver_seg"
    data, header = nrrd.read(str(folder / "nrrd" / f"{truth}.nrrd"))
    wishes = Wishes(segments=(1,)) if name != "liver" else None
    convert(folder / "seg" / f"{name}.dcm", tmp_path / "a.nrrd", wishes=wishes)
    label = read_label_volume(tmp_path / "a.nrrd")
    for index in np.argwhere(label.array)[::997]:
        place = label.geometry.to_lps(index)
        found = np.linalg.solve(header["space directions"].T, place - header["space origin"])
        assert np.abs(found - np.rint(found)).max() < 1e-3
        assert data[tuple(np.rint(found).astype(int))] == 1
    assert (label.array > 0).sum() == (data == 1).sum()


def test_two_segmentations_are_not_guessed_between(series, tmp_path):
    marks = np.ones((3, ROWS, COLUMNS), np.uint8)
    folder = tmp_path / "segs"
    folder.mkdir()
    for name in ("a.dcm", "b.dcm"):
        segmentation(series, folder / name, marks, ["a"])
    with pytest.raises(DataError, match="2 segmentations"):
        convert(folder, tmp_path / "a.nii")


# Size


def test_neither_paddle_nor_much_memory_is_taken(tmp_path):
    """A CT of 100 slices by the command itself, in a process of its own."""
    folder = tmp_path / "ct"
    folder.mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 4000, (512, 512))
    template = ct(0, noise, Rows=512, Columns=512)
    for number in range(100):
        template.ImagePositionPatient = [-10 - 0.6 * number, 20 + 0.8 * number, 30]
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = f"1.2.5.{number}"
        template.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    script = (
        "import json, re, sys\n"
        "from medseg_paddle.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as left: code = left.code\n"
        "from medseg_paddle.io import isolated\n"
        "peaks = [re.search(r'VmHWM:\\s+(\\d+)', open(f'/proc/{process}/status').read())[1]\n"
        "         for process in ('self', isolated._children[0]._process.pid)]\n"
        "print(json.dumps([code, peaks, sorted({name.partition('.')[0] for name in sys.modules})]))\n"
    )
    words = [sys.executable, "-c", script, "convert", str(folder), str(tmp_path / "a.nii")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    code, peaks, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert not {"paddle", "paddleseg", "torch", "matplotlib", "SimpleITK"} & set(modules)
    assert sum(int(peak) for peak in peaks) < 250 * 1024  # KiB; whole in float32, the volume has 100 MiB
    assert nib.load(tmp_path / "a.nii").shape == (512, 512, 100)


def test_scaled_integers_become_as_small_as_they_can(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.uint16).reshape(2, 3, 4), np.eye(4))
    data = bytearray(image.to_bytes())
    data[112:120] = np.array([1, -1024], "<f4").tobytes()  # scl_slope and scl_inter, nifti1.h
    (tmp_path / "a.nii").write_bytes(data)
    assert convert(tmp_path / "a.nii", tmp_path / "b.nii.gz").dtype == "int16"
    assert (nib.load(tmp_path / "b.nii.gz").get_fdata() == image.get_fdata() - 1024).all()


def test_integers_of_eight_bytes_keep_their_digits(tmp_path):
    values = np.array([[[2**40 + 1, -3]]])
    nib.save(nib.Nifti1Image(values, np.eye(4), dtype=np.int64), tmp_path / "a.nii")
    convert(tmp_path / "a.nii", tmp_path / "b.nii")
    assert (np.asarray(nib.load(tmp_path / "b.nii").dataobj) == values).all()


def test_whole_numbers_beyond_32_bits_are_kept(tmp_path):
    values = 4_000_000_000 + np.arange(ROWS * COLUMNS)
    one = ct(0, BitsAllocated=32, BitsStored=32, HighBit=31, RescaleIntercept=0)
    one.PixelData = values.astype("<u4").tobytes()
    convert(save(tmp_path / "x", one), tmp_path / "a.nii")
    assert np.asarray(nib.load(tmp_path / "a.nii").dataobj)[:, :, 0].T.ravel().tolist() == values.tolist()


def test_a_fourth_axis_of_length_one_is_none(tmp_path, refused):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(nib.Nifti1Image(values[..., None], np.eye(4)), tmp_path / "a.nii.gz")
    convert(tmp_path / "a.nii.gz", tmp_path / "b.nii")
    assert (np.asarray(nib.load(tmp_path / "b.nii").dataobj) == values).all()
    nib.save(nib.Nifti1Image(np.stack([values] * 2, axis=-1), np.eye(4)), tmp_path / "c.nii.gz")
    assert "three dimensions" in refused(tmp_path / "c.nii.gz")


def test_itk_opens_a_nifti_of_rounded_positions(tmp_path):
    """ITK reads no file whose sform is sheared unless a qform stands beside it."""
    slices = [ct(z, np.full(ROWS * COLUMNS, z)) for z in range(0, 60, 2)]
    for one in slices[15:]:  # a little along the rows, too
        x, y, z = one.ImagePositionPatient
        one.ImagePositionPatient = [round(float(x) + 0.1, 1), round(float(y) + 0.1, 1), z]
    convert(save(tmp_path / "x", *slices), tmp_path / "a.nii")
    image = sitk.ReadImage(str(tmp_path / "a.nii"))
    for number, one in enumerate(slices):
        stands = np.array(one.ImagePositionPatient, float)
        _, place = lps(tmp_path / "a.nii", np.array([0, 0, number]))
        assert image[0, 0, number] == 2 * number - 1024
        assert np.linalg.norm(place - stands) < 0.1
        assert np.linalg.norm(image.TransformIndexToPhysicalPoint([0, 0, number]) - stands) < 0.1


@pytest.mark.parametrize(("origin", "step"), [("(1e300,2,3)", "2"), ("(1,2,3)", "2e300"), ("(1e7,2,3)", "2")])
def test_a_place_beyond_measure_is_refused(tmp_path, refused, origin, step):
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\nendian: little\n"
        f"space directions: (1,0,0) (0,1,0) (0,0,{step})\nencoding: raw\nspace origin: {origin}\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(16))
    assert "Warning" not in refused(tmp_path / "a.nrrd")


def test_volumes_where_dicom_is_expected_are_named(tmp_path, refused):
    folder = tmp_path / "x"
    folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), folder / "a.nii.gz")
    message = refused(folder)
    assert "1 volume(s)" in message
    assert "a.nii.gz" in message


def test_a_side_that_nifti_cannot_count_is_refused(tmp_path, refused):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 2, 40_000), np.int16)), str(tmp_path / "a.nrrd"))
    assert "32,767" in refused(tmp_path / "a.nrrd")


def test_names_that_cannot_be_written_are_said_to_be_so(series, tmp_path, capsys):
    link = tmp_path / "link.nii"
    link.symlink_to(tmp_path / "nowhere")
    for output, words in ((tmp_path / f"{'n' * 300}.nii", "too long"), (link, "is there already")):
        with pytest.raises(SystemExit) as stopped:
            main(["convert", str(series), str(output)])
        assert stopped.value.code == 5
        assert words in capsys.readouterr().err
    assert link.is_symlink()
