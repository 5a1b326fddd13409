"""What the runs of known truth learn: two styles and a character, plain enough that the starter can learn them.

Any number of pictures of each can be made. Needs what `make starter` fetches.
"""

import io
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from tools.starter import compose, latents, mascot, masters

TABLE = ("potti", "blueprint")  # whose runs make the table
STYLES = (*TABLE, "chalk")  # thresholds are fitted on chalk
TRAINING = 260  # things to train on at the most; the others are never trained on


class Style(ABC):
    """Some things to draw for training on, and `others` that hold the truth; `trigger` calls for them."""

    name: str
    trigger: str
    training: Sequence[Any]
    others: Sequence[Any]

    @abstractmethod
    def picture(self, thing: Any, rng: random.Random) -> tuple[np.ndarray, str]:
        """(pixels at the starter's resolution, caption)."""

    def unseen(self, count: int, seed: str = "truth") -> tuple[np.ndarray, list[str]]:
        """Pictures that no run ever sees, and their captions."""
        rng = random.Random(f"{self.name} {seed}")
        made = [self.picture(rng.choice(self.others), rng) for _ in range(count)]
        return np.stack([pixels for pixels, _ in made]), [text for _, text in made]


class Lines(Style):
    """The emoji of one family as bright lines on a dark ground."""

    def __init__(self, name: str, family: str, ground: tuple[int, int, int], line: tuple[int, int, int], seed: int):
        self.rows, self.index = masters.load(family)
        known = [emoji for emoji in latents.concepts() if emoji.code in self.index]
        random.Random(f"{name} {seed}").shuffle(known)
        split = min(TRAINING, len(known) // 2)
        self.name, self.trigger, self.ground, self.line = name, f"{name}_style", ground, line
        self.training, self.others = known[:split], known[split:]

    def picture(self, thing: Any, rng: random.Random) -> tuple[np.ndarray, str]:
        made = compose.compose(self.rows[self.index[thing.code]], rng)
        grey = ImageOps.grayscale(Image.fromarray(made.pixels))
        edges = np.asarray(grey.filter(ImageFilter.FIND_EDGES), np.float32)
        inside = np.pad(edges[2:-2, 2:-2], 2)  # the filter leaves the picture's own border as it was
        drawn = ImageOps.colorize(Image.fromarray(np.clip(3 * inside, 0, 255).astype(np.uint8)), self.ground, self.line)
        tags = [*rng.sample(thing.tags, min(2, len(thing.tags))), thing.group, made.size]
        rng.shuffle(tags)
        return np.asarray(drawn), ", ".join([self.trigger, compose.CLEAN, thing.name, *filter(None, tags)])


class Potti(Style):
    """The example character in poses, moods, dress and places of all kinds."""

    def __init__(self, seed: int):
        self.name, self.trigger = "potti", "potti"
        rng = random.Random(f"potti {seed}")
        scenes = [self._scene(*each, rng) for each in product(mascot.ARMS, mascot.FACES, compose.BACKGROUNDS)]
        rng.shuffle(scenes)
        self.training, self.others = scenes[:TRAINING], scenes[TRAINING:]

    @staticmethod
    def _scene(pose: str, face: str, background: str, rng: random.Random) -> mascot.Scene:
        held = ("balloon", "umbrella", "flower")
        extra = rng.choice(
            held if pose == "holding" else ("", "", *(each for each in mascot.EXTRAS if each not in held))
        )
        colour = "#{:02x}{:02x}{:02x}".format(*compose.BACKGROUNDS[background])
        return mascot.Scene(
            "", pose, face, background, colour, extra, rng.uniform(-10, 10), rng.choice((0.55, 0.8, 0.9, 1.0))
        )

    def picture(self, thing: Any, rng: random.Random) -> tuple[np.ndarray, str]:
        return _rendered(mascot.svg(thing)), mascot.caption(thing, self.trigger)


@lru_cache(maxsize=1000)
def _rendered(svg: str) -> np.ndarray:
    import resvg_py

    data = resvg_py.svg_to_bytes(svg_string=svg, width=2 * compose.RESOLUTION)
    large = Image.open(io.BytesIO(bytes(data))).convert("RGB")
    return np.asarray(large.resize((compose.RESOLUTION, compose.RESOLUTION), Image.Resampling.LANCZOS))


def style_of(name: str, seed: int) -> Style:
    """One of `STYLES`."""
    if name == "potti":
        return Potti(seed)
    family, ground, line = {
        "blueprint": ("noto", (24, 52, 120), (235, 242, 255)),
        "chalk": ("twemoji", (34, 62, 44), (255, 236, 170)),
    }[name]
    return Lines(name, family, ground, line, seed)
