"""From a folder of annotated images to a data set: pictures, lists by split, a manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import medseg_paddle
from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import MANIFEST_NAME, SPLITS, Case, LabelSet, Manifest, Place, Unit
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.io.files import resumable_folder, write_text
from medseg_paddle.preprocess.depth import dark_middle
from medseg_paddle.steps.dataset_origin import origin
from medseg_paddle.steps.dataset_parts import Part, Written, done_before, stamp, write_parts
from medseg_paddle.steps.dataset_suspicions import near_copies
from medseg_paddle.steps.parallel import suited_workers
from medseg_paddle.steps.sources import Found, Source, look
from medseg_paddle.steps.sources.declared import LabelRules

Progress = Callable[[int, int, str], None]


def write_dataset(
    spec: PrepareSpec,
    *,
    source: Path,
    destination: Path,
    labels: LabelSet,
    name: str,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Manifest:
    """Read a source folder strictly, write its images, and split them by patient.

    Parameters
    ----------
    spec : PrepareSpec
        The `prepare` section of a recipe.
    source : Path
        Folder that the patterns of `spec` are taken in; only read.
    destination : Path
        The data set: ``images`` (PNG of 1 or 3 channels, else .npy), ``labels``, ``rois`` (PNG),
        ``train_list.txt``, ``val_list.txt``, ``test_list.txt``, ``manifest.json``. Appears complete or not at
        all. Where this was interrupted before, it goes on from there.
    labels : LabelSet
        The classes; a label value beyond them must be declared by `spec`.
    name : str
        Of the data set.
    overwrite : bool
        Replace an earlier data set.
    workers : int, optional
        Processes that read and write; as many as the machine has cores where the work is worth it. The data
        set does not depend on it.
    progress : callable, optional
        Called with (done, total, name) after each image or volume.
    say : callable, optional
        Called with a line for people: what was left out, what is taken over from an earlier attempt.

    Returns
    -------
    Manifest

    Raises
    ------
    RecipeError
        `spec` names a class that `labels` has not.
    DataError
        No image; 16-bit pictures that use less than a quarter of their range; an image without a label or the
        reverse; sizes or geometries that differ; a label value nobody declared; too few patients for the
        splits; a patient in two splits; images of different channels; an unreadable file.
    SetupError
        `destination` cannot be written, is not empty, is being written by another process, or lies around
        `source`.
    """
    require_place(source, destination, overwrite=overwrite)
    rules = LabelRules.of(spec, labels)
    found = look(spec, source, labels)
    sources = require_sound(found)
    # Now, for what they said has just been read; by the end they may be others.
    indexes = {path.relative_to(source).as_posix(): stamp(path) for path in found.indexes}
    spec.deal(units(sources))  # before anything is read: most that can be wrong with it is known already
    if say is not None:
        for line in found.left_out:
            say(f"left out: {line}")
    if workers is None:
        files = [path for one in sources for path in one.files]
        workers = suited_workers(len(files), source_bytes(files))
    key = _key(spec, labels)
    with resumable_folder(
        destination, overwrite=overwrite, key=key, discard_on=(DataError, RecipeError)
    ) as folder:
        before = done_before(folder)
        if before and say is not None:
            say(f"going on with an interrupted preparation: {before} of {len(sources)} are written")
        parts: list[Part] = []
        work = write_parts(sources, folder, root=source, rules=rules, workers=min(workers, len(sources)))
        with contextlib.closing(work):
            for part in work:
                parts.append(part)
                if progress is not None:
                    progress(len(parts), len(sources), sources[len(parts) - 1].name)
        _remove_others(folder, parts)
        if say is not None:
            for line in missing_classes(labels, [part.pictures for part in parts]):
                say(line)
        require_sound_pictures(spec, sources, [part.pictures for part in parts])
        places = spec.deal(units(sources, [part.pictures for part in parts]))
        cases = [
            _case(folder, one, picture, places[one.patient])
            for one, part in zip(sources, parts, strict=True)
            for picture in part.pictures
        ]
        splits = {
            split: tuple(case for case in cases if places[case.patient].split == split) for split in SPLITS
        }
        looks = [one for part in parts for one in part.looks]
        noted = {name: its for part in parts for name, its in part.files.items()}
        noted.update(indexes)
        manifest = Manifest(
            name=name,
            labels=labels,
            splits=splits,
            root=folder,
            fingerprints=dict(sorted(one for part in parts for one in part.fingerprints.items())),
            source={
                **origin(spec, noted),
                "files_per_case": max(one.image_files for one in sources),
                "channels": max(one.channels for part in parts for one in part.pictures),
                **near_copies(cases, looks, places),
            },
        )
        for split in SPLITS:
            write_text(folder / f"{split}_list.txt", "".join(_line(folder, case) for case in splits[split]))
        write_text(folder / MANIFEST_NAME, manifest.to_json())
    return Manifest.load(destination)


def require_place(source: Path, destination: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier data set, and that only if told to; above all the source.

    Raises
    ------
    SetupError
        `destination` lies around `source`, holds something else, or a data set and `overwrite` is false.
    """
    if source.resolve().is_relative_to(destination.resolve()):
        raise SetupError(
            f"{destination} holds the source {source} and would be replaced",
            hint="write to a folder beside it",
        )
    taken = destination.is_dir() and any(destination.iterdir())
    if taken and not (destination / MANIFEST_NAME).is_file():
        raise SetupError(
            f"{destination} holds files and is no data set (no {MANIFEST_NAME})",
            hint="write to a new folder",
        )
    if taken and not overwrite:
        raise SetupError(
            f"{destination} is there already and not empty",
            hint="replace it with --overwrite, take it as it is with --keep, or name a new folder",
        )


def require_sound(found: Found) -> tuple[Source, ...]:
    """The sources of a folder with which all is well.

    Raises
    ------
    DataError
        The first problem; nothing to prepare.
    """
    if found.problems:
        more = len(found.problems) - 1
        if not more:
            raise found.problems[0]
        first = found.problems[0]
        raise DataError(
            first.message,
            hint=f"{first.hint}; {more} more problem{'s' * (more > 1)}, all are listed by `medseg prepare --dry-run`",
        )
    if not found.sources:
        raise DataError("there is no image to prepare", hint="correct `sets` in `prepare`")
    return found.sources


def require_sound_pictures(
    spec: PrepareSpec, sources: Sequence[Source], pictures: Sequence[Sequence[Written]]
) -> None:
    """See that the pictures of all sources make one data set.

    Raises
    ------
    DataError
        All labels are empty; two have one name; their channels or their labels' palettes differ; those of 16
        bits are nearly black.
    """
    written: set[str] = set()
    for source, own in zip(sources, pictures, strict=True):
        for one in own:
            if one.id.casefold() in written:  # some file systems do not tell A from a
                raise DataError(
                    f"two images would be named '{one.id}', the second is of {source.name}",
                    hint="set `key` (or `patient`) in `prepare` so that names differ",
                )
            written.add(one.id.casefold())
    if written and not any(index > 0 for own in pictures for one in own for index in one.classes):
        raise DataError(
            f"none of the {len(written)} labels has a pixel of any class but the background",
            hint="see that `labels` in `prepare` names the labels, and what their values mean (`label_map`, "
            "`label_colors`, `label_threshold`)",
        )
    _require_equal_channels(pictures)
    _require_one_palette(pictures)
    if not spec.windows:
        _require_full_range([one.deepest for own in pictures for one in own if one.deepest >= 0])


def missing_classes(labels: LabelSet, pictures: Sequence[Sequence[Written]]) -> list[str]:
    """A line for every class that no label has a pixel of: a model cannot learn it."""
    found = {index for own in pictures for one in own for index in one.classes}
    return [
        f"class {one.index} '{one.name}' is in no label"
        for one in labels
        if one.index > 0 and one.index not in found
    ]


def _require_equal_channels(pictures: Sequence[Sequence[Written]]) -> None:
    """Refuse a mixture of channels; grey among colour is taken, for a grey picture can be read as one in colour."""
    first: dict[int, str] = {}
    for own in pictures:
        for one in own:
            first.setdefault(one.channels, one.id)
    if len(first) > 1 and not set(first) <= {1, 3}:
        listed = ", ".join(f"{count} ('{name}')" for count, name in sorted(first.items()))
        raise DataError(
            f"images have different numbers of channels: {listed}",
            hint="prepare those of one kind, or say with `channels` in `prepare` how many each has",
        )


def _require_one_palette(pictures: Sequence[Sequence[Written]]) -> None:
    """Refuse label values that are shown in different colours: their order is another in each file."""
    first: dict[int, tuple[int, str]] = {}
    for one in (one for own in pictures for one in own):
        for value, color in one.palette:
            before, name = first.setdefault(value, (color, one.id))
            if before != color:
                texts = [f"{code >> 16} {code >> 8 & 255} {code & 255}" for code in (before, color)]
                raise DataError(
                    f"the palettes of the labels differ: value {value} is the colour {texts[0]} in '{name}' and "
                    f"{texts[1]} in '{one.id}'",
                    hint="say in `prepare` which class each colour is, "
                    f"`label_colors: {{{', '.join(f'{text}: ?' for text in texts)}}}`, or save the labels without "
                    "palette",
                )


def _remove_others(folder: Path, parts: Iterable[Part]) -> None:
    """Remove pictures that an interrupted attempt wrote of files that are gone now."""
    own = {name for part in parts for name in part.fingerprints}
    for kind in ("images", "labels", "rois"):
        for path in (folder / kind).glob("*"):
            if path.relative_to(folder).as_posix() not in own:
                path.unlink()


def _key(spec: PrepareSpec, labels: LabelSet) -> str:
    """What an interrupted preparation must have in common with this one to be gone on with."""
    said = json.dumps([spec.model_dump(mode="json"), labels.names, medseg_paddle.__version__])
    return hashlib.sha256(said.encode()).hexdigest()


def source_bytes(files: Iterable[Path]) -> int:
    """Size of source files together."""
    total = 0
    for path in files:
        try:
            total += path.stat().st_size
        except OSError:
            continue  # the reader says what is wrong with it
    return total


def units(sources: Sequence[Source], pictures: Sequence[Sequence[Written]] | None = None) -> list[Unit]:
    """The sources as they are dealt out, with the classes that their pictures hold where these are known."""
    present = [frozenset[int]()] * len(sources)
    if pictures is not None:
        present = [frozenset(index for one in own for index in one.classes) for own in pictures]
    return [
        Unit(one.name, one.patient, one.center, one.split, classes)
        for one, classes in zip(sources, present, strict=True)
    ]


def _require_full_range(maxima: Sequence[int]) -> None:
    """Refuse 16-bit pictures that are nearly black."""
    if (middle := dark_middle(maxima)) is not None:
        raise DataError(
            f"of {len(maxima)} pictures with 16 bits {sum(one <= middle for one in maxima)} have (next to) no value "
            f"above {middle} of 65535: they are nearly black",
            hint="multiply all by one factor that fills the range (16 for 12-bit values), and the pictures that are "
            "predicted later by the same; or say in `prepare` what is black and white, for 12 bits "
            "`window: {level: 2047.5, width: 4095}`",
        )


def _case(folder: Path, source: Source, written: Written, place: Place) -> Case:
    return Case(
        id=written.id,
        image=folder / written.image,
        label=folder / written.label,
        roi=folder / written.roi if written.roi else None,
        patient=source.patient,
        volume=written.volume,
        slicing=written.slicing,
        center=source.center,
        fold=place.fold,
    )


def _line(folder: Path, case: Case) -> str:
    label = "" if case.label is None else f" {case.label.relative_to(folder).as_posix()}"
    return f"{case.image.relative_to(folder).as_posix()}{label}\n"
