"""Runs whose truth is known: on pictures of one style or character, some to train on and many that no run ever sees."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.judge_styles import Style
from lorakiln.base import recipe as recipes

GOOD_STEPS, GOOD_LR = 150, 2e-3


@dataclass(frozen=True)
class Case:
    """One run. `length` and `lr` are factors on a good run's; `flaw` is "", "twice" (each picture twice) or "shuffled"
    (captions of other pictures)."""

    style: str
    pictures: int
    length: float
    lr: float
    rank: int
    flaw: str = ""
    seed: int = 1

    @property
    def name(self) -> str:
        flaw = f"-{self.flaw}" if self.flaw else ""
        return f"{self.style}-{self.pictures}p-{self.length:g}x-lr{self.lr:g}-r{self.rank}{flaw}-s{self.seed}"


def cases(style: str, seed: int = 1) -> list[Case]:
    """The table's runs, the telling ones first, so that a sample is a fair look at all of them."""
    told = [
        (40, 1, 1, 16), (40, 0.2, 0.1, 16), (8, 2, 3, 16), (40, 1, 8, 16), (20, 0.5, 1, 8), (40, 0.05, 1, 16),
        (5, 4, 1, 16), (40, 2, 1, 16), (40, 1, 0.3, 16), (40, 1, 30, 16), (20, 2, 3, 4), (200, 1, 1, 32),
        (10, 1, 1, 1), (80, 0.5, 3, 16), (20, 1, 10, 16), (80, 2, 0.3, 8), (5, 1, 0.1, 64), (40, 4, 1, 8),
        (10, 0.5, 3, 8), (200, 2, 3, 64), (40, 0.3, 10, 4), (5, 8, 1, 32),
    ]  # fmt: skip
    found = [Case(style, *row, seed=seed) for row in told]
    found[6:6] = [Case(style, 20, 1, 1, 16, "twice", seed)]
    found[13:13] = [Case(style, 40, 1, 1, 16, "shuffled", seed)]
    return found


def write(style: Style, case: Case, folder: Path) -> None:
    """The training pictures of a case, with their captions and flaws."""
    rng = random.Random(case.name)
    made = [style.picture(style.training[n % len(style.training)], rng) for n in range(case.pictures)]
    texts = [text for _, text in made]
    if case.flaw == "shuffled":
        rng.shuffle(texts)
    folder.mkdir(parents=True, exist_ok=True)
    for n, ((pixels, _), text) in enumerate(zip(made, texts, strict=True)):
        for copy in ("", "-again")[: 2 if case.flaw == "twice" else 1]:
            Image.fromarray(pixels).save(folder / f"{n:03d}{copy}.png")
            (folder / f"{n:03d}{copy}.txt").write_text(text, encoding="utf-8")


def recipe_of(case: Case, folder: Path) -> recipes.Recipe:
    """Four checkpoints, the last of them the end."""
    steps, rank = max(5, round(case.length * GOOD_STEPS)), float(case.rank)
    table = {
        "base": "starter", "runs": str(folder / "runs"), "name": case.name, "seed": case.seed,
        "adapter": {"rank": case.rank, "alpha": rank, "conv_rank": case.rank, "conv_alpha": rank},
        "optim": {"lr": case.lr * GOOD_LR, "schedule": "constant", "warmup": 0.05},
        "train": {"epochs": 100_000, "steps": steps, "batch": 4}, "save": {"steps": max(1, -(-steps // 4))},
        "cache": {"latents": "memory"}, "loss": {"debiased": True},
        "dataset": [{
            "folder": str(folder / "sets" / case.name), "bucket_step": 16, "shuffle": True, "keep_tokens": 3,
            "heldout": 0.15,
        }],
    }  # fmt: skip
    return recipes.parse(table, case.name)


def trained_pictures(case: Case, folder: Path) -> np.ndarray:
    """(N, H, W, 3) of them, as they were written."""
    files = sorted((folder / "sets" / case.name).glob("*.png"))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
