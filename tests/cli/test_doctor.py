"""`medseg doctor` on this machine, and on machines that lack something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from medseg_paddle.cli import main
from medseg_paddle.engine import inspect_device as inspection_module
from medseg_paddle.engine.inspect_device import PADDLESEG_VERSION, Inspection, inspect_device
from medseg_paddle.steps import doctor
from medseg_paddle.steps.doctor import Status, examine

HEALTHY = Inspection(
    versions={"paddle": "3.2.2", "paddleseg": PADDLESEG_VERSION, "visualdl": "2.5.3"},
    failures={},
    threads="2",
    mkl_kernels="5",
    convolution="cpu",
)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def findings(monkeypatch, tmp_path):
    """Examine this machine with a given answer of Paddle's in place of the real one."""

    def of(inspection=HEALTHY, output=tmp_path):
        monkeypatch.setattr(doctor, "inspect_device", lambda: inspection)
        return {finding.name: finding for finding in examine(output)}

    return of


def test_this_machine_is_examined_for_real(capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--json", "--output", str(tmp_path / "new" / "runs")])
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert not left.value.code
    assert found["paddlepaddle"]["value"] == "3.2.2"
    assert found["paddleseg"]["value"] == "2.8.0"
    assert found["trial convolution"]["status"] == "ok"
    assert not (tmp_path / "new").exists()


def test_table_shows_what_is_bad_with_its_remedy_and_exits_5(capsys, monkeypatch, tmp_path):
    broken = Inspection({}, {"paddle": "died of signal 4: Illegal instruction"}, threads="2", mkl_kernels="5")
    monkeypatch.setattr(doctor, "inspect_device", lambda: broken)
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--output", str(tmp_path)])
    text = capsys.readouterr().out
    assert left.value.code == 5
    assert "bad" in text
    assert "Illegal instruction" in text
    assert "→" in text


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({"versions": {**HEALTHY.versions, "paddle": "3.3.1"}}, "paddlepaddle", Status.BAD),
        ({"failures": {"visualdl": "ImportError: no flask"}}, "visualdl", Status.BAD),
        ({"convolution": "wrong result"}, "trial convolution", Status.BAD),
        ({"threads": "1"}, "threads", Status.WARN),
        ({"threads": "64"}, "threads", Status.WARN),
        ({"mkl_kernels": "4"}, "maths library", Status.WARN),
        ({"cuda": "12.6"}, "paddle sees", Status.WARN),
        ({"cuda": "12.6", "gpus": ("H100",), "convolution": "gpu"}, "paddle sees", Status.OK),
        ({}, "paddlepaddle", Status.OK),
        ({}, "threads", Status.OK),
    ],
)
def test_each_finding_stands_as_it_should(findings, monkeypatch, change, name, status):
    monkeypatch.setattr(doctor, "available_cores", lambda: 2)
    monkeypatch.setattr(doctor.cpu, "is_amd_with_avx2", lambda: True)
    finding = findings(Inspection(**{**vars(HEALTHY), **change}))[name]
    assert finding.status is status
    assert bool(finding.remedy) == (status is not Status.OK)


def test_output_that_cannot_be_written_is_bad(findings, tmp_path):
    (tmp_path / "file").touch()
    assert findings(output=tmp_path / "file" / "runs")["disk"].status is Status.BAD


@pytest.mark.parametrize(("free", "status"), [(2**28, Status.BAD), (2**31, Status.WARN), (2**36, Status.OK)])
def test_disk_nearly_full(findings, monkeypatch, free, status):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(2**40, 0, free))
    assert findings()["disk"].status is status


def test_paddle_that_dies_or_hangs_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.setattr(inspection_module.sys, "executable", "/bin/false")
    assert "exit code 1" in inspect_device().failures["paddle"]
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 30\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(inspection_module.sys, "executable", str(sleeper))
    assert "no answer" in inspect_device(timeout=0.3).failures["paddle"]


def test_pin_of_paddleseg_is_the_one_that_is_bundled():
    pinned = Path(__file__).resolve().parents[2] / "requirements" / "paddleseg.txt"
    assert pinned.read_text().startswith(f"paddleseg=={PADDLESEG_VERSION} ")


def test_two_opencv_builds_are_bad(findings, monkeypatch):
    def distribution(name):
        return type("Distribution", (), {"metadata": {"Name": name}})

    monkeypatch.setattr(
        doctor.importlib.metadata,
        "distributions",
        lambda: [distribution("opencv-python"), distribution("opencv-python-headless")],
    )
    assert findings()["opencv"].status is Status.BAD
