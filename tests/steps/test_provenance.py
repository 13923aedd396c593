"""What a run says it was made with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import medseg_paddle
from medseg_paddle.core import Case
from medseg_paddle.errors import DataError
from medseg_paddle.steps.provenance import git_state, provenance, require_noted_data, without_files


def test_a_checkout_names_its_own_commit(monkeypatch):
    monkeypatch.setenv("MEDSEG_REVISION", "of-another-image")
    if not (Path(medseg_paddle.__file__).parents[1] / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the tests do not run in a git checkout")
    state = git_state()
    assert len(state["commit"]) == 40


def test_without_a_checkout_the_image_s_commit_counts(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # no git, as in the image
    monkeypatch.setenv("MEDSEG_REVISION", "0123abc")
    assert git_state() == {"commit": "0123abc", "changed": False}
    monkeypatch.setenv("MEDSEG_REVISION", "unknown")
    assert git_state() is None


@pytest.fixture
def cases(tmp_path):
    found = []
    for number in range(4):
        image, label = tmp_path / f"image{number}.png", tmp_path / f"label{number}.png"
        image.write_bytes(b"image %d" % number)
        label.write_bytes(b"label %d" % number)
        found.append(Case(str(number), image, label))
    return found


def test_data_that_is_what_it_was_is_accepted_wherever_it_lies(cases, tmp_path):
    noted = provenance({"train": cases}, "cpu")["data"]
    moved = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))
    elsewhere = [Case(case.id, moved / case.image.name, moved / case.label.name) for case in cases]
    for known in (cases, elsewhere):
        require_noted_data(noted, {"train": known, "val": known[:1]}, Path("run"))


def test_the_files_that_differ_are_named(cases):
    noted = provenance({"train": cases}, "cpu")["data"]

    def message(now):
        with pytest.raises(DataError) as caught:
            require_noted_data(noted, {"train": now}, Path("run"))
        return caught.value.message

    assert "the same files in another order" in message(cases[::-1])
    assert "no file is new; 8 files then, 6 now" in message(cases[:3])
    cases[2].label.write_bytes(cases[1].label.read_bytes())
    assert "label2.png changed or new; 8 files then, 8 now" in message(cases)
    cases[0].image.write_bytes(b"other")
    assert "image0.png changed or new" in message(cases)
    cases[3].image.write_bytes(b"another")
    assert "image0.png, " in message(cases)
    assert "image3.png changed or new" in message(cases)


def test_what_is_passed_on_names_no_file_also_of_an_ensemble(cases):
    noted = provenance({"train": cases}, "cpu", [cases[0].image])
    assert len(noted["data"]["train"]["files"]) == 8
    for passed_on in (without_files(noted), *without_files({"members": [noted, noted]})["members"]):
        assert passed_on["data"]["train"] == {
            "images": 4,
            "sha256": noted["data"]["train"]["sha256"],
        }
        assert "image0.png" not in str(passed_on)
        assert passed_on["versions"] == noted["versions"]


@pytest.mark.parametrize(
    ("word", "noted"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://***@host/db"),
        ("--storage=mysql+pymysql://me:s3:cr/e@t@host:3306/db", "--storage=mysql+pymysql://***@host:3306/db"),
        (
            "postgresql://host/db?user=me&password=s3cret&sslmode=require",
            "postgresql://host/db?user=me&password=***&sslmode=require",
        ),
        ("sqlite:////data/s.db?timeout=5", "sqlite:////data/s.db?timeout=5"),
        ("lr_scheduler.learning_rate=0.01", "lr_scheduler.learning_rate=0.01"),
    ],
)
def test_the_noted_command_has_no_password(monkeypatch, cases, word, noted):
    monkeypatch.setattr("sys.argv", ["medseg", "search", word])
    assert provenance({"train": cases}, "cpu")["command"] == ["medseg", "search", noted]


def test_an_earlier_version_s_provenance_names_no_files(cases):
    noted = without_files(provenance({"train": cases}, "cpu"))["data"]
    require_noted_data(noted, {"train": cases}, Path("run"))
    with pytest.raises(DataError, match="cannot tell which differ"):
        require_noted_data(noted, {"train": cases[:3]}, Path("run"))
