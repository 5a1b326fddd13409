"""Makes the example datasets: a style (Twemoji), its held-out pictures with masks, and a mascot."""

import io
import random
from pathlib import Path

from PIL import Image

from . import catalogue, compose, mascot
from .masters import svg_image, twemoji_code
from .places import EXAMPLES, SEED, TWEMOJI

SIDE = 512  # pixels
STYLE, MASCOT = "twmj_style", "potti"


def names(line: str) -> list[str]:
    """Names from one comma-separated line."""
    return line.split(", ")


TRAIN = names(
    "dog face, cat face, fox, panda, koala, frog, penguin, owl, butterfly, snail, turtle, whale, "
    "octopus, crab, red apple, banana, strawberry, watermelon, pineapple, carrot, mushroom, "
    "cactus, sunflower, tulip, hamburger, pizza, french fries, doughnut, cupcake, ice cream, "
    "automobile, bus, rocket, sailboat, bicycle, grinning face, smiling face with sunglasses, "
    "skull, crown, house"
)
HELD_OUT = names(
    "rabbit face, bear, pig face, tiger face, dolphin, lady beetle, cherries, pear, lemon, tomato, "
    "palm tree, cherry blossom, cookie, hot beverage, fire engine, helicopter, robot, top hat, "
    "castle, alien"
)


def placed(drawn: Image.Image, rng: random.Random) -> tuple[Image.Image, Image.Image, str, str]:
    """(picture, mask, background, size) of a cut-out emoji on a plain background."""
    colour, size = compose.choose_background(rng), compose.choose_size(rng)
    zoom = SIDE // compose.RESOLUTION
    side = rng.randint(*compose.SIZES[size]) * zoom
    drawn = drawn.crop(drawn.getchannel("A").getbbox())
    scale = side / max(drawn.size)
    drawn = drawn.resize((round(drawn.width * scale), round(drawn.height * scale)))
    reach = min((SIDE - side) // 2, 6 * zoom)
    left = (SIDE - drawn.width) // 2 + rng.randint(-reach, reach)
    top = (SIDE - drawn.height) // 2 + rng.randint(-reach, reach)
    picture = Image.new("RGB", (SIDE, SIDE), compose.background(rng, colour))
    picture.paste(drawn, (left, top), drawn)
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(drawn.getchannel("A"), (left, top))
    return picture, mask.point(lambda value: 255 if value > 127 else 0).convert("1"), colour, size


def caption(emoji: catalogue.Emoji, colour: str, size: str, rng: random.Random) -> str:
    """Tags in the manner of the starter's captions, the trigger word first, no source tag."""
    tags = [*rng.sample(emoji.tags, min(2, len(emoji.tags))), emoji.group]
    tags += [f"{colour} background", size]
    rng.shuffle(tags)
    return ", ".join([STYLE, compose.CLEAN, emoji.name, *filter(None, tags)])


def save(picture: Image.Image, text: str, stem: Path) -> None:
    """A picture and its caption file."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    picture.save(stem.with_suffix(".png"), optimize=True)
    stem.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")


def twemoji(chosen: list[str], folder: Path, masks: bool) -> None:
    """Render the named emoji; their masks show which pixels are the emoji's own."""
    known = {e.name: e for e in catalogue.concepts() if not catalogue.held_out(e.concept)}
    for name in chosen:
        emoji, rng = known[name], random.Random(f"{SEED} {name}")
        drawn = svg_image(TWEMOJI / f"{twemoji_code(emoji.code)}.svg", SIDE)
        picture, mask, colour, size = placed(drawn, rng)
        stem = name.replace(" ", "-")
        save(picture, caption(emoji, colour, size, rng), folder / stem)
        if masks:
            (folder / "masks").mkdir(exist_ok=True)
            mask.save(folder / "masks" / f"{stem}.png", optimize=True)


def make_mascot() -> None:
    """Render every scene of the mascot."""
    import resvg_py

    for scene in mascot.SCENES:
        data = resvg_py.svg_to_bytes(svg_string=mascot.svg(scene), width=SIDE)
        picture = Image.open(io.BytesIO(bytes(data))).convert("RGB")
        save(picture, mascot.caption(scene, MASCOT), EXAMPLES / "mascot" / scene.name)


def make() -> None:
    """All three folders."""
    twemoji(TRAIN, EXAMPLES / "twemoji", masks=False)
    twemoji(HELD_OUT, EXAMPLES / "twemoji-heldout", masks=True)
    make_mascot()


if __name__ == "__main__":
    make()
