import io

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_image
from medseg_paddle.io.stacks import read_label_stack, read_stack

RNG = np.random.default_rng(0)
PAGES = {
    "8 bits": RNG.integers(0, 256, (3, 5, 7)).astype(np.uint8),
    "16 bits": RNG.integers(0, 65536, (3, 5, 7)).astype(np.uint16),
    "colour": RNG.integers(0, 256, (3, 5, 7, 3)).astype(np.uint8),
}


def save(path, pages, **options):
    first, *others = (page if isinstance(page, Image.Image) else Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=others, **options)
    return path


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("kind", PAGES)
def test_pages_come_back_as_they_were_in_their_order(tmp_path, kind, compression):
    stack = read_stack(save(tmp_path / "a.tif", PAGES[kind], compression=compression))
    assert (stack == PAGES[kind]).all()
    assert (stack.shape, stack.dtype) == (PAGES[kind].shape, PAGES[kind].dtype)


def test_sixteen_bit_colour_pages_keep_their_low_bits_and_channel_order(tmp_path):
    pages = RNG.integers(0, 65536, (3, 5, 7, 3)).astype(np.uint16)
    cv2.imwritemulti(str(tmp_path / "a.tif"), [page[:, :, ::-1] for page in pages])
    assert (read_stack(tmp_path / "a.tif") == pages).all()


def test_one_page_is_a_stack_of_one_and_black_and_white_is_0_and_255(tmp_path):
    path = save(tmp_path / "a.tif", [Image.fromarray(PAGES["8 bits"][0] > 100)])
    assert (read_stack(path) == 255 * (PAGES["8 bits"][:1] > 100)).all()
    assert (read_label_stack(path) == (PAGES["8 bits"][:1] > 100)).all()


def test_labels_are_indices_as_they_are_stored(tmp_path):
    labels = PAGES["16 bits"] % 300
    assert (read_label_stack(save(tmp_path / "a.tif", labels)) == labels).all()
    palette = []
    for page in PAGES["8 bits"] % 4:
        picture = Image.frombytes("P", (7, 5), page.tobytes())
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
        palette.append(picture)
    assert (read_label_stack(save(tmp_path / "b.tif", palette)) == PAGES["8 bits"] % 4).all()
    with pytest.raises(DataError, match="in colour"):
        read_label_stack(save(tmp_path / "c.tif", PAGES["colour"]))


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        (
            [PAGES["8 bits"][0], PAGES["8 bits"][0, :4]],
            r"page 2 is 7 x 4 L, 8 bits, the first 7 x 5 L, 8 bits",
        ),
        ([PAGES["8 bits"][0], PAGES["16 bits"][0]], "page 2 is 7 x 5 I;16, 16 bits"),
        ([PAGES["8 bits"][0], PAGES["colour"][0]], "page 2 is 7 x 5 RGB"),
        ([PAGES["8 bits"][0].astype(np.float32)], "float32 samples"),
    ],
)
def test_pages_of_several_kinds_and_floats_are_refused(tmp_path, pages, words):
    with pytest.raises(DataError, match=words):
        read_stack(save(tmp_path / "a.tif", pages))


def test_other_pictures_are_no_stacks(tmp_path):
    frames = [Image.fromarray(page) for page in PAGES["8 bits"]]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.png")
    for name in ("a.gif", "a.png"):
        with pytest.raises(DataError, match="a stack of pages is a TIFF"):
            read_stack(tmp_path / name)


def test_a_stack_is_no_picture(tmp_path):
    with pytest.raises(DataError, match="3 pages or frames, one picture is read"):
        read_image(save(tmp_path / "a.tif", PAGES["8 bits"]), 1)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (
            "ImageJ=1.53\nimages=900\nslices=900\n",
            "ImageJ's description says 900 images, the file's directory 3",
        ),
        (
            "ImageJ=1.53\nimages=3\nchannels=3\nslices=2\nhyperstack=true\n",
            "hyperstack of 3 channels, 2 slices",
        ),
        ("ImageJ=1.53\nimages=3\nslices=3\n", None),
        ("images=900", None),
    ],
)
def test_what_imagej_says_in_words_is_heeded(tmp_path, description, words):
    path = save(tmp_path / "a.tif", PAGES["8 bits"], description=description)
    if words is None:
        assert (read_stack(path) == PAGES["8 bits"]).all()
        return
    with pytest.raises(DataError, match=words):
        read_stack(path)


def test_damaged_stacks_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", PAGES["8 bits"])
    whole = path.read_bytes()
    for data in (b"", b"hello", whole[:30], whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.tif"):
            read_stack(path)


def many_pages_of_one_strip(pages: int, side: int) -> bytes:
    """A small file whose pages all show the same compressed strip."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, format="TIFF", compression="tiff_adobe_deflate")
    data = buffer.getvalue()
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    directory = tags.next
    count = int.from_bytes(data[directory : directory + 2], "little")
    entries = data[directory : directory + 2 + 12 * count]
    copies = b""
    for page in range(pages - 1):
        place = len(data) + page * (len(entries) + 4)
        copies += entries + ((place + len(entries) + 4) if page < pages - 2 else 0).to_bytes(4, "little")
    end = directory + len(entries)
    return data[:end] + len(data).to_bytes(4, "little") + data[end + 4 :] + copies


def test_pages_that_share_a_strip_do_not_take_gigabytes(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(many_pages_of_one_strip(3, 1000))
    assert read_stack(path).shape == (3, 1000, 1000)
    path.write_bytes(many_pages_of_one_strip(1100, 1000))
    assert path.stat().st_size < 300_000
    with pytest.raises(DataError, match="1100 x 1000 x 1000 x 1, more than the 1,073,741,824 values"):
        read_stack(path)


def test_real_slices_as_a_stack_are_the_slices(real_data, tmp_path):
    folder = real_data / "isbi2012_membrane" / "train"
    for kind, read in (("image", read_stack), ("label", read_label_stack)):
        pages = [np.asarray(Image.open(folder / kind / f"{number}.png")) for number in range(6)]
        stack = read(save(tmp_path / f"{kind}.tif", pages, compression="tiff_lzw"))
        assert (stack == np.stack(pages)).all()
