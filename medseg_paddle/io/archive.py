"""Zip archives, unpacked under names of our own: runs in the child process of `io.isolated`."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medseg_paddle.errors import DataError, MedsegError
from medseg_paddle.io.isolated import Job, run_isolated

# Of all files in an archive; a study of 2000 slices has 1 GiB.
MOST_UNPACKED = 4 * 2**30
_MOST_MEMBERS = 50_000
_BLOCK = 1 << 20
_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".ima", ".dicom")
_UNPACKED = rf"\d{{6}}(?:{'|'.join(map(re.escape, _SUFFIXES))})?"  # what a file is called


ZIP_SUFFIX = ".zip"


@dataclass(frozen=True)
class Archive:
    """A zip archive whose files were unpacked.

    Attributes
    ----------
    path : Path
    names : mapping
        Name in the archive of each file that was written.
    """

    path: Path
    names: Mapping[Path, str]

    def named(self, text: str) -> str:
        """A text for people, with the names of the archive in place of those that its files were unpacked to."""
        folder = next((path.parent for path in self.names), Path())

        def name(found: re.Match[str]) -> str:
            inside = self.names.get(Path(found[0]))
            return found[0] if inside is None else f"{self.path}: {inside}"

        return re.sub(re.escape(f"{folder}/") + _UNPACKED, name, text)

    def of(self, error: MedsegError) -> MedsegError:
        """The same error, with the names of the archive."""
        return type(error)(self.named(error.message), hint=self.named(error.hint))


def unpack_zip(path: Path, folder: Path) -> Archive:
    """Unpack a zip archive's files into a folder, under numbers.

    Folders, hidden files, links and what a Mac adds (``__MACOSX``) are passed over.

    Raises
    ------
    DataError
        No zip archive, damaged, encrypted, or of more than 4 GiB.
    """
    arguments = {"path": str(path), "folder": str(folder)}
    answer = run_isolated("medseg_paddle.io.archive:unpack", arguments)
    with answer.values:
        return Archive(path, {folder / written: str(name) for written, name in answer.result.items()})


def unpack(job: Job, path: str, folder: str) -> dict[str, str]:
    """In the child: see :func:`unpack_zip`; the keys are names in `folder`."""
    job.at(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if _is_plain(one)]
            total = sum(one.file_size for one in members)
            if total > MOST_UNPACKED or len(members) > _MOST_MEMBERS:
                raise _too_large(path, f"{len(members):,} files of {total:,} bytes")
            written, left = {}, MOST_UNPACKED
            for number, member in enumerate(members):
                suffix = next((one for one in _SUFFIXES if member.filename.lower().endswith(one)), "")
                name = f"{number:06d}{suffix}"
                left -= _copy(job, archive, member, Path(folder) / name, left)
                written[name] = member.filename
            return written
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{path} is no zip archive that can be read ({error})",
            hint="copy the file again from its source, or unpack it yourself (encrypted archives are not read)",
        ) from error


def _is_plain(member: zipfile.ZipInfo) -> bool:
    parts = [part for part in member.filename.replace("\\", "/").split("/") if part]
    kind = stat.S_IFMT(member.external_attr >> 16)
    return not (
        member.is_dir()
        or not parts
        or parts[-1].startswith(".")
        or "__MACOSX" in parts
        or kind not in (0, stat.S_IFREG)
    )


def _copy(job: Job, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Unpack one file; how many bytes it has. What an archive declares is not believed."""
    total = 0
    with archive.open(member) as source, target.open("xb") as sink:
        while block := source.read(_BLOCK):
            job.goes_on()
            total += len(block)
            if total > left:
                raise _too_large(archive.filename or "", f"more than {MOST_UNPACKED:,} bytes")
            sink.write(block)
    return total


def _too_large(path: str, what: str) -> DataError:
    return DataError(
        f"{path} unpacks to {what}; up to {_MOST_MEMBERS:,} files and {MOST_UNPACKED:,} bytes are read",
        hint="unpack it yourself if it should be so large, and name the folder",
    )
