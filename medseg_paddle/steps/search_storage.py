"""Where a search keeps its study: a database, a journal on a disk, or a Redis server."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import (
    BaseJournalBackend,
    JournalFileBackend,
    JournalFileOpenLock,
    JournalRedisBackend,
)

from medseg_paddle.errors import SetupError
from medseg_paddle.steps.provenance import without_passwords

_DATABASE = "search.db"
_PATIENCE = 60  # seconds that one process waits for another one's writing of search.db
_JOURNAL = "journal://"
_REDIS = ("redis://", "rediss://")
_FIRST = b'{"op_code":'  # how each line of a journal begins


def open_storage(storage: str | None, folder: Path) -> BaseStorage:
    """Open what a search is kept in, or make it.

    Parameters
    ----------
    storage : str or None
        ``journal:///`` and the path of a file, ``redis://`` (with TLS ``rediss://``), or the URL of a database as
        SQLAlchemy takes it. A database in `folder` where None.
    folder : Path
        Of the search.

    Raises
    ------
    SetupError
        It needs a package that is not installed, or cannot be used. See :func:`storage_errors` for the rest.
    """
    if storage is not None and storage.startswith(_JOURNAL):
        return JournalStorage(_journal(storage.removeprefix(_JOURNAL)))
    if storage is not None and storage.startswith(_REDIS):
        return JournalStorage(_redis(storage))
    return _database(storage, folder)


@contextlib.contextmanager
def storage_errors(storage: str | None) -> Iterator[None]:
    """Say what is wrong with a storage without its password; keep Optuna's remarks on its own options to it.

    Raises
    ------
    SetupError
        The storage cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        cause = getattr(error, "orig", None) or error
        reason = without_passwords(next(iter(str(cause).splitlines()), ""))
        raise SetupError(
            f"{_shown(storage)} cannot be used ({type(cause).__name__}: {reason})",
            hint="check --storage, its server, disk and rights; then call again, and the search goes on",
        ) from None


class _JournalFailed(optuna.exceptions.StorageInternalError):
    """A journal cannot be read or written; `orig` says why."""

    def __init__(self, orig: Exception) -> None:
        super().__init__(str(orig))
        self.orig = orig


class _Journal(BaseJournalBackend):
    """A journal of Optuna's, whose errors are those of a storage.

    It offers no snapshots: those of Redis are pickles, which run what whoever reaches the server put there.
    """

    def __init__(self, backend: BaseJournalBackend, errors: tuple[type[Exception], ...]) -> None:
        self._backend = backend
        self._errors = errors

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        with self._told():
            yield from self._backend.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._told():
            self._backend.append_logs(logs)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise _JournalFailed(error) from error


class _Lock(JournalFileOpenLock):
    """A file that only one can make: network disks agree on that (NFS from version 3 on, SMB), not always on locks.

    Optuna takes away after 30 s one that a killed process has left.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        """Wait for the lock, and cut off the half line of a process that was killed, or had no room, amid it."""
        super().acquire()
        try:
            with self._path.open("rb+") as stream:
                end = stream.seek(0, os.SEEK_END)
                if end and _last_byte(stream) != b"\n":
                    stream.seek(0)
                    stream.truncate(stream.read().rfind(b"\n") + 1)
        except BaseException:
            self.release()
            raise
        return True


def _last_byte(stream: BinaryIO) -> bytes:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1)


def _journal(name: str) -> _Journal:
    path = Path(name)
    if not path.is_absolute() or path.is_dir():
        raise SetupError(
            f"{_JOURNAL}{name} names no file by its whole path",
            hint=f"write three slashes in all, such as {_JOURNAL}/mnt/shared/search.log",
        )
    try:
        with path.open("ab+") as stream:
            stream.seek(0)
            first = stream.readline()
        if first and not first.startswith(_FIRST):
            raise SetupError(
                f"{path} is no journal of Optuna", hint="name another file, or one that is not there yet"
            )
        backend = JournalFileBackend(name, lock_obj=_Lock(path))
    except OSError as error:
        raise _JournalFailed(error) from error
    return _Journal(backend, (OSError, ValueError, RuntimeError))  # ValueError: a line that is no JSON


def _redis(url: str) -> _Journal:
    try:
        failure = importlib.import_module("redis").RedisError
    except ImportError as error:
        raise SetupError(
            f"{_shown(url)} needs the Python package redis", hint="install it: pip install redis"
        ) from error
    try:
        return _Journal(JournalRedisBackend(url), (failure, OSError, ValueError))
    except ValueError:  # its text may hold a part of the password
        raise SetupError(
            f"{_shown(url)} has an address that cannot be read",
            hint="write redis://host:6379/0, with %XX for special characters in a password",
        ) from None


def _database(storage: str | None, folder: Path) -> RDBStorage:
    url = storage
    # Hours may lie between two questions to a server, which ends connections that say nothing.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url is None:
        url = sqlalchemy.URL.create("sqlite", database=str((folder / _DATABASE).resolve())).render_as_string()
        options["connect_args"] = {"timeout": _PATIENCE}
    try:
        return RDBStorage(url, engine_kwargs=options)
    except (RuntimeError, TypeError) as error:
        # Tables of another version; options that the driver does not know.
        raise SetupError(
            f"{_shown(storage)} cannot be used ({without_passwords(str(error))})",
            hint="name a database of this version of Optuna, and options that its driver knows",
        ) from None
    except ImportError as error:
        raise SetupError(
            f"{_shown(storage)} needs a Python driver: {error.__cause__ or error}",
            hint="install the driver that SQLAlchemy names for it, such as psycopg2-binary or pymysql",
        ) from error


def _shown(storage: str | None) -> str:
    if storage is None:
        return f"the search's database {_DATABASE}"
    if storage.startswith(_JOURNAL):
        return f"the journal {storage.removeprefix(_JOURNAL)}"
    try:
        return f"the database {without_passwords(str(sqlalchemy.make_url(storage)))}"
    except (sqlalchemy.exc.SQLAlchemyError, ValueError):
        return "the database of --storage"  # what is no URL may hold a password, too
