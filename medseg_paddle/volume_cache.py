"""Whole volumes as a network takes them: preprocessed once, kept beside the data set, and read a part at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config import Recipe
from medseg_paddle.core import Case, LabelSet, sha256
from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.io.case_volumes import case_units, read_case_labels, read_case_volumes
from medseg_paddle.io.files import NoLocksError, whole_file, write_text
from medseg_paddle.preprocess.augment.volume_foreground import ForegroundVoxels
from medseg_paddle.preprocess.volumes import VolumePreprocessing

FOLDER = "preprocessed"
_VERSION = 1  # of what is written and of how it is computed; another one makes all cases anew
_IMAGES, _LABELS, _NOTES, _STAMPS = "images", "labels", "notes", "stamps"
_ENDINGS = {_IMAGES: "npy", _LABELS: "npy", _NOTES: "npz", _STAMPS: "json"}
_LOCK = ".lock"
_KEY_DIGITS = 16
SPEC = "preprocessing.json"
"""Name of the file that says, in a folder of preprocessed volumes, how they were made."""
_FACTS = "facts"


@dataclass(frozen=True)
class VolumeFacts:
    """What is noted of a case's labels.

    Attributes
    ----------
    counts : tuple of int
        Voxels of each class, the ignored ones left out; of a preprocessed case, on the network's grid.
    ignored : int
        Voxels of the ignored value.
    noted : str
        The note itself; of a case that was made anew from other files it is another one.
    """

    counts: tuple[int, ...]
    ignored: int
    noted: str = ""

    @classmethod
    def of(cls, label: NDArray[np.uint8], num_classes: int, ignore_index: int) -> VolumeFacts:
        """Count the voxels of a label."""
        counts = np.bincount(label.reshape(-1), minlength=256)
        ignored, counts[ignore_index] = int(counts[ignore_index]), 0
        return cls(tuple(int(n) for n in counts[:num_classes]), ignored)

    @property
    def holds_foreground(self) -> bool:
        """Whether there is a voxel that is neither background nor ignored."""
        return any(self.counts[1:])


@dataclass(frozen=True, eq=False)
class KeptVolume:
    """A preprocessed case; its arrays are mapped, and take memory only where they are read.

    Attributes
    ----------
    image : ndarray, shape (channels, slices, rows, columns), float32
    label : ndarray, shape (slices, rows, columns), uint8
    foreground : ForegroundVoxels
    spacing : three floats
        mm along slices, rows and columns.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    foreground: ForegroundVoxels
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class OtherVolumes:
    """Preprocessed cases that this training does not read; another one may.

    Attributes
    ----------
    folder : Path
    size : int
        Bytes.
    written : float
        When the last of them was made, in seconds since 1970.
    """

    folder: Path
    size: int
    written: float


@dataclass(frozen=True)
class VolumeCache:
    """Where the preprocessed cases of a data set are: ``<dataset_root>/preprocessed/<key>``.

    The key says how they were preprocessed, the note of each case from which files it was made: a case whose source
    is another one by now counts as missing. Its files are written one by one, the note last, each whole or not at all,
    so that what is interrupted goes on where it was. Of files with another time than the noted one, as those of a
    copied data set, the content is compared once, and a stamp beside the note remembers it. The note itself stays as it
    is, for trainings at work compare it.

    Attributes
    ----------
    root : Path
        Folder of the data set.
    preprocessing : VolumePreprocessing
    channels : int
    labels : LabelSet
    ignore_index : int
        Label value that is neither learned nor scored.
    """

    root: Path
    preprocessing: VolumePreprocessing
    channels: int
    labels: LabelSet
    ignore_index: int

    @classmethod
    def of(cls, recipe: Recipe) -> VolumeCache:
        """The cache of a recipe's training set."""
        (spec,) = recipe.preprocessing_specs
        return cls(
            root=Path(recipe.train_dataset.dataset_root),
            preprocessing=VolumePreprocessing.from_spec(spec),
            channels=recipe.in_channels,
            labels=recipe.label_set,
            ignore_index=recipe.ignore_index,
        )

    @property
    def folder(self) -> Path:
        """Of this way to preprocess."""
        return self.root / FOLDER / hashlib.sha256(self._described.encode()).hexdigest()[:_KEY_DIGITS]

    @property
    def lock(self) -> Path:
        """File that whoever writes to the folder locks."""
        return self.folder / _LOCK

    @property
    def _described(self) -> str:
        return json.dumps(
            {
                "version": _VERSION,
                "preprocessing": self.preprocessing.spec,
                "channels": self.channels,
                "classes": list(self.labels.names),
                "ignore_index": self.ignore_index,
            },
            indent=1,
            sort_keys=True,
        )

    def lacking(self, cases: Sequence[Case]) -> list[Case]:
        """Cases that are not there, or were made from other files than there are now."""
        return [case for case in cases if not self._is_of(case, self._note(case))]

    def make(self, case: Case, *, threads: int | None = None) -> None:
        """Preprocess a case and keep it.

        Labels are brought to the grid class by class, linearly, and vote, as in nnU-Net.

        Raises
        ------
        DataError
            As for :func:`~medseg_paddle.io.case_volumes.read_case_volumes` and ``read_case_labels``, or the volume
            cannot be normalised or has no such region.
        SetupError
            The folder cannot be written, or the disk is full.
        """
        source = _source(case)
        volumes = read_case_volumes(case, self.channels)
        labels = read_case_labels(case, volumes[0].geometry, self.labels, self.ignore_index)
        try:
            prepared = self.preprocessing.forward(volumes, threads=threads)
        except DataError as error:
            raise DataError(f"{case.image}: {error.message}", hint=error.hint) from error
        del volumes
        label = prepared.labels(labels, vote=True, threads=threads).array
        counted = VolumeFacts.of(label, len(self.labels), self.ignore_index)
        facts = {
            "source": source,
            "counts": list(counted.counts),
            "ignored": counted.ignored,
            "spacing": list(prepared.geometry.spacing),
        }
        with self.writing():
            # A note of other files that were here before must not speak for these.
            self._path(_NOTES, case).unlink(missing_ok=True)
            self._write(self._path(_IMAGES, case), prepared.array)
            self._write(self._path(_LABELS, case), label)
            found = ForegroundVoxels.of(label, self.ignore_index)
            note = {_FACTS: np.array(json.dumps(facts)), **found.arrays}
            with whole_file(self._path(_NOTES, case)) as temporary, temporary.open("xb") as stream:
                np.savez(stream, **note)  # type: ignore[arg-type]  # one of its own words is a bool

    def facts(self, case: Case) -> VolumeFacts:
        """What is noted of a case that is there.

        Raises
        ------
        DataError
            It is not, or its files have changed since.
        """
        text = self._note(case)
        if text is None or not self._is_of(case, text):
            raise self._gone(case)
        note = json.loads(text)
        return VolumeFacts(tuple(note["counts"]), note["ignored"], text)

    def open(self, case: Case, facts: VolumeFacts) -> KeptVolume:
        """A case as it was when `facts` were noted; no file stays open.

        Raises
        ------
        DataError
            It is not there any more, was made anew since from other files, or is damaged.
        """
        try:
            # The note last: where it still is the one that was, so was what came before.
            image = np.load(self._path(_IMAGES, case), mmap_mode="r", allow_pickle=False)
            label = np.load(self._path(_LABELS, case), mmap_mode="r", allow_pickle=False)
            with np.load(self._path(_NOTES, case), allow_pickle=False) as note:
                noted = str(note[_FACTS])
                foreground = ForegroundVoxels.from_arrays(note)
        except FileNotFoundError:
            raise self._gone(case) from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise self._damaged(case, error) from error
        if noted != facts.noted:
            raise self._gone(case)
        if image.dtype != np.float32 or image.shape != (self.channels, *label.shape):
            raise self._damaged(case, f"an image of {image.shape} beside a label of {label.shape}")
        one, two, three = json.loads(noted)["spacing"]
        return KeptVolume(image, label, foreground, (one, two, three))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Say, of an error in this block, that it is this folder that cannot be written.

        Raises
        ------
        SetupError
        """
        try:
            yield
        except NoLocksError:
            raise
        except (SetupError, OSError) as error:
            said = (
                error.message
                if isinstance(error, SetupError)
                else f"{self.folder} cannot be written: {error}"
            )
            raise SetupError(
                said,
                hint=f"preprocessed volumes are kept in {self.root / FOLDER}: make room there, or let it be written; "
                "where a training may not write, `medseg prepare ... --keep` makes them before",
            ) from error

    def begin(self) -> None:
        """Make the folder, and take away what a killed process left half written; for whoever holds the lock.

        Raises
        ------
        SetupError
            It cannot be written.
        """
        with self.writing():
            for kind in _ENDINGS:
                for left in (self.folder / kind).rglob(".*.tmp"):
                    left.unlink(missing_ok=True)
            described = self.folder / SPEC
            if not described.is_file():
                with whole_file(described) as temporary:
                    temporary.write_text(self._described + "\n", encoding="utf-8")

    def others(self) -> list[OtherVolumes]:
        """What lies beside the folder, of other ways to preprocess; by name, as far as it can be looked into."""
        found = []
        for folder in sorted((self.root / FOLDER).iterdir()):
            files = []
            with contextlib.suppress(OSError):  # somebody removes it, or lets nobody else read it
                if folder != self.folder and (folder / SPEC).is_file():
                    # Stamps tell when somebody looked, not when a volume was made.
                    made = (folder / kind for kind in (_IMAGES, _LABELS, _NOTES))
                    of_cases = [path for kind in made for path in kind.rglob("*") if path.is_file()]
                    files = [path.stat() for path in (folder / SPEC, *of_cases)]
            if files:
                last = max(one.st_mtime for one in files)
                found.append(OtherVolumes(folder, sum(one.st_size for one in files), last))
        return found

    def _path(self, kind: str, case: Case) -> Path:
        # Not `with_suffix`: an id may have a dot in it.
        return self.folder / kind / f"{case.id}.{_ENDINGS[kind]}"

    def _note(self, case: Case) -> str | None:
        """What is noted of a case; None where there is none, or none that can be read."""
        try:
            with np.load(self._path(_NOTES, case), allow_pickle=False) as note:
                return str(note[_FACTS])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def _is_of(self, case: Case, note: str | None) -> bool:
        """Whether a note is of a case's files as they are, and what it speaks of is there."""
        if note is None or not all(self._path(kind, case).is_file() for kind in (_IMAGES, _LABELS)):
            return False
        noted = json.loads(note)["source"]
        if noted["units"] != case_units(case):
            return False
        seen = self._stamps(case)
        now = {
            name: None if path is None else _known(path, noted[name], seen.get(name))
            for name, path in (("image", case.image), ("label", case.label))
        }
        if not all(
            stamp is not None and stamp["sha256"] == noted[name]["sha256"] for name, stamp in now.items()
        ):
            return False
        if any(stamp not in (noted[name], seen.get(name)) for name, stamp in now.items()):
            # Where nobody may write, it is compared at each start.
            with contextlib.suppress(SetupError):
                write_text(self._path(_STAMPS, case), json.dumps(now))
        return True

    def _stamps(self, case: Case) -> dict[str, Any]:
        """What the files of a case were the last time that their content was compared."""
        try:
            return dict(json.loads(self._path(_STAMPS, case).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    @staticmethod
    def _write(path: Path, array: NDArray[Any]) -> None:
        with whole_file(path) as temporary, temporary.open("xb") as stream:
            np.save(stream, array)

    def _gone(self, case: Case) -> DataError:
        return DataError(
            f"the preprocessed volume of case {case.id} in {self.folder} is not there any more, or its source has "
            "changed",
            hint="go on with --resume if the data is as it was, or train again",
        )

    def _damaged(self, case: Case, why: object) -> DataError:
        return DataError(
            f"the preprocessed volume of case {case.id} in {self.folder} is damaged ({why})",
            hint=f"remove {self.folder} and train again; it is made anew",
        )


def _source(case: Case) -> dict[str, Any]:
    """What a case is made from."""
    files = {"image": case.image, "label": case.label}
    stamps = {name: None if path is None else _stamp(path) for name, path in files.items()}
    return {**stamps, "units": case_units(case)}


def _stamp(path: Path) -> dict[str, Any]:
    """Size, time of change and SHA-256 of a file."""
    try:
        found = path.stat()
        return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256(path)}
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}", hint="check the file and its permissions"
        ) from error


def _known(path: Path, noted: dict[str, Any], seen: Any) -> dict[str, Any] | None:
    """Stamp of a file; one with a size and a time that it had before is not read. None: it is not what was noted."""
    try:
        found = path.stat()
        if found.st_size != noted["size"]:
            return None
        now = {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
        for before in (noted, seen):
            if isinstance(before, dict) and now.items() <= before.items() and "sha256" in before:
                return before
        return {**now, "sha256": _digest(path, found.st_size, found.st_mtime_ns)}
    except OSError:
        return None


@cache
def _digest(path: Path, _size: int, _mtime_ns: int) -> str:
    """SHA-256 of a file as it is; of a copied data set each file is asked for several times at a start."""
    return sha256(path)
