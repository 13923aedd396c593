import io

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from medseg_paddle.errors import DataError
from medseg_paddle.io.channels import picture_suffix, read_channels, write_channels
from medseg_paddle.io.images import read_image

RNG = np.random.default_rng(0)


def picture(channels: int, dtype=np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, (5, 7, channels)).astype(dtype)


def save(path, array):
    Image.fromarray(array).save(path)
    return path


@settings(max_examples=30, deadline=None)
@given(
    array=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=3, max_dims=3, max_side=9))
    )
)
def test_a_written_picture_is_read_again(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("channels") / f"a{picture_suffix(array.shape[2])}"
    write_channels(path, array)
    back = read_channels([path])
    assert (back == array).all()
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert (path.suffix == ".png") == (array.shape[2] in (1, 3))


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_a_picture_of_any_number_of_channels_is_scaled_as_others(tmp_path, channels):
    for dtype, scale in ((np.uint8, 1), (np.uint16, 257)):
        array = picture(channels, dtype)
        write_channels(tmp_path / "a.npy", array)
        image = read_image(tmp_path / "a.npy", channels)
        assert image == pytest.approx(array / scale)
        assert (image.shape, image.dtype) == ((5, 7, channels), np.float32)
    with pytest.raises(DataError, match=f"has {channels} channels, the model takes 3") as caught:
        read_image(tmp_path / "a.npy", 3)
    assert f"in_channels: {channels}" in caught.value.hint


def test_a_png_has_not_the_channels_of_another_model(tmp_path):
    with pytest.raises(DataError, match="has 1 channels, the model takes 4"):
        read_image(save(tmp_path / "a.png", picture(1)[:, :, 0]), 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_grey_file_per_channel_in_the_order_given(tmp_path, dtype):
    array = picture(4, dtype)
    paths = [save(tmp_path / f"{c}.png", array[:, :, c]) for c in range(3)]
    write_channels(tmp_path / "3.npy", array[:, :, 3:])
    assert (read_channels([*paths, tmp_path / "3.npy"]) == array).all()
    assert (read_channels(paths[::-1]) == array[:, :, 2::-1]).all()


def test_channels_that_do_not_fit_together_are_refused(tmp_path):
    grey = save(tmp_path / "a.png", picture(1)[:, :, 0])
    for name, array, words in (
        ("b.png", picture(1)[:4, :, 0], "5 x 7 pixels of 8 bits, .*b.png 4 x 7 pixels of 8 bits"),
        ("c.png", picture(1, np.uint16)[:, :, 0], "c.png 5 x 7 pixels of 16 bits"),
        ("d.png", picture(3), "has 3 channels itself"),
    ):
        with pytest.raises(DataError, match=words):
            read_channels([grey, save(tmp_path / name, array)])
    with pytest.raises(DataError, match="without files"):
        read_channels([])


def test_one_file_has_its_channels_whatever_it_shows(tmp_path):
    grey = picture(1)[:, :, 0]
    assert read_channels([save(tmp_path / "a.png", grey)]).shape == (5, 7, 1)
    equal = np.stack([grey] * 3, -1)
    assert (read_channels([save(tmp_path / "b.png", equal)]) == equal).all()


def test_pages_of_a_tiff_are_channels(tmp_path):
    array = picture(5, np.uint16)
    pages = [Image.fromarray(array[:, :, c]) for c in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert (read_channels([tmp_path / "a.tif"]) == array).all()
    assert read_image(tmp_path / "a.tif", 5) == pytest.approx(array / 257)
    colour = Image.fromarray(picture(3))
    colour.save(tmp_path / "b.tif", save_all=True, append_images=[colour])
    with pytest.raises(DataError, match="2 pages in colour"):
        read_channels([tmp_path / "b.tif"])


@pytest.mark.parametrize("channels", [2, 5, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_samples_of_a_tiff_are_channels(tmp_path, channels, dtype):
    array = picture(channels, dtype)
    path = tmp_path / "a.tif"
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(path))
    assert (read_channels([path]) == array).all()
    assert read_image(path, channels) == pytest.approx(array / (1 if dtype == np.uint8 else 257))


def test_a_transparent_tiff_is_refused_and_not_four_channels(tmp_path):
    with pytest.raises(DataError, match="transparent"):
        read_channels([save(tmp_path / "a.tif", picture(4))])


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def declared(shape: str, dtype: str = "|u1", values: bytes = bytes(12)) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + values


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an array"),
        (b"hello", "not an array"),
        (npy(np.zeros((2, 2, 2), np.float32)), "float32; a picture is"),
        (npy(np.zeros((2, 2, 2), np.int16)), "int16; a picture is"),
        (npy(np.zeros((2, 2), np.uint8)), r"shape \(2, 2\) uint8; a picture is"),
        (npy(np.array([[[None]]])), "object; a picture is"),
        (npy(np.zeros((2, 2, 3), np.uint8))[:-1], "holds 11 bytes, but its header declares 12"),
        (npy(np.zeros((2, 2, 3), np.uint8)) + b"x", "holds 13 bytes, but its header declares 12"),
        (declared("(2, 2, 0)"), "nothing in it"),
        (declared("(-2, 2, -3)"), "nothing in it"),
        (declared("(100000, 100000, 100000)"), "more than the 1,073,741,824 values"),
        (declared("(30000, 30000, 1)"), "declares 900,000,000"),
        (declared("(2, 2, 'a')"), "not an array"),
        (declared("__import__('os').getpid()"), "not an array"),
        (declared("(" * 5000), "not an array"),
        (declared("(2, 2, 3)", dtype="|O"), "object; a picture is"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(tmp_path, data, words):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_channels([path])
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        read_channels([path])


def test_arrays_in_other_orders_are_read(tmp_path):
    array = picture(2, np.uint16)
    for data in (npy(np.asfortranarray(array)), npy(array.astype(">u2"))):
        (tmp_path / "a.npy").write_bytes(data)
        back = read_channels([tmp_path / "a.npy"])
        assert (back == array).all()
        assert back.dtype == np.uint16
        assert back.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("a.png", picture(2), "cannot hold 2 channels"),
        ("a.jpg", picture(3), "cannot hold 3 channels"),
        ("a.npy", picture(1)[:, :, 0], "got \\(5, 7\\) uint8"),
        ("a.npy", picture(3).astype(np.float32), "float32"),
        ("a.npy", picture(3)[:0], "got \\(0, 7, 3\\)"),
    ],
)
def test_what_is_no_picture_is_not_written(tmp_path, name, array, words):
    with pytest.raises(DataError, match=words):
        write_channels(tmp_path / name, array)
    assert not (tmp_path / name).exists()


def test_damaged_tiffs_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    sitk.WriteImage(sitk.GetImageFromArray(picture(6), isVector=True), str(path))
    whole = path.read_bytes()
    for data in (
        b"",
        b"hello",
        b"II*\x00",
        b"II+\x00\x08\x00",
        whole[:60],
        whole[:-40],
        whole[:8] + bytes(300),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.tif"):
            read_channels([path])


def test_a_tiff_that_declares_more_than_it_can_hold_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.tif"
    sitk.WriteImage(sitk.GetImageFromArray(picture(6), isVector=True), str(path))
    data = bytearray(path.read_bytes())
    directory = int.from_bytes(data[4:8], "little")
    for place in range(directory + 2, directory + 2 + 12 * data[directory], 12):
        tag = int.from_bytes(data[place : place + 2], "little")
        if tag in (256, 257):  # width and height
            data[place + 8 : place + 10] = (8000 if tag == 256 else 20000).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="its header declares 960,000,000"):
        read_channels([path])
