"""The ledger remembers: through kill -9, two writers at once, a newer schema; and never loses what the user wrote."""

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorakiln.base import ledger
from lorakiln.base.errors import UserError
from lorakiln.base.ledger import Entry, Ledger, place, process_mark

ONE = Entry(
    "abc123", "mika", "finished", base="pony.safetensors", steps=100, timed_steps=80, price=0.5,
    seconds={"train": 40.0, "save": 5.0},
    started="2026-01-02T03:04:05+00:00", recipe={"optim": {"name": "came", "lr": 6e-5}}, tags=("first",),
)  # fmt: skip


def test_what_was_saved_is_read_back_by_a_new_ledger(tmp_path):
    Ledger(tmp_path / "l").save([ONE])
    assert Ledger(tmp_path / "l").entries() == [ONE]
    assert sqlite3.connect(tmp_path / "l").execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_time_cost_and_step_are_worked_out_by_hand():
    assert (ONE.time, ONE.cost, ONE.step_seconds) == (45.0, 45 / 3600 * 0.5, 0.5)
    assert replace(ONE, price=None).cost is None and replace(ONE, timed_steps=0).step_seconds is None


def test_saving_again_changes_the_facts_and_keeps_what_the_user_wrote(tmp_path):
    book = Ledger(tmp_path / "l")
    book.save([replace(ONE, status="running")])
    book.annotate("abc123", note="eyes too large", tags=["keeper"], price=0.9)
    book.annotate("abc123", note="good at 0.7")
    book.save([replace(ONE, price=None, verdict="baked")])
    (found,) = book.entries()
    assert (found.status, found.verdict, found.price) == ("finished", "baked", 0.9)
    assert found.notes == "eyes too large\ngood at 0.7" and found.tags == ("first", "keeper")


def test_a_run_is_found_by_folder_name_and_the_beginning_of_its_id(tmp_path):
    book = Ledger(tmp_path / "l")
    old, new = replace(ONE, id="old", started="2025"), replace(ONE, folder=str((tmp_path / "mika").resolve()))
    book.save([new, old])
    assert [one.id for one in book.entries()] == ["abc123", "old"]
    assert book.find("mika") == book.find("abc") == book.find(str(tmp_path / "mika")) == new
    assert book.find("old") == old
    with pytest.raises(UserError, match=r"no run 'mikka' in the ledger; did you mean 'mika'\?"):
        book.find("mikka")
    with pytest.raises(UserError, match=r"it is empty"):
        Ledger(tmp_path / "other").find("mika")
    assert not (tmp_path / "other").exists(), "reading makes no file"


def test_an_overwritten_run_is_remembered_without_its_folder(tmp_path):
    book = Ledger(tmp_path / "l")
    book.save([replace(ONE, folder="/runs/mika")])
    book.save([replace(ONE, id="next", folder="/runs/mika", started="2027")])
    assert [(one.id, one.folder) for one in book.entries()] == [("next", "/runs/mika"), ("abc123", "")]


def test_a_run_whose_process_is_gone_was_killed(tmp_path):
    import platform

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    book = Ledger(tmp_path / "l")
    book.save([replace(ONE, status="running", host=platform.node(), process=process_mark(child.pid))])
    assert book.entries()[0].status == "running"
    child.kill()
    child.communicate()
    assert book.entries()[0].status == "killed"
    book.save([replace(ONE, status="running", host="elsewhere", process="1:1")])
    assert book.entries()[0].status == "running", "of another machine's processes nothing is known"


WRITER = """
import os, sys
from dataclasses import replace
from pathlib import Path
from lorakiln.base.ledger import Entry, Ledger
book = Ledger(Path(sys.argv[1]))
for n in range(int(sys.argv[3])):
    book.save([Entry(f"{sys.argv[2]}-{n}", "x", "finished")])
    print(n, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITER, path, name, str(count)], stdout=subprocess.PIPE, text=True)


def test_two_processes_write_a_new_ledger_at_once_and_nothing_is_lost(tmp_path):
    children = [writer(tmp_path / "l", name, 60) for name in ("a", "b", "c")]
    for child in children:
        child.communicate(timeout=120)
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(Ledger(tmp_path / "l").entries()) == 180


@pytest.mark.parametrize("lines", [1, 7, 30])
def test_what_was_written_before_a_kill_is_there_after_it(tmp_path, lines):
    child = writer(tmp_path / "l", "a", 100_000)
    for _ in range(lines):
        child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    book = Ledger(tmp_path / "l")
    found = {one.id for one in book.entries()}
    assert {f"a-{n}" for n in range(lines)} <= found
    book.save([ONE])
    assert len(book.entries()) == len(found) + 1
    assert sqlite3.connect(tmp_path / "l").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_ledger_that_another_program_holds_is_an_error_after_the_patience(tmp_path):
    Ledger(tmp_path / "l").save([ONE])
    holder = sqlite3.connect(tmp_path / "l", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match=r"l: the ledger cannot be used \(database is locked\)"):
        Ledger(tmp_path / "l", patience=0.1).save([ONE])
    assert Ledger(tmp_path / "l", patience=0.1).entries() == [ONE], "readers do not wait for a writer"


def test_files_that_are_no_ledger_are_refused_in_one_line(tmp_path):
    (tmp_path / "l").write_bytes(b"not a database at all, but long enough to look like one" * 40)
    with pytest.raises(UserError, match=r"l: the ledger cannot be used"):
        Ledger(tmp_path / "l").entries()
    with sqlite3.connect(tmp_path / "new") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match=r"written by a newer Kiln"):
        Ledger(tmp_path / "new").entries()


def test_a_folder_whose_name_is_no_text_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="the ledger cannot be used"):
        Ledger(tmp_path / "l").save([replace(ONE, folder="/runs/\udcff")])


def test_the_ledger_lies_where_the_user_says_or_in_the_data_folder(tmp_path, monkeypatch):
    assert place() == tmp_path / "ledger" / "ledger.sqlite", "tests have one of their own"
    monkeypatch.setenv("KILN_LEDGER", "")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setattr(ledger.sys, "platform", "linux")
    assert place() == Path("/data/kiln/ledger.sqlite")
    monkeypatch.setenv("KILN_LEDGER", "off")
    assert place() is None and Ledger().entries() == []
    with pytest.raises(UserError, match=r"switched off \(KILN_LEDGER = off\)"):
        Ledger().save([ONE])
