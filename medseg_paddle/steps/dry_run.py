"""`medseg prepare --dry-run`: everything that a preparation would find, with all that is wrong; nothing is written."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medseg_paddle.config.prepare import IGNORE_INDEX, PrepareSpec
from medseg_paddle.core import SPLITS, Case, LabelSet, Manifest
from medseg_paddle.errors import DataError
from medseg_paddle.preprocess.duplicates import Appearance, appearance
from medseg_paddle.steps.dataset import Progress, require_sound_pictures, source_bytes, units
from medseg_paddle.steps.dataset_parts import Written, described
from medseg_paddle.steps.dataset_suspicions import alone, lone_patients, near_copies, suspicions
from medseg_paddle.steps.parallel import in_order, suited_workers
from medseg_paddle.steps.sources import Source, WholeVolume, look
from medseg_paddle.steps.sources.declared import LabelRules, UndeclaredLabelError

Kind = tuple[tuple[int, ...], int, int]  # size, channels, bits
_SHOWN = 5
_VOXELS = ("slices", "rows", "columns")


@dataclass(frozen=True)
class Glance:
    """What reading one source gave.

    Attributes
    ----------
    pictures : tuple of Written
        As they would be written, those with undeclared labels left out.
    looks : tuple of Appearance
        Of these pictures.
    kinds : Counter
        Size (of a whole volume three numbers), channels and bits to pictures.
    pixels : Counter
        Class index to pixels.
    notes : tuple of str
        What was done to its files.
    problems : tuple of DataError
    """

    pictures: tuple[Written, ...]
    looks: tuple[Appearance, ...]
    kinds: Counter[Kind]
    pixels: Counter[int]
    notes: tuple[str, ...]
    problems: tuple[DataError, ...]


@dataclass(frozen=True)
class DryRun:
    """What a preparation would do.

    Attributes
    ----------
    lines : tuple of str
        What was found, for people.
    left_out : tuple of str
        What lies in the folder and is not taken, and why.
    problems : tuple of DataError
        All that keeps the folder from being prepared.
    """

    lines: tuple[str, ...]
    left_out: tuple[str, ...]
    problems: tuple[DataError, ...]

    def __str__(self) -> str:
        said = [*self.lines, *(f"left out: {line}" for line in self.left_out)]
        kinds: dict[str, list[str]] = {}
        for problem in self.problems:
            kinds.setdefault(problem.hint, []).append(problem.message)
        number = 0
        for hint, messages in kinds.items():
            said += [
                f"problem {number + place}: {message}"
                for place, message in enumerate(messages[:_SHOWN], start=1)
            ]
            number += len(messages)
            if len(messages) > _SHOWN:
                said.append(f"problems up to {number}: {len(messages) - _SHOWN} more of this kind")
            said.append(f"  hint: {hint}")
        return "\n".join([*said, "nothing was written"])

    def require_sound(self, source: Path) -> None:
        """Raise if anything is wrong.

        Raises
        ------
        DataError
            With the number of problems.
        """
        if self.problems:
            count = len(self.problems)
            raise DataError(
                f"{source} cannot be prepared: {count} problem{'s' * (count > 1)}, listed above",
                hint="mend them and look again with --dry-run",
            )


def dry_run(
    spec: PrepareSpec,
    *,
    source: Path,
    labels: LabelSet,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DryRun:
    """Read a source folder as :func:`medseg_paddle.steps.dataset.write_dataset` does, and write nothing.

    Parameters
    ----------
    spec, source, labels, workers, progress
        As there.

    Raises
    ------
    RecipeError
        `spec` names a class that `labels` has not.
    DataError
        There is no such folder.
    """
    rules = LabelRules.of(spec, labels)
    found = look(spec, source, labels)
    problems = list(found.problems)
    files = [path for one in found.sources for path in one.files]
    if workers is None:
        workers = suited_workers(len(files), source_bytes(files))
    glances: list[Glance] = []
    work = in_order(
        partial(_glance, rules=rules), found.sources, workers=min(workers, len(found.sources)), name=_name
    )
    with contextlib.closing(work):
        for glance in work:
            glances.append(glance)
            if progress is not None:
                progress(len(glances), len(found.sources), found.sources[len(glances) - 1].name)
    lines = [f"reader {spec.reader}: {len(found.sources)} cases below {source}"]
    lines += _links(source, files)
    lines += _pictures(glances, labels)
    lines += _splits(spec, found.sources, glances, problems, root=source, labels=labels)
    problems += _undeclared(rules, found.sources, glances)
    problems += [
        problem
        for one in glances
        for problem in one.problems
        if not isinstance(problem, UndeclaredLabelError)
    ]
    if not found.sources and not problems:
        problems.append(DataError("there is no image to prepare", hint="correct `sets` in `prepare`"))
    try:
        require_sound_pictures(spec, found.sources, [one.pictures for one in glances])
    except DataError as error:
        problems.append(error)
    return DryRun(tuple(lines), found.left_out, tuple(problems))


def _links(root: Path, files: Sequence[Path]) -> Iterator[str]:
    """Say which files are links out of the source folder: what they point to is read."""
    inside = root.resolve()
    out = [path for path in files if not path.resolve().is_relative_to(inside)]
    if out:
        yield f"  {len(out)} files are links out of the folder, and what they point to is read, such as {out[0]}"


def _name(source: Source) -> str:
    return source.name


def _glance(source: Source, *, rules: LabelRules) -> Glance:
    """Read all pictures of one source and its labels."""
    pictures: list[Written] = []
    looks: list[Appearance] = []
    kinds: Counter[Kind] = Counter()
    pixels: Counter[int] = Counter()
    notes: list[str] = []
    problems: list[DataError] = []
    try:
        for picture in source.read():
            notes += picture.notes
            channels = 1 if picture.image.ndim == 2 else picture.image.shape[2]
            stored = picture.volumes[0].array if isinstance(picture, WholeVolume) else picture.image
            shape = picture.label.shape if isinstance(picture, WholeVolume) else picture.image.shape[:2]
            kinds[shape, channels, 8 * stored.dtype.itemsize] += 1
            try:
                indices = rules.apply(picture)
            except UndeclaredLabelError as error:
                problems.append(error)
                continue
            values, counts = np.unique(indices, return_counts=True)
            pixels.update(dict(zip(map(int, values), map(int, counts), strict=True)))
            pictures.append(described(picture, indices))
            looks.append(appearance(picture.image))
    except DataError as error:  # of the whole source
        problems.append(error)
    return Glance(tuple(pictures), tuple(looks), kinds, pixels, tuple(notes), tuple(problems))


def _pictures(glances: Sequence[Glance], labels: LabelSet) -> Iterator[str]:
    kinds = sum((one.kinds for one in glances), Counter[Kind]())
    for shape, channels, bits in sorted(kinds)[:_SHOWN]:
        count = kinds[shape, channels, bits]
        color = {1: "grey", 3: "3 channels"}.get(channels, f"{channels} channels")
        size = " x ".join(map(str, shape))
        if len(shape) == len(_VOXELS):
            yield f"  {count} volumes of {size} voxels ({' x '.join(_VOXELS)}), {color}"
        else:
            yield f"  {count} images of {size} pixels (rows x columns), {color}, {bits} bits"
    if len(kinds) > _SHOWN:
        rest = sum(kinds[kind] for kind in sorted(kinds)[_SHOWN:])
        yield f"  {rest} images of {len(kinds) - _SHOWN} other sizes or kinds"
    for note, count in Counter(note for one in glances for note in one.notes).items():
        yield f"  {note}: {count} case{'s' * (count > 1)}"
    pixels = sum((one.pixels for one in glances), Counter[int]())
    total = pixels.total()
    holding = Counter(index for one in glances for index in {i for p in one.pictures for i in p.classes})
    for label in labels if total else ():
        share = pixels[label.index] / total
        yield (
            f"  class {label.index} '{label.name}': {share:.3%} of the pixels, in {holding[label.index]} of "
            f"{len(glances)} cases"
        )
    if pixels[IGNORE_INDEX]:
        yield f"  left out of loss and scores ({IGNORE_INDEX}): {pixels[IGNORE_INDEX] / total:.3%} of the pixels"


def _splits(
    spec: PrepareSpec,
    sources: Sequence[Source],
    glances: Sequence[Glance],
    problems: list[DataError],
    *,
    root: Path,
    labels: LabelSet,
) -> Iterator[str]:
    """How the cases would be dealt out, with what is doubtful about it; what is wrong with it is a problem."""
    try:
        places = spec.deal(units(sources, [one.pictures for one in glances]))
    except DataError as error:
        problems.append(error)
        return
    settings = spec.model_dump(mode="json")
    lone = alone(settings)
    split_of = {source.id: places[source.patient].split for source in sources}
    for split in SPLITS:
        own = [source for source in sources if split_of[source.id] == split]
        images = sum(
            sum(glance.kinds.values())
            for source, glance in zip(sources, glances, strict=True)
            if split_of[source.id] == split
        )
        patients = "" if lone else f", {len({source.patient for source in own})} patients"
        yield f"{split:>5}: {images} images of {len(own)} cases{patients}"
    yield from lone_patients(
        settings,
        [one.files[0].relative_to(root).as_posix() for one in sources if one.files[0].is_relative_to(root)],
    )
    cases = [
        (
            places[source.patient],
            Case(picture.id, Path(picture.image), patient=source.patient, fold=places[source.patient].fold),
        )
        for source, glance in zip(sources, glances, strict=True)
        for picture in glance.pictures
    ]
    looks = [look for glance in glances for look in glance.looks]
    yield from suspicions(
        Manifest(
            spec.reader,
            labels,
            {split: tuple(case for place, case in cases if place.split == split) for split in SPLITS},
            root,
            source=near_copies([case for _, case in cases], looks, places),
        )
    )


def _undeclared(rules: LabelRules, sources: Sequence[Source], glances: Sequence[Glance]) -> list[DataError]:
    """One problem for all labels with values that nobody declared."""
    found = [
        (source, problem)
        for source, glance in zip(sources, glances, strict=True)
        for problem in glance.problems
        if isinstance(problem, UndeclaredLabelError)
    ]
    if not found:
        return []
    counts = sum((problem.counts for _, problem in found), Counter[int]())
    values = frozenset(value for _, problem in found for value in problem.values)
    where = found[0][1].where
    cases = len({source.id for source, _ in found})
    more = f" and {cases - 1} more case{'s' * (cases > 2)}" if cases > 1 else ""
    return [rules.refusal(f"{where}{more}", counts, values)]
