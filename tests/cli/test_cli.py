"""The command line: exit codes, one line for bad input, JSON for programs."""

import json
import subprocess
import sys

import pytest
import tomlkit
from typer.testing import CliRunner

from lorakiln import __version__
from lorakiln.cli import app
from tests.runs.conftest import base, make, pictures  # noqa: F401  fixtures


def kiln(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "lorakiln", *map(str, words)], capture_output=True, text=True, check=False, **options
    )


def test_no_verb_shows_the_verbs():
    done = kiln("--help")
    assert done.returncode == 0
    for verb in ("train", "tell", "sample", "settings"):
        assert verb in done.stdout


def test_the_version_is_the_packages():
    assert CliRunner().invoke(app, ["--version"]).output == f"kiln {__version__}\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "nowhere.toml"], "kiln: nowhere.toml: no such recipe"),
        (["train", "nowhere.toml", "--resume", "--overwrite"], "kiln: --resume and --overwrite: choose one"),
        (["settings", "optim.lrr"], "kiln: no setting or section 'optim.lrr'; did you mean 'optim.lr'?"),
        (["sample", "--base", "starter"], "kiln: nothing to draw: give --prompt TEXT or --prompts FILE"),
        (["sample", "--base", "nowhere", "--prompt", "x"], "kiln: nowhere: no such file or folder"),
        (["trai", "my.toml"], "kiln: No such command 'trai'. Did you mean 'train'?"),
        (["train"], "kiln: give a recipe's file, or --recipe NAME, and not both"),
        (["tell"], "kiln: Missing argument"),
        (["train", "my.toml", "--resum"], "kiln: No such option: --resum"),
        (["sample", "--base", "x", "--precision", "fp8"], "kiln: Invalid value for '--precision'"),
        (["tell", ".", "stop"], "kiln: .: not a run folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, line, tmp_path):
    done = kiln(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(line), done.stderr
    assert done.stdout == ""


def test_settings_as_json_are_rows_with_every_column():
    rows = json.loads(CliRunner().invoke(app, ["settings", "--json"]).output)
    assert {"optim.lr", "dataset.folder", "base"} <= {row["name"] for row in rows}
    assert all(set(row) == {"name", "default", "allowed", "help", "effect"} for row in rows)
    (row,) = json.loads(CliRunner().invoke(app, ["settings", "loss.noise_offset", "--json"]).output)
    assert row["allowed"] == "number, 0 to 0.2" and row["default"] == "0.0"


def test_train_and_sample_from_the_command_line(make, base, tmp_path):  # noqa: F811
    recipe = tmp_path / "first.toml"
    recipe.write_text(tomlkit.dumps(make()))
    done = kiln("train", recipe, "--set", "train.steps=2")
    assert done.returncode == 0, done.stderr
    lora = tmp_path / "runs" / "first" / "first.safetensors"
    assert lora.exists() and str(lora) in done.stdout
    assert "train: " in done.stdout and "loss" in done.stdout and "in all" in done.stdout
    words = ["sample", "--base", base, "--prompt", "red --w 48", "--prompt", "blue", "--count", 2, "--steps", 2]
    done = kiln(*words, "--lora", f"{lora}:0.5", "--out", tmp_path / "pictures", "--json")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    assert [path.rsplit("/")[-1] for path in files] == ["001.png", "002.png", "003.png", "004.png", "grid.png"]
    done = kiln(*words, "--out", tmp_path / "pictures")
    assert done.returncode == 2 and "001.png: exists" in done.stderr


def test_train_as_json_prints_events_only(make, tmp_path):  # noqa: F811
    recipe = tmp_path / "first.toml"
    recipe.write_text(tomlkit.dumps(make()))
    done = kiln("train", recipe, "--set", "train.steps=2", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == [1, 2]
    assert done.returncode == 0
