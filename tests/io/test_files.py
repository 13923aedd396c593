import os
import tempfile
from pathlib import Path

import pytest

from medseg_paddle.errors import SetupError
from medseg_paddle.io.files import new_folder, require_writable, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_folder_and_nothing_else(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "Größe\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "Größe\n".encode()
    assert names(tmp_path / "a") == ["b.txt"]


def test_the_old_file_stays_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match=r"No space left on device \([\d,.]+ MiB free\)"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["a" * 255, "ö" * 127, "a" + "ö" * 127])
def test_a_file_and_a_folder_may_have_the_longest_name_that_there_is(tmp_path, name):
    write_text(tmp_path / "files" / name, "new")
    assert (tmp_path / "files" / name).read_text() == "new"
    with new_folder(tmp_path / name):
        pass
    with new_folder(tmp_path / name, overwrite=True) as folder:
        (folder / "a").touch()
    assert names(tmp_path / name) == ["a"]
    assert names(tmp_path) == sorted(["files", name])


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    with (tmp_path / "a").open("rb") as reader:
        write_bytes(tmp_path / "a", b"new")
        assert reader.read() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "set"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def fail_once_aside(path, new):
        if Path(new) == target and not (path / "old").exists():
            raise OSError(5, "Input/output error")
        return rename(path, new)

    monkeypatch.setattr(Path, "rename", fail_once_aside)
    with pytest.raises(SetupError, match="Input/output"), new_folder(target, overwrite=True) as folder:
        (folder / "new").touch()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["set"]


def test_a_new_file_is_readable_as_the_umask_says(tmp_path):
    write_text(tmp_path / "ours", "")
    (tmp_path / "theirs").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_a_folder_is_not_seen_before_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "set"
    with new_folder(target) as folder:
        (folder / "x").write_text("1")
        assert not target.exists()
        assert folder.parent == target.parent
    assert names(target) == ["x"]
    assert names(target.parent) == ["set"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "set") as folder:  # noqa: PT012
        (folder / "x").write_text("1")
        raise error
    assert names(tmp_path) == []


def test_an_existing_folder_is_kept_unless_told_and_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "set"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(SetupError, match="not empty"), new_folder(target):
        pass
    with pytest.raises(ValueError, match="broken"), new_folder(target, overwrite=True):
        raise ValueError("broken")
    assert names(target) == ["old"]
    with new_folder(target, overwrite=True) as folder:
        (folder / "new").touch()
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["set"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "set").mkdir()
    with new_folder(tmp_path / "set") as folder:
        (folder / "new").touch()
    assert names(tmp_path / "set") == ["new"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "set").touch()
    with pytest.raises(SetupError, match="is a file"), new_folder(tmp_path / "set", overwrite=True):
        pass
    with pytest.raises(SetupError, match="cannot be written"):
        require_writable(tmp_path / "set")
    with pytest.raises(SetupError, match="cannot be written"):
        write_text(tmp_path / "set" / "x", "")


def test_writable_folder_is_made_and_left_empty(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_a_folder_without_permission_is_refused_with_a_hint(request):
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # not tmp_path: nobody may not even enter that of the superuser
        Path(folder).chmod(0o555)
        request.getfixturevalue("ordinary_user")
        user = os.geteuid()
        with pytest.raises(SetupError) as caught:
            require_writable(Path(folder))
        os.seteuid(os.getuid())
    assert f"cannot be written by user id {user}: Permission denied" in caught.value.message
    assert "permissions" in caught.value.hint
    assert "MEDSEG_UID" in caught.value.hint
