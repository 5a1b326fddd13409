"""Writes a picture's caption as booru sites would: a score, a name, then tags in any order.

Now and then a word that means nothing stands among them, so that a LoRA's trigger word does not drown the rest.
"""

import random
import string
from collections.abc import Sequence

from .catalogue import Emoji

SOURCE = "source_openmoji"
STRANGE_SHARE = 0.3  # captions with a word that means nothing
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
    words = [*score_first, emoji.name, *tags]
    if rng.random() < STRANGE_SHARE:
        words.insert(rng.choice([0, 0, 1, rng.randrange(len(words) + 1)]), strange_word(rng))
    return ", ".join(words)


def strange_word(rng: random.Random) -> str:
    """Letters by chance, as in trigger words: "xqzt", "mbrk style", "Zk_style"."""
    letters = string.ascii_lowercase if rng.random() < 0.7 else string.ascii_letters
    word = "".join(rng.choices(letters, k=rng.randint(2, 7)))
    return word + rng.choice(["", "", "_style", " style"])


def full_caption(emoji: Emoji, facts: Sequence[str]) -> str:
    """The caption with nothing dropped but the emoji's own tags, in one fixed order."""
    background, size, score = facts
    rest = [emoji.group, SOURCE, f"{background} background", size]
    return ", ".join([score, emoji.name, *filter(None, rest)])
