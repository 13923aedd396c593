"""The dashboard: a real VisualDL server, looked at with a real browser."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from medseg_paddle.errors import DataError, SetupError
from medseg_paddle.steps.board import serve

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


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


def test_page_shows_the_curve_in_a_browser_and_asks_nobody_outside(runs, port, tmp_path):
    if not (Path(CHROMIUM).exists() and Path(DRIVER).exists()):
        pytest.skip("Debian's chromium and chromium-driver are not installed (.ci/run installs them)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--window-size=1400,900",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with serve(runs, port=port) as (url, _):
        browser = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NOTE_DRAWN_TEXT})
            browser.get(f"{url}/app/scalar")
            WebDriverWait(browser, 60).until(lambda b: "Train/loss" in b.execute_script("return drawnText"))
            # a chart is drawn where the canvas holds curves in colour, not only grey axes and white
            WebDriverWait(browser, 60).until(lambda b: b.execute_script(COLOURED_PIXELS) > 200)
            text = browser.find_element(By.TAG_NAME, "body").text
            assert "runs0/first" in text
            assert "runs0/second" in text
            events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
            asked = {
                e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
            }
        finally:
            browser.quit()
    assert any("/api/scalar" in address for address in asked)
    assert [a for a in asked if a.startswith(("http", "ws")) and not a.startswith(f"{url}/")] == []


# The name of a curve is painted on its canvas, not written in the page.
NOTE_DRAWN_TEXT = """
var drawnText = [];
const fillText = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
    drawnText.push(String(text));
    return fillText.call(this, text, ...where);
};
"""

COLOURED_PIXELS = """
let coloured = 0;
for (const canvas of document.querySelectorAll('canvas')) {
    if (!canvas.width || !canvas.height) continue;
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < pixels.length; i += 4) {
        const [r, g, b, a] = pixels.slice(i, i + 4);
        if (a > 0 && Math.max(r, g, b) - Math.min(r, g, b) > 60) coloured += 1;
    }
}
return coloured;
"""


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


def test_folder_without_events_is_refused(tmp_path, port):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="no event files") as caught, serve(tmp_path, port=port):
        pass
    assert "medseg train" in caught.value.hint
    with pytest.raises(DataError, match="not a folder"), serve(tmp_path / "absent", port=port):
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
