import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_image, read_label, read_roi, read_samples, write_image, write_label

GREY = np.array([[0, 1, 2], [100, 200, 255]], np.uint8)
RGB = np.stack([GREY, 255 - GREY, np.full_like(GREY, 7)], axis=-1)


@pytest.fixture
def save(tmp_path):
    def save(image, name, **options):
        Image.fromarray(image).save(tmp_path / name, **options) if isinstance(
            image, np.ndarray
        ) else image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.gif"])
def test_eight_bit_grey_is_read_as_it_is(save, name):
    path = save(GREY, name)
    one, three = read_image(path, 1), read_image(path, 3)
    assert one.dtype == np.float32
    assert (one[:, :, 0] == GREY).all()
    assert (three == GREY[:, :, None]).all()
    assert three.shape == (2, 3, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_colour_is_read_red_first(save, name):
    assert (read_image(save(RGB, name), 3) == RGB).all()


def test_jpeg_is_read(save):
    path = save(np.full((16, 16, 3), (200, 100, 50), np.uint8), "a.jpg", quality=95)
    assert np.abs(read_image(path, 3) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled_to_255(save, name):
    path = save(np.array([[0, 257, 65535, 40000]], np.uint16), name)
    assert read_image(path, 1)[0, :, 0] == pytest.approx([0, 1, 255, 40000 / 257])


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bit_colour_keeps_its_low_bits_and_channel_order(tmp_path, ending):
    colours = np.array([[[1, 2, 65535], [300, 0, 7]]], np.uint16)
    cv2.imwrite(str(tmp_path / f"a{ending}"), colours[:, :, ::-1])
    assert read_image(tmp_path / f"a{ending}", 3) == pytest.approx(colours / np.float32(257))


def test_colour_for_one_channel_is_refused_but_grey_stored_as_colour_is_not(save):
    with pytest.raises(DataError, match="in colour") as caught:
        read_image(save(RGB, "a.png"), 1)
    assert "in_channels: 3" in caught.value.hint
    assert (read_image(save(np.stack([GREY] * 3, -1), "b.png"), 1)[:, :, 0] == GREY).all()


def test_transparency_is_refused_and_an_opaque_alpha_is_not(save):
    opaque = np.dstack([RGB, np.full_like(GREY, 255)])
    assert (read_image(save(opaque, "a.png"), 3) == RGB).all()
    opaque[0, 0, 3] = 10
    with pytest.raises(DataError, match=r"transparent \(alpha down to 10\)"):
        read_image(save(opaque, "b.png"), 3)
    with pytest.raises(DataError, match="transparent"):
        read_label(save(Image.fromarray(GREY), "c.png", transparency=0))


@pytest.mark.parametrize("read", [lambda path: read_image(path, 1), read_label])
def test_a_picture_turned_by_exif_is_refused(save, read):
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(DataError, match="EXIF") as caught:
        read(save(GREY, "a.png", exif=exif))
    assert "upright" in caught.value.hint


def test_several_pages_are_refused(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="2 pages"):
        read_image(tmp_path / "a.tif", 1)


def test_float_pictures_are_refused(save):
    path = save(Image.fromarray(GREY.astype(np.float32)), "a.tif")
    with pytest.raises(DataError, match="float32"):
        read_image(path, 1)
    with pytest.raises(DataError, match="integers"):
        read_label(path)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(path, 1)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.png cannot be read"):
        read_image(tmp_path / "none.png", 1)


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_picture_is_refused(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=kind)
    (tmp_path / "a").write_bytes(buffer.getvalue()[: int(share * buffer.tell())])
    with pytest.raises(DataError):
        read_image(tmp_path / "a", 1)


def test_a_palette_label_is_its_indices_and_a_palette_picture_its_colours(save):
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 9, 0])
    path = save(palette, "a.png")
    assert read_label(path).tolist() == [[0, 1], [2, 1]]
    assert read_image(path, 3)[0, 1].tolist() == [255, 0, 0]


def test_one_bit_labels_are_zero_and_one(save):
    assert read_label(save(Image.fromarray(np.array([[True, False]])), "a.png")).tolist() == [[1, 0]]


def test_colour_and_jpeg_labels_are_refused(save):
    colors = np.zeros((4, 5, 3), np.uint8)
    colors[0], colors[1, :2] = (255, 0, 0), (0, 128, 7)
    with pytest.raises(DataError, match="in colour") as caught:
        read_label(save(colors, "a.png"))
    assert caught.value.message.endswith(": 0 0 0 (13 pixels), 255 0 0 (5 pixels), 0 128 7 (2 pixels)")
    assert "label_colors: {" in caught.value.hint
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="and 892 more colours"):
        read_label(save(noise, "b.png"))
    with pytest.raises(DataError, match="compression"):
        read_label(save(GREY, "a.jpg"))


def test_roi_is_where_the_picture_is_not_zero(save):
    assert read_roi(save(GREY, "a.gif")).tolist() == [[False, True, True], [True, True, True]]


@given(label=arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_labels_come_back_as_written(tmp_path_factory, label):
    path = tmp_path_factory.mktemp("labels") / "a.png"
    write_label(path, label)
    assert (read_label(path) == label).all()
    assert Image.open(path).mode == ("L" if label.max() <= 255 else "I;16")


def test_pictures_come_back_as_written(tmp_path):
    write_image(tmp_path / "a.png", RGB)
    write_image(tmp_path / "b.png", GREY)
    assert (read_image(tmp_path / "a.png", 3) == RGB).all()
    assert (cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED) == GREY).all()


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
def test_sixteen_bits_come_back_as_written(tmp_path, shape):
    deep = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    write_image(tmp_path / "a.png", deep)
    back = read_samples(tmp_path / "a.png")
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, deep)


def test_samples_are_as_stored_but_for_black_and_white(save):
    assert read_samples(save(GREY, "a.png")).dtype == np.uint8
    assert read_samples(save(np.stack([GREY] * 3, -1), "b.png")).tolist() == GREY.tolist()
    black_and_white = read_samples(save(Image.fromarray(GREY > 50), "c.png"))
    assert black_and_white.tolist() == [[0, 0, 0], [255, 255, 255]]
    with pytest.raises(DataError, match="float32 samples"):
        read_samples(save(GREY.astype(np.float32), "d.tif"))


@pytest.mark.parametrize(
    "wrong", [np.array([[-1]]), np.array([[70000]]), np.array([[0.5]]), np.zeros((1, 1, 1), int)]
)
def test_what_is_no_label_map_is_not_written(tmp_path, wrong):
    with pytest.raises(DataError):
        write_label(tmp_path / "a.png", wrong)
    assert not list(tmp_path.iterdir())
