"""The header of a LoRA: what it was made of, and nothing of where."""

import json
from pathlib import Path

from lorakiln.base import recipe as recipes
from lorakiln.data.dataset import DatasetSpec, scan
from lorakiln.runs.header import tag_frequency, trigger
from lorakiln.tag.captions import CaptionRules, drawer, reader


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


def test_the_trigger_is_the_first_tag_of_all(pictures, tmp_path):
    assert trigger(dataset(pictures)) == "trigger"
    assert trigger(dataset(pictures, prefix="znkAA")) == "znkAA"
    for number, words in enumerate(["a, x", "b, x"]):
        (tmp_path / f"{number}.png").write_bytes((pictures / "0.png").read_bytes())
        (tmp_path / f"{number}.txt").write_text(words)
    assert trigger(dataset(tmp_path)) == ""
