"""Writes the held-out emoji that the starter tagger is tested on, small, with their tags: tests/tag/held_out/."""

import json
from pathlib import Path

from PIL import Image

from . import catalogue
from .masters import load
from .tagger import tags_of, vocabulary

FOLDER = Path(__file__).parents[2] / "tests" / "tag" / "held_out"
COUNT, SIDE = 24, 128


def make() -> None:
    rows, index = load("openmoji")
    emojis = [emoji for emoji in catalogue.everything() if emoji.group and emoji.code in index]
    known = vocabulary([emoji for emoji in emojis if not catalogue.held_out(emoji.concept)])
    held = [emoji for emoji in emojis if catalogue.held_out(emoji.concept) and emoji.plain]
    held = [emoji for emoji in held if len(tags_of(emoji) & known.keys()) >= 3]
    FOLDER.mkdir(parents=True, exist_ok=True)
    truth = {}
    for emoji in held[:: max(len(held) // COUNT, 1)][:COUNT]:
        drawn = Image.fromarray(rows[index[emoji.code]]).resize((96, 96), Image.Resampling.LANCZOS)
        picture = Image.new("RGB", (SIDE, SIDE), (250, 250, 250))
        picture.paste(drawn, (16, 16), drawn)
        picture.save(FOLDER / f"{emoji.code}.png", optimize=True)
        truth[f"{emoji.code}.png"] = sorted(tags_of(emoji) & known.keys())
    (FOLDER / "tags.json").write_text(json.dumps(truth, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make()
