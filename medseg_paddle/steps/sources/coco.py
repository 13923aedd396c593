"""Pictures whose objects are polygons or run lengths in one COCO file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from medseg_paddle.config.prepare import PrepareSet, PrepareSpec
from medseg_paddle.errors import DataError
from medseg_paddle.io.coco import CocoAnnotations, CocoImage
from medseg_paddle.steps.sources.base import Picture, Search, Source
from medseg_paddle.steps.sources.names import by_key, index_file, listed, matching, require_size
from medseg_paddle.steps.sources.pictures import named_case, read_picture


def coco(search: Search, part: PrepareSet) -> Iterator[Source]:
    """The pictures that a COCO file names."""
    path = index_file(search, part.index or "")
    pictures = [one for pattern in part.channels for one in matching(search, pattern)]
    if path is None:
        return
    try:
        said = CocoAnnotations.load(path)
    except DataError as error:
        search.problems.append(error)
        return
    _require_categories(search, said)
    used = {one.category_id for objects in said.objects.values() for one in objects}
    search.value_names.append((path, {one: said.categories[one] for one in sorted(used)}))
    images, gone = _named(search, said, pictures)
    if gone and pictures:
        search.fault(
            f"{path} names {len(gone)} images that are not among '{part.images}': {listed(gone)}",
            hint="correct `images` in `prepare`, or add the pictures",
        )
    beside = [search.below(one) for one in pictures if one not in images]
    if beside:
        search.left_out.append(f"{len(beside)} pictures that {path.name} does not name: {listed(beside)}")
    for key, picture in by_key(search, images).items():
        named = named_case(search, key, picture)
        if named is not None:
            # Its own objects go with the source: the file may change before they are drawn.
            own = said.of_image(images[picture])
            read = partial(_read, named[0], picture, own, named[1], search.spec)
            yield Source(
                picture.name, named[0], key, part.split, named[1], (picture,), read, described=own.digest()
            )


def _named(
    search: Search, said: CocoAnnotations, pictures: list[Path]
) -> tuple[dict[Path, CocoImage], list[str]]:
    """Pictures with what the file says of them, and names without one; by the path's end, which names one alone."""
    by_name: dict[str, list[Path]] = {}
    for picture in pictures:
        by_name.setdefault(picture.name, []).append(picture)
    images: dict[Path, CocoImage] = {}
    gone = []
    for image in said.images:
        wanted = Path(image.file_name)
        fitting = [
            one for one in by_name.get(wanted.name, []) if one.parts[-len(wanted.parts) :] == wanted.parts
        ]
        if not fitting:
            gone.append(image.file_name)
        elif len(fitting) > 1 or fitting[0] in images:
            search.fault(
                f"{said.path}: '{image.file_name}' can be {listed([search.below(one) for one in fitting])}"
                if len(fitting) > 1
                else f"{said.path} names {search.below(fitting[0])} twice",
                hint="let `images` in `prepare` match the pictures of this file alone",
            )
        else:
            images[fitting[0]] = image
    return images, gone


def _require_categories(search: Search, said: CocoAnnotations) -> None:
    """Note categories with objects that are no class; without `label_map` their ids are the class indices."""
    found = Counter(one.category_id for objects in said.objects.values() for one in objects)
    declared = search.spec.label_map
    if declared is None and found[0]:
        rising = ", ".join(f"{one}: {index}" for index, one in enumerate(said.categories, start=1))
        search.fault(
            f"{said.path} counts its categories from 0: {found[0]} objects are of 0 '{said.categories[0]}', which is "
            "the background's index",
            hint=f"say in `prepare` which class each category is, such as `label_map: {{{rising}}}`",
        )
    undeclared = [one for one in sorted(found) if declared is not None and one not in declared]
    if undeclared:
        counts = ", ".join(f"{one} '{said.categories[one]}' ({found[one]} objects)" for one in undeclared)
        line = ", ".join(
            f"{one}: {(declared or {}).get(one, '?')}" for one in sorted({*undeclared, *(declared or {})})
        )
        search.fault(
            f"{said.path} holds categories that nobody declared: {counts}",
            hint=f"say in `prepare` which class each category is: `label_map: {{{line}}}`",
        )


def _read(
    name: str, picture: Path, said: CocoAnnotations, patient: str, spec: PrepareSpec
) -> Iterator[Picture]:
    image = read_picture((picture,), spec)
    classes = spec.label_map if spec.label_map is not None else {one: one for one in said.categories}
    label = said.label_of(said.images[0].id, classes=classes, overlap=spec.overlap)
    require_size(picture, image.shape[:2], said.path, label.shape)
    yield Picture(name, image, label, said.path, patient)
