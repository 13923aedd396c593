"""Work on files that nobody vouches for, in a process that may die.

Decoders of DICOM are large, old and partly written in C; a forged file makes them take gigabytes, loop or
crash. So headers are parsed and pixels decoded by a child process with a limit on its memory and on its time. Its
death becomes an error that names the file. One child serves all calls of this process, since it takes half a
second to start; it is replaced after it died, ran out of memory or grew.

What comes back is JSON, and arrays in a temporary file without a name: nothing that the child says is
executed or unpickled here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.io.files import disk_is_full, free_space, temporary_file

# What a child may take beyond what its libraries do.
MEMORY = 640 * 2**20
# For one file, or one frame of it; a slice takes milliseconds, the header of a large multi-frame object seconds.
SECONDS = 60

_GROWTH = 160 * 2**20  # of a child, after which the next call gets a new one
_LENGTH = struct.Struct("<Q")
_LONGEST_ANSWER = 2**28
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from medseg_paddle.io.isolated import serve; serve(int(sys.argv[2]))"
)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a child found.

    Attributes
    ----------
    result : Any
        JSON values.
    values : file
        The bytes that it wrote, a temporary file without a name; closed by whoever asked.
    """

    result: Any
    values: IO[bytes]


class Job:
    """The child's side of a call: where to put arrays, and on what it is at work."""

    def __init__(self, connection: socket.socket, sink: IO[bytes]) -> None:
        self._connection = connection
        self.sink = sink
        self.subject = "the file"

    def at(self, path: Path | str) -> None:
        """Say which file the next `SECONDS` are spent on."""
        self.subject = str(path)
        signal.alarm(SECONDS)
        _send(self._connection, {"at": self.subject})

    def goes_on(self) -> None:
        """Begin another `SECONDS` on the same file: it moves forward."""
        signal.alarm(SECONDS)


def run_isolated(function: str, arguments: Mapping[str, Any]) -> Answer:
    """Call a function in the child process.

    Parameters
    ----------
    function : str
        ``"module:name"``; the module need not be loaded here. Its first parameter is a :class:`Job`, the others
        are `arguments`; it returns JSON values.
    arguments : mapping
        JSON values.

    Raises
    ------
    DataError
        That the function raised; or the child died, took too long, or too much memory.
    SetupError
        No child can be started, or the temporary folder is full.
    """
    sink = temporary_file()
    try:
        with _lock:
            return Answer(_result(_asked({"function": function, "arguments": arguments}, sink)), sink)
    except BaseException:
        sink.close()
        raise


def begin() -> None:
    """Start the child process if there is none, and do not wait for it: it loads while other work is done."""
    with _lock:
        _child()


class _Child:
    """A process that serves calls, one at a time."""

    def __init__(self) -> None:
        here, there = socket.socketpair()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            with there:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START, json.dumps(sys.path), str(there.fileno())],
                    pass_fds=[there.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is ours to handle
                )
        except OSError as error:
            here.close()
            raise SetupError(
                f"no process can be started to read files in ({error.strerror or error})",
                hint="check the limits on processes and memory (ulimit -a)",
            ) from error
        self._connection = here

    def ask(self, request: Mapping[str, Any], sink: IO[bytes]) -> dict[str, Any]:
        """Send a request; its answer, or a DataError that says of what the child died."""
        at = ""
        try:
            socket.send_fds(self._connection, [b"\0"], [sink.fileno()])
            _send(self._connection, request)
            while "at" in (message := _receive(self._connection)):
                at = str(message["at"])
        except (OSError, EOFError, ValueError) as error:
            raise _death(at, self.end()) from error
        return message

    def end(self) -> int:
        """Kill the process if it lives; its exit status."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=1)  # one that died is not killed again: its status tells why
        self._process.kill()
        return self._process.wait()

    def leave(self) -> None:
        """Have nothing to do with the process any more, which is another one's child."""
        self._connection.close()
        self._process.returncode = 0


_lock = threading.Lock()
_children: list[_Child] = []  # none or one


@functools.cache
def _forget_when_forked() -> None:
    """A forked process has no part in its parent's child, nor in a lock that another thread held."""

    def forget() -> None:
        global _lock  # noqa: PLW0603  (state of this process alone)
        _lock = threading.Lock()
        for child in _children:
            child.leave()
        _children.clear()

    os.register_at_fork(after_in_child=forget)


def _child() -> _Child:
    if not _children:
        _forget_when_forked()
        _children.append(_Child())
    return _children[0]


def _asked(request: Mapping[str, Any], sink: IO[bytes]) -> dict[str, Any]:
    """Answer of the one child to a request; it is ended where it is not to serve again."""
    child = _child()
    fit = False
    try:
        answer = child.ask(request, sink)
        fit = not answer.get("tired")
    finally:
        if not fit:
            _children.clear()
            child.end()
    return answer


def _result(answer: Mapping[str, Any]) -> Any:
    if "result" in answer:
        return answer["result"]
    kind = SetupError if answer.get("kind") == "SetupError" else DataError
    raise kind(str(answer.get("message")), hint=str(answer.get("hint")))


def _death(at: str, status: int) -> DataError:
    name = at or "the file"
    if status == -signal.SIGALRM:
        return DataError(
            f"{name} takes more than {SECONDS} seconds to read; it is damaged, or made to do harm",
            hint="copy the file again from its source, or leave it out",
        )
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return DataError(
        f"{name} crashed the process that read it ({how}); it is damaged, or made to do harm",
        hint="copy the file again from its source, or leave it out",
    )


# The child's side.


def serve(descriptor: int) -> None:
    """Serve calls from the other end of a socket until it closes."""
    importlib.import_module(
        "medseg_paddle.io.dicom_pixels"
    )  # what nearly every call needs, while none is there yet
    connection = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills, in the midst of C code too
    bases: dict[str, int] = {}
    while True:
        mark, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not mark:
            return
        with open(descriptors[0], "wb") as sink:  # noqa: PTH123  (a descriptor, not a path)
            answer = _answer(Job(connection, sink), _receive(connection), bases)
        signal.alarm(0)
        _send(connection, answer)


def _answer(job: Job, request: Mapping[str, Any], bases: dict[str, int]) -> dict[str, Any]:
    module, _, name = str(request["function"]).partition(":")
    function = getattr(importlib.import_module(module), name)
    base = bases.setdefault(module, _virtual_memory())
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY, resource.RLIM_INFINITY))
    answer: dict[str, Any]
    fit = True
    try:
        answer = {"result": function(job, **request["arguments"])}
        job.sink.flush()
    except (DataError, SetupError) as error:
        answer = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    except MemoryError:
        answer, fit = _memory_short(job), False
    except BaseException as error:  # noqa: BLE001  (a Rust panic is no Exception; whatever it is, it is told)
        answer, fit = _unforeseen(error, job), False
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    answer["tired"] = not fit or _virtual_memory() > base + _GROWTH
    return answer


def _memory_short(job: Job) -> dict[str, Any]:
    return {
        "message": f"{job.subject} takes more than {MEMORY >> 20} MiB of memory to read; "
        "it is damaged, or made to do harm",
        "hint": "copy the file again from its source, or leave it out",
    }


def _unforeseen(error: BaseException, job: Job) -> dict[str, Any]:
    if isinstance(error, OSError) and disk_is_full(error):
        folder = tempfile.gettempdir()
        return {
            "kind": "SetupError",
            "message": f"{folder} is full: decoded values go there ({free_space(Path(folder))})",
            "hint": "make room, or set TMPDIR to another folder",
        }
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return {
        "message": f"{job.subject} cannot be read ({type(error).__name__} in {where})",
        "hint": "copy the file again from its source, or leave it out",
    }


def _virtual_memory() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode("ascii")
    connection.sendall(_LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _LONGEST_ANSWER:
        raise ValueError("a message of no sensible length")
    message = json.loads(_exactly(connection, length))
    if not isinstance(message, dict):
        raise ValueError("a message that is none")  # noqa: TRY004  (of a process, not of a caller)
    return message


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        block = connection.recv(min(length - len(data), 1 << 20))
        if not block:
            raise EOFError
        data += block
    return bytes(data)
