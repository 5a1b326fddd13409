"""Puts a cut-out emoji on a plain background, sometimes spoils it, and says what was done."""

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from .places import RESOLUTION

BACKGROUNDS = {
    "white": (250, 250, 250),
    "black": (18, 18, 20),
    "grey": (150, 152, 156),
    "red": (214, 58, 56),
    "orange": (240, 150, 60),
    "yellow": (250, 214, 90),
    "green": (92, 170, 88),
    "blue": (62, 104, 196),
    "light blue": (160, 208, 238),
    "purple": (138, 88, 176),
    "pink": (244, 168, 190),
    "brown": (132, 92, 66),
}
WHITE_SHARE = 0.3
SIZES = {"small": (50, 64), "": (76, 96), "large": (104, 122)}  # pixels of 128; "" has no tag
SIZE_SHARES = (0.15, 0.45, 0.4)
CLEAN = "score_9"
SPOILED = ("score_6", "score_5", "score_4")


@dataclass(frozen=True)
class Picture:
    """A composed picture and the facts its caption may tell."""

    pixels: np.ndarray  # H x W x 3, uint8
    background: str
    size: str
    score: str
    crop: tuple[int, int, int, int]  # original height, width, crop top, left


def background(rng: random.Random, name: str) -> tuple[int, int, int]:
    """A shade of the named colour."""
    return tuple(max(0, min(255, part + rng.randint(-10, 10))) for part in BACKGROUNDS[name])


def spoil(image: Image.Image, score: str, rng: random.Random) -> Image.Image:
    """Blur, shrink and compress: the lower the score, the worse."""
    level = 1 + SPOILED.index(score)  # 1 mild, 3 bad
    side = image.width
    how = rng.choice(("blur", "small", "both"))
    if how != "small":
        image = image.filter(ImageFilter.GaussianBlur(0.5 + 0.65 * level))
    if how != "blur":
        low = round(side / (1.2 + 0.7 * level))
        image = image.resize((low, low), Image.Resampling.BOX)
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=60 - 15 * level)
    return Image.open(stored).convert("RGB")


def choose_size(rng: random.Random) -> str:
    """A size tag."""
    return rng.choices(list(SIZES), SIZE_SHARES)[0]


def choose_background(rng: random.Random) -> str:
    """A background's name; white is the commonest."""
    return "white" if rng.random() < WHITE_SHARE else rng.choice(list(BACKGROUNDS))


def place(master: np.ndarray, canvas: Image.Image, side: int, rng: random.Random) -> None:
    """Draw the emoji `side` pixels large on the canvas, somewhere that it fits."""
    drawn = Image.fromarray(master).resize((side, side), Image.Resampling.LANCZOS)
    free = (canvas.width - side) // 2
    reach = min(free, 6 + free // 3)  # near the middle, as a person would place it
    left = free + rng.randint(-reach, reach)
    top = (canvas.height - side) // 2 + rng.randint(-reach, reach)
    canvas.paste(drawn, (left, top), drawn)


def compose(master: np.ndarray, rng: random.Random, score: str = CLEAN) -> Picture:
    """A whole picture at the starter's resolution."""
    colour, size = choose_background(rng), choose_size(rng)
    side = rng.randint(*SIZES[size])
    canvas = Image.new("RGB", (RESOLUTION, RESOLUTION), background(rng, colour))
    place(master, canvas, side, rng)
    if score != CLEAN:
        canvas = spoil(canvas, score, rng)
    facts = (RESOLUTION, RESOLUTION, 0, 0)
    return Picture(np.asarray(canvas), colour, size, score, facts)


def compose_crop(master: np.ndarray, rng: random.Random) -> Picture:
    """A crop of a larger picture, with the coordinates that SDXL is told of it."""
    colour = choose_background(rng)
    height, width = RESOLUTION + 8 * rng.randint(0, 6), RESOLUTION + 8 * rng.randint(0, 6)
    canvas = Image.new("RGB", (width, height), background(rng, colour))
    place(master, canvas, int(min(height, width) * rng.uniform(0.8, 0.95)), rng)
    top, left = rng.randint(0, height - RESOLUTION), rng.randint(0, width - RESOLUTION)
    box = (left, top, left + RESOLUTION, top + RESOLUTION)
    return Picture(np.asarray(canvas.crop(box)), colour, "large", CLEAN, (height, width, top, left))
