"""A base, pictures and a recipe small enough that a whole run takes seconds, and real all the same."""

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from lorakiln.base import recipe as recipes
from lorakiln.base.settings import Recipe
from lorakiln.runs.run import Result, train
from tests.tiny import tiny_sdxl_file


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A tiny SDXL single file."""
    return tiny_sdxl_file(tmp_path_factory.mktemp("base") / "tiny.safetensors")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Five pictures of three shapes, with captions."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate([(64, 64), (64, 64), (96, 48), (48, 96), (80, 80)]):
        draw_picture(folder / f"{number}.png", size, number)
        (folder / f"{number}.txt").write_text(f"trigger, shape {number}, red, large")
    return folder


def draw_picture(path: Path, size: tuple[int, int], seed: int) -> None:
    rng = random.Random(seed)
    picture = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    box = [rng.randrange(size[0] // 2), rng.randrange(size[1] // 2), size[0] - 4, size[1] - 4]
    ImageDraw.Draw(picture).ellipse(box, fill=tuple(rng.randrange(256) for _ in range(3)))
    picture.save(path)


def recipe_table(base: Path, pictures: Path, folder: Path, /, **changes: Any) -> dict[str, Any]:
    """The settings of a run of a few seconds below `folder`, with changes laid over them, section by section."""
    small: dict[str, Any] = {
        "base": str(base),
        "runs": str(folder / "runs"),
        "prediction": "epsilon",
        "adapter": {"rank": 4, "alpha": 4.0},
        "optim": {"lr": 1e-3, "warmup": 2.0},
        "train": {"epochs": 3, "batch": 2},
        "cache": {"folder": str(folder / "cache")},
        "dataset": [{"folder": str(pictures), "bucket_step": 16, "shuffle": True, "keep_tokens": 1}],
    }
    for section, values in changes.items():
        small[section] = small.get(section, {}) | values if isinstance(values, dict) else values
    return small


@pytest.fixture
def make(base, pictures, tmp_path):
    """`recipe_table` in the test's own folder."""
    return partial(recipe_table, base, pictures, tmp_path)


@pytest.fixture
def run(make):
    """Train a recipe with changes; the result's folder holds everything."""

    def go(name: str = "a", *, resume: bool = False, overwrite: bool = False, **changes) -> Result:
        recipe: Recipe = recipes.parse(make(name=name, **changes), "test.toml")
        return train(recipe, Path("test.toml"), resume=resume, overwrite=overwrite)

    return go


def events(result: Result, kind: str = "step") -> list[dict]:
    lines = map(json.loads, result.folder.events.read_text().splitlines())
    return [line for line in lines if line["event"] == kind]


def losses(result: Result) -> list[float]:
    return [event["loss"] for event in events(result)]
