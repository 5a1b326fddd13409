"""What `kiln train` says before it trains, and what keeps it from training."""

import json

import pytest
import tomlkit
from PIL import Image

from tests.cli.verbs import kiln


@pytest.fixture
def recipe_file(make, tmp_path):
    def write(**changes):
        path = tmp_path / "mine.toml"
        path.write_text(tomlkit.dumps(make(**changes)))
        return path

    return write


def test_an_error_of_check_stops_training_before_anything_is_written(recipe_file, capsys, tmp_path):
    recipe = recipe_file(optim={"name": "came", "lr": 5e-4})
    code, said = kiln(capsys, "train", recipe)
    assert code == 2
    assert "K001 error" in said.out and "ignore = [...]" in said.err
    assert not (tmp_path / "runs").exists()


def test_an_ignored_error_does_not_stop_it(recipe_file, capsys, tmp_path):
    recipe = recipe_file(optim={"name": "came", "lr": 5e-4}, train={"epochs": 1}, ignore=["K001"])
    code, said = kiln(capsys, "train", recipe)
    assert code == 0 and "K001" not in said.out
    assert (tmp_path / "runs" / "mine" / "mine.safetensors").exists()


def test_json_puts_the_findings_before_the_steps(recipe_file, capsys):
    code, said = kiln(capsys, "train", recipe_file(train={"epochs": 1}), "--json")
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert code == 0 and lines[0]["event"] == "check"
    assert {"id", "severity", "fix"} <= lines[0]["findings"][0].keys()
    assert lines[-1]["event"] == "end"


def test_a_named_recipe_trains_with_changes(base, pictures, tmp_path, capsys):
    changes = {
        "base": base, "dataset.0.folder": pictures, "dataset.0.bucket_step": 16, "runs": tmp_path / "runs",
        "optim.lr": 2e-4, "train.steps": 2, "sample.epochs": 0, "train.precision": "fp32", "prediction": "epsilon",
    }  # fmt: skip
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    code, said = kiln(capsys, "train", "--recipe", "came-dora-style", *words)
    assert code == 0, said.err
    recipe = tomlkit.parse((tmp_path / "runs" / "came-dora-style" / "recipe.toml").read_text())
    assert recipe["optim"]["lr"] == 2e-4 and recipe["adapter"]["dora"] is True


def test_a_file_or_a_name_but_not_both_and_not_neither(recipe_file, capsys):
    for words in ([], [recipe_file(), "--recipe", "came-character"]):
        code, said = kiln(capsys, "train", *words)
        assert code == 2 and said.err.count("\n") == 1 and "--recipe NAME" in said.err
    code, said = kiln(capsys, "train", "--recipe", "unheard-of")
    assert code == 2 and "prodigy-fast" in said.err


def test_the_run_says_what_its_buckets_crop_and_its_masks_leave(recipe_file, pictures, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    for path in pictures.glob("*.png"):
        with Image.open(path) as picture:
            mask = Image.new("L", picture.size, 255)
        mask.paste(0, (0, 0, 32 if path.stem == "0" else 0, mask.height))
        mask.save(tmp_path / "masks" / path.name)
    table = {"folder": str(pictures), "bucket_step": 16, "resolution": 64, "masks": str(tmp_path / "masks")}
    code, said = kiln(capsys, "train", recipe_file(train={"epochs": 1}, dataset=[table]))
    assert code == 0, said.err
    # 80x80 is shrunk to 64x64 whole; 96x48 to 80x48, the area's nearest, which cuts 1/6 of its width at equal height
    assert (
        "buckets: 48x80 (1), 64x64 (3), 80x48 (1); 6.7% of a picture is cropped on average, 16.7% at most" in said.out
    )
    assert "masks: 5 of 5 pictures have one; 90.0% of their pixels count" in said.out
