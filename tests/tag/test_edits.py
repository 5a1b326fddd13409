"""Editing many captions: selections, the journal, undo to the byte, and accidents in between."""

import errno
import fcntl
import os

import pytest
from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.tag import caption, edits
from lorakiln.tag import folder as folders
from lorakiln.tag.selection import parse

TEXTS = {"a": "1girl,hat ,  rain", "b": "1girl, outdoors, hat", "c": "cat", "d": None}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    for name, text in TEXTS.items():
        Image.new("RGB", (8, 8)).save(place / f"{name}.png")
        if text is not None:
            (place / f"{name}.txt").write_text(text, newline="")
    return place


def state(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def change(folder, how, where=""):
    whole = folders.read(folder)
    written, left = edits.commit(folder, "a change", folders.edits(whole, folders.changed(whole, how, parse(where))))
    assert not left
    return written


@pytest.mark.parametrize(
    "where, chosen",
    [
        ("has:hat", "ab"),
        ("has:hat and not has:outdoors", "a"),
        ("not (has:hat or has:cat)", "d"),
        ("missing or name:c*", "cd"),
        ('has:"out*"', "b"),
        ("has:hat and has:1girl and not missing", "ab"),
        ("name:?.png or name:[a].png", ""),
        ("", "abcd"),
    ],
)
def test_a_selection_reads_as_it_is_said(folder, where, chosen):
    test = parse(where)
    found = [one.name[0] for one in folders.read(folder).pictures.values() if test(one.name, one.caption)]
    assert "".join(found) == chosen


@pytest.mark.parametrize("where", ["has:", "hat", "has:a has:b", "(has:a", "has:a and", "not", "&"])
def test_a_selection_that_makes_no_sense_is_refused(where):
    with pytest.raises(UserError, match="--where"):
        parse(where)


def test_an_edit_touches_only_what_it_changes_and_undo_restores_every_byte(folder):
    before = state(folder)
    assert change(folder, edits.remove(["hat"]), "has:hat and not has:outdoors") == 1
    after = state(folder)
    assert after["a.txt"] == b"1girl, rain"
    assert {name: data for name, data in after.items() if name != "a.txt"} == {
        name: data for name, data in before.items() if name != "a.txt"
    }
    assert edits.undo(folder) == ("a change", 1, [])
    assert state(folder) == before


@pytest.mark.parametrize(
    "how, tags",
    [
        (edits.add(["wet", "hat"]), ("1girl", "hat", "rain", "wet")),
        (edits.add(["znk"], first=True), ("znk", "1girl", "hat", "rain")),
        (edits.remove(["ra*"]), ("1girl", "hat")),
        (edits.rename({"rain": "1girl", "hat": "cap"}), ("1girl", "cap")),
        (edits.substitute("ai", "ui"), ("1girl", "hat", "ruin")),
        (edits.add(["a, b"]), ("1girl", "hat", "rain", "a", "b")),
        (edits.remove(["hat, rain"]), ("1girl",)),
        (edits.remove(["?at", "[h]at", "!?"]), ("1girl", "hat", "rain")),
        (edits.rename({"hat": "cap, 1girl"}), ("1girl", "cap", "rain")),
        (edits.substitute("hat", "cap, coat"), ("1girl", "cap", "coat", "rain")),
    ],
)
def test_each_change_of_a_caption(how, tags):
    assert how(caption.of(["1girl", "hat", "rain"], "It rains.")).tags == tags


@pytest.mark.parametrize("how, words", [(edits.rename, {"hat": " , "}), (edits.add, [","]), (edits.remove, [""])])
def test_a_change_that_names_no_tag_is_refused(how, words):
    with pytest.raises(UserError):
        how(words)


def test_edits_stack_and_are_undone_last_first(folder):
    before = state(folder)
    change(folder, edits.add(["one"]))
    middle = state(folder)
    change(folder, edits.rename({"one": "two"}))
    edits.undo(folder)
    assert state(folder) == middle
    edits.undo(folder)
    assert state(folder) == before and "d.txt" not in state(folder)
    with pytest.raises(UserError, match="nothing to undo"):
        edits.undo(folder)


def test_undo_leaves_a_file_that_someone_changed_since(folder):
    change(folder, edits.add(["one"]))
    (folder / "a.txt").write_text("by hand")
    _, restored, left = edits.undo(folder)
    assert restored == 3 and len(left) == 1 and "a.txt" in left[0]
    assert (folder / "a.txt").read_text() == "by hand" and (folder / "c.txt").read_text() == "cat"
    place = folder / edits.FOLDER / "left" / "000001" / "a.txt"
    assert str(place) in left[0] and place.read_text() == TEXTS["a"]
    change(folder, edits.add(["two"]))
    (folder / "a.txt").unlink()
    assert "000002" in edits.undo(folder)[2][0] and place.read_text() == TEXTS["a"]


def test_a_full_disk_leaves_each_file_old_or_new_and_undo_brings_all_back(folder, monkeypatch):
    before, real, written = state(folder), os.replace, []

    def full(source, target):
        if str(target).endswith(".txt"):
            written.append(target)
            if len(written) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="disk is full"):
        change(folder, edits.add(["one"]))
    monkeypatch.setattr(os, "replace", real)
    halfway = state(folder)
    assert sum(halfway.get(name) != before.get(name) for name in halfway) == 2
    assert not [name for name in halfway if name.endswith(".tmp")]
    edits.undo(folder)
    assert state(folder) == before


def test_an_edit_written_bit_by_bit_is_one_entry_and_undone_as_one(folder):
    before = state(folder)
    whole = folders.read(folder)
    with edits.editing(folder, "two steps") as session:
        for step in (edits.add(["one"]), edits.add(["one", "two"])):
            session.write(folders.edits(whole, folders.changed(whole, step, parse(""))))
    assert session.written == 4 and state(folder)["c.txt"] == b"cat, one, two"
    assert edits.history(folder) == ["two steps"]
    assert edits.undo(folder) == ("two steps", 4, []) and state(folder) == before


def test_an_edit_that_comes_back_to_a_text_leaves_its_bytes(folder):
    (folder / "a.txt").write_bytes(b"hat\r\nrain\n\r\n")
    before = state(folder)
    whole = folders.read(folder)
    with edits.editing(folder, "there and back") as session:
        session.write(folders.edits(whole, folders.changed(whole, edits.add(["one"]), parse("name:a*"))))
        session.write(folders.edits(whole, {"a.png": whole.captions["a.png"]}))
    assert state(folder) == before


@pytest.mark.parametrize("cut", [1, 40])
def test_an_entry_cut_off_in_its_last_line_is_undone_as_far_as_it_goes(folder, cut):
    before = state(folder)
    change(folder, edits.add(["one"]))
    entry = folder / edits.FOLDER / "000001.jsonl"
    entry.write_bytes(entry.read_bytes()[:-cut])
    (folder / "d.txt").unlink()  # the last, which such an edit did not come to
    assert edits.undo(folder) == ("a change", 3, []) and state(folder) == before


@pytest.mark.parametrize("line", ["{", '{"what": "x"}\n{"name": "../a.txt", "before": null, "after": ""}'])
def test_a_damaged_entry_is_named_and_touches_nothing(folder, line):
    change(folder, edits.add(["one"]))
    before = state(folder)
    (folder / edits.FOLDER / "000002.jsonl").write_text(f"{line}\n")
    for ask in (edits.undo, edits.history):
        with pytest.raises(UserError, match=r"000002\.jsonl: is not a journal entry"):
            ask(folder)
    assert state(folder) == before


def test_a_file_that_cannot_hold_the_new_text_is_left_alone(folder):
    (folder / "a.txt").write_bytes("少女".encode("cp932"))
    (folder / "d.txt").mkdir()
    whole = folders.read(folder)
    planned = folders.edits(whole, folders.changed(whole, edits.add(["ć"]), parse("")))
    written, left = edits.commit(folder, "x", planned)
    assert written == 2 and len(left) == 2
    assert "which has no 'ć'" in left[0] and "d.txt: cannot be read (Is a directory)" in left[1]


def test_a_second_editor_is_refused(folder):
    (folder / edits.FOLDER).mkdir(parents=True)
    with (folder / edits.FOLDER / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another kiln is editing"):
            change(folder, edits.add(["one"]))
    assert change(folder, edits.add(["one"])) == 4


def test_a_file_changed_between_reading_and_writing_is_left_alone_and_named(folder):
    whole = folders.read(folder)
    planned = folders.edits(whole, folders.changed(whole, edits.add(["one"]), parse("")))
    (folder / "b.txt").write_text("by another program")
    before = state(folder)
    written, left = edits.commit(folder, "x", planned)
    assert written == 3 and len(left) == 1 and "b.txt: was changed by another program" in left[0]
    assert state(folder)["b.txt"] == b"by another program" and state(folder)["a.txt"] == b"1girl, hat, rain, one"
    edits.undo(folder)
    assert state(folder) == before


def test_pictures_that_share_a_caption_file_are_refused(folder):
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    with pytest.raises(UserError, match=r"would share 'a\.txt'"):
        folders.read(folder)
