"""Writes the sets of docs/experiments: 10 of the example style's pictures, and 200 with 160 more of the same kind.

`python -m tools.starter.sets build/sets`; the drawings come from npm once, and need what `make starter` installs.
"""

import random
import shutil
import sys
from pathlib import Path

from . import catalogue, examples, fetch
from .masters import twemoji_code
from .places import EXAMPLES, SEED, TWEMOJI

MORE = 160
FEW = examples.TRAIN[::4]  # of every kind


def others() -> list[str]:
    """Names that neither example folder shows, by chance but always the same ones."""
    shown = {*examples.TRAIN, *examples.HELD_OUT}
    known = [
        emoji.name
        for emoji in catalogue.concepts()
        if emoji.name not in shown
        and not catalogue.held_out(emoji.concept)
        and (TWEMOJI / f"{twemoji_code(emoji.code)}.svg").exists()
    ]
    return random.Random(SEED).sample(known, MORE)


def make(folder: Path) -> None:
    """The folders `few` and `many`, emptied first."""
    fetch.drawings()
    for name in ("few", "many"):
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(EXAMPLES / "twemoji", folder / "many")
    examples.twemoji(others(), folder / "many", masks=False)
    (folder / "few").mkdir()
    for name in FEW:
        for suffix in (".png", ".txt"):
            file = f"{name.replace(' ', '-')}{suffix}"
            shutil.copyfile(EXAMPLES / "twemoji" / file, folder / "few" / file)


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else "build/sets"))
