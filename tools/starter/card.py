"""Draws the model card's grid of 64 through Kiln's own loader and sampler, and prints its captions' names."""

import argparse
import random

import numpy as np
import torch

from lorakiln import families
from lorakiln.sample.generate import Request, draw

from . import known
from .compose import BACKGROUNDS
from .draw import grid
from .places import REPO, RESOLUTION, SEED

COUNT, COLUMNS = 64, 8


def captions(seed: int = SEED) -> list[str]:
    """64 of the concepts that were shown most, drawn by chance, half of them on white."""
    rng = random.Random(seed)
    names = rng.sample(sorted(known.CORE), COUNT)
    colours = [rng.choice(["white", rng.choice(list(BACKGROUNDS))]) for _ in names]
    return [
        f"score_9, {name}, source_openmoji, {colour} background, large"
        for name, colour in zip(names, colours, strict=True)
    ]


def make(base: str, out: str, scale: float) -> None:
    """Draw and save."""
    wanted = captions()
    requests = [
        Request(caption, width=RESOLUTION, height=RESOLUTION, steps=25, cfg=scale, seed=seed)
        for seed, caption in enumerate(wanted)
    ]
    pictures = draw(families.load(base), requests, batch=8)
    sheet = grid(np.stack([np.asarray(picture) for picture in pictures]), COLUMNS)
    path = REPO / "docs" / "pictures" / out
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=82)
    print(", ".join(caption.split(", ")[1] for caption in wanted))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", default="starter")
    parser.add_argument("--out", default="starter-grid.webp")
    parser.add_argument("--scale", type=float, default=4.0)
    options = parser.parse_args()
    torch.set_num_threads(2)
    make(options.base, options.out, options.scale)
