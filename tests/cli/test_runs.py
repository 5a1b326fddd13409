"""`kiln runs` at the command line: list, filter, show, note, export, import, rebuild."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from lorakiln.base.ledger import Entry, Ledger, place
from lorakiln.base.recipe import parse
from tests.cli.verbs import kiln

RECIPE = parse({"base": "/home/me/models/pony.safetensors", "optim": {"name": "came", "lr": 6e-5},
                "dataset": [{"folder": "/home/me/mika", "repeats": 2}]}, "r").model_dump()  # fmt: skip
MIKA = Entry(
    "aaa111", "mika", "finished", verdict="slightly overbaked", base="/home/me/models/pony.safetensors",
    purpose="character", dataset="d" * 64, pictures=30, steps=600, timed_steps=600, loss=0.0712,
    seconds={"load base": 10.0, "train": 300.0}, peak_memory=9.5, price=0.6, device="NVIDIA GeForce RTX 4090",
    started="2026-02-01T10:00:00+00:00", finished="2026-02-01T10:06:00+00:00", host="my-desk", process="1:1",
    folder="/home/me/runs/mika", tags=("guide",), recipe=RECIPE,
)  # fmt: skip
INK = Entry("bbb222", "ink", "failed", error="/home/me/ink/3.png: cut off", base="starter",
            started="2026-03-01T10:00:00+00:00", recipe=RECIPE | {"optim": {"name": "adamw", "lr": 2e-3}})  # fmt: skip


@pytest.fixture
def filled():
    Ledger().save([MIKA, INK])


def listed(capsys, *words):
    code, out = kiln(capsys, "runs", *words, "--json")
    assert code == 0, out.err
    return [one["name"] for one in json.loads(out.out)]


def test_the_list_is_newest_first_and_80_columns_wide(capsys, filled):
    Ledger().save(
        [replace(MIKA, id="c", name="a name that is much longer than any column of the table", steps=1234567)]
    )
    code, out = kiln(capsys, "runs")
    lines = out.out.splitlines()
    assert code == 0 and lines[0].split() == ["run", "outcome", "base", "optim", "lr", "steps", "time"]
    assert lines[1].split() == ["ink", "failed", "starter", "adamw", "0.002", "0", "0s"]
    assert lines[-1].split() == ["mika", "slightly", "overbaked", "pony", "came", "6e-05", "600", "5m"]
    assert len(lines) == 4 and max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["ink", "mika"]),
        (["--base", "PONY"], ["mika"]),
        (["--status", "failed"], ["ink"]),
        (["--tag", "guide"], ["mika"]),
        (["--where", "optim.name=came"], ["mika"]),
        (["--where", "optim.lr>1e-4", "--where", "steps<1"], ["ink"]),
        (["--where", "optim.lr>1e-4", "--base", "pony"], []),
        (["--last", 1], ["ink"]),
    ],
)
def test_filters(capsys, filled, words, names):
    assert listed(capsys, *words) == names


def test_show_tells_everything_in_80_columns(capsys, filled):
    _, out = kiln(capsys, "runs", "show", "mika")
    assert max(map(len, out.out.splitlines())) <= 80
    flat = " ".join(out.out.split())
    parts = (
        "mika (aaa111)",
        "slightly overbaked",
        "600, settled loss 0.0712",
        "310 s in all",
        "0.50 s a step",
        "9.5 GiB",
        "0.05 at 0.6 an hour",
        "optim.name=came,",
        "optim.lr=6e-05",
        "dataset.0.repeats=2",
    )
    assert [part for part in parts if part not in flat] == []
    _, out = kiln(capsys, "runs", "show", "aaa", "--json")
    assert json.loads(out.out)["recipe"] == RECIPE and json.loads(out.out)["step_seconds"] == 0.5


def test_notes_tags_and_prices_are_added(capsys, filled):
    assert kiln(capsys, "runs", "note", "mika", "good\x1b[31m at 0.7", "--tag", "keeper", "--price", "1.2")[0] == 0
    assert kiln(capsys, "runs", "note", "mika", "eyes too large")[0] == 0
    one = Ledger().find("mika")
    assert one.notes == "good[31m at 0.7\neyes too large" and one.tags == ("guide", "keeper") and one.price == 1.2


@pytest.mark.parametrize("form", ["csv", "json"])
def test_what_is_exported_can_be_imported_elsewhere_and_says_nothing_private(capsys, filled, tmp_path, form):
    file = tmp_path / f"findings.{form}"
    kiln(capsys, "runs", "note", "mika", 'two\nlines, "quoted"')
    code, out = kiln(capsys, "runs", "export", file)
    assert code == 0 and f"2 runs to {file}" in out.out
    assert "/home/me" not in file.read_text() and "my-desk" not in file.read_text()
    place().unlink()
    code, out = kiln(capsys, "runs", "import", file, "--json")
    assert json.loads(out.out) == {"file": str(file), "taken": 2, "already_yours": 0}
    ink, mika = Ledger().entries()
    assert mika.notes == 'two lines, "quoted"' and mika.origin == file.name and mika.host == mika.folder == ""
    assert (mika.base, mika.recipe["dataset"][0]["folder"]) == ("pony.safetensors", "mika")
    same = {
        "name",
        "status",
        "verdict",
        "steps",
        "loss",
        "seconds",
        "peak_memory",
        "price",
        "device",
        "tags",
        "dataset",
    }
    assert all(getattr(mika, name) == getattr(MIKA, name) for name in same)
    assert ink.error == "3.png: cut off" and ink.loss is None


def test_an_import_never_changes_an_own_run(capsys, filled, tmp_path):
    kiln(capsys, "runs", "export", tmp_path / "f.json")
    told = json.loads((tmp_path / "f.json").read_text())
    told["runs"][0]["verdict"] = "baked"
    (tmp_path / "f.json").write_text(json.dumps(told))
    _, out = kiln(capsys, "runs", "import", tmp_path / "f.json")
    assert "took    0 runs" in out.out and Ledger().find("ink") == INK


def test_csv_has_a_column_a_fact(capsys, filled, tmp_path):
    kiln(capsys, "runs", "export", tmp_path / "f.csv", "--where", "steps>1")
    (row,) = csv.DictReader((tmp_path / "f.csv").read_text().splitlines())
    assert row["name"] == "mika" and row["steps"] == "600" and json.loads(row["recipe"])["optim"]["lr"] == 6e-5


ROW = {"id": "x", "name": "x", "status": "finished"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["show", "mikka"], "no run 'mikka' in the ledger; did you mean 'mika'?"),
        (["note", "mika"], "nothing to remember: give a text, --tag or --price"),
        (["--status", "done"], "--status done: choose from running, finished, stopped, failed, killed"),
        (["--where", "came"], "--where came: write KEY=VALUE"),
        (["--where", "optim.nam=came"], "--where optim.nam=came: no run has 'optim.nam'; did you mean 'optim.name'?"),
        (["export", "f.txt"], "f.txt: write the name with .csv or .json"),
        (["export", "there.json"], "there.json: exists; choose another name, or --overwrite"),
        (["import", "nowhere.json"], "nowhere.json: not readable"),
        (["import", "there.json"], "there.json, run 2: a run needs id, name, status"),
        (["import", "status.json"], "status.json, run 1: status = 'good': choose from running"),
        (["import", "steps.json"], "steps.json, run 1: steps = nan: must be a finite number, at least 0"),
        (["import", "seconds.json"], "seconds.json, run 1: "),
        (["import", "empty.json"], "empty.json: holds no runs"),
        (["rebuild", "nowhere"], "nowhere: no such folder"),
        (["rebuild", "."], ".: neither a run folder nor a folder of them"),
        (["shwo", "x"], "No such command 'shwo'. Did you mean 'show'?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, filled, tmp_path, words, line):
    files = {"there": [ROW, {"id": "y"}], "status": [ROW | {"status": "good"}], "steps": [ROW | {"steps": "nan"}],
             "seconds": [ROW | {"seconds": [1]}], "empty": {"run": []}}  # fmt: skip
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    code, out = kiln(capsys, "runs", *words)
    assert code == 2 and out.err.startswith(f"kiln: {line}") and out.err.count("\n") == 1, out.err
    assert {one.id for one in Ledger().entries()} == {"aaa111", "bbb222"}


def test_an_empty_and_a_switched_off_ledger_are_said(capsys, monkeypatch):
    code, out = kiln(capsys, "runs")
    assert code == 0 and out.out == f"no run in {place()}\n" and not place().exists()
    monkeypatch.setenv("KILN_LEDGER", "off")
    code, out = kiln(capsys, "runs")
    assert code == 2 and "switched off" in out.err


def test_listing_does_not_load_torch(filled):
    code = "import sys\nfrom lorakiln.cli import main\ntry:\n    main(['runs'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'diffusers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "mika" in done.stdout, done.stderr


def test_rebuild_reads_run_folders(capsys, tmp_path):
    from lorakiln.base import recipe as recipes

    for name in ("one", "two"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        made = {"base": "starter", "name": name, "dataset": [{"folder": "p"}]}
        (folder / "recipe.toml").write_text(recipes.write(parse(made, "r")))
        events = [{"event": "step", "step": n, "loss": 0.1} for n in (1, 2)] + [{"event": "end", "step": 2}]
        (folder / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
        told = {"verdict": "baked", "best": {"name": "x", "step": 1, "strength": 0.8}}
        (folder / "verdict.json").write_text(json.dumps(told))
    code, out = kiln(capsys, "runs", "rebuild", tmp_path / "runs")
    assert code == 0 and out.out == "rebuilt one, two\n"
    one = Ledger().find("one")
    assert "baked; best: step 1 at strength 0.8" in kiln(capsys, "runs", "show", "one")[1].out
    assert (one.status, one.steps, one.loss, one.verdict) == ("finished", 2, pytest.approx(0.1), "baked")
    assert kiln(capsys, "runs", "rebuild", tmp_path / "runs" / "one")[0] == 0 and len(Ledger().entries()) == 2
