"""Pictures with planted copies: emoji alone and in scenes, eight kinds of copies each, and look-alikes that are none.

Needs the drawings that `make starter` fetches. Everything is a function of the seed.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from lorakiln.base.errors import UserError
from tools.starter import catalogue
from tools.starter.compose import BACKGROUNDS
from tools.starter.masters import svg_image
from tools.starter.places import OPENMOJI


@dataclass(frozen=True)
class Plan:
    """One original: what is drawn on it, so that a look-alike can be drawn at the same place."""

    emoji: catalogue.Emoji
    side: int
    scene: bool
    seed: int


def drawing(code: str, pixels: int) -> Image.Image:
    """One emoji, transparent around."""
    return svg_image(OPENMOJI / "color" / "svg" / f"{code}.svg", pixels)


def known() -> list[catalogue.Emoji]:
    """Every emoji that has a drawing."""
    if not OPENMOJI.exists():
        raise UserError(f"{OPENMOJI}: missing; 'make starter' fetches the drawings")
    folder = OPENMOJI / "color" / "svg"
    return [emoji for emoji in catalogue.everything() if emoji.group and (folder / f"{emoji.code}.svg").exists()]


def plans(count: int, side: int, seed: int = 0) -> list[Plan]:
    """`count` originals of different concepts: a half alone on a plain ground, a half in scenes."""
    rng = random.Random(seed)
    by_concept = {emoji.concept: emoji for emoji in known()}
    chosen = rng.sample(sorted(by_concept), count)
    return [Plan(by_concept[concept], side, n % 2 == 1, seed * 100_000 + n) for n, concept in enumerate(chosen)]


def draw(plan: Plan, emoji: catalogue.Emoji | None = None) -> Image.Image:
    """The original, or with `emoji` its look-alike: another drawing at the same place."""
    rng = random.Random(plan.seed)
    ground = BACKGROUNDS[rng.choice(["white", *BACKGROUNDS])]
    canvas = _textured(plan, ground, rng) if plan.scene else Image.new("RGB", (plan.side, plan.side), ground)
    if plan.scene:
        others = rng.sample(known(), 3)
        for other in others:
            _place(canvas, other, rng.uniform(0.2, 0.4), rng)
    _place(canvas, emoji or plan.emoji, rng.uniform(0.45, 0.9), rng)
    return canvas


def look_alikes(plan: Plan, every: list[catalogue.Emoji]) -> list[catalogue.Emoji]:
    """Skin-tone variants and siblings of one subgroup, which must not be called copies; at most one of each."""
    rng = random.Random(plan.seed + 1)
    tones = catalogue.SKIN_TONES & set(plan.emoji.code.split("-"))
    same = [e for e in every if e.concept == plan.emoji.concept and not e.plain]
    toned = [e for e in same if catalogue.SKIN_TONES & set(e.code.split("-")) != tones]
    siblings = [e for e in every if e.subgroup == plan.emoji.subgroup and e.concept != plan.emoji.concept]
    return [rng.choice(each) for each in (toned, siblings) if each]


def _textured(plan: Plan, ground: tuple[int, int, int], rng: random.Random) -> Image.Image:
    noise = np.random.default_rng(plan.seed)
    coarse = noise.normal(0, 60, (9, 9, 3)) + np.array(ground)
    smooth = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((plan.side,) * 2, Image.Resampling.BICUBIC)
    grain = noise.normal(0, rng.uniform(2, 10), (plan.side, plan.side, 1))
    return Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))


def _place(canvas: Image.Image, emoji: catalogue.Emoji, share: float, rng: random.Random) -> None:
    pixels = int(canvas.width * share)
    spare = canvas.width - pixels
    at = (rng.randint(0, spare), rng.randint(0, spare)) if spare else (0, 0)
    image = drawing(emoji.code, pixels)
    canvas.paste(image, at, image)


def resized(image: Image.Image, rng: random.Random) -> Image.Image:
    factor = rng.choice([rng.uniform(0.3, 0.8), rng.uniform(1.2, 1.6)])
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, rng: random.Random) -> Image.Image:
    """80 % of each side, anywhere; every other one enlarged again."""
    width, height = round(image.width * 0.8), round(image.height * 0.8)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    part = image.crop((left, top, left + width, top + height))
    return part.resize(image.size, Image.Resampling.LANCZOS) if rng.random() < 0.5 else part


def recoloured(image: Image.Image, rng: random.Random) -> Image.Image:
    """One of the changes that people make: hue, saturation, brightness, contrast, gamma, warmth, grey."""
    way = rng.choice(["hue", "saturation", "brightness", "contrast", "gamma", "warmth", "grey"])
    if way == "hue":
        hue, rest, value = image.convert("HSV").split()
        turn = rng.choice([-1, 1]) * rng.randint(12, 90)
        turned = Image.fromarray(((np.asarray(hue).astype(int) + turn) % 256).astype(np.uint8))
        return Image.merge("HSV", (turned, rest, value)).convert("RGB")
    if way == "saturation":
        return ImageEnhance.Color(image).enhance(rng.choice([rng.uniform(0.3, 0.7), rng.uniform(1.4, 2)]))
    if way == "brightness":
        return ImageEnhance.Brightness(image).enhance(rng.choice([rng.uniform(0.6, 0.85), rng.uniform(1.1, 1.3)]))
    if way == "contrast":
        return ImageEnhance.Contrast(image).enhance(rng.choice([rng.uniform(0.6, 0.85), rng.uniform(1.15, 1.4)]))
    if way == "gamma":
        power = rng.choice([rng.uniform(0.6, 0.85), rng.uniform(1.2, 1.6)])
        return image.point([round(255 * (value / 255) ** power) for value in range(256)] * 3)
    if way == "warmth":
        gains = np.array([rng.uniform(1.05, 1.2), 1, rng.uniform(0.75, 0.92)])
        return Image.fromarray((np.asarray(image) * gains).clip(0, 255).astype(np.uint8))
    return ImageOps.grayscale(image).convert("RGB")


def watermarked(image: Image.Image, rng: random.Random) -> Image.Image:
    """A line of text near an edge, or three across the picture, see-through or not."""
    text = rng.choice(
        ["sample.example.org", "(c) Some Artist", "@an_artist", "PREVIEW - DO NOT USE", "stock photo 1234"]
    )
    font = ImageFont.load_default(size=rng.uniform(0.035, 0.06) * image.width)
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    ink = (*rng.choice([(255, 255, 255), (0, 0, 0), (128, 128, 128)]), rng.randint(90, 220))
    width = pen.textlength(text, font=font)
    across = rng.random() < 0.3
    rows = (0.25, 0.5, 0.75) if across else (rng.choice([0.03, 0.92]),)
    for row in rows:
        pen.text((rng.uniform(0.02, 0.96) * (image.width - width), row * image.height), text, ink, font)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def padded(image: Image.Image, rng: random.Random) -> Image.Image:
    """A plain frame of 3 to 8 % a side."""
    frame = round(image.width * rng.uniform(0.03, 0.08))
    return ImageOps.expand(image, frame, rng.choice([(0, 0, 0), (255, 255, 255), (128, 128, 128)]))


CHANGES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "resized": resized,
    "cropped": cropped,
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "recoloured": recoloured,
    "watermarked": watermarked,
    "padded": padded,
}
KINDS = ("exact", "reencoded", *CHANGES)


def write(folder: Path, count: int, side: int, seed: int = 0, alike: bool = True) -> Iterator[tuple[str, int, str]]:
    """Write originals, eight copies of each, and look-alikes; yields (file name, original's number, kind).

    A look-alike's number is its own (no other file has it).
    """
    folder.mkdir(parents=True, exist_ok=True)
    every, strangers = known(), 0
    for number, plan in enumerate(plans(count, side, seed)):
        image, rng = draw(plan), random.Random(plan.seed + 2)
        original = folder / f"{number:03}_original.png"
        image.save(original, compress_level=1)
        yield original.name, number, "original"
        (folder / f"{number:03}_exact.png").write_bytes(original.read_bytes())
        yield f"{number:03}_exact.png", number, "exact"
        ending = rng.choice([".jpg", ".webp"])
        image.save(folder / f"{number:03}_reencoded{ending}", quality=rng.randint(35, 90))
        yield f"{number:03}_reencoded{ending}", number, "reencoded"
        for kind, change in CHANGES.items():
            name = f"{number:03}_{kind}{rng.choice(['.png', '.jpg'])}"
            change(image, rng).save(
                folder / name, **({"quality": 90} if name.endswith("jpg") else {"compress_level": 1})
            )
            yield name, number, kind
        for emoji in look_alikes(plan, every) if alike else ():
            strangers += 1
            name = f"{number:03}_alike_{emoji.code}.png"
            draw(plan, emoji).save(folder / name, compress_level=1)
            yield name, -strangers, "alike"


def blurred(image: Image.Image, radius: float) -> Image.Image:
    """Out of focus by `radius` pixels."""
    return image.filter(ImageFilter.GaussianBlur(radius))
