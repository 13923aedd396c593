"""NRRD against pynrrd, MetaImage against headers worked out by hand, and what both refuse."""

import contextlib
import gzip
import struct
import zlib

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medseg_paddle.errors import DataError
from medseg_paddle.io.volumes import VOLUME_SUFFIXES, is_volume, read_label_volume, read_volume

# The file's index (i, j, k): 2 columns, 3 rows, 4 slices.
VOXELS = np.arange(24, dtype="<i2").reshape(4, 3, 2)

# Signs from each of NRRD's patient spaces to LPS.
SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "LAS": (1, -1, 1),
}


def nrrd_bytes(values: bytes | None = None, **changes: str | None) -> bytes:
    """A NRRD file of VOXELS with spacing 2 x 3 x 4 mm and its first voxel at (10, 20, 30) LPS."""
    fields: dict[str, str | None] = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "2 3 4",
        "space directions": "(2,0,0) (0,3,0) (0,0,4)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(10,20,30)",
    } | {key.replace("_", " "): value for key, value in changes.items()}
    lines = ["NRRD0004", *(f"{key}: {value}" for key, value in fields.items() if value is not None)]
    return "\n".join(lines).encode() + b"\n\n" + (VOXELS.tobytes() if values is None else values)


def meta_bytes(values: bytes | None = None, **changes: str | None) -> bytes:
    """A MetaImage file of VOXELS whose i runs to the back, j to the right, k to the head."""
    fields: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "0 1 0 -1 0 0 0 0 1",
        "Offset": "10 20 30",
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": "2 3 4",
        "DimSize": "2 3 4",
        "ElementType": "MET_SHORT",
    } | changes
    values = VOXELS.tobytes() if values is None else values
    if fields["CompressedData"] == "True":
        fields = {"CompressedDataSize": str(len(values))} | fields
    fields["ElementDataFile"] = fields.pop("ElementDataFile", "LOCAL")  # a header's last line
    lines = "".join(f"{key} = {value}\n" for key, value in fields.items() if value is not None)
    return lines.encode() + values


@pytest.fixture
def save(tmp_path):
    def save(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return save


def refused(path, read=read_volume) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    assert path.name in caught.value.message
    assert caught.value.hint
    return caught.value.message


angle = st.floats(-180, 180)


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(angle, angle, angle),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    space=st.sampled_from(sorted(SPACES)),
    mirrored=st.booleans(),
    encoding=st.sampled_from(["raw", "gzip"]),
)
def test_a_nrrd_voxel_lies_where_pynrrd_says(
    tmp_path_factory, angles, spacing, origin, space, mirrored, encoding
):
    directions = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    if mirrored:
        directions[:, 0] *= -1
    path = tmp_path_factory.mktemp("nrrd") / "a.nrrd"
    header = {
        "space": space,
        "space directions": directions.T,  # a row for each index
        "space origin": np.array(origin),
        "encoding": encoding,
    }
    nrrd.write(str(path), VOXELS.T.astype(np.float32), header)
    data, found = nrrd.read(str(path))
    volume = read_volume(path)
    for i, j, k in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        assert volume.array[k, j, i] == data[i, j, k]
        place = found["space origin"] + np.array([i, j, k]) @ found["space directions"]
        assert volume.geometry.to_lps(np.array([k, j, i])) == pytest.approx(place * SPACES[space], abs=1e-4)
    assert (volume.array.dtype, volume.units) == (np.float32, "unknown")


@pytest.mark.parametrize(("order", "kind"), [("False", "<i2"), ("True", ">i2")])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_metaimage_voxel_lies_where_its_header_puts_it(save, order, kind, compressed):
    values = VOXELS.astype(kind).tobytes()
    packed = zlib.compress(values) if compressed else values
    path = save("a.mha", meta_bytes(packed, BinaryDataByteOrderMSB=order, CompressedData=str(compressed)))
    volume = read_volume(path)
    assert (volume.array == VOXELS).all()
    # The matrix has a row per index: i (0, 1, 0), j (-1, 0, 0), k (0, 0, 1); MetaImage's frame is LPS.
    # Index i=1, j=2, k=3: 10 - 2 * 3, 20 + 1 * 2, 30 + 3 * 4.
    assert volume.geometry.to_lps(np.array([3, 2, 1])) == pytest.approx([4, 22, 42])
    assert volume.geometry.spacing == pytest.approx((4, 3, 2))
    assert read_label_volume(path).array.dtype == np.uint8


def test_headers_with_their_values_in_a_second_file_are_read(save):
    save("values.raw", VOXELS.tobytes())
    for path in (
        save("a.nhdr", nrrd_bytes(b"", data_file="values.raw")),
        save("a.mhd", meta_bytes(b"", ElementDataFile="values.raw")),
    ):
        assert (read_volume(path).array == VOXELS).all()


@pytest.mark.parametrize("name", ["../values.raw", "/etc/passwd", "other.raw", "LIST", "", "v%03d.raw 1 9 1"])
def test_a_header_may_not_name_values_elsewhere(save, name):
    assert "data" in refused(save("a.nhdr", nrrd_bytes(b"", data_file=name)))
    assert "data" in refused(save("a.mhd", meta_bytes(b"", ElementDataFile=name)))


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_the_endings_are_known_in_any_case(tmp_path, suffix):
    assert is_volume(tmp_path / f"A{suffix.upper()}")
    assert "is not there" in refused(tmp_path / f"a{suffix}")
    assert "not named like a volume" in refused(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": None}, "does not say how it lies"),
        ({"space": "scanner-xyz"}, "does not say how it lies"),
        ({"space_origin": None}, "space origin is missing"),
        ({"space_directions": None, "spacings": "1 1 1"}, "space directions is missing"),
        ({"space_directions": "(2,0,0) (0,3,0) (0,0,0)"}, "spacing 2 x 3 x 0 mm"),
        ({"space_directions": "(2,0,0) (0,3,0) (0,0,nan)"}, "space directions is missing or not finite"),
        ({"space_directions": "(2,0,0) (0,3,0) (0,0.1,4)"}, "not at right angles"),
        ({"space_directions": "(2,0,0) (2,0,0) (0,0,4)"}, "not at right angles"),
        ({"dimension": "4", "sizes": "2 3 4 1"}, "2 x 3 x 4 x 1, three dimensions"),
        ({"kinds": "vector domain domain"}, "kind vector"),
        ({"space_units": '"mm" "mm" "in"'}, "measured in in"),
        ({"encoding": "bzip2"}, "encoded as bzip2"),
        ({"encoding": "ascii"}, "encoded as ascii"),
        ({"type": "block"}, "type block"),
        ({"byte_skip": "-1"}, "skips a part"),
        ({"sizes": "2 3 0"}, "nothing in it"),
        ({"sizes": "2 3 -4"}, "sizes is"),
        ({"sizes": "2 3 5"}, "holds 48 bytes, but its header declares 60"),
        ({"sizes": "2 3 3"}, "holds 48 bytes, but its header declares 36"),
        ({"sizes": "99999 99999 99999"}, "more than the 1,073,741,824 values"),
        ({"sizes": "1000 1000 1000"}, "declares 2,000,000,000"),
    ],
)
def test_a_nrrd_in_doubt_is_refused(save, changes, words):
    assert words in refused(save("a.nrrd", nrrd_bytes(**changes)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TransformMatrix": None}, "does not say how it lies"),
        ({"Offset": None}, "Offset is missing"),
        ({"ElementSpacing": None}, "ElementSpacing is missing"),
        ({"ElementSpacing": "2 3 0"}, "spacing 2 x 3 x 0 mm"),
        ({"TransformMatrix": "0 1 0 -1 0 0 0 0.1 1"}, "not at right angles"),
        ({"TransformMatrix": "1 0 0 0 1 0"}, "TransformMatrix is missing or not finite"),
        ({"NDims": "4", "DimSize": "2 3 4 1"}, "three dimensions"),
        ({"NDims": "2"}, "three dimensions"),
        ({"ElementNumberOfChannels": "3"}, "3 values per voxel"),
        ({"BinaryData": "False"}, "as text"),
        ({"HeaderSize": "-1"}, "second header"),
        ({"ObjectType": "Tube"}, "holds a Tube"),
        ({"ElementType": "MET_UCHAR_ARRAY"}, "MET_UCHAR_ARRAY"),
        ({"DimSize": "2 3 5"}, "holds 48 bytes, but its header declares 60"),
        ({"DimSize": "99999 99999 99999"}, "more than the 1,073,741,824 values"),
    ],
)
def test_a_metaimage_in_doubt_is_refused(save, changes, words):
    assert words in refused(save("a.mha", meta_bytes(**changes)))


def test_a_header_that_says_a_thing_twice_is_refused(save):
    twice = meta_bytes().replace(b"NDims", b"DimSize = 2 3 4\nNDims")
    assert "says a thing twice" in refused(save("a.mha", twice))


@pytest.mark.parametrize("amount", [44, 52, 10_000])
def test_compressed_values_of_another_amount_than_declared_are_refused(save, amount):
    """ITK alone reads them: what is missing is then whatever lay in memory."""
    values = bytes(amount)
    for path in (
        save("a.nrrd", nrrd_bytes(gzip.compress(values), encoding="gzip")),
        save("a.mha", meta_bytes(zlib.compress(values), CompressedData="True")),
    ):
        assert "its header declares 48" in refused(path)


@pytest.mark.parametrize("size", [None, "20", "99"])
def test_a_metaimage_that_does_not_say_how_much_is_compressed_is_refused(save, size):
    """ITK alone reads them, too: what lay in memory."""
    packed = zlib.compress(VOXELS.tobytes())
    refused(save("a.mha", meta_bytes(packed, CompressedData="True", CompressedDataSize=size)))


def test_damaged_compressed_values_are_refused(save):
    for whole, name in (
        (nrrd_bytes(gzip.compress(VOXELS.tobytes()), encoding="gzip"), "a.nrrd"),
        (meta_bytes(zlib.compress(VOXELS.tobytes()), CompressedData="True"), "a.mha"),
    ):
        assert (read_volume(save(name, whole)).array == VOXELS).all()
        refused(save(name, whole[:-10]))
        refused(save(name, whole[:-20] + bytes(20)))


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("data", [b"", b"hello", bytes(5000), b"NRRD0004\n", b"\xff\xd8" * 900])
def test_foreign_files_are_refused(save, name, data):
    for read in (read_volume, read_label_volume):
        refused(save(name, data), read)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(["a.nrrd", "a.mha", "a.nii"]))
def test_a_file_with_damaged_bytes_is_read_or_refused_and_nothing_else(tmp_path_factory, data, name):
    whole = bytearray({"a.nrrd": nrrd_bytes, "a.mha": meta_bytes, "a.nii": nifti_bytes}[name]())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(whole[: data.draw(st.integers(len(whole) - 60, len(whole)))])
    with contextlib.suppress(DataError):
        assert read_volume(path).array.size <= 24


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([0, 1, 3], "<f4", None),
        ([0, 1, 0.5], "<f4", "1 voxels are not label values, for example 0.5"),
        ([0, 1, -1], "<i2", "not label values, for example -1"),
        ([0, 1, 70000], "<i4", "not label values, for example 7e"),
        ([0, 1, np.nan], "<f4", "not label values, for example nan"),
        ([0, 1, 300], "<i8", None),
    ],
)
def test_labels_are_whole_numbers_however_they_are_stored(save, values, kind, words):
    names = {"<f4": "float", "<i2": "short", "<i4": "int", "<i8": "int64"}
    data = nrrd_bytes(np.array(values, kind).tobytes(), type=names[kind], sizes="3 1 1")
    path = save("a.nrrd", data)
    if words is None:
        label = read_label_volume(path)
        assert label.array.ravel().tolist() == values
        assert label.array.dtype == (np.uint8 if max(values) < 256 else np.uint16)
    else:
        assert words in refused(path, read_label_volume)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_voxel_that_is_no_finite_float32_is_refused(save, value):
    values = np.array([1, 2, value], "<f8").tobytes()
    assert "1 voxels are not finite" in refused(
        save("a.nrrd", nrrd_bytes(values, type="double", sizes="3 1 1"))
    )
    image = nib.Nifti1Image(np.array([1, 2, value]).reshape(3, 1, 1), np.eye(4))
    assert "1 voxels are not finite" in refused(save("a.nii", image.to_bytes()))


def test_colour_and_planes_written_by_itk_are_refused(tmp_path):
    colour = sitk.GetImageFromArray(np.zeros((4, 3, 2, 3), np.uint8), isVector=True)
    plane = sitk.GetImageFromArray(np.zeros((3, 2), np.uint8))
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(colour, str(tmp_path / name))
        refused(tmp_path / name)
        sitk.WriteImage(plane, str(tmp_path / name))
        assert "three dimensions" in refused(tmp_path / name)


def nifti_bytes(dim=(2, 3, 4)) -> bytes:
    data = bytearray(nib.Nifti1Image(VOXELS.T, np.diag([2, 3, 4, 1])).to_bytes())
    data[40:48] = struct.pack("<4h", 3, *dim)  # dim, nifti1.h
    return bytes(data)


@pytest.mark.parametrize("dim", [(2, 3, 5), (32767, 32767, 32767), (1000, 1000, 1000), (-2, 3, 4), (2, 0, 4)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_that_declares_more_than_it_holds_is_refused_before_memory_is_taken(save, dim, suffix):
    pack = gzip.compress if suffix == ".nii.gz" else bytes
    assert (read_volume(save(f"a{suffix}", pack(nifti_bytes()))).array == VOXELS).all()
    message = refused(save(f"a{suffix}", pack(nifti_bytes(dim))))
    if dim == (1000, 1000, 1000):
        assert "its header declares 2,000,000,000" in message  # not nibabel's, after it took them


def test_a_nifti_in_units_that_nobody_knows_is_refused(save):
    data = bytearray(nifti_bytes())
    data[123] = 160  # xyzt_units, nifti1.h; nibabel has a KeyError for it
    refused(save("a.nii", bytes(data)))


def test_a_nifti_without_thickness_is_refused_by_name(save):
    data = bytearray(nifti_bytes())
    data[320:324] = bytes(4)  # the third number of srow_z, nifti1.h
    data[252:254] = bytes(2)  # qform_code
    data[254:256] = struct.pack("<h", 1)  # sform_code
    refused(save("a.nii", bytes(data)))


@pytest.mark.parametrize("name", ["brain1", "brain2", "breast1", "prostate_phantom_subvolume"])
def test_real_nrrd_pairs_are_read_as_pynrrd_reads_them(real_data, name):
    folder = real_data / "radiomics_nrrd"
    phantom = name.startswith("prostate")
    image = folder / (f"{name}.nrrd" if phantom else f"{name}_image.nrrd")
    label = folder / (f"{name}-label.nrrd" if phantom else f"{name}_label.nrrd")
    for path, read in ((image, read_volume), (label, read_label_volume)):
        data, header = nrrd.read(str(path))
        volume = read(path)
        assert (volume.array == data.T).all()
        last = np.array(data.shape) - 1
        place = header["space origin"] + last @ header["space directions"]
        assert volume.geometry.to_lps(last[::-1]) == pytest.approx(place, abs=1e-3)
    assert set(np.unique(read_label_volume(label).array)) == ({0, 1, 7, 8, 9} if phantom else {0, 1})


def test_a_real_nifti_is_the_same_through_itk(real_data, tmp_path):
    """The same voxels at the same places, once by nibabel, once written as MetaImage and NRRD by ITK."""
    path = real_data / "msd_hippocampus" / "images" / "hippocampus_003.nii.gz"
    volume = read_volume(path)
    image = sitk.ReadImage(str(path))
    for name in ("a.mha", "a.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
        other = read_volume(tmp_path / name)
        assert (other.array == volume.array).all()
        assert other.geometry.affine == pytest.approx(volume.geometry.affine, abs=1e-4)
    label = read_label_volume(real_data / "msd_hippocampus" / "labels" / "hippocampus_003.nii.gz")
    assert set(np.unique(label.array)) == {0, 1, 2}  # stored as float32
