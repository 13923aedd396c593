"""PaddleSeg's lists: every line it allows is read, and no case's name leads outside a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg_paddle.config.datasets import EvalList
from medseg_paddle.core import Case
from medseg_paddle.errors import DataError
from medseg_paddle.io.cases import load_cases


def listed(root: Path, *lines: str) -> tuple[Case, ...]:
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    spec = EvalList(
        type="Dataset",
        dataset_root=str(root),
        num_classes=2,
        mode="val",
        val_path=str(root / "list.txt"),
        transforms=(),
    )
    return load_cases(spec)


@pytest.fixture
def root(tmp_path):
    for name in ("set/images/x.png", "set/y.png", "other/x.png", "other/deep/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("images/x.png", "images/x"),
        ("./images/x.png", "images/x"),
        ("images/../y.png", "y"),
        ("{root}/images/x.png", "images/x"),
        ("{root}/images/../../set/y.png", "y"),
        ("../other/x.png", "other/x"),
        ("images/../../other/deep/x.png", "images/other/deep/x"),
    ],
)
def test_a_case_is_named_by_its_path_in_the_data_set(root, line, expected):
    (case,) = listed(root, line.format(root=root))
    assert case.id == expected
    assert case.image.is_file()


def test_an_absolute_path_elsewhere_is_read_and_its_name_is_relative(root):
    elsewhere = root.parent / "other" / "x.png"
    (case,) = listed(root, f"{elsewhere} {elsewhere}")
    assert case.image == case.label == elsewhere
    assert case.id == elsewhere.with_suffix("").as_posix().lstrip("/")
    assert (root / "masks" / f"{case.id}.png").is_relative_to(root / "masks")


def test_a_relative_data_folder_gives_the_same_names(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    cases = listed(Path("set"), "images/x.png", f"{root}/y.png", "../other/x.png")
    assert [case.id for case in cases] == ["images/x", "y", "other/x"]


@pytest.mark.parametrize("second", ["images/x.png", "{root}/images/x.png", "./images/../images/x.png"])
def test_one_image_listed_twice_is_refused_however_it_is_written(root, second):
    with pytest.raises(DataError, match="'images/x' is listed twice"):
        listed(root, "images/x.png", second.format(root=root))


@pytest.mark.parametrize("line", ["..", ".", "/", "a\\b.png"])
def test_a_line_that_can_name_no_case_is_refused(root, line):
    with pytest.raises(DataError, match="cannot name a case"):
        listed(root, line)
