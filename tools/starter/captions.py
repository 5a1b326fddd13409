"""Writes a picture's caption as booru sites would: a score, a name, then tags in any order."""

import random
from collections.abc import Sequence

from .catalogue import Emoji

SOURCE = "source_openmoji"
EMPTY_SHARE = 0.1  # captions left empty, so that guidance has something to start from


def caption(emoji: Emoji, facts: Sequence[str], rng: random.Random) -> str:
    """One visit's caption; `facts` are the picture's (background, size, score)."""
    background, size, score = facts
    if rng.random() < EMPTY_SHARE:
        return ""
    tags = [tag for tag in emoji.tags if rng.random() < 0.25][:4]
    if rng.random() < 0.5:
        tags.append(emoji.group)
    if rng.random() < 0.6:
        tags.append(SOURCE)
    if rng.random() < 0.8:
        tags.append(f"{background} background")
    if size and rng.random() < 0.8:
        tags.append(size)
    rng.shuffle(tags)
    score_first = [score] if rng.random() < 0.85 else []
    return ", ".join([*score_first, emoji.name, *tags])


def full_caption(emoji: Emoji, facts: Sequence[str]) -> str:
    """The caption with nothing dropped but the emoji's own tags, in one fixed order."""
    background, size, score = facts
    rest = [emoji.group, SOURCE, f"{background} background", size]
    return ", ".join([score, emoji.name, *filter(None, rest)])
