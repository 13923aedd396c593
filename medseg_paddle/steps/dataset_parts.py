"""One source at a time: its pictures written, and a note of it that an interrupted preparation goes on from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Slicing, Volume, fingerprint, sha256
from medseg_paddle.errors import DataError
from medseg_paddle.io.channels import picture_suffix, read_channels, write_channels
from medseg_paddle.io.images import write_image, write_label
from medseg_paddle.io.nifti import read_nifti_channels, write_nifti
from medseg_paddle.io.volumes import is_volume
from medseg_paddle.preprocess.duplicates import Appearance, appearance
from medseg_paddle.steps.parallel import in_order
from medseg_paddle.steps.sources import Picture, Source, WholeVolume
from medseg_paddle.steps.sources.declared import LabelRules, classes_in
from medseg_paddle.steps.sources.slices import middle

JOURNAL = ".journal"
_NOT_HOT = 0.9999  # share of a picture's samples that its depth is told by
Stamp = dict[str, Any]  # size, mtime_ns and sha256 of a source file


@dataclass(frozen=True)
class Written:
    """What was written of one picture.

    Attributes
    ----------
    id, volume, slicing
        As in :class:`medseg_paddle.core.Case`.
    image, label, roi : str
        Paths in the data set; roi ``""`` where there is none.
    classes : tuple of int
        That occur in the label.
    deepest : int
        Value that at least 99.99 % of a 16-bit picture's samples do not exceed, for a hot pixel says nothing
        of the range; -1 of others.
    channels : int
    palette : tuple of (int, int)
        Stored label value and its colour, where the label is indices into a palette.
    """

    id: str
    volume: str
    slicing: Slicing | None
    image: str
    label: str
    roi: str
    classes: tuple[int, ...]
    deepest: int
    channels: int
    palette: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Part:
    """What one source became.

    Attributes
    ----------
    pictures : tuple of Written
    files : dict
        Source file, by its path below the source folder, to its size, time of change and SHA-256; in the
        source's order, which is that of the channels.
    described : str
        As in :class:`~medseg_paddle.steps.sources.Source`.
    fingerprints : dict
        File of the data set to its SHA-256.
    looks : tuple of Appearance
        Of the pictures; not noted, but found again.
    """

    pictures: tuple[Written, ...]
    files: dict[str, Stamp]
    fingerprints: dict[str, str]
    described: str = ""
    looks: tuple[Appearance, ...] = field(default=(), compare=False)

    def to_json(self) -> dict[str, Any]:
        """What is noted."""
        return {
            "pictures": [asdict(one) for one in self.pictures],
            "files": self.files,
            "fingerprints": self.fingerprints,
            "described": self.described,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Part:
        """The opposite of :meth:`to_json`."""
        pictures = tuple(
            Written(
                **{
                    **one,
                    "slicing": None if one["slicing"] is None else Slicing.from_json(one["slicing"]),
                    "classes": tuple(one["classes"]),
                    "palette": tuple((value, color) for value, color in one["palette"]),
                }
            )
            for one in raw["pictures"]
        )
        return cls(pictures, dict(raw["files"]), dict(raw["fingerprints"]), raw["described"])


def write_parts(
    sources: Sequence[Source], folder: Path, *, root: Path, rules: LabelRules, workers: int
) -> Generator[Part, None, None]:
    """Write the pictures of all sources, in order; those that an earlier attempt wrote are taken over.

    Parameters
    ----------
    sources : sequence of Source
    folder : Path
        Of the data set in the making.
    root : Path
        Source folder.
    rules : LabelRules
    workers : int
        Processes.

    Yields
    ------
    Part
        Of each source. The result does not depend on `workers`.

    Raises
    ------
    DataError
        A source cannot be read, or holds label values that nobody declared.
    SetupError
        The disk is full.
    """
    earlier = _journal(folder)
    work = partial(_write_or_keep, folder=folder, root=root, rules=rules)
    items = [(source, earlier.get(source.id)) for source in sources]
    for kind in ("images", "labels"):
        (folder / kind).mkdir(exist_ok=True)
    results = in_order(work, items, workers=workers, name=_name)
    with contextlib.closing(results), (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        for (source, before), part in zip(items, results, strict=True):
            if before is None or part.to_json() != before.to_json() or list(part.files) != list(before.files):
                journal.write(json.dumps({"source": source.id, "part": part.to_json()}) + "\n")
                journal.flush()
            yield part
    (folder / JOURNAL).unlink()


def done_before(folder: Path) -> int:
    """How many sources an interrupted preparation has written."""
    return len(_journal(folder))


def stamp(path: Path) -> Stamp:
    """Size, time of change and SHA-256 of a source file.

    Raises
    ------
    DataError
        It cannot be read.
    """
    with _reading(path):
        found = path.stat()
        return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256(path)}


def changed(path: Path, noted: Mapping[str, Any]) -> bool:
    """Whether a source file is another than it was; one with the size and time that it had is not read.

    Raises
    ------
    DataError
        It cannot be read.
    """
    with _reading(path):
        found = path.stat()
        if found.st_size != noted["size"]:
            return True
        return found.st_mtime_ns != noted["mtime_ns"] and bool(sha256(path) != noted["sha256"])


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}", hint="check the file and its permissions"
        ) from error


def _name(item: tuple[Source, Part | None]) -> str:
    return item[0].name


def _write_or_keep(item: tuple[Source, Part | None], *, folder: Path, root: Path, rules: LabelRules) -> Part:
    source, before = item
    if before is not None and _is_whole(source, before, folder, root):
        return replace(before, looks=tuple(_look_again(folder / one.image) for one in before.pictures))
    files = {path.relative_to(root).as_posix(): stamp(path) for path in dict.fromkeys(source.files)}
    pictures, looks = [], []
    for picture in source.read():
        pictures.append(_write(folder, picture, rules))
        looks.append(appearance(picture.image))
    own = [folder / name for one in pictures for name in (one.image, one.label, one.roi) if name]
    return Part(tuple(pictures), files, fingerprint(own, folder), source.described, tuple(looks))


def _look_again(path: Path) -> Appearance:
    return appearance(middle(read_nifti_channels(path)) if is_volume(path) else read_channels([path]))


def _is_whole(source: Source, part: Part, folder: Path, root: Path) -> bool:
    """Whether what was written before still is there, and was written from the files as they are."""
    files = {path.relative_to(root).as_posix(): path for path in source.files}
    if list(files) != list(part.files) or source.described != part.described:
        return False
    if any(changed(files[name], part.files[name]) for name in files):
        return False
    return all(
        (folder / name).is_file() and sha256(folder / name) == digest
        for name, digest in part.fingerprints.items()
    )


def described(picture: Picture, indices: NDArray[np.uint8]) -> Written:
    """What is written of a picture, by its name.

    Parameters
    ----------
    picture : Picture
    indices : ndarray, (height, width), uint8
        Its label as class indices.
    """
    channels = 1 if picture.image.ndim == 2 else picture.image.shape[2]
    is_whole = isinstance(picture, WholeVolume)
    return Written(
        id=picture.id,
        volume=picture.volume,
        slicing=picture.slicing,
        image=f"images/{picture.id}{'.nii.gz' if is_whole else picture_suffix(channels)}",
        label=f"labels/{picture.id}{'.nii.gz' if is_whole else '.png'}",
        roi="" if picture.roi is None else f"rois/{picture.id}.png",
        classes=tuple(sorted(classes_in(indices))),
        deepest=_deepest(picture.image) if picture.image.dtype == np.uint16 else -1,
        channels=channels,
        palette=tuple(sorted(picture.palette.items())),
    )


def _deepest(image: NDArray[np.uint16]) -> int:
    place = int(_NOT_HOT * (image.size - 1))
    return int(np.partition(image, place, axis=None)[place])


def _write(folder: Path, picture: Picture, rules: LabelRules) -> Written:
    """Write one picture's files."""
    indices = rules.apply(picture)
    written = described(picture, indices)
    if isinstance(picture, WholeVolume):
        write_nifti(folder / written.image, picture.volumes, flush=False)
        label = Volume(indices, picture.volumes[0].geometry)
        write_nifti(folder / written.label, [label], flush=False)
        return written
    if written.channels in (1, 3):
        write_image(folder / written.image, picture.image, flush=False)
    else:
        write_channels(folder / written.image, picture.image, flush=False)
    write_label(folder / written.label, indices, flush=False)
    if picture.roi is not None:
        write_label(folder / written.roi, picture.roi.astype(np.uint8) * 255, flush=False)
    return written


def _journal(folder: Path) -> dict[str, Part]:
    """What an interrupted attempt noted; a last line that was cut short is passed over."""
    try:
        lines = (folder / JOURNAL).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            entry = json.loads(line)
            found[entry["source"]] = Part.from_json(entry["part"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
