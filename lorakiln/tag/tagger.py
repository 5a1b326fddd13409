"""What a tagger and a captioner are to the rest of the house, and how their answers become words."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from lorakiln.base.errors import UserError


@dataclass(frozen=True, slots=True)
class Guess:
    """One tag and how likely it is, 0 to 1."""

    name: str
    chance: float


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tagger's answer for one picture, every tag it knows, likeliest first; kinds kept apart."""

    general: tuple[Guess, ...]
    character: tuple[Guess, ...] = ()
    rating: tuple[Guess, ...] = ()


class Tagger(Protocol):
    """Guesses tags. `vocabulary` is every tag it knows, `batch` how many pictures it likes at once."""

    batch: int

    @property
    def vocabulary(self) -> Sequence[str]: ...

    def tags(self, pictures: Sequence[Image.Image]) -> list[Tagged]: ...


class Captioner(Protocol):
    """Writes one sentence a picture."""

    batch: int

    def sentences(self, pictures: Sequence[Image.Image]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which chance a tag is taken. With `mcut` the threshold is found for each picture and kind (Largeron et al.
    2012): midway in the widest gap between neighbouring chances; the numbers then count no more."""

    general: float = 0.35
    character: float = 0.85
    mcut: bool = False
    rating: bool = False

    def __post_init__(self):
        for name in ("general", "character"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} threshold {getattr(self, name)}: must be from 0 to 1")


def words(tagged: Tagged, wanted: Thresholds) -> list[str]:
    """Characters, then general tags, then the likeliest rating where wanted; each likeliest first."""
    found = _taken(tagged.character, wanted.character, wanted.mcut, 0.15)
    found += _taken(tagged.general, wanted.general, wanted.mcut, 0.0)
    if wanted.rating and tagged.rating:
        found.append(tagged.rating[0].name)
    return found


def _taken(guesses: Sequence[Guess], threshold: float, mcut: bool, least: float) -> list[str]:
    if mcut:
        threshold = max(mcut_threshold(guess.chance for guess in guesses), least)
    return [guess.name for guess in guesses if guess.chance > threshold or (not mcut and guess.chance == threshold)]


def mcut_threshold(chances: Iterable[float]) -> float:
    """Midway in the widest gap between neighbouring chances; 0 for fewer than two."""
    ranked = sorted(chances, reverse=True)
    gaps = [(high - low, (high + low) / 2) for high, low in itertools.pairwise(ranked)]
    return max(gaps)[1] if gaps else 0.0
