"""Tables as people keep them beside their images."""

from __future__ import annotations

import pytest

from medseg_paddle.errors import DataError
from medseg_paddle.io.tables import read_table


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "id,site,age\na b,X,60\nc, Y ,61\n"),
        ("t.csv", "\ufeffid;site\r\na b;X\r\n\r\nc;Y\r\n"),
        ("t.csv", 'site,id\n"X","a b"\n"Y","c"'),
        ("t.tsv", "id\tsite\na b\tX\n\nc\tY\n"),
        ("T.TSV", 'id\tage, "years"\tsite\na b\t6\tX\nc\t7\tY\n'.replace('"', "")),
    ],
)
def test_commas_semicolons_and_tabs_are_read(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert read_table(path, ["id", "site"]) == [{"id": "a b", "site": "X"}, {"id": "c", "site": "Y"}]


def test_not_available_is_empty(tmp_path):
    (tmp_path / "p.tsv").write_text("participant_id\tsite\nsub-01\tn/a\n")
    assert read_table(tmp_path / "p.tsv", ["site"]) == [{"site": ""}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,sites\na,X\n", "no column 'site'"),
        ("", "no column 'id'"),
        ("id,site,site\na,X,Y\n", "two columns 'site'"),
        ("id,site\na,X,1\n", "row 2: 3 cells under 2 columns"),
        ('id,site\na,"X\n', "damaged"),
    ],
)
def test_a_table_that_is_not_understood_is_refused(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t.csv", ["id", "site"])
    assert words in caught.value.message
    assert "t.csv" in caught.value.message


def test_a_column_of_nearly_that_name_is_proposed(tmp_path):
    (tmp_path / "t.csv").write_text("id,sites\na,X\n")
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t.csv", ["id", "site"])
    assert "did you mean 'sites'?" in caught.value.hint


@pytest.mark.parametrize("content", [None, b"\xff\xfei\x00d\x00"])
def test_a_table_that_is_missing_or_no_text_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "t.csv", ["id"])
