"""An exported model, complete in one folder: the only place that knows the file names in it.

========================  =====================================================================
``bundle.json``           labels, preprocessing, inference plan, parity, provenance, versions
``model.json``            the static graph, all sizes free
``model.pdiparams``       its weights
``sample/input.npy``      a part of a validation picture, ``[H, W, C]`` on the 0..255 scale; of a
                          model of volumes a patch on the network's grid, ``[C, D, H, W]``
``sample/output.npy``     its probabilities, ``[K, H, W]`` or ``[K, D, H, W]`` float32
``SHA256SUMS``            checksums of all files above, as ``sha256sum -c`` reads them
========================  =====================================================================

The checksums tell a damaged or edited bundle from a whole one. They are no signature: who can
write the folder can write new checksums. :attr:`Bundle.id` names the exact content; compare it with
the id that the export printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import LabelSet, sha256
from medseg_paddle.description import READ_VERSIONS, Description, Parity, from_json, to_json
from medseg_paddle.errors import MedsegError, ModelError, SetupError
from medseg_paddle.io.files import new_folder, write_text

_DESCRIPTION = "bundle.json"
_GRAPH_PREFIX = "model"
_SAMPLE_INPUT = "sample/input.npy"
_SAMPLE_OUTPUT = "sample/output.npy"
_CHECKSUMS = "SHA256SUMS"
_GRAPH_FILES = (f"{_GRAPH_PREFIX}.json", f"{_GRAPH_PREFIX}.pdiparams")
_REQUIRED = (_DESCRIPTION, *_GRAPH_FILES, _SAMPLE_INPUT, _SAMPLE_OUTPUT)
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


class ParityError(ModelError):
    """The exported graph does not compute what the trained model computes (exit code 4)."""


@dataclass(frozen=True)
class Draft:
    """A bundle in the making, in a folder that takes its name only when all is well."""

    path: Path
    description: Description

    @property
    def graph_prefix(self) -> Path:
        """Where to save the static graph: a path without suffix."""
        return self.path / _GRAPH_PREFIX

    def accept(self, parity: Parity, sample_input: NDArray[Any], sample_output: NDArray[np.float32]) -> None:
        """Take the measured parity and the sample, or refuse the export.

        Raises
        ------
        ParityError
            Nothing was compared, or the difference is above the tolerance or not a number.
        ModelError
            The graph's number of classes is not that of the label set.
        """
        tolerance = self.description.tolerance
        if not parity.shapes or not parity.max_difference <= tolerance:
            raise ParityError(
                f"the exported graph differs from the trained model by {parity.max_difference:.3g} in"
                f" probability, {tolerance:.3g} is allowed; {parity.differing_pixels:.3%} of the pixels"
                " change class",
                hint="nothing was exported; look for layers that behave differently in a static graph"
                " (dropout, branches on random or data), or `--set export.tolerance=...` if this is acceptable",
            )
        if len(sample_output) != len(self.description.labels):
            raise ModelError(
                f"the graph returns {len(sample_output)} classes, the labels are"
                f" {', '.join(self.description.labels.names)}",
                hint="export with the recipe that the checkpoint was trained with",
            )
        for name, array in ((_SAMPLE_INPUT, sample_input), (_SAMPLE_OUTPUT, sample_output)):
            target = self.path / name
            target.parent.mkdir(exist_ok=True)
            np.save(target, array, allow_pickle=False)
        content = to_json(self.description, parity)
        write_text(self.path / _DESCRIPTION, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Bundle:
    """An exported model whose files have been checked.

    Attributes
    ----------
    path : Path
        Its folder.
    id : str
        16 hexadecimal digits that change with any byte of any file.
    description : Description
    parity : Parity
        Measured at export.
    """

    path: Path
    id: str
    description: Description
    parity: Parity

    @property
    def graph_prefix(self) -> Path:
        """Path of the graph and its weights without suffix."""
        return self.path / _GRAPH_PREFIX

    @property
    def labels(self) -> LabelSet:
        """The classes, background first."""
        return self.description.labels

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether `path` is a bundle's folder, whole or not."""
        return (path / _DESCRIPTION).is_file()

    def sample(self) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Read the sample and its probabilities as computed at export.

        Returns
        -------
        ndarray, ndarray
            A picture ``[H, W, C]``, 0..255, and ``[K, H, W]``; of a model of volumes a patch ``[C, D, H, W]`` as the
            network takes it, and ``[K, D, H, W]``. See :meth:`Description.answer_to_sample`.

        Raises
        ------
        ModelError
            They are no arrays, or not of this model.
        """
        sample, probabilities = (_array(self.path / name) for name in (_SAMPLE_INPUT, _SAMPLE_OUTPUT))
        description = self.description
        size, channels = sample.shape[:-1], sample.shape[-1:]
        if description.dimensions == 3:
            size, channels = sample.shape[1:], sample.shape[:1]
        whole = len(size) == description.dimensions and channels == (description.in_channels,)
        if not whole or not sample.size or probabilities.shape != (len(description.labels), *size):
            raise ModelError(
                f"{self.path}: the sample of {sample.shape}, with an answer of {probabilities.shape}, is none of a "
                f"model that takes {description.in_channels} channel(s) and knows {len(description.labels)} classes",
                hint=_AGAIN,
            )
        return sample, probabilities

    @classmethod
    @contextlib.contextmanager
    def create(
        cls, destination: Path, description: Description, *, overwrite: bool = False
    ) -> Iterator[Draft]:
        """Make a bundle; it appears at `destination` complete when the block ends, else not at all.

        Parameters
        ----------
        destination : Path
            Folder to make.
        description : Description
        overwrite : bool
            Replace an older bundle there. A folder that holds anything beside it is never replaced.

        Yields
        ------
        Draft
            Save the graph at its ``graph_prefix``, then call its ``accept``.

        Raises
        ------
        SetupError
            `destination` is taken, holds files of others, or cannot be written.
        """
        taken = destination.is_dir() and any(destination.iterdir())
        if taken and not (destination / _DESCRIPTION).is_file():
            raise SetupError(
                f"{destination} is not empty and not a bundle", hint="name a new folder for the bundle"
            )
        if taken and (foreign := sorted(_names(destination) - {*_REQUIRED, _CHECKSUMS})):
            raise SetupError(
                f"{destination} holds files that do not belong to the bundle: {', '.join(foreign)}",
                hint="move them elsewhere, or name a new folder; a bundle is replaced as a whole",
            )
        with new_folder(destination, overwrite=overwrite) as folder:
            yield Draft(folder, description)
            # Every block that did not raise must have come through `accept`, which writes the description.
            missing = [name for name in _REQUIRED if not (folder / name).is_file()]
            if missing:
                raise RuntimeError(f"the bundle was not finished: {', '.join(missing)} missing")
            lines = [f"{sha256(folder / name)}  {name}" for name in sorted(_files(folder))]
            write_text(folder / _CHECKSUMS, "\n".join(lines) + "\n")

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a bundle and check every byte of it.

        Raises
        ------
        ModelError
            Not a bundle, of another version, or a file is changed, missing, not listed or a link.
        """
        if not (path / _DESCRIPTION).is_file():
            raise ModelError(
                f"{path} is not a bundle ({_DESCRIPTION} is not there)",
                hint="give the folder that `medseg export` wrote, not the run or one of its files",
            )
        digest = _verify(path)
        try:
            content = json.loads((path / _DESCRIPTION).read_text(encoding="utf-8"))
            version = content["version"]
            known = from_json(content) if version in READ_VERSIONS else None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, MedsegError) as error:
            raise ModelError(
                f"{path / _DESCRIPTION} is not readable ({type(error).__name__}: {error})", hint=_AGAIN
            ) from error
        if known is None:
            raise ModelError(
                f"{path} is a bundle of version {version}, this program reads versions"
                f" {' and '.join(map(str, READ_VERSIONS))}",
                hint="export the run again with this program, or use the program that made the bundle",
            )
        missing = [name for name in _REQUIRED if not (path / name).is_file()]
        if missing:
            raise ModelError(f"{path} lacks {', '.join(missing)}", hint=_AGAIN)
        return cls(path, digest, *known)


_AGAIN = "copy the whole bundle again from its source, or export the run again"


def _array(path: Path) -> NDArray[Any]:
    try:
        # Mapped first: no more memory is taken than the file holds, whatever its header says.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray) and found.dtype.kind in "fiu":
            return np.array(found)
        problem = "no array of numbers"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        problem = str(error)
    raise ModelError(f"{path} cannot be read: {problem}", hint=_AGAIN)


def _files(folder: Path) -> set[str]:
    """Names of all files below `folder` but the checksums, relative, with ``/``; links are refused."""
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ModelError(
                f"{folder}: '{name}' is a link or a special file, a bundle holds plain files",
                hint="copy the bundle with its files (for example `cp -rL`)",
            )
        if path.is_file() and name != _CHECKSUMS:
            found.add(name)
    return found


def _names(folder: Path) -> set[str]:
    """Names of everything below `folder` but folders, relative, with ``/``."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _verify(folder: Path) -> str:
    """Check all files against the checksums; the bundle's id."""
    present = _files(folder)
    try:
        sums = (folder / _CHECKSUMS).read_bytes()
        expected = _checksums(sums.decode("utf-8"), folder)
        if missing := sorted(expected.keys() - present):
            raise ModelError(f"{folder} lacks {', '.join(missing)}", hint=_AGAIN)
        if extra := sorted(present - expected.keys()):
            raise ModelError(
                f"{folder} holds files that do not belong to the bundle: {', '.join(extra)}",
                hint="move them elsewhere; a bundle is used as it was exported",
            )
        if changed := sorted(name for name, digest in expected.items() if sha256(folder / name) != digest):
            raise ModelError(f"{folder}: {', '.join(changed)} changed since the export", hint=_AGAIN)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder} cannot be read: {error}", hint=_AGAIN) from error
    return hashlib.sha256(sums).hexdigest()[:16]


def _checksums(text: str, folder: Path) -> dict[str, str]:
    expected: dict[str, str] = {}
    for line in text.splitlines():
        match = _CHECKSUM_LINE.fullmatch(line)
        name = match[2] if match else ""
        parts = PurePosixPath(name).parts
        if not match or name.startswith("/") or "\\" in name or ".." in parts or name in expected:
            raise ModelError(f"{folder / _CHECKSUMS}: line '{line[:120]}' is not valid", hint=_AGAIN)
        expected[name] = match[1]
    return expected
