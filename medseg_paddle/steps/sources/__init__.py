"""What a source folder holds: images with their annotations, in any of the layouts that a recipe can name."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet
from medseg_paddle.errors import DataError
from medseg_paddle.steps.dataset_groups import Member, grouped
from medseg_paddle.steps.sources.base import Found, Picture, Search, Source, WholeVolume
from medseg_paddle.steps.sources.names import listed, stem
from medseg_paddle.steps.sources.value_names import name_problems

__all__ = ["Found", "Picture", "Source", "WholeVolume", "find_sources", "look", "stem"]

# Reader to its module here and the function in it. Loaded when it is needed: the libraries behind some take longer
# to load than a small folder to read, in every process anew.
_READERS = {
    "pairs": ("pictures", "pairs"),
    "objects": ("pictures", "objects"),
    "lists": ("pictures", "lists"),
    "coco": ("coco", "coco"),
    "stacks": ("stacks", "stacks"),
    "nnunet": ("nnunet", "nnunet"),
    "volumes": ("volumes", "volumes"),
    "nifti": ("volumes", "volumes"),
    "dicom": ("series", "series"),
}


def look(spec: PrepareSpec, root: Path, labels: LabelSet | None = None) -> Found:
    """Everything that a source folder holds by the rules of a recipe, with all that is wrong.

    Images are paired by name; no picture is opened, of DICOM files and NRRD labels the headers. Where files name
    their label values, the names must agree, with those of `labels` as well.

    Raises
    ------
    DataError
        There is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"source folder {root} is not there", hint="name the folder that holds the images")
    search = Search(spec, root)
    module, function = _READERS[spec.reader]
    find = getattr(import_module(f"{__name__}.{module}"), function)
    sources = [source for part in spec.sets for source in find(search, part)]
    _note_equal_names(search, sources)
    _note_unlisted(search, sources)
    _note_shared_labels(search, sources)
    search.problems += name_problems(spec, search.value_names, labels)
    sources = _grouped(search, sources)
    return Found(
        tuple(sources), tuple(search.problems), tuple(search.left_out), tuple(dict.fromkeys(search.indexes))
    )


def find_sources(spec: PrepareSpec, root: Path) -> list[Source]:
    """All images of a source folder, paired with their annotations.

    Raises
    ------
    DataError
        The first of what is wrong: no such folder; a pattern finds nothing; an image lacks its label or the
        reverse; two files have one key.
    """
    found = look(spec, root)
    if found.problems:
        raise found.problems[0]
    return list(found.sources)


def _grouped(search: Search, sources: list[Source]) -> list[Source]:
    """Give the sources what the recipe's expressions and table say of patient, centre and split."""
    spec, root = search.spec, search.root
    try:
        found = grouped(
            spec, root, [Member(one.files[0], one.key, one.patient, one.split) for one in sources]
        )
    except DataError as error:
        search.problems.append(error)
        return sources
    if spec.table is not None:
        search.indexes.append(root / spec.table.file)
    return [
        replace(one, split=its.wanted, patient=its.patient, center=its.center)
        for one, its in zip(sources, found, strict=True)
    ]


def _note_unlisted(search: Search, sources: list[Source]) -> None:
    """Note the images that no list names; one may take what another leaves."""
    read = {path for source in sources for path in source.files}
    left = [search.below(path) for path in search.unlisted if path not in read]
    lists = ", ".join(dict.fromkeys(search.unlisted.values()))
    if left:
        search.left_out.append(f"{len(left)} images that are in none of the lists ({lists}): {listed(left)}")


def _note_shared_labels(search: Search, sources: list[Source]) -> None:
    """Note labels that a list or a dataset.json gives to several images."""
    if search.spec.reader not in ("lists", "nnunet"):  # the others find labels by the images' names
        return
    images: dict[Path, list[str]] = {}
    for source in sources:
        names = images.setdefault(source.files[source.image_files], [])
        if (name := search.below(source.files[0])) not in names:
            names.append(name)
    for label, names in images.items():
        if len(names) > 1:
            search.fault(
                f"{label} is the label of {len(names)} images: {listed(names)}",
                hint="name each image's own label; where equal ones are meant, such as empty ones, copy the file",
            )


def _note_equal_names(search: Search, sources: list[Source]) -> None:
    """Note sources whose files would have the same names."""
    first: dict[str, Source] = {}
    for source in sources:
        other = first.setdefault(source.id.casefold(), source)  # some file systems do not tell A from a
        if other is source:
            continue
        if other.files[0] == source.files[0]:
            search.fault(
                f"{source.files[0]} is in two sets ({other.split} and {source.split})",
                hint="let every image be in one set of `prepare`",
            )
        else:
            search.fault(
                f"two images would be named '{source.id}', the second is of {source.name}",
                hint="set `key` (or `patient`) in `prepare` so that names differ",
            )
