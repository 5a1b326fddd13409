"""What the tests of effects share: a place with bases and pictures, and what a run in it comes to."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from lorakiln.base import recipe as recipes
from lorakiln.runs.build import build
from lorakiln.runs.reporter import Silent, Stages
from lorakiln.runs.run import train
from lorakiln.train.events import EventLog
from lorakiln.train.loop import Loop
from tests.runs.conftest import draw_picture
from tests.tiny import tiny_sdxl_file

ONE = "dataset.0."


def make_place(folder: Path) -> Path:
    """Two bases, two folders of pictures, prompts and a LoRA to go on from."""
    tiny_sdxl_file(folder / "base.safetensors")
    tiny_sdxl_file(folder / "other.safetensors", seed=1)
    for name in ("pictures", "others"):
        (folder / name).mkdir()
        for number, size in enumerate([(64, 64), (64, 64), (96, 40), (40, 96)]):
            path = folder / name / f"{number}.png"
            draw_picture(path, size, number + 10 * (name == "others"))
            path.with_suffix(".txt").write_text(
                f"trigger, {{red|green|blue}} hat, large red {number}, shape, top, left"
            )
            path.with_suffix(".caption").write_text(f"another caption {number}")
        see_through(folder / name / "0.png")
    (folder / "prompts.txt").write_text("red --s 2\n")
    result = train(parsed(folder, {"train.steps": 2, "optim.lr": 1e-2}, "init"), folder / "init.toml")
    (folder / "init.safetensors").write_bytes(result.folder.lora.read_bytes())
    return folder


def see_through(path: Path) -> None:
    picture = Image.open(path).convert("RGBA")
    alpha = Image.new("L", picture.size, 0)
    ImageDraw.Draw(alpha).ellipse([8, 8, 50, 50], fill=255)
    picture.putalpha(alpha)
    picture.save(path)


def parsed(place: Path, changes: dict[str, Any], name: str = "a") -> recipes.Recipe:
    table: dict[str, Any] = {
        "base": "base.safetensors",
        "name": name,
        "runs": "runs",
        "adapter": {"rank": 4, "alpha": 4.0},
        "optim": {"lr": 1e-3},
        "train": {"epochs": 2, "batch": 2},
        "cache": {"latents": "memory"},
        "dataset": [{"folder": "pictures", "bucket_step": 16}],
    }
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        inner: Any = table
        for parent in parents:
            inner = inner[int(parent)] if parent.isdigit() else inner.setdefault(parent, {})
        inner[key] = copy.deepcopy(value)
    for key in ("base", "vae", "init"):
        table[key] = str(place / table[key]) if table.get(key) else ""
    table["runs"] = str(place / table["runs"])
    table["dataset"][0]["folder"] = str(place / table["dataset"][0]["folder"])
    if table.get("sample", {}).get("file"):
        table["sample"]["file"] = str(place / table["sample"]["file"])
    return recipes.parse(table, "effects.toml")


@dataclass
class Outcome:
    losses: list[float]
    seen: list[list[str]]
    weights: dict[str, torch.Tensor]


def outcome(recipe: recipes.Recipe, tmp_path: Path, still: bool = False) -> Outcome:
    """Losses, pictures seen and trained weights of a run, without the files around it; `still`: no step is taken."""
    stages = Stages(Silent())
    parts = build(recipe, stages)
    parts.fill_caches(stages)
    losses: list[float] = []
    log = EventLog(tmp_path / "events.jsonl", lambda line: losses.append(line["loss"]))
    seen = []
    real = parts.step.losses

    def watched(batch, step):
        seen.append(batch.names)
        return real(batch, step)

    object.__setattr__(parts.step, "losses", watched)
    if still:
        parts.learner.optimizer.step = lambda: None
    try:
        Loop(parts.step, parts.learner, parts.plan, log, [], lambda step: None).run()
    finally:
        log.close()
    weights = {name: tensor.clone() for name, tensor in parts.network.state_dict().items()}
    parts.loader.close()
    return Outcome(losses, seen, weights)
