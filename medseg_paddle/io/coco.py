"""COCO annotation files (https://cocodataset.org/#format-data): objects as polygons and run lengths.

Shapes become pixels exactly as COCO's own API makes them (``common/maskApi.c`` of cocodataset/cocoapi, by
Piotr Dollar and Tsung-Yi Lin), which a test compares.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError
from medseg_paddle.io.coco_shapes import shape_mask
from medseg_paddle.io.limits import MAX_PIXELS, require_amount


@dataclass(frozen=True)
class CocoImage:
    """One picture of a COCO file.

    Attributes
    ----------
    id : int
    file_name : str
        As it stands in the file; relative to wherever the pictures are.
    height, width : int
        Pixels.
    """

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class CocoObject:
    """One annotated object.

    Attributes
    ----------
    id : int
    category_id : int
    crowd : bool
        ``iscrowd``: an area of many objects that nobody told apart.
    segmentation : list or dict
        Polygons or run lengths, as in the file.
    """

    id: int
    category_id: int
    crowd: bool
    segmentation: Any


@dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """A COCO annotation file.

    Attributes
    ----------
    path : Path
    images : tuple of CocoImage
        In the file's order.
    categories : dict
        Category id to name, in rising order of id.
    objects : dict
        Image id to its objects, in the file's order.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: dict[int, str]
    objects: dict[int, tuple[CocoObject, ...]]

    @classmethod
    def load(cls, path: Path) -> CocoAnnotations:
        """Read and check a COCO annotation file; the pictures themselves are not looked at.

        Raises
        ------
        DataError
            Missing or not JSON; a key that is missing or of another type; an id that occurs twice; an
            object of an image or category that is not there.
        """
        try:
            document = json.loads(path.read_bytes())
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror or error}",
                hint="check the path and the file's permissions",
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not JSON ({error})", hint="export the annotations again") from error
        try:
            images = tuple(_image(entry) for entry in document["images"])
            categories = {_integer(entry, "id"): str(entry["name"]) for entry in document["categories"]}
            found = [(_integer(entry, "image_id"), _object(entry)) for entry in document["annotations"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path} is not a COCO annotation file ({type(error).__name__}: {error})",
                hint="images, categories and annotations are needed, as https://cocodataset.org/#format-data has them",
            ) from error
        for what, ids in (
            ("image", [image.id for image in images]),
            ("category", [entry["id"] for entry in document["categories"]]),
            ("annotation", [one.id for _, one in found]),
        ):
            number, count = Counter(ids).most_common(1)[0] if ids else (0, 0)
            if count > 1:
                raise DataError(f"{path}: {what} id {number} occurs {count} times", hint="number them anew")
        objects: dict[int, list[CocoObject]] = {image.id: [] for image in images}
        for image_id, one in found:
            if image_id not in objects or one.category_id not in categories:
                missing = f"image {image_id}" if image_id not in objects else f"category {one.category_id}"
                raise DataError(
                    f"{path}: annotation {one.id} is of {missing}, which is not there",
                    hint="export the annotations again, with all images and categories",
                )
            objects[image_id].append(one)
        return cls(
            path,
            images,
            dict(sorted(categories.items())),
            {number: tuple(ones) for number, ones in objects.items()},
        )

    @property
    def classes(self) -> dict[int, int]:
        """Label value of each category id: 1, 2, ... in rising order of id."""
        return {category: value for value, category in enumerate(self.categories, start=1)}

    def of_image(self, image: CocoImage) -> CocoAnnotations:
        """The same file with one of its images alone."""
        return replace(self, images=(image,), objects={image.id: self.objects[image.id]})

    def digest(self) -> str:
        """SHA-256 of images and objects; it changes when a label map can change."""
        objects = {
            number: [(one.category_id, one.crowd, one.segmentation) for one in ones]
            for number, ones in self.objects.items()
        }
        said = json.dumps([[(one.height, one.width) for one in self.images], objects, self.categories])
        return hashlib.sha256(said.encode()).hexdigest()

    def label_of(
        self,
        image_id: int,
        *,
        classes: Mapping[int, int] | None = None,
        crowd: int = 255,
        overlap: Literal["refuse", "later"] = "refuse",
    ) -> NDArray[np.uint8]:
        """Label map of one image.

        Parameters
        ----------
        image_id : int
        classes : mapping, optional
            Category id to label value; None for :attr:`classes`. Several may share a value, objects of
            value 0 are left out, and a category that is not named is an error when an object has it.
        crowd : int
            Value of ``iscrowd`` areas, where no object lies on them; 255 is ignored in training.
        overlap : {"refuse", "later"}
            Where objects of two label values overlap: an error that names both, or the later
            annotation wins.

        Returns
        -------
        ndarray, shape (height, width), uint8
            0 for background.

        Raises
        ------
        DataError
            No such image; a polygon outside the picture or with less than three points; run lengths of
            another size; a box without segmentation; overlap where that is refused.
        """
        classes = self.classes if classes is None else classes
        image = self._image(image_id)
        label = np.zeros((image.height, image.width), dtype=np.uint8)
        owner = np.zeros(label.shape, dtype=np.int32)  # 1 + index of the object that a pixel is of
        for index, one in enumerate(self.objects[image_id]):
            mask = self._mask(one, image)
            if one.crowd:
                label[mask & (owner == 0)] = crowd
                continue
            value = self._value(one, classes)
            if value == 0:
                continue
            taken = mask & (owner != 0) & (label != value)
            if overlap == "refuse" and taken.any():
                other = self.objects[image_id][int(owner[taken][0]) - 1]
                raise self._overlap(image, other, one, int((taken & (owner == owner[taken][0])).sum()))
            label[mask], owner[mask] = value, index + 1
        return label

    def _image(self, image_id: int) -> CocoImage:
        for image in self.images:
            if image.id == image_id:
                require_amount(self.path, (image.height, image.width), most=MAX_PIXELS)
                return image
        raise DataError(f"{self.path} has no image {image_id}", hint="name an image of the file")

    def _mask(self, one: CocoObject, image: CocoImage) -> NDArray[np.bool_]:
        try:
            return shape_mask(one.segmentation, image.height, image.width)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{self.path}: annotation {one.id} of image '{image.file_name}' cannot be drawn: {error}",
                hint="correct or remove the annotation",
            ) from error

    def _value(self, one: CocoObject, classes: Mapping[int, int]) -> int:
        if one.category_id not in classes:
            raise DataError(
                f"{self.path}: annotation {one.id} is of category {one.category_id} "
                f"('{self.categories[one.category_id]}'), which has no class",
                hint="give every category that occurs a class",
            )
        value = classes[one.category_id]
        if not 0 <= value <= 255:
            raise DataError(
                f"{self.path}: category {one.category_id} would become label {value}, labels are 0..255",
                hint="give the categories classes in 0..255",
            )
        return value

    def _overlap(self, image: CocoImage, earlier: CocoObject, later: CocoObject, pixels: int) -> DataError:
        names = " and ".join(
            f"annotation {one.id} ('{self.categories[one.category_id]}')" for one in (earlier, later)
        )
        return DataError(
            f"{self.path}: {names} of image '{image.file_name}' overlap in {pixels} pixels",
            hint="correct one of them, or declare that the later annotation wins",
        )


def _image(entry: dict[str, Any]) -> CocoImage:
    return CocoImage(
        _integer(entry, "id"), str(entry["file_name"]), _integer(entry, "height"), _integer(entry, "width")
    )


def _object(entry: dict[str, Any]) -> CocoObject:
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"iscrowd of annotation {entry.get('id')} is {crowd!r}")
    return CocoObject(
        _integer(entry, "id"), _integer(entry, "category_id"), bool(crowd), entry.get("segmentation")
    )


def _integer(entry: dict[str, Any], key: str) -> int:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{key} is {value!r:.40}, an integer is needed")
    return value
