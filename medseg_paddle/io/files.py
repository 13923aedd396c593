"""Files and folders that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from medseg_paddle.errors import SetupError

_KEY = ".key"
SHORTER_NAME = "the name of a file or a folder has at most 255 bytes: choose a shorter one"
_LONGEST_NAME = 255  # bytes, on the disks of Linux
_LONGEST_PART = 64  # bytes, for the rest of the name needs room
# What file systems answer that know no locks: Lustre without `-o flock`, some of FUSE, NFS without its lock service.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_locks: set[int] = set()
"""Open descriptors of :func:`locked`."""


class NoLocksError(SetupError):
    """A file system cannot lock files."""


def part_of_name(text: str) -> str:
    """Words of a text as a part of a file's name: letters, digits and ``_``, at most 64 bytes of them."""
    words = re.sub(r"\W+", "_", text).strip("_")
    return words.encode()[:_LONGEST_PART].decode(errors="ignore")


def short_name(name: str, longest: int) -> str:
    """A name of at most `longest` bytes: itself, or its beginning and eight digits that stand for the whole."""
    whole = os.fsencode(name)
    if len(whole) <= longest:
        return name
    digits = hashlib.sha256(whole).hexdigest()[:8]
    return f"{whole[: longest - len(digits) - 1].decode(errors='ignore')}_{digits}"


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with Unix line ends; see :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The bytes go to a temporary name in the same folder (made if missing), are flushed to the disk,
    and the name is then replaced. Without `flush`, that is for many files in a folder that is flushed as a
    whole (:func:`resumable_folder`): nothing waits for the disk.

    Raises
    ------
    SetupError
        The folder cannot be made, cannot be written, or the disk is full.
    """
    # Not tempfile: its files are readable by their owner alone, whatever the umask says.
    with whole_file(path, flush=flush) as temporary, temporary.open("xb") as stream:
        stream.write(data)


@contextlib.contextmanager
def whole_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """As :func:`write_bytes`, for a function that writes to a path.

    Yields
    ------
    Path
        The temporary name to write to.
    """
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if flush:
            sync_file(temporary)
        temporary.replace(path)
        if flush:
            _sync_folder(path.parent)
    except OSError as error:
        raise _not_writable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_file() -> IO[bytes]:
    """A file without a name in the temporary folder (`TMPDIR`), gone when it is closed.

    Raises
    ------
    SetupError
        It cannot be made.
    """
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise SetupError(
            f"no temporary file can be made ({error.strerror or error})", hint="set TMPDIR to another folder"
        ) from error


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False, marker: str | None = None) -> Iterator[Path]:
    """Fill a folder that appears all at once, or not at all.

    Parameters
    ----------
    path : Path
        The folder to make. May exist if it is empty.
    overwrite : bool
        Replace an existing folder; it stays as it is until the new one is complete.
    marker : str, optional
        Replace only a folder that holds a file of this name: one of ours, not something else.

    Yields
    ------
    Path
        A temporary folder beside `path` to write into. It is renamed to `path` when the block ends,
        and removed when the block raises.

    Raises
    ------
    SetupError
        `path` holds something and `overwrite` is false, `path` is a file, or its parent cannot be
        written.
    """
    path = Path(os.path.realpath(path))
    _require_free(path, overwrite=overwrite)
    if marker is not None and path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise SetupError(
            f"{path} holds something else (no {marker} in it) and is not replaced",
            hint="name a new or empty folder",
        )
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        yield temporary
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def resumable_folder(
    path: Path, *, overwrite: bool = False, key: str, discard_on: tuple[type[BaseException], ...] = ()
) -> Iterator[Path]:
    """As :func:`new_folder`, for long work: what was interrupted is there again the next time.

    The files are flushed to the disk all together before the folder appears; those written into it need not
    be flushed one by one.

    Parameters
    ----------
    path : Path
    overwrite : bool
    key : str
        Says what is made. Work that was begun with another key is thrown away.
    discard_on : tuple of exception types
        The work is thrown away where the block raises one of these; after anything else, such as Ctrl-C, a
        killed process or a full disk, it waits for the next time in a hidden folder beside `path`.

    Yields
    ------
    Path
        ``.<name>.partial`` beside `path`, with what was written before, if it was.

    Raises
    ------
    SetupError
        As for :func:`new_folder`; another process is writing it.
    """
    path = Path(os.path.realpath(path))
    _require_free(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.partial")
    begun = partial / _KEY
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        if not _lock(lock, path, wait=False):
            raise SetupError(
                f"{path} is being written by another process", hint="wait for it, or name another folder"
            )
        try:
            if not begun.is_file() or begun.read_text(encoding="utf-8") != key:
                _empty(partial)
                write_text(begun, key)
        except OSError as error:
            raise _not_writable(path, error) from error
        yield partial
        begun.unlink()
        os.sync()
        _swap(partial, path)
    except discard_on:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that ends with this process, however it ends.

    Processes that are forked meanwhile do not hold it. On one machine it also holds between containers that share
    the folder; between machines where the network's file system passes locks on, as NFS does.

    Parameters
    ----------
    path : Path
        A file to lock, made if missing; it stays.
    wait : bool
        Wait for whoever holds it.

    Yields
    ------
    bool
        Whether it is held; false where another process or block holds it and `wait` is false.

    Raises
    ------
    NoLocksError
        The file system has no locks.
    SetupError
        The file cannot be made.
    """
    _let_forks_go()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # NFS locks for one process alone only what is open for writing.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _not_writable(path, error) from error
    _locks.add(descriptor)
    try:
        yield _lock(descriptor, path, wait=wait)
    finally:
        if descriptor in _locks:  # not in a fork that comes by here
            _locks.remove(descriptor)
            os.close(descriptor)


@functools.cache
def _let_forks_go() -> None:
    """Close locked files in forked processes: a lock is there until the last one that has its file open ends."""

    def close() -> None:
        for descriptor in _locks:
            os.close(descriptor)
        _locks.clear()

    os.register_at_fork(after_in_child=close)


def _lock(descriptor: int, path: Path, *, wait: bool) -> bool:
    """Lock what is open; the system unlocks it when this process ends, however it ends. False: another holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _not_writable(path, error) from error
        raise NoLocksError(
            f"the file system of {path.parent} cannot lock files ({error.strerror})",
            hint="mount it with locks, or name a folder on another disk",
        ) from error
    return True


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def require_writable(path: Path) -> None:
    """Make the folder `path` if it is missing and see that a file can be written in it.

    Raises
    ------
    SetupError
        It cannot be made or written.
    """
    probe = _beside(path / "probe")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _not_writable(path, error) from error


def _swap(temporary: Path, path: Path) -> None:
    """Put `temporary` where `path` is; `path` is back in its place if that fails."""
    old = _beside(path)
    try:
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _not_writable(path, error) from error
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    ending = f".{secrets.token_hex(4)}.tmp"
    return path.with_name(f".{short_name(path.name, _LONGEST_NAME - len(ending) - 1)}{ending}")


def sync_file(path: Path) -> None:
    """Flush what a file holds to the disk, so that it is there after a loss of power too."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk; some network file systems cannot, and the rename holds there anyway."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, says that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def free_space(path: Path) -> str:
    """Room on the disk where `path` is or would be, for people."""
    while not path.exists():
        path = path.absolute().parent
    return f"{shutil.disk_usage(path).free / 2**20:,.1f} MiB free"


def _require_free(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise SetupError(f"{path} is a file, a folder is needed there", hint="name another folder")
    if path.is_dir() and not overwrite and any(path.iterdir()):
        raise SetupError(
            f"{path} is there already and not empty", hint="name a new folder, or allow to overwrite"
        )


def _not_writable(path: Path, error: OSError) -> SetupError:
    if disk_is_full(error):
        return SetupError(
            f"{path} cannot be written: {error.strerror} ({free_space(path)})",
            hint="make room, or name another place",
        )
    if isinstance(error, PermissionError):
        return SetupError(
            f"{path} cannot be written by user id {os.geteuid()}: {error.strerror}",
            hint="check the folder's owner and permissions, or name another place; "
            "in a container MEDSEG_UID and MEDSEG_GID in .env choose the user",
        )
    return SetupError(
        f"{path} cannot be written: {error.strerror or error}",
        hint="name another place; in a container only mounted folders can be written",
    )
