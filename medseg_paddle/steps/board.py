"""Show the curves of runs in a browser: VisualDL's server as a child process."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from medseg_paddle.errors import DataError, SetupError

_EVENT_FILES = "**/*vdlrecords*"
# The package has no __main__; `del sys.path[0]`: modules that lie in the folder it starts in are not ours.
# `--language en`: without it 2.5.3 answers 500 to a client that sends no Accept-Language. Telemetry would
# post to its makers from a thread.
_START = "import sys; del sys.path[0]; from visualdl.server.app import main; main()"
_SERVER = ("-c", _START, "--disable-telemetry", "--language", "en")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared with, not bound to)


def board(
    output: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8040,
    announce: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve the dashboard until Ctrl-C or SIGTERM; then end the server and return.

    Parameters
    ----------
    output : Path
        A run folder, or a folder of runs that are compared.
    host, port
        Where to listen.
    announce : callable
        Called with the URL once the server answers.

    Raises
    ------
    DataError
        No event files below `output`.
    SetupError
        The port is taken, or the server does not start.
    """
    stop = threading.Event()
    with _signals_set(stop), serve(output, host=host, port=port, stop=stop) as (url, server):
        if not stop.is_set():
            announce(url)
        while not stop.wait(0.2):
            if server.poll() is not None:
                raise SetupError(
                    f"the dashboard's server ended by itself (exit code {server.returncode})",
                    hint="start it again",
                )


@contextmanager
def serve(
    output: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8040,
    stop: threading.Event | None = None,
    timeout: float = 90,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start the server; yield its URL and process once it answers, or once `stop` is set; end it on leaving.

    Raises
    ------
    DataError, SetupError
        As :func:`board`.
    """
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
            shown = f"[{host}]" if ":" in host else host
            yield f"http://{shown}:{port}", server
        finally:
            _end(server)


def _require_events(output: Path) -> None:
    if not output.is_dir():
        raise DataError(
            f"{output} is not a folder", hint="give a run folder, or the folder that holds your runs"
        )
    if next(output.glob(_EVENT_FILES), None) is None:
        raise DataError(
            f"no event files (vdlrecords.*.log) below {output}",
            hint="give a run folder written by `medseg train`, or the folder that holds your runs",
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
        if _answers(_EVERYWHERE.get(host, host), port):
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


def _answers(host: str, port: int) -> bool:
    # http.client and not urllib: a proxy set in the environment must not be asked for this machine
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/alive")
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


@contextmanager
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
