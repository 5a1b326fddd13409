"""Pictures drawn by the tests: busy scenes, and plain figures whose skin, face or coat can be changed."""

import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def scene(seed: int, side: int = 256) -> Image.Image:
    """A soft ground with a dozen shapes on it; another seed is another picture."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    coarse = noise.uniform(40, 220, (5, 5, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, reach = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.05, 0.2) * side
        box = (x - reach, y - reach * rng.uniform(0.4, 1), x + reach, y + reach)
        colour = tuple(rng.randint(0, 255) for _ in range(3))
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)(box, colour, (20, 20, 20), side // 100)
    grain = noise.normal(0, 4, (side, side, 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def figure(skin: str = "#fcea2b", mouth: str = "smile", coat: str = "#3f6fb5", ground: str = "white", side: int = 256):
    """A person drawn as emoji are: flat colours, black outlines."""
    image = Image.new("RGB", (side * 2, side * 2), ground)
    pen, unit = ImageDraw.Draw(image), side * 2 / 100
    ink = round(2 * unit)

    def box(*corners: float) -> tuple[float, ...]:
        return tuple(corner * unit for corner in corners)

    pen.rounded_rectangle(box(22, 62, 78, 104), 10 * unit, coat, "black", ink)
    pen.ellipse(box(26, 12, 74, 66), skin, "black", ink)
    for left in (38, 56):
        pen.ellipse(box(left, 30, left + 6, 38), "black")
    if mouth == "smile":
        pen.arc(box(37, 36, 63, 56), 20, 160, "black", ink)
    elif mouth == "frown":
        pen.arc(box(37, 48, 63, 68), 200, 340, "black", ink)
    elif mouth == "line":
        pen.line(box(38, 52, 62, 52), "black", ink)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def save(folder: Path, **pictures: Image.Image) -> Path:
    """Each picture as NAME.png in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return folder
