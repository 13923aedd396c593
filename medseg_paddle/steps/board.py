"""Show the curves of runs in a browser: VisualDL's server as a child process."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from medseg_paddle.errors import DataError, SetupError

_EVENT_FILE = "vdlrecords"  # VisualDL takes every file for one with this in its name
# The package has no __main__; `del sys.path[0]`: modules that lie in the folder it starts in are not ours.
# `--language en`: without it 2.5.3 answers 500 to a client that sends no Accept-Language. Telemetry would
# post to its makers from a thread. `--cache-timeout`: answers are at most so many seconds old (20 as it comes,
# and 0 would be for ever); the page itself asks every 15.
_START = "import sys; del sys.path[0]; from visualdl.server.app import main; main()"
_SERVER = ("-c", _START, "--disable-telemetry", "--language", "en", "--cache-timeout", "2")
# The one answer that is never kept and reads all event files; the list of curves, which the page asks for,
# tells only of what was read before (2.5.3).
_READ_ALL = "/app/api/component_tabs"
_LOOK_SECONDS = 1.0
_HEAD_BYTES = 256
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared with, not bound to)


def board(
    output: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8040,
    wait: bool = False,
    announce: Callable[[str, bool], None] = lambda _url, _waiting: None,
) -> None:
    """Serve the dashboard until Ctrl-C or SIGTERM; then end the server and return.

    Runs that appear and grow are shown within seconds. Where one is removed or replaced, the server is started
    again: VisualDL 2.5.3 never lets go of a file that it has read, and fails on all runs without it
    (`test_board_follows_trainings_that_start_grow_and_are_replaced`).

    Parameters
    ----------
    output : Path
        A run folder, or a folder of runs that are compared.
    host, port
        Where to listen.
    wait : bool
        Start without a run, too, and show the first one that comes.
    announce : callable
        Called once the server answers, with the URL and whether there is no run yet.

    Raises
    ------
    DataError
        `output` is no folder; no event files below it, and `wait` is false.
    SetupError
        The port is taken, or the server does not start.
    """
    stop = threading.Event()
    announced = False
    with _signals_set(stop):
        while not stop.is_set():
            known = _EventFile.all_below(output)
            with serve(output, host=host, port=port, wait=wait, stop=stop) as (url, server):
                if not (announced or stop.is_set()):
                    announce(url, not known)
                _watch(output, known, server, stop, partial(_ask, host, port, _READ_ALL))
            announced = wait = True  # a run was there, and all may have been removed since
            while not output.is_dir() and not stop.wait(0.2):
                pass  # a run folder that a training writes anew


@dataclass(frozen=True)
class _EventFile:
    """What tells that an event file has grown, or is another one under the same name."""

    head: bytes  # when it was begun is in it
    size: int

    @classmethod
    def all_below(cls, folder: Path) -> dict[Path, _EventFile]:
        found = {}
        for root, _, names in os.walk(folder, followlinks=True):  # as VisualDL does
            for path in (Path(root, name) for name in names if _EVENT_FILE in name):
                with contextlib.suppress(OSError), path.open("rb") as stream:  # may go while we look
                    found[path] = cls(stream.read(_HEAD_BYTES), os.fstat(stream.fileno()).st_size)
        return found


def _watch(
    output: Path,
    known: dict[Path, _EventFile],
    server: subprocess.Popen[bytes],
    stop: threading.Event,
    read_all: Callable[[], object],
) -> None:
    """Let the server read what is new, until `stop` is set or a file it may have read is not what it was."""
    next_look = time.monotonic() + _LOOK_SECONDS
    while not stop.wait(0.2):
        if server.poll() is not None:
            raise SetupError(
                f"the dashboard's server ended by itself (exit code {server.returncode})",
                hint="start it again",
            )
        if (started := time.monotonic()) < next_look:
            continue
        found = _EventFile.all_below(output)
        took = time.monotonic() - started
        if any(path not in found or not found[path].head.startswith(old.head) for path, old in known.items()):
            return
        if found != known:
            read_all()
        known = found
        next_look = time.monotonic() + max(_LOOK_SECONDS, 20 * took)  # many files on a slow disk


@contextlib.contextmanager
def serve(
    output: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8040,
    wait: bool = False,
    stop: threading.Event | None = None,
    timeout: float = 90,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start the server; yield its URL and process once it answers, or once `stop` is set; end it on leaving.

    Raises
    ------
    DataError, SetupError
        As :func:`board`.
    """
    _require_folder(output)
    if not wait:
        _require_events(output)
    _require_free(host, port)
    folder = output.resolve()
    command = [sys.executable, *_SERVER, "--logdir", folder.name, "--host", host, "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        # A session of its own: Ctrl-C reaches us alone, and we end the server. Started beside the folder,
        # since the page names runs by the path as given.
        server = subprocess.Popen(
            command,
            cwd=folder.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_alive(server, log, host, port, stop or threading.Event(), timeout)
            here = _EVERYWHERE.get(host, host)  # an address that a browser can open
            shown = f"[{here}]" if ":" in here else here
            yield f"http://{shown}:{port}", server
        finally:
            _end(server)


def _require_folder(output: Path) -> None:
    if not output.is_dir():
        raise DataError(
            f"{output} is not a folder", hint="give a run folder, or the folder that holds your runs"
        )


def _require_events(output: Path) -> None:
    if not _EventFile.all_below(output):
        raise DataError(
            f"no event files (vdlrecords.*.log) below {output}",
            hint="give a run folder written by `medseg train`, or the folder that holds your runs; "
            "--wait starts without",
        )


def _require_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise SetupError(
            f"'{host}' is no address of this machine", hint="use --host 127.0.0.1 or 0.0.0.0"
        ) from None
    except OSError as error:
        raise SetupError(
            f"cannot listen on {host} port {port}: {error.strerror.lower() if error.strerror else error}",
            hint=f"name another port, for example --port {port % 65535 + 1}, or check --host",
        ) from None


def _wait_until_alive(
    server: subprocess.Popen[bytes],
    log: IO[bytes],
    host: str,
    port: int,
    stop: threading.Event,
    timeout: float,
) -> None:
    deadline = time.monotonic() + timeout
    while not stop.wait(0.1):
        if _ask(host, port, "/alive"):
            return
        if server.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            last = (log.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            what = (
                "does not answer"
                if server.returncode is None
                else f"ended with exit code {server.returncode}"
            )
            raise SetupError(f"the dashboard's server {what}: {last}", hint="run `medseg doctor`")


def _ask(host: str, port: int, path: str) -> bool:
    """Ask the server for a page; tell whether it answered well."""
    # http.client and not urllib: a proxy set in the environment must not be asked for this machine
    connection = http.client.HTTPConnection(_EVERYWHERE.get(host, host), port, timeout=5)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@contextlib.contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal set `stop`, as long as this lasts."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, lambda *_: stop.set())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
