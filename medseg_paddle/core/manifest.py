"""A data set: what there is to segment, and who is held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from medseg_paddle.core.acquisition import Slicing
from medseg_paddle.core.labels import Label, LabelSet
from medseg_paddle.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 2


@dataclass(frozen=True)
class Case:
    """One image to segment.

    Attributes
    ----------
    id : str
        Unique in the data set; relative path of the files written about the image, without suffix.
    image : Path
        The picture, or one slice of a volume as a picture.
    label : Path or None
        Label map of the same size; None where nobody annotated.
    roi : Path or None
        Region of interest (non-zero = inside); scores are taken inside it only.
    patient : str
        Never in two splits.
    volume : str
        Slices with the same ``volume`` are scored together as one whole case; names files as well.
    slicing : Slicing or None
        How the picture was cut from a volume; None for a picture that never was part of one.
    center : str
        Where it was taken; empty where nobody said.
    fold : int or None
        Which fold of a cross-validation it is in; None for a test case, and where there are no folds.
    stack : tuple of Path
        Where a network sees neighbours: the images of its slice and of those beside it, in the order of
        :meth:`Within.beside`. Found anew each time the cases are loaded; no manifest has it.
    """

    id: str
    image: Path
    label: Path | None = None
    roi: Path | None = None
    patient: str = ""
    volume: str = ""
    slicing: Slicing | None = None
    center: str = ""
    fold: int | None = None
    stack: tuple[Path, ...] = ()

    @property
    def group(self) -> str:
        """Name of the whole case this image is scored with."""
        return self.volume or self.id


@dataclass(frozen=True)
class Manifest:
    """A data set with its classes and splits.

    Attributes
    ----------
    name : str
    labels : LabelSet
    splits : dict
        ``"train" | "val" | "test"`` to the tuple of its cases.
    root : Path
        Folder that the files lie in.
    fingerprints : dict
        SHA-256 of every file, by path relative to ``root``.
    source : dict
        What ``prepare`` read and with which settings.

    Raises
    ------
    DataError
        A patient or a volume is in two splits or two folds, a test case is in a fold or, with folds, a validation
        case is not, an id occurs twice, or an id or volume cannot name a file inside a folder.
    """

    name: str
    labels: LabelSet
    splits: dict[Split, tuple[Case, ...]]
    root: Path
    fingerprints: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: dict[tuple[str, str], tuple[str, int | None]] = {}
        ids: set[str] = set()
        has_folds = bool(self.folds)
        for split, cases in self.splits.items():
            for case in cases:
                require_inside(case.id)
                require_inside(case.group)
                if case.id in ids:
                    raise DataError(f"case '{case.id}' occurs twice", hint="give every case an id of its own")
                ids.add(case.id)
                if case.fold is not None and split == "test":
                    raise DataError(
                        f"test case '{case.id}' is in fold {case.fold}; it would be trained on",
                        hint="prepare the data again; the test is held out of every fold",
                    )
                if case.fold is None and split == "val" and has_folds:
                    raise DataError(
                        f"validation case '{case.id}' is in no fold; with other folds it would be trained on",
                        hint="prepare the data again; with folds, each is the validation set in turn",
                    )
                for kind, name in (("patient", case.patient), ("volume", case.volume)):
                    if not name:
                        continue
                    other, fold = seen.setdefault((kind, name), (split, case.fold))
                    if (other, fold) != (split, case.fold):
                        both = (
                            f"'{other}' and '{split}'" if other != split else f"fold {fold} and {case.fold}"
                        )
                        raise DataError(
                            f"{kind} '{name}' is in both {both}",
                            hint=f"move all images of a {kind} to one split and fold; scores would be too good "
                            "otherwise",
                        )

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds, in order; empty where there are none."""
        return tuple(sorted({c.fold for cases in self.splits.values() for c in cases if c.fold is not None}))

    def cases(self, split: Split, fold: int | None = None) -> tuple[Case, ...]:
        """The cases of a split, where one fold is the validation set.

        Parameters
        ----------
        split : {"train", "val", "test"}
        fold : int, optional
            The validation set is this fold, and the training set is what else is in a fold or in ``"train"``.
            Where absent, the splits are as written: with folds, fold 0 is the validation set. The test is
            always the same.

        Raises
        ------
        DataError
            There is no such fold.
        """
        if fold is None or split == "test":
            return self.splits.get(split, ())
        if fold not in self.folds:
            has = f"the folds {self.folds[0]} to {self.folds[-1]}" if self.folds else "no folds"
            raise DataError(
                f"{self.root} has {has}, the recipe names fold {fold}",
                hint="correct `fold` in the data sets, or set `folds` in `prepare` and prepare the data again",
            )
        pool = (*self.splits.get("train", ()), *self.splits.get("val", ()))
        return tuple(case for case in pool if (case.fold == fold) == (split == "val"))

    def to_json(self) -> str:
        """The manifest as text; paths are relative to ``root``."""

        def relative(path: Path | None) -> str | None:
            return None if path is None else path.relative_to(self.root).as_posix()

        return json.dumps(
            {
                "version": MANIFEST_VERSION,
                "name": self.name,
                "labels": [label.to_json() for label in self.labels],
                "splits": {
                    split: [
                        {
                            "id": case.id,
                            "image": relative(case.image),
                            "label": relative(case.label),
                            "roi": relative(case.roi),
                            "patient": case.patient,
                            "volume": case.volume,
                            "slicing": case.slicing and asdict(case.slicing),
                            "center": case.center,
                            "fold": case.fold,
                        }
                        for case in cases
                    ]
                    for split, cases in self.splits.items()
                },
                "source": self.source,
                "fingerprints": self.fingerprints,
            },
            indent=1,
        )

    @classmethod
    def load(cls, path: Path, splits: Sequence[Split] = SPLITS) -> Manifest:
        """Read ``manifest.json`` (or the folder that holds it).

        Parameters
        ----------
        path : Path
        splits : sequence of str
            Those to read; the others are empty.

        Raises
        ------
        DataError
            Missing, not JSON, of another version, or a path, id or volume that leaves a folder.
        """
        path = path / MANIFEST_NAME if path.is_dir() else path
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["version"] != MANIFEST_VERSION:
                raise DataError(
                    f"{path}: manifest version {raw['version']}, this program reads {MANIFEST_VERSION}",
                    hint="prepare the data again with this version (`medseg prepare ... --overwrite`)",
                )
            root = path.parent.resolve()
            return cls(
                name=raw["name"],
                labels=LabelSet(tuple(map(Label.from_json, raw["labels"]))),
                splits={
                    split: tuple(
                        _case(entry, root, path) for entry in raw["splits"].get(split, ()) if split in splits
                    )
                    for split in SPLITS
                },
                root=root,
                fingerprints=raw["fingerprints"],
                source=raw["source"],
            )
        except FileNotFoundError as error:
            raise DataError(
                f"{path} is not there",
                hint="run `medseg prepare` first, or correct `dataset_root` in the recipe",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not a manifest ({type(error).__name__}: {error})", hint="prepare the data again"
            ) from error


def require_inside(name: str) -> None:
    """See that a case's name, as the relative path of a file, stays inside the folder it is written to.

    The rules are those of all systems together: a manifest made on one is read on another.

    Raises
    ------
    DataError
        Empty, absolute, with a drive, a part ``..``, a backslash or a NUL.
    """
    parts = PureWindowsPath(name)
    if not parts.name or parts.anchor or ".." in parts.parts or "\\" in name or "\0" in name:
        raise DataError(
            f"{name!r:.80} cannot name a case: files are called after it",
            hint="use a relative name without '..' and backslash, such as patient1/slice_004",
        )


def _case(entry: dict[str, Any], root: Path, manifest: Path) -> Case:
    def absolute(value: str | None) -> Path | None:
        if value is None:
            return None
        path = (root / value).resolve()
        if not path.is_relative_to(root):
            raise DataError(f"{manifest}: '{value}' lies outside the data set", hint="prepare the data again")
        return path

    image = absolute(entry["image"])
    assert image is not None  # noqa: S101  (the key is always written)
    return Case(
        id=entry["id"],
        image=image,
        label=absolute(entry["label"]),
        roi=absolute(entry["roi"]),
        patient=entry["patient"],
        volume=entry["volume"],
        slicing=None if entry["slicing"] is None else Slicing.from_json(entry["slicing"]),
        center=entry.get("center", ""),  # data sets of earlier versions have neither
        fold=_fold(entry.get("fold")),
    )


def _fold(entry: Any) -> int | None:
    if entry is None or (type(entry) is int and entry >= 0):
        return entry
    raise ValueError(f"fold {entry!r}")


def fingerprint(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """SHA-256 of files, by path relative to `root`."""
    return {path.relative_to(root).as_posix(): sha256(path) for path in paths}


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
