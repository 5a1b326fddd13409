"""The header of a LoRA: what it was made of, and nothing of where."""

import json
import shutil
from pathlib import Path

from lorakiln.base import recipe as recipes
from lorakiln.data.dataset import DatasetSpec, scan
from lorakiln.runs.header import dataset_dirs, tag_frequency, trigger
from lorakiln.tag.captions import CaptionRules, drawer, parse_folder, reader


def dataset(pictures: Path, **rules):
    return scan([DatasetSpec(pictures, read_caption=reader(), draw=drawer(CaptionRules(**rules)))])


def test_paths_become_names(tmp_path):
    table = {"base": str(tmp_path / "a" / "model.safetensors"), "vae": "/x/vae.safetensors", "runs": "/x/runs"}
    table |= {"device": "cpu", "cache": {"folder": "/x/cache"}, "sample": {"file": "/x/prompts.txt"}}
    recipe = recipes.parse(table | {"dataset": [{"folder": "/x/my pictures", "masks": "/x/masks"}]}, "r")
    kept = recipes.portable(recipe.model_dump())
    assert "/x" not in json.dumps(kept) and str(tmp_path) not in json.dumps(kept)
    assert (kept["base"], kept["dataset"][0]["folder"]) == ("model.safetensors", "my pictures")
    assert kept["dataset"][0]["masks"] == "masks"
    assert recipes.parse(kept, "again").vae == "vae.safetensors"


def test_tags_are_counted_once_a_picture(pictures):
    counts = tag_frequency(dataset(pictures))
    assert counts[pictures.name] == {"trigger": 5, "red": 5, "large": 5} | {f"shape {n}": 1 for n in range(5)}


def test_folders_are_told_apart_with_their_own_repeats_and_a_captions_lines_are_alternatives(pictures, tmp_path):
    specs = []
    for place in ("one/10_cat", "two/10_cat", "two/3_dog"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(pictures / "0.png", tmp_path / place / "0.png")
        (tmp_path / place / "0.txt").write_text("a, b\nA cat.")
    for folder in ("one", "two"):
        specs.append(DatasetSpec(tmp_path / folder, read_caption=reader(), draw=drawer(CaptionRules()), repeats=2))
    found = scan(specs, parse_folder)
    assert dataset_dirs(found) == {
        "10_cat": {"n_repeats": 20, "img_count": 1},
        "10_cat (2)": {"n_repeats": 20, "img_count": 1},
        "3_dog": {"n_repeats": 6, "img_count": 1},
    }
    assert tag_frequency(found) == {key: {"a": 1, "b": 1, "A cat.": 1} for key in dataset_dirs(found)}


def test_the_trigger_is_the_first_tag_of_all(pictures, tmp_path):
    assert trigger(dataset(pictures)) == "trigger"
    assert trigger(dataset(pictures, prefix="znkAA")) == "znkAA"
    for number, words in enumerate(["a, x", "b, x"]):
        (tmp_path / f"{number}.png").write_bytes((pictures / "0.png").read_bytes())
        (tmp_path / f"{number}.txt").write_text(words)
    assert trigger(dataset(tmp_path)) == ""
