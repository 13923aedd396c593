import numpy as np
import pytest
from PIL import Image

from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_label
from medseg_paddle.io.objects import read_object_masks

SHAPE = (4, 6)


@pytest.fixture
def save(tmp_path):
    def save(name, array):
        Image.fromarray(array).save(tmp_path / name)
        return tmp_path / name

    return save


def drawn(*places, value=255) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for row, column in places:
        mask[row, column] = value
    return mask


def test_masks_are_numbered_in_the_order_given(save):
    paths = [save("b.png", drawn((0, 0), (0, 1))), save("a.png", drawn((3, 5), value=1))]
    objects = read_object_masks(paths, SHAPE)
    assert objects[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert objects[3].tolist() == [0, 0, 0, 0, 0, 2]
    assert objects.dtype == np.int32
    assert not read_object_masks([], SHAPE).any()


def test_a_full_picture_may_be_one_object(save):
    assert (read_object_masks([save("a.png", np.full(SHAPE, 255, np.uint8))], SHAPE) == 1).all()


def test_a_pixel_that_two_objects_claim_is_refused_or_given_to_whom_was_said(save):
    paths = [save("a.png", drawn((0, 0), (0, 1), (0, 2))), save("b.png", drawn((0, 1), (0, 2), (0, 3)))]
    with pytest.raises(DataError, match=r"b\.png and .*a\.png overlap in 2 pixels"):
        read_object_masks(paths, SHAPE)
    assert read_object_masks(paths, SHAPE, overlap="earlier")[0, :4].tolist() == [1, 1, 1, 2]
    assert read_object_masks(paths, SHAPE, overlap="later")[0, :4].tolist() == [1, 2, 2, 2]


def test_soft_edges_need_a_threshold(save):
    path = save("a.png", drawn((0, 0)) + drawn((0, 1), value=128) + drawn((0, 2), value=127))
    with pytest.raises(DataError, match="holds the values 0, 127, 128, 255") as caught:
        read_object_masks([path], SHAPE)
    assert "127" in caught.value.hint
    assert read_object_masks([path], SHAPE, threshold=127)[0, :3].tolist() == [1, 1, 0]


def test_masks_without_background_without_object_or_of_another_size_are_refused(save):
    with pytest.raises(DataError, match="holds the values 7, 255"):
        read_object_masks([save("a.png", np.where(drawn((0, 0)), 255, 7).astype(np.uint8))], SHAPE)
    with pytest.raises(DataError, match="and empty"):
        read_object_masks([save("a.png", drawn())], SHAPE)
    with pytest.raises(DataError, match="4 x 6 pixels, its picture 6 x 4"):
        read_object_masks([save("a.png", drawn((0, 0)))], (6, 4))


def test_real_nuclei_one_by_one_are_their_instance_map(real_data, save):
    folder = real_data / "dsb2018_nuclei"
    name = (folder / "test.txt").read_text().split()[0]
    instances = read_label(folder / "instances" / f"{name}.png")
    count = int(instances.max())
    assert set(np.unique(instances)) == set(range(count + 1))
    paths = [save(f"{n}.png", np.where(instances == n, 255, 0).astype(np.uint8)) for n in range(1, count + 1)]
    assert (read_object_masks(paths, instances.shape) == instances).all()
