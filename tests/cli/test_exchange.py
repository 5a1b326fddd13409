"""`kiln import` and `kiln export` at the command line."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lorakiln.base.recipe import read
from lorakiln.cli import app
from tests.cli.test_cli import kiln

PRESET = Path(__file__).parent.parent / "exchange" / "presets" / "t5clrs.json"


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_import_as_json_has_the_promised_form():
    answer = json.loads(run("import", PRESET, "--json"))
    assert set(answer) == {"recipe", "keys"}
    assert all(set(row) == {"key", "value", "fate", "to", "why"} for row in answer["keys"])
    assert answer["recipe"]["optim"]["options"]["betas"] == [0.9, 0.99]


def test_an_imported_recipe_can_be_read_and_is_not_overwritten(tmp_path):
    text = run("import", PRESET, "--base", "starter", "--folder", "pics", "--out", tmp_path / "my.toml")
    assert "full_bf16" in text and "kiln check" in text
    recipe = read(tmp_path / "my.toml")
    assert (recipe.base, recipe.dataset[0].folder, recipe.adapter.alpha) == ("starter", "pics", 2.0)
    done = kiln("import", PRESET, "--out", tmp_path / "my.toml")
    assert done.returncode == 2 and "exists" in done.stderr and done.stderr.count("\n") == 1


def test_the_report_fits_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], ["--all"]):
        lines = run("import", PRESET, *words).splitlines()
        assert max(map(len, lines)) <= 80
    assert any("clip_skip" in line for line in lines)


def test_export_writes_what_import_reads(tmp_path):
    run("import", PRESET, "--out", tmp_path / "my.toml")
    run("export", tmp_path / "my.toml", "--out", tmp_path / "back.json")
    again = json.loads(run("import", tmp_path / "back.json", "--json"))["recipe"]
    assert again == json.loads(run("import", PRESET, "--json"))["recipe"]


def test_a_preset_with_folders_that_the_gui_cannot_name_has_a_dataset_file(tmp_path):
    (tmp_path / "flat").mkdir()
    (tmp_path / "my.toml").write_text(f'base = "b"\n[[dataset]]\nfolder = "{tmp_path / "flat"}"\nrepeats = 3\n')
    run("export", tmp_path / "my.toml", "--out", tmp_path / "back.json")
    named = json.loads((tmp_path / "back.json").read_text())["dataset_config"]
    assert "num_repeats = 3" in Path(named).read_text()


def test_export_to_sd_scripts_writes_a_command(tmp_path):
    run("import", PRESET, "--out", tmp_path / "my.toml")
    answer = json.loads(run("export", tmp_path / "my.toml", "--to", "sd-scripts", "--json"))
    (text,) = answer["files"].values()
    assert "--optimizer_type=Prodigy" in text and "betas=0.9,0.99" in text
    assert not answer["problems"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["import", "nowhere.json"], "kiln: nowhere.json: no such file"),
        (["export", "my.toml", "--to", "comfy"], "kiln: --to comfy: choose from kohya, sd-scripts"),
    ],
)
def test_bad_input_is_one_line(words, line, tmp_path):
    shutil.copy(PRESET, tmp_path)
    (tmp_path / "my.toml").write_text('base = "starter"\n[[dataset]]\nfolder = "x"\n')
    done = kiln(*words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(line) and done.stderr.count("\n") == 1
