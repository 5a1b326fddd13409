"""Rules that turn a tagger's words into a training caption, in one fixed order. Tags in, tags out.

1 underscores, 2 alias, 3 imply, 4 exclude, 5 keep one of a group, 6 absorb into the trigger, 7 each once, 8 order,
9 rating, 10 quality tags, 11 trigger first, 12 at most so many tokens. What they gave, given to them again, stays.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lorakiln.base.errors import UserError, nearest

Count = Callable[[str], int]
RATINGS = ("general", "sensitive", "questionable", "explicit", "safe")
# What each family of bases was taught good pictures are called (their model cards).
QUALITY: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "starter": ("score_9",),
    "pony": ("score_9", "source_anime"),
    "illustrious": ("masterpiece", "best quality", "absurdres"),
    "noobai": ("masterpiece", "best quality", "newest", "absurdres", "highres"),
    "animagine": ("masterpiece", "high score", "great score", "absurdres"),
}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "clothing": (
        "*clothes", "*shirt", "*skirt", "*dress", "*pants", "*shorts", "*jacket", "*coat", "*uniform", "*kimono",
        "*sweater", "*hoodie", "*vest", "*socks", "*thighhighs", "*pantyhose", "*shoes", "*boots", "*footwear",
        "*gloves",
        "*hat", "*cap", "*sleeves", "*collar", "*necktie", "*bowtie", "*ribbon", "*swimsuit", "*bikini", "*apron",
        "*cape", "*cloak", "*scarf", "*belt", "*headwear", "*hakama", "*yukata", "*sandals",
    ),
    "hair": ("* hair", "*bangs", "ahoge", "*ponytail", "twintails", "*braid", "*braids", "* bun", "*sidelocks"),
    "eyes": ("* eyes", "heterochromia"),
}  # fmt: skip
# Faces such as ^_^ and o_o: at most one letter or digit on either side of the bar.
_KAOMOJI = re.compile(r"[^\w\s]*[^\W_]?[^\w\s]*_[^\w\s]*[^\W_]?[^\w\s]*|\|+_\|+")
# A tagger's "explicit", and the ways in which bases want it written: rating:explicit, rating_explicit.
_RATING = re.compile(rf"(rating[:_ ] ?)?({'|'.join(RATINGS)})")


@dataclass(frozen=True)
class Rules:
    """What is done to every caption. Tags may use `*` wherever a rule matches tags; all match whole tags.

    `keep_one_of` maps a group (a name of GROUPS, or patterns with commas) to the tags of it that stay; `absorb` is
    the share of captions from which a tag is left to the trigger (0: none), except those in `keep`.
    """

    trigger: str = ""
    underscores: Literal["spaces", "underscores", "as is"] = "spaces"
    alias: Mapping[str, str] = field(default_factory=dict)
    imply: Mapping[str, Sequence[str]] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    keep_one_of: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absorb: float = 0.0
    keep: Sequence[str] = ()
    rating: Literal["keep", "drop", "last"] = "keep"
    order: Literal["as is", "alphabetical", "common first"] = "as is"
    quality: str = "none"
    max_tokens: int = 0

    def __post_init__(self):
        if not 0 <= self.absorb <= 1:
            raise UserError(f"absorb = {self.absorb}: must be from 0 to 1")
        if self.quality not in QUALITY:
            raise UserError(f"quality = '{self.quality}': unknown{nearest(self.quality, QUALITY)}")
        if self.max_tokens < 0:
            raise UserError(f"max_tokens = {self.max_tokens}: must be 0 (no limit) or more")
        hints = get_type_hints(type(self))
        for name in ("underscores", "rating", "order"):
            if getattr(self, name) not in get_args(hints[name]):
                raise UserError(
                    f"{name} = '{getattr(self, name)}': unknown{nearest(getattr(self, name), get_args(hints[name]))}"
                )
        for group in self.keep_one_of:
            if group not in GROUPS and not re.search(r"[*,]", group):
                raise UserError(f"keep_one_of: unknown group '{group}'{nearest(group, GROUPS)}")
        if self.trigger:
            _single("trigger", [self.trigger])
        for name in ("exclude", "keep"):
            _single(name, getattr(self, name))
        _single("alias", [*self.alias, *self.alias.values()])
        _single("imply", self.imply)
        for name in ("imply", "keep_one_of"):
            for key, tags in getattr(self, name).items():
                _single(f"{name}.{key}", tags)
                if not tags:
                    raise UserError(f"{name}.{key}: names no tag")
        _ends(self.alias, self.underscores)

    @property
    def fixed(self) -> tuple[str, ...]:
        """The tags that stand in front of every caption: the trigger, then the quality tags."""
        return tuple(tag for tag in (self.trigger, *QUALITY[self.quality]) if tag)

    @property
    def keep_tokens(self) -> int:
        """What `keep_tokens` must be so that shuffling leaves those in front: counted, never guessed."""
        return len(self.fixed)

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Every alias with where it leads in the end."""
        return _ends(self.alias, self.underscores)

    @cached_property
    def implied(self) -> dict[str, list[str]]:
        """What each tag adds, in the words that the rules before would make of it."""
        found: dict[str, list[str]] = {}
        for tag, more in self.imply.items():
            found.setdefault(self.renamed(tag), []).extend(self.renamed(one) for one in more)
        return found

    def renamed(self, tag: str) -> str:
        """A tag after rules 1 and 2."""
        tag = plain(tag, self.underscores)
        return self.aliases.get(tag, tag)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the rules need to know of the whole set: in how many of `captions` each tag stands, and which of them are
    left to the trigger."""

    counts: Mapping[str, int] = field(default_factory=dict)
    captions: int = 0
    absorbed: frozenset[str] = frozenset()


def read(path: Path) -> Rules:
    """Rules from a TOML file. Raises UserError for an unknown rule or a wrong value."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such rules") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not readable TOML rules ({error})") from None
    return parse(table, str(path))


def parse(table: Mapping[str, object], where: str) -> Rules:
    """Rules from a table; `where` opens each error."""
    known = get_type_hints(Rules)
    try:
        for name, value in table.items():
            if name not in known:
                raise UserError(f"unknown rule '{name}'{nearest(name, known)}")
            _of_shape(name, value, known[name])
        return Rules(**table)  # ty: ignore[invalid-argument-type]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def statistics(captions: Iterable[Sequence[str]], rules: Rules) -> Statistics:
    """Counted after the rules that rename and remove, so that two spellings count as one tag."""
    rows = [set(_cleaned(tags, rules)) for tags in captions]
    counts = Counter(tag for row in rows for tag in row)
    return Statistics(counts, len(rows), frozenset(_absorbed(rules, counts, len(rows))))


def apply(tags: Sequence[str], rules: Rules, known: Statistics | None = None, count: Count | None = None) -> list[str]:
    """The caption's tags after all rules. `count` counts a text's tokens; without it `max_tokens` has no effect."""
    return within(arranged(tags, rules, known or Statistics()), rules, count)[0]


def arranged(tags: Sequence[str], rules: Rules, known: Statistics) -> list[str]:
    """The caption's tags after every rule but the last."""
    front = {_folded(tag) for tag in rules.fixed}
    tags = [tag for tag in _cleaned(tags, rules) if tag not in known.absorbed and _folded(tag) not in front]
    tags = list(dict.fromkeys(tags))
    if rules.order == "alphabetical":
        tags.sort()
    if rules.order == "common first":
        tags.sort(key=lambda tag: -known.counts.get(tag, 0))
    return [*rules.fixed, *_rated(tags, rules.rating)]


def within(tags: Sequence[str], rules: Rules, count: Count | None) -> tuple[list[str], list[str]]:
    """(tags that fit into `max_tokens`, those that fall past it); what is fixed in front always stays."""
    if not rules.max_tokens or count is None or count(", ".join(tags)) <= rules.max_tokens:
        return list(tags), []
    fits, over = rules.keep_tokens, len(tags)  # more tags are never fewer tokens, so half by half
    while over - fits > 1:
        middle = (fits + over) // 2
        if count(", ".join(tags[:middle])) <= rules.max_tokens:
            fits = middle
        else:
            over = middle
    return list(tags[:fits]), list(tags[fits:])


def plain(tag: str, policy: str = "spaces") -> str:
    """A tag with its underscores as the policy wants them; faces like ^_^ keep theirs, and score_9 its own."""
    if policy == "as is" or _KAOMOJI.fullmatch(tag) or re.fullmatch(r"score_\d(_up)?|source_\w+|rating_\w+", tag):
        return tag
    words = tag.replace("_", " ").split() if policy == "spaces" else tag.split()
    return (" " if policy == "spaces" else "_").join(words)


def matches(tag: str, patterns: Iterable[str]) -> bool:
    """Whether a whole tag, of any number of words, is one of the patterns; case and underscores do not matter."""
    return _any_of(tuple(patterns)).fullmatch(_folded(tag)) is not None


def wild(pattern: str) -> str:
    """A regular expression for a pattern in which `*` stands for any text, and nothing else for another."""
    return ".*".join(re.escape(part) for part in pattern.split("*"))


@lru_cache(256)
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(wild(_folded(pattern.strip())) for pattern in patterns) or r"(?!)", re.DOTALL)


def _folded(tag: str) -> str:
    return plain(tag).lower()


def _ends(alias: Mapping[str, str], policy: str) -> dict[str, str]:
    """Where each alias leads in the end. Raises UserError for one that leads back to itself."""
    steps = {plain(old, policy): plain(new, policy) for old, new in alias.items()}
    ends = {}
    for old in steps:
        seen, tag = {old}, steps[old]
        while steps.get(tag, tag) != tag:
            if tag in seen:
                raise UserError(f"alias: '{old}' leads back to itself")
            seen.add(tag)
            tag = steps[tag]
        ends[old] = tag
    return ends


def _absorbed(rules: Rules, counts: Mapping[str, int], captions: int) -> set[str]:
    """Tags in so many captions that the trigger should mean them; left in, they would be needed in every prompt."""
    if not rules.absorb or captions < 4:
        return set()
    often = {tag for tag, count in counts.items() if count >= rules.absorb * captions}
    return {tag for tag in often if not matches(tag, rules.keep) and not _RATING.fullmatch(tag)}


def _cleaned(tags: Sequence[str], rules: Rules) -> list[str]:
    """Rules 1 to 5. What will stand in front is no tag: it is not renamed and implies nothing."""
    front = {_folded(tag) for tag in rules.fixed}
    found = [rules.renamed(tag) for tag in tags if _folded(tag) not in front]
    there = set(found)
    for tag in found:  # grows: what is implied may imply more
        new = [more for more in rules.implied.get(tag, ()) if more not in there]
        found += new
        there.update(new)
    found = [tag for tag in found if tag and not matches(tag, rules.exclude)]
    # all groups at once: a tag that one of them keeps is not taken out by another
    asked = [(stay, GROUPS.get(group) or group.split(",")) for group, stay in rules.keep_one_of.items()]
    asked = [(stay, patterns) for stay, patterns in asked if any(matches(tag, stay) for tag in found)]
    stay = [pattern for wanted, _ in asked for pattern in wanted]
    gone = [pattern for _, patterns in asked for pattern in patterns]
    return [tag for tag in found if matches(tag, stay) or not matches(tag, gone)]


def _rated(tags: list[str], policy: str) -> list[str]:
    if policy == "keep":
        return tags
    rest = [tag for tag in tags if not _RATING.fullmatch(tag)]
    return rest if policy == "drop" else rest + [tag for tag in tags if _RATING.fullmatch(tag)]


def _single(name: str, tags: Iterable[str]) -> None:
    """Raises UserError for what would not be read back from a caption as one tag."""
    for tag in tags:
        if not tag.strip() or tag != tag.strip() or re.search(r"[,\n\r]", tag):
            raise UserError(f"{name}: '{tag}' must be one tag, without commas, line breaks or space around it")


def _of_shape(name: str, value: object, hint: Any) -> None:
    """Raises UserError where a value from a TOML file is of another kind than the rule wants, however deep."""
    kind = get_origin(hint) or hint
    if kind is Mapping and isinstance(value, dict):
        for key, one in value.items():
            _of_shape(f"{name}.{key}", one, get_args(hint)[1])
        return
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits, said = {
        Mapping: (False, "a table"), Sequence: (texts, 'a list of tags, e.g. ["hat"]'), float: (number, "a number"),
        int: (number and isinstance(value, int), "a whole number"),
    }.get(kind, (isinstance(value, str), "text"))  # fmt: skip
    if not fits:
        raise UserError(f"{name} = {value!r}: must be {said}")
