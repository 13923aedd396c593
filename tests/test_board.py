"""The dashboard: a real VisualDL server, looked at with a real browser."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from medseg_paddle.engine.dashboard import Dashboard
from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.steps.board import serve


@pytest.fixture
def runs(finished_runs) -> Path:
    """Two finished trainings."""
    return finished_runs


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url_port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", url_port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_page_shows_the_curve_in_a_browser_and_asks_nobody_outside(runs, port, dashboard_page):
    with serve(runs, port=port) as (url, _):
        page = dashboard_page(f"{url}/app/scalar")
    assert "Train/loss" in page.drawn
    assert page.coloured_pixels > 200
    assert "runs0/first" in page.text
    assert "runs0/second" in page.text
    assert any("/api/scalar" in address for address in page.asked)
    assert [a for a in page.asked if a.startswith(("http", "ws")) and not a.startswith(f"{url}/")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_command_prints_the_url_and_leaves_no_orphan(runs, port, number):
    command = [sys.executable, "-m", "medseg_paddle", "board", str(runs), "--port", str(port)]
    board = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert f"http://127.0.0.1:{port}" in board.stdout.readline()
        assert get(port, "/app/api/runs")[0] == 200
        servers = psutil.Process(board.pid).children(recursive=True)
        assert servers
        board.send_signal(number)
        rest, _ = board.communicate(timeout=20)
    finally:
        board.kill()
    assert board.returncode == 0
    assert "Traceback" not in rest
    assert not [server for server in servers if server.is_running()]


def test_a_server_that_listens_everywhere_names_an_address_to_open(runs, port):
    with serve(runs, host="0.0.0.0", port=port) as (url, _):
        assert url == f"http://127.0.0.1:{port}"


def test_signal_during_start_also_ends_the_server(runs, port):
    command = [sys.executable, "-m", "medseg_paddle", "board", str(runs), "--port", str(port)]
    board = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 30
    while not (servers := psutil.Process(board.pid).children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.02)
    board.send_signal(signal.SIGTERM)
    assert board.wait(20) == 0
    assert servers
    assert not [server for server in servers if server.is_running()]


def test_tags_of_both_runs_are_served_to_a_client_without_a_language(runs, port):
    with serve(runs, port=port):
        status, body = get(port, "/app/api/scalar/tags")
        assert get(port, "/app/index")[0] == 200
    assert status == 200
    assert body.count(b'"Train/loss"') == 2
    assert b"Validation/Dice disc" in body


@pytest.fixture
def waiting(tmp_path, port):
    """A board on an empty folder ``runs``, started by the command with ``--wait``."""
    folder = tmp_path / "runs"
    folder.mkdir()
    command = [sys.executable, "-m", "medseg_paddle", "board", str(folder), "--port", str(port), "--wait"]
    board = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert f"waits for a first training beneath {folder}" in board.stdout.readline()
        yield folder
        assert board.poll() is None
    finally:
        board.terminate()
        assert board.wait(20) == 0


def losses(url_port: int, run: str) -> list[float] | None:
    """A run's curve as the server tells it; None where it has none, or is being started again."""
    try:
        _, body = get(url_port, f"/app/api/scalar/list?run={run}&tag=Train%2Floss")
    except OSError:
        return None
    return (points := json.loads(body)["data"]) and [value for _, _, value in points]


def runs_shown(url_port: int) -> list[str]:
    return json.loads(get(url_port, "/app/api/runs")[1])["data"]


def seconds_until(there, limit: float) -> float:
    started = time.monotonic()
    while not there():
        assert time.monotonic() - started < limit
        time.sleep(0.2)
    return time.monotonic() - started


def test_board_follows_trainings_that_start_grow_and_are_replaced(waiting, port):
    assert runs_shown(port) == []
    first, second = (Dashboard(waiting / name, 1, ()) for name in ("first", "second"))
    for dashboard in (first, second):
        dashboard.scalar("Train/loss", 0.5, 1)
        dashboard.close()
    # what an open page asks for: which curves there are, then their points
    assert seconds_until(lambda: b"Train/loss" in get(port, "/app/api/scalar/tags")[1], 10) < 5
    assert losses(port, "runs/first") == [0.5]
    assert seconds_until(lambda: sorted(runs_shown(port)) == ["runs/first", "runs/second"], 10) < 5
    first.scalar("Train/loss", 0.25, 2)
    assert seconds_until(lambda: losses(port, "runs/first") == [0.5, 0.25], 10) < 5
    # VisualDL alone answers nothing any more where a run is gone, and garbage where it is another one.
    shutil.rmtree(waiting / "second")
    shutil.rmtree(waiting / "first")
    anew = Dashboard(waiting / "first", 1, ())
    anew.scalar("Train/loss", 0.125, 1)
    anew.close()
    seconds_until(lambda: losses(port, "runs/first") == [0.125], 20)
    assert runs_shown(port) == ["runs/first"]


def test_folder_without_events_is_refused(tmp_path, port):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="no event files") as caught, serve(tmp_path, port=port):
        pass
    assert "medseg train" in caught.value.hint
    assert "--wait" in caught.value.hint
    for wait in (False, True):
        with (
            pytest.raises(DataError, match="not a folder"),
            serve(tmp_path / "absent", port=port, wait=wait),
        ):
            pass


def test_port_in_use_is_refused(runs):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {taken}") as caught, serve(runs, port=taken):
            pass
    assert "--port" in caught.value.hint


def test_foreign_address_is_refused(runs, port):
    with pytest.raises(SetupError, match=r"192\.0\.2\.1"), serve(runs, host="192.0.2.1", port=port):
        pass


def test_server_that_dies_is_reported_with_its_last_words(runs, port, monkeypatch):
    monkeypatch.setattr("medseg_paddle.steps.board._SERVER", ("-c", "raise SystemExit('no such library')"))
    with pytest.raises(SetupError, match="no such library"), serve(runs, port=port):
        pass


def test_proxy_of_the_environment_is_not_asked(runs, port, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")
    with serve(runs, port=port) as (_, server):
        assert server.poll() is None
    assert server.poll() is not None
