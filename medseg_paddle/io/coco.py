"""COCO annotation files (https://cocodataset.org/#format-data): objects as polygons and run lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


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
        raise NotImplementedError

    @property
    def classes(self) -> dict[int, int]:
        """Label value of each category id: 1, 2, ... in rising order of id."""
        raise NotImplementedError

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
            Category id to label value (several may share one); None for :attr:`classes`. A category
            that is not named in it is an error when an object has it.
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
        raise NotImplementedError

    def instances_of(
        self, image_id: int, *, overlap: Literal["refuse", "later"] = "refuse"
    ) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        """Instance map of one image and the category id of each object.

        Returns
        -------
        map : ndarray, shape (height, width), int32
            0 for background, i + 1 for the i-th object that is no crowd, -1 for crowds.
        categories : tuple of int
            Category id of object i + 1.

        Raises
        ------
        DataError
            As for :meth:`label_of`; here objects of one category overlap, too.
        """
        raise NotImplementedError
