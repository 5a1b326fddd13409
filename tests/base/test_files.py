"""Atomic writes: whole or not there, and the old file untouched when something goes wrong."""

import errno
import os
from pathlib import Path

import pytest

from lorakiln.base import files
from lorakiln.base.errors import UserError


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_whole_with_the_usual_permissions(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    files.write_text(path, "kiln")
    plain = tmp_path / "plain"
    plain.touch()
    assert path.read_text() == "kiln"
    assert path.stat().st_mode == plain.stat().st_mode
    assert names(path.parent) == ["a.txt"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_line_that_names_the_file():
    """/dev/full refuses every write as a full disk does; the old content and the folder stay as they were."""
    full = Path("/dev/full")
    refused = pytest.raises(UserError, match=r"/dev/full: the disk is full")
    with refused, files.disk_errors(full), full.open("wb", buffering=0) as stream:
        stream.write(b"x")


def test_a_full_disk_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.txt: the disk is full"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["あ" * 80 + ".txt", "n" * 255])
def test_the_longest_name_can_be_written(tmp_path, name):
    for text in ("one", "two"):
        files.write_text(tmp_path / name, text)
    assert (tmp_path / name).read_text() == "two" and names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["n" * 256, "file/below", "folder"])
def test_a_place_where_no_file_can_be_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        files.write_text(tmp_path / name, "text")
    assert sorted(names(tmp_path)) == ["file", "folder"]


def test_a_lock_is_held_by_one_and_goes_with_it(tmp_path):
    place = tmp_path / "new" / "lock"
    with files.alone(place, "busy"), pytest.raises(UserError, match="busy"), files.alone(place, "busy"):
        pass
    with files.alone(place, "busy"):
        pass


def test_sha256_is_the_standard_one(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert files.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
