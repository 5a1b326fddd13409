"""Runs whose truth is known: on pictures of one emoji family, some to train on and many that no run ever sees."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lorakiln.base import recipe as recipes
from tools.starter import examples, latents, masters
from tools.starter.compose import Picture, compose

GOOD_STEPS, GOOD_LR = 300, 2e-3


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


def cases(style: str = "noto", seed: int = 1) -> list[Case]:
    """The table's runs, the telling ones first, so that a sample is a fair look at all of them."""
    told = [
        (40, 1, 1, 16), (40, 0.2, 0.1, 16), (8, 2, 3, 16), (40, 1, 8, 16), (20, 0.5, 1, 8), (40, 0.05, 1, 16),
        (5, 8, 1, 16), (80, 1, 1, 16), (40, 4, 1, 16), (40, 1, 0.3, 16), (40, 1, 30, 16), (20, 2, 3, 4),
        (40, 1, 3, 64), (200, 1, 1, 32), (10, 1, 1, 1), (40, 0.5, 3, 16), (20, 0.25, 1, 16), (5, 0.5, 1, 4),
        (80, 0.3, 3, 8), (200, 0.3, 1, 8), (80, 0.5, 1, 8), (10, 0.5, 3, 8), (20, 1, 10, 16), (80, 1, 10, 4),
        (200, 0.5, 0.3, 32), (40, 0.3, 10, 4), (5, 1, 0.1, 64), (200, 1, 0.1, 16), (80, 2, 0.3, 16), (40, 2, 1, 1),
        (10, 4, 0.3, 8), (200, 4, 3, 64), (40, 8, 0.3, 16), (20, 8, 1, 32),
    ]  # fmt: skip
    found = [Case(style, *row, seed=seed) for row in told]
    found[4:4] = [Case(style, 20, 1, 1, 16, "twice", seed)]
    found[16:16] = [Case(style, 40, 1, 1, 16, "shuffled", seed), Case(style, 40, 2, 3, 16, "shuffled", seed)]
    return [*found, Case(style, 20, 4, 1, 16, "twice", seed)]


class Style:
    """The pictures of one emoji family: some to train on, others that hold the truth."""

    def __init__(self, name: str, seed: int):
        rows, index = masters.load(name)
        known = [emoji for emoji in latents.concepts() if emoji.code in index]
        rng = random.Random(f"{name} {seed}")
        rng.shuffle(known)
        split = min(260, len(known) // 2)
        self.name, self.trigger, self.rows, self.index = name, f"{name}_style", rows, index
        self.training, self.others = known[:split], known[split:]

    def picture(self, emoji, rng: random.Random) -> tuple[Picture, str]:
        made = compose(self.rows[self.index[emoji.code]], rng)
        text = examples.caption(emoji, made.background, made.size, rng)
        return made, text.replace(examples.STYLE, self.trigger)

    def write(self, case: Case, folder: Path) -> None:
        """The training pictures of a case, with their captions and flaws."""
        rng = random.Random(case.name)
        chosen = [self.training[n % len(self.training)] for n in range(case.pictures)]
        made = [self.picture(emoji, rng) for emoji in chosen]
        texts = [text for _, text in made]
        if case.flaw == "shuffled":
            rng.shuffle(texts)
        folder.mkdir(parents=True, exist_ok=True)
        for n, ((picture, _), text) in enumerate(zip(made, texts, strict=True)):
            for copy in ("", "-again")[: 2 if case.flaw == "twice" else 1]:
                Image.fromarray(picture.pixels).save(folder / f"{n:03d}{copy}.png")
                (folder / f"{n:03d}{copy}.txt").write_text(text, encoding="utf-8")

    def unseen(self, count: int, seed: str = "truth") -> tuple[np.ndarray, list[str]]:
        """Pictures that no run ever sees, and their captions."""
        rng = random.Random(f"{self.name} {seed}")
        made = [self.picture(rng.choice(self.others), rng) for _ in range(count)]
        return np.stack([picture.pixels for picture, _ in made]), [text for _, text in made]


def recipe_of(case: Case, folder: Path) -> recipes.Recipe:
    """Four checkpoints, the last of them the end."""
    steps, rank = max(5, round(case.length * GOOD_STEPS)), float(case.rank)
    table = {
        "base": "starter", "runs": str(folder / "runs"), "name": case.name, "seed": case.seed,
        "adapter": {"rank": case.rank, "alpha": rank, "conv_rank": case.rank, "conv_alpha": rank},
        "optim": {"lr": case.lr * GOOD_LR, "schedule": "constant", "warmup": 0.05},
        "train": {"epochs": 100_000, "steps": steps, "batch": 4}, "save": {"steps": max(1, -(-steps // 4))},
        "cache": {"latents": "memory"},
        "dataset": [{
            "folder": str(folder / "sets" / case.name), "bucket_step": 16, "shuffle": True, "keep_tokens": 3,
            "heldout": 0.15,
        }],
    }  # fmt: skip
    return recipes.parse(table, case.name)


def trained_pictures(case: Case, folder: Path) -> np.ndarray:
    files = sorted((folder / "sets" / case.name).glob("*.png"))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
