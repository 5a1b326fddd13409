"""What drawings hold and how they are drawn, in the eyes of a tagger: fidelity, prompt following, drift, diversity.

A picture's features are the tagger's chances of all its tags (0 to 1). N pictures, V tags of its vocabulary.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lorakiln.tag.captions import parse
from lorakiln.tag.tagger import Tagger

TAKEN = 0.35  # chance from which a tag is there: the threshold that tagging itself uses


def features(tagger: Tagger, pictures: Sequence[Image.Image]) -> np.ndarray:
    """(N, V): every tag's chance for each picture, in the order of the tagger's vocabulary."""
    place = {name: at for at, name in enumerate(tagger.vocabulary)}
    rows = np.zeros((len(pictures), len(place)), np.float32)
    for start in range(0, len(pictures), tagger.batch):
        some = [picture.convert("RGB") for picture in pictures[start : start + tagger.batch]]
        for row, tagged in zip(rows[start:], tagger.tags(some), strict=False):
            for guess in (*tagged.general, *tagged.character, *tagged.rating):
                row[place[guess.name]] = guess.chance
    return rows


def distance(one_NV: np.ndarray, other_NV: np.ndarray) -> np.ndarray:
    """(N,) Hellinger distances (1909) between chances, tag by tag, as a root mean square: 0 alike, 1 opposite."""

    def root(chances: np.ndarray) -> np.ndarray:
        return np.stack([np.sqrt(chances), np.sqrt(1 - chances)], axis=-1)

    apart = (root(one_NV.astype(np.float64)) - root(other_NV.astype(np.float64))) ** 2
    return np.sqrt(apart.sum(-1).sum(-1) / 2 / max(1, one_NV.shape[-1]))


def fidelity(drawn_NV: np.ndarray, base_NV: np.ndarray, unseen_NV: np.ndarray) -> float | None:
    """How much nearer than the base's drawings to the unseen pictures of the same captions, row by row.

    1 is there, 0 no nearer, below 0 further. None where there is nothing to compare.
    """
    if not len(drawn_NV):
        return None
    drawn, base = (float(distance(each, unseen_NV).mean()) for each in (drawn_NV, base_NV))
    return 1 - drawn / max(base, 1e-6)


def following(drawn_NV: np.ndarray, prompts: Sequence[str], vocabulary: Sequence[str]) -> float | None:
    """Share of the prompts' tags that the tagger finds in the drawings; None where it knows none of these tags."""
    place = {name: at for at, name in enumerate(vocabulary)}
    asked = [(row, place[tag]) for row, prompt in enumerate(prompts) for tag in parse(prompt) if tag in place]
    if not asked:
        return None
    return sum(float(drawn_NV[row, at]) >= TAKEN for row, at in asked) / len(asked)


def drift(drawn_NV: np.ndarray, base_NV: np.ndarray, other_seed_NV: np.ndarray) -> float | None:
    """How far drawings moved from the base's of the same prompts and seeds; 1: as far as another seed moves them.

    On prompts without the trigger it is what leaks. None without drawings.
    """
    if not len(drawn_NV):
        return None
    apart = float(distance(other_seed_NV, base_NV).mean())
    return float(distance(drawn_NV, base_NV).mean()) / max(apart, 1e-6)


def diversity(drawn: Sequence[np.ndarray], base: Sequence[np.ndarray]) -> float | None:
    """Mean distance between drawings of one prompt with different seeds, as a share of the base's; 0: all alike.

    Each entry is (seeds, V) of one prompt. None where no prompt has two seeds.
    """
    own, theirs = _spread(drawn), _spread(base)
    if own is None or theirs is None:
        return None
    return own / max(theirs, 1e-6)


def _spread(groups: Sequence[np.ndarray]) -> float | None:
    apart = [
        float(distance(group[a : a + 1], group[b : b + 1])[0])
        for group in groups
        for a in range(len(group))
        for b in range(a + 1, len(group))
    ]
    return sum(apart) / len(apart) if apart else None
