"""Which emoji the starter knows: their names, groups, and which concepts are held out.

Skin-tone and gender variants of an emoji are one concept, so they are never on both sides of a split.
"""

import functools
import hashlib
import json
from dataclasses import dataclass

from .places import OPENMOJI

SKIN_TONES = {f"1F3F{letter}" for letter in "BCDEF"}
GENDER_SIGNS = {"2640", "2642"}
ADULTS = {"1F468", "1F469", "1F9D1"}  # man, woman, person
JOINERS = {"200D", "FE0F"}
HELD_OUT_SHARE = 0.07

GROUPS = {
    "smileys-emotion": "smiley",
    "people-body": "people",
    "animals-nature": "nature",
    "food-drink": "food",
    "travel-places": "travel",
    "activities": "activity",
    "objects": "object",
}
# What few people would prompt, or what 16 x 16 latents cannot show.
LEFT_OUT_SUBGROUPS = {
    "time", "place-map", "family", "person-gesture", "person-activity", "person-resting", "hotel",
    "emotion", "person-symbol", "person-sport", "hand-prop", "office", "other-object", "sound",
    "mail", "lock", "medical", "science",
}  # fmt: skip
LEFT_OUT_WORDS = (
    "o’clock", "-thirty", "facing right", "blood type", "Japanese “", "button", "speaker ", "yen",
    "with symbols", "banknote", "red hair", "white hair", "curly hair", "suit", "card index",
    "mobile phone with", "mailbox with", "oncoming", "index pointing", "backhand", "rightward",
    "leftward", "-facing", "middle finger", "cigarette", "locked with", "quarter moon", "gibbous",
    "globe showing", "envelope with", "incoming", "tray", "chart increasing with", "broken chain",
)  # fmt: skip
KEPT_ANYWAY = ("hourglass", "watch", "alarm clock", "globe showing Europe", "compass", "bell")


@dataclass(frozen=True)
class Emoji:
    """One OpenMoji drawing and what is known about it."""

    code: str
    name: str
    group: str
    subgroup: str
    tags: tuple[str, ...]
    concept: str
    plain: bool  # no skin tone: the yellow base drawing


def concept_of(code: str) -> str:
    """The part of a code sequence that skin tone and gender leave alone."""
    points = [p for p in code.upper().split("-") if p not in SKIN_TONES | GENDER_SIGNS | JOINERS]
    if len(points) > 1 and points[0] in ADULTS:
        points = ["1F9D1", *points[1:]]
    return "-".join(points)


def held_out(concept: str) -> bool:
    """Whether no part of the starter may be trained on this concept."""
    digest = hashlib.sha256(concept.encode()).digest()
    return digest[0] / 256 < HELD_OUT_SHARE


def words(entry: dict) -> tuple[str, ...]:
    """The entry's tags without those its name already says."""
    tags = f"{entry['tags']}, {entry['openmoji_tags']}".split(",")
    named = entry["annotation"].lower()
    clean = dict.fromkeys(tag.strip().lower() for tag in tags)
    return tuple(tag for tag in clean if tag and tag != named and len(tag) < 24)


@functools.cache
def everything() -> list[Emoji]:
    """All of OpenMoji."""
    entries = json.loads((OPENMOJI / "data" / "openmoji.json").read_text(encoding="utf-8"))
    return [
        Emoji(
            code=entry["hexcode"],
            name=entry["annotation"].replace("’", "'").lower(),
            group=GROUPS.get(entry["group"], ""),
            subgroup=entry["subgroups"],
            tags=words(entry),
            concept=concept_of(entry["hexcode"]),
            plain=not entry["skintone"],
        )
        for entry in entries
    ]


def prompted(emoji: Emoji) -> bool:
    """Whether someone would ask for this drawing by name."""
    if not emoji.plain or not emoji.group:
        return False
    if any(emoji.name.startswith(word) for word in KEPT_ANYWAY):
        return True
    if emoji.subgroup in LEFT_OUT_SUBGROUPS:
        return False
    if any(word.lower() in emoji.name for word in LEFT_OUT_WORDS):
        return False
    if emoji.group == "people":
        neutral = not emoji.name.startswith(("man ", "woman ", "men ", "women ", "man:", "woman:"))
        return neutral and ":" not in emoji.name
    return True


def concepts() -> list[Emoji]:
    """The drawings the UNet may know, held-out ones included, one for each concept."""
    chosen = {}
    for emoji in everything():
        if prompted(emoji):
            chosen.setdefault(emoji.name, emoji)
    return list(chosen.values())
