"""The way from nothing to a bundle, by the words of the README. Tests of this file build on each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOKEN = "for-this-test-only"  # noqa: S105

# As the engine's client sets it in every container of a user behind a proxy; nothing listens there.
PROXY = ("-e", "http_proxy=http://127.0.0.1:9", "-e", "HTTP_PROXY=http://127.0.0.1:9")

TINY = """\
_base_: ../unet_medical.yml
name: tiny
model: {width: 4}
batch_size: 2
iters: 12
save_interval: 6
log_iters: 3
model_graph: false
"""


@pytest.fixture(scope="module")
def run(project) -> Path:
    return project.outputs / "unet_medical"


def log(project, service: str) -> str:
    return project.ok("logs", "--no-color", service)


def iteration(project) -> int:
    """How far the training says it is."""
    return max(map(int, re.findall(r"training (\d+)/450", log(project, "train"))), default=0)


def owners(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in [folder, *folder.rglob("*")]}


def test_up_train_with_nothing_configured_trains_the_synthetic_patients(project, run, wait_until, user):
    project.ok("up", "--detach", "train")
    wait_until(lambda: iteration(project) >= 10, 240, "ten iterations")
    assert (project.data / "phantom" / "manifest.json").is_file()
    assert owners(project.data) == {user}


def test_the_curves_show_live_in_a_browser_outside(project, run, wait_until, dashboard_page):
    project.ok("up", "--detach", "--wait", "--wait-timeout", "90", "visualdl")
    address = f"http://127.0.0.1:{project.settings['MEDSEG_BOARD_PORT']}"

    def steps() -> int:
        query = f"{address}/app/api/scalar/list?run=outputs/unet_medical&tag=Train/loss"
        with urllib.request.urlopen(query, timeout=20) as answer:  # noqa: S310
            return len(json.load(answer)["data"] or [])

    first = wait_until(steps, 60, "a curve")
    page = dashboard_page(f"{address}/app/scalar")
    assert "Train/loss" in page.drawn
    assert page.coloured_pixels > 200
    wait_until(lambda: steps() > first, 90, "the curve grows")
    assert f"dashboard: {address}/app/scalar" in log(project, "visualdl")
    healthy = project.config()["services"]["visualdl"]["healthcheck"]["test"][1:]
    project.ok("exec", "--no-TTY", *PROXY, "visualdl", *healthy)


def test_stop_saves_and_up_goes_on(project, run, wait_until, user):
    project.ok("stop", "train", timeout=120)
    stopped_at = max(int(folder.name[5:]) for folder in (run / "checkpoints").glob("iter_*"))
    assert stopped_at >= 10
    assert f"stopped at iteration {stopped_at} of 450" in log(project, "train")
    project.ok("up", "--detach", "train")
    said = f"resuming at iteration {stopped_at}"
    wait_until(lambda: said in log(project, "train"), 90, said)
    wait_until(lambda: iteration(project) >= stopped_at + 10, 120, "ten more")
    assert "is prepared already" in log(project, "prepare")
    project.ok("stop", "train", timeout=120)
    assert owners(run) == {user}
    assert (run / "train.log").is_file()
    assert list(run.glob("vdlrecords*"))


@pytest.fixture(scope="module")
def tiny(project) -> dict[str, str]:
    """Settings for a training of seconds, on the same patients."""
    shutil.copytree(ROOT / "configs", project.folder / "configs")
    (project.folder / "configs" / "own").mkdir()
    (project.folder / "configs" / "own" / "tiny.yml").write_text(TINY)
    return {
        "MEDSEG_CONFIGS": str(project.folder / "configs"),
        "MEDSEG_RECIPE": "configs/own/tiny.yml",
        "MEDSEG_RUN": "tiny",
    }


def test_train_evaluate_export_predict(project, tiny, user):
    run = project.outputs / "tiny"
    project.ok("up", "--abort-on-container-exit", "train", **tiny)
    again = project.ok("up", "--abort-on-container-exit", "train", **tiny)
    assert "12 of 12 iterations" in again
    assert "optic" not in project.ok("run", "--rm", "evaluate", **tiny)
    project.ok("run", "--rm", "export", **tiny)
    patient = project.data / "phantom-cohort" / "PHANTOM-002"
    assert "error" not in project.ok("run", "--rm", "predict", **tiny, MEDSEG_INPUT=str(patient))
    assert {path.name for path in run.iterdir()} >= {
        "recipe.yml",
        "checkpoints",
        "evaluation",
        "bundle",
        "predictions",
    }
    assert list((run / "predictions").rglob("*.nii.gz"))
    assert owners(run) == {user}
    assert json.loads((run / "provenance.json").read_text())["git"]["commit"] == "0123abc"


def test_the_same_recipe_gives_the_same_numbers_in_both_images_and_on_the_host(project, tiny, fresh):
    fresh.ok("up", "--abort-on-container-exit", "train", **tiny)
    fresh.ok("run", "--rm", "evaluate", **tiny)
    run, here = project.outputs / "tiny", project.folder / "host"
    shutil.copytree(project.data, here / "data")
    shutil.copytree(project.folder / "configs", here / "configs")
    words = [sys.executable, "-m", "medseg_paddle"]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "MEDSEG_DEVICE": "cpu"}
    for command in (
        ["train", "--config", "configs/own/tiny.yml", "--output", "outputs/tiny"],
        ["evaluate", "outputs/tiny"],
    ):
        subprocess.run(
            [*words, *command], cwd=here, env=settings, check=True, capture_output=True, timeout=300
        )
    for other in (here / "outputs" / "tiny", fresh.outputs / "tiny"):
        for file in ("validation.jsonl", "evaluation/test/cases.csv"):
            assert (other / file).read_text() == (run / file).read_text()
    assert len((run / "evaluation/test/cases.csv").read_text().splitlines()) > 3


def test_work_on_data_has_no_network_and_writes_nowhere_else(project, user):
    script = (
        "import os, socket\n"
        "print(os.getuid(), os.listdir('/sys/class/net'))\n"
        "for path in ('/work/x', '/work/data/x', '/work/configs/x', '/opt/medseg/x', '/etc/x'):\n"
        "    try: open(path, 'w'); print('WROTE', path)\n"
        "    except OSError as error: print(error.errno)\n"
    )
    said = project.ok("run", "--rm", "--no-deps", "--entrypoint", "python", "train", "-c", script)
    assert f"{user} ['lo']" in said
    assert "WROTE" not in said


def test_the_notebook_asks_for_its_token_and_nobody_for_news(project, docker):
    project.ok("build", "--quiet", "notebook", timeout=900)
    project.ok("up", "--detach", "--wait", "--wait-timeout", "120", "notebook", MEDSEG_NOTEBOOK_TOKEN=TOKEN)
    address = f"http://127.0.0.1:{project.settings['MEDSEG_NOTEBOOK_PORT']}"
    assert f"{address}/lab?token=" in log(project, "notebook")

    def get(path: str, token: str = "") -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{address}{path}?token={token}", timeout=20) as answer:  # noqa: S310
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    assert get("/api/contents")[0] == 403
    assert get("/api/contents", "wrong")[0] == 403
    assert get("/api/contents", TOKEN)[0] == 200
    assert get("/lab/api/update", TOKEN) == (200, '{"notification": null}')
    assert '"news": {"disabled": true}' in get("/lab", TOKEN)[1]

    image = "medseg-paddle:cpu-notebook"
    healthy = json.loads(docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", image))[1:]
    project.ok("exec", "--no-TTY", *PROXY, "notebook", *healthy)
