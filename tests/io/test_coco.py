"""COCO annotations against pycocotools."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from medseg_paddle.errors import DataError
from medseg_paddle.io.coco import CocoAnnotations
from medseg_paddle.io.coco_shapes import shape_mask
from medseg_paddle.io.images import read_label

HEIGHT, WIDTH = 12, 17


def square(x, y, side) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def document(*annotations: dict, **changes) -> dict:
    """Two pictures and two categories, whose ids are neither in order nor without gaps."""
    return {
        "images": [
            {"id": 7, "file_name": "a/1.png", "height": HEIGHT, "width": WIDTH},
            {"id": 3, "file_name": "a/2.png", "height": 4, "width": 5},
        ],
        "categories": [{"id": 90, "name": "vessel"}, {"id": 2, "name": "tumour"}],
        "annotations": [
            {"id": index, "image_id": 7, "category_id": 2, "iscrowd": 0} | annotation
            for index, annotation in enumerate(annotations, start=1)
        ],
    } | changes


@pytest.fixture
def load(tmp_path):
    def load(*annotations, **changes):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(document(*annotations, **changes)))
        return CocoAnnotations.load(path)

    return load


coordinate = st.floats(-1, 18, allow_subnormal=False)
points = st.tuples(
    st.floats(-1, WIDTH + 1, allow_subnormal=False), st.floats(-1, HEIGHT + 1, allow_subnormal=False)
)
polygon = st.lists(points, min_size=3, max_size=9).map(lambda found: [v for point in found for v in point])


@settings(max_examples=150, deadline=None)
@given(polygons=st.lists(polygon, min_size=1, max_size=3))
def test_polygons_become_the_pixels_that_cocos_own_code_makes_of_them(polygons):
    encoded = coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))
    assert (shape_mask(polygons, HEIGHT, WIDTH) == coco_mask.decode(encoded)).all()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_run_lengths_are_decoded_compressed_or_not(seed, share):
    mask = np.random.default_rng(seed).random((40, 31)) < share
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    flat = mask.T.ravel()
    borders = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int))).tolist()
    counts = np.diff([0, *borders, flat.size]).tolist()
    for found in (compressed, counts):
        assert (shape_mask({"size": [40, 31], "counts": found}, 40, 31) == mask).all()


def test_a_square_covers_the_pixels_whose_centres_it_holds(load):
    label = load({"segmentation": square(2, 3, 4)}).label_of(7)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:7, 2:6] = 1
    assert (label == expected).all()
    assert label.dtype == np.uint8


def test_images_and_categories_are_listed(load):
    coco = load({"segmentation": square(2, 3, 4)})
    assert [(image.id, image.file_name) for image in coco.images] == [(7, "a/1.png"), (3, "a/2.png")]
    assert list(coco.categories.items()) == [(2, "tumour"), (90, "vessel")]
    assert coco.classes == {2: 1, 90: 2}
    assert coco.label_of(3).shape == (4, 5)
    assert not coco.label_of(3).any()


def test_crowds_are_ignored_where_no_object_lies_on_them(load):
    runs = coco_mask.encode(np.asfortranarray(np.ones((HEIGHT, WIDTH), np.uint8)))
    crowd = {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}
    coco = load(
        {"segmentation": square(2, 3, 4)},
        {"segmentation": crowd, "iscrowd": 1},
        {"segmentation": square(8, 3, 4), "category_id": 90},
    )
    label = coco.label_of(7)
    assert (label[4, 3], label[4, 9], label[0, 0]) == (1, 2, 255)
    assert coco.label_of(7, crowd=9)[0, 0] == 9


def test_two_classes_on_one_pixel_are_refused_unless_the_later_one_wins(load):
    coco = load(
        {"segmentation": square(2, 3, 4)},
        {"segmentation": square(2, 8, 2)},
        {"segmentation": square(4, 5, 4), "category_id": 90},
    )
    with pytest.raises(DataError) as caught:
        coco.label_of(7)
    assert (
        "annotation 1 ('tumour') and annotation 3 ('vessel') of image 'a/1.png' overlap in 4 pixels"
        in caught.value.message
    )
    assert coco.label_of(7, overlap="later")[5, 4] == 2
    assert coco.label_of(7, classes={2: 1, 90: 1})[5, 4] == 1
    assert coco.label_of(7, classes={2: 1, 90: 0})[5, 4] == 1


def test_two_objects_of_one_class_may_overlap(load):
    coco = load({"segmentation": square(2, 3, 4)}, {"segmentation": square(4, 5, 4)})
    assert coco.label_of(7)[5, 4] == 1


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (square(15, 3, 4), "point (19, 3) lies outside the picture of 17 x 12 pixels"),
        ([[1e9, 1, 2, 2, 3, 3]], "lies outside"),
        ([[float("nan"), 1, 2, 2, 3, 3]], "not a finite number"),
        ([[1, 1, 2, 2]], "at least three points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "at least three points"),
        ([["a", 1, 2, 2, 3, 3]], "cannot be drawn"),
        ([], "neither polygons nor run lengths"),
        (None, "neither polygons nor run lengths"),
        ({"size": [5, 5], "counts": [25]}, "are of size [5, 5]"),
        ({"size": [HEIGHT, WIDTH], "counts": [100]}, "cover 100 pixels, the picture has 204"),
        ({"size": [HEIGHT, WIDTH], "counts": [10**30]}, "not numbers of pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [305, -101]}, "not numbers of pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "oooooooooooooooooooo"}, "damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x00\x01"}, "damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "o"}, "cut short"),
        ({"counts": [204]}, "size"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_annotation(load, segmentation, words):
    coco = load({"segmentation": segmentation})
    with pytest.raises(DataError) as caught:
        coco.label_of(7)
    assert words in caught.value.message
    assert "annotation 1 of image 'a/1.png'" in caught.value.message
    assert caught.value.hint


def test_a_category_without_class_is_refused(load):
    coco = load({"segmentation": square(2, 3, 4), "category_id": 90})
    with pytest.raises(DataError, match="category 90 \\('vessel'\\), which has no class"):
        coco.label_of(7, classes={2: 1})
    with pytest.raises(DataError, match="label 256"):
        coco.label_of(7, classes={2: 1, 90: 256})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [{"id": 7, "file_name": "a", "height": 4, "width": 4}] * 2}, "image id 7 occurs 2 times"),
        ({"categories": [{"id": 2, "name": "a"}] * 2}, "category id 2 occurs 2 times"),
        ({"categories": [{"id": 90, "name": "a"}]}, "annotation 1 is of category 2, which is not there"),
        ({"images": []}, "annotation 1 is of image 7, which is not there"),
        ({"images": [{"id": 7, "file_name": "a", "height": "4", "width": 4}]}, "height is '4'"),
        ({"images": [{"id": 7, "height": 4, "width": 4}]}, "'file_name'"),
        ({"images": 5}, "not a COCO annotation file"),
        ({"annotations": [5]}, "not a COCO annotation file"),
    ],
)
def test_a_file_that_is_not_in_order_is_refused(load, changes, words):
    with pytest.raises(DataError) as caught:
        load({"segmentation": square(2, 3, 4)}, **changes)
    assert words in caught.value.message
    assert "instances.json" in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "{}", "[" * 100_000, "\x00"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        CocoAnnotations.load(path)
    with pytest.raises(DataError, match=r"b\.json"):
        CocoAnnotations.load(tmp_path / "b.json")


def test_a_picture_of_a_size_that_nobody_has_is_refused_before_memory_is_taken(load):
    coco = load(images=[{"id": 7, "file_name": "a", "height": 10**9, "width": 10**9}])
    with pytest.raises(DataError, match="more than"):
        coco.label_of(7)
    with pytest.raises(DataError, match="no image 8"):
        coco.label_of(8)


def test_real_nuclei_as_a_coco_file_are_the_nuclei_again(real_data, tmp_path):
    """Instance maps written as run lengths by pycocotools, and read by its own reader and ours."""
    folder = real_data / "dsb2018_nuclei"
    names = (folder / "test.txt").read_text().split()[:5]
    images, annotations, truth = [], [], {}
    for number, name in enumerate(names):
        instances = truth[number] = read_label(folder / "instances" / f"{name.removesuffix('.png')}.png")
        height, width = instances.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for value in range(1, instances.max() + 1):
            runs = coco_mask.encode(np.asfortranarray((instances == value).astype(np.uint8)))
            runs["counts"] = runs["counts"].decode()
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": 1, "segmentation": runs}
                | {"iscrowd": 0, "area": 1}
            )
    path = tmp_path / "nuclei.json"
    categories = [{"id": 1, "name": "nucleus"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    ours, theirs = CocoAnnotations.load(path), COCO(path)
    for number, instances in truth.items():
        assert (ours.label_of(number) == (instances > 0)).all()
        union = np.zeros(instances.shape, bool)
        for one in theirs.loadAnns(theirs.getAnnIds(number)):
            union |= theirs.annToMask(one).astype(bool)
        assert (ours.label_of(number) == union).all()
