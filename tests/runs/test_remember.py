"""A run writes itself into the ledger, whatever becomes of it, and its folder can say it all again."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import tomlkit

from lorakiln.base.errors import UserError
from lorakiln.base.ledger import Ledger, place
from lorakiln.base.recipe import read
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.row import row_of, run_folder, save_row, settled_loss
from lorakiln.runs.run import train
from tests.runs.conftest import losses
from tests.runs.test_run import header

ROOT = Path(__file__).parents[2]


def entry():
    (one,) = Ledger().entries()
    return one


def test_a_finished_run_is_in_the_ledger_and_nothing_of_it_in_the_lora(run, monkeypatch):
    monkeypatch.setenv("KILN_PRICE", "0.5")
    monkeypatch.setenv("KILN_TAGS", "mine,sweep:a")
    result = run()
    one = entry()
    assert (one.name, one.status, one.error, one.steps, one.timed_steps) == ("a", "finished", "", 12, 12)
    assert one.seconds["train"] > 0 and one.peak_memory > 0.05 and one.cost == one.time / 7200
    assert one.pictures == 5 and len(one.dataset) == 64 and one.tags == ("mine", "sweep:a")
    assert one.recipe["optim"]["lr"] == 1e-3 and one.folder == str(result.folder.path.resolve())
    assert one.loss == pytest.approx(sum(losses(result)[-10:]) / 10)
    told = json.dumps(header(result.folder.lora)[0])
    for private in (one.id, one.host, one.started[:10], one.finished[:10]):
        assert private not in told


def test_remembering_does_not_change_what_is_trained(run, monkeypatch):
    with_ledger = run("a")
    monkeypatch.setenv("KILN_LEDGER", "off")
    without = run("b")
    assert losses(with_ledger) == losses(without)
    assert [one.name for one in Ledger(place() or Path("ledger/ledger.sqlite")).entries()] == ["a"]


def test_a_failed_run_keeps_its_error(run):
    with pytest.raises(UserError, match="the loss is"):
        run(optim={"lr": 1e18, "warmup": 0.0, "clip": 0.0, "schedule": "constant"}, train={"epochs": 30})
    one = entry()
    assert one.status == "failed" and "the loss is" in one.error and one.finished
    assert one == row_of(RunFolder(Path(one.folder), "a"))


def test_a_refused_recipe_is_no_run(run):
    with pytest.raises(UserError):
        run(base="nowhere.safetensors")
    assert Ledger().entries() == []


def test_a_killed_run_is_called_so_and_its_resumption_adds_up(make, tmp_path):
    recipe = tmp_path / "a.toml"
    recipe.write_text(tomlkit.dumps(make(save={"steps": 1})))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "tests.runs.killed", "step", "5", "train", recipe], env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == -9, done.stderr
    killed = entry()
    assert killed.status == "killed" and killed.id
    train(read(recipe), recipe, resume=True)
    one = entry()
    assert (one.id, one.started, one.status, one.steps) == (killed.id, killed.started, "finished", 12)
    assert one.timed_steps == 12 - 4, "the seconds of the part that was killed are not known, so its steps do not count"


def test_the_seconds_of_a_stopped_part_are_kept(run, monkeypatch):
    run(train={"epochs": 2})
    first = entry()
    run(train={"epochs": 3}, resume=True)
    one = entry()
    assert (one.id, one.timed_steps, one.steps) == (first.id, 12, 12) and one.time > first.time > 0


def test_an_overwritten_run_stays_in_the_ledger(run):
    run()
    run(overwrite=True, seed=1)
    new, old = Ledger().entries()
    assert new.id != old.id and (new.recipe["seed"], old.recipe["seed"]) == (1, 42) and not old.folder


@pytest.mark.parametrize("broken", ["locked", "no place", "no database"])
def test_a_ledger_in_trouble_is_a_warning_and_the_run_goes_on(run, tmp_path, monkeypatch, broken):
    monkeypatch.setattr("lorakiln.runs.row.PATIENCE", 0.1)
    if broken == "locked":
        Ledger().save([])
        holder = sqlite3.connect(place(), isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
    elif broken == "no place":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("KILN_LEDGER", str(tmp_path / "file" / "ledger"))
    else:
        (tmp_path / "junk").write_bytes(b"junk" * 1000)
        monkeypatch.setenv("KILN_LEDGER", str(tmp_path / "junk"))
    result = run()
    assert result.folder.lora.exists()
    notes: list[str] = []
    save_row(result.folder, notes.append)
    assert len(notes) == 1 and "not remembered" in notes[0] and "\n" not in notes[0]


def test_a_folder_rebuilds_the_very_row(run, monkeypatch):
    result = run()
    before = entry()
    place().unlink()
    save_row(run_folder(result.folder.path), pytest.fail)
    assert entry() == before


def test_a_folder_of_an_older_kiln_has_a_row_too(run):
    folder = run().folder
    (folder.path / "run.json").unlink()
    one = row_of(folder)
    assert one.id == row_of(folder).id and one.status == "finished" and one.steps == 12 and one.started


def test_a_folder_copied_from_a_machine_that_died_says_killed(run):
    folder = run().folder
    folder.record(status="running", host="rented", process="1:1")
    events = [line for line in folder.events.read_text().splitlines() if '"end"' not in line]
    folder.events.write_text("\n".join(events) + "\n")
    assert row_of(folder).status == "running"
    os.utime(folder.events, (0, 0))
    assert row_of(folder).status == "killed"


def test_the_settled_loss_is_the_mean_of_the_last_tenth():
    assert settled_loss([9.0] * 180 + [1.0] * 10 + [3.0] * 10) == 2.0
    assert settled_loss([1.0, 2.0]) == 1.5
