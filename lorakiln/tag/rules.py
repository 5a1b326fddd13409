"""Rules that turn a tagger's words into a training caption, in one fixed order. Tags in, tags out.

1 underscores, 2 alias, 3 imply, 4 exclude, 5 keep one of a group, 6 absorb into the trigger, 7 rating,
8 each once, 9 order, 10 quality tags, 11 trigger first, 12 at most so many tokens.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args, get_type_hints

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


@dataclass(frozen=True, slots=True)
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

    @property
    def fixed(self) -> tuple[str, ...]:
        """The tags that stand in front of every caption: the trigger, then the quality tags."""
        return tuple(tag for tag in (self.trigger, *QUALITY[self.quality]) if tag)

    @property
    def keep_tokens(self) -> int:
        """What `keep_tokens` must be so that shuffling leaves those in front: counted, never guessed."""
        return len(self.fixed)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the rules need to know of the whole set: in how many of `captions` each tag stands."""

    counts: Mapping[str, int] = field(default_factory=dict)
    captions: int = 0


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
    known = {
        one.name: one.default if isinstance(one.default, str | float | int | tuple) else {} for one in fields(Rules)
    }
    for name, value in table.items():
        if name not in known:
            raise UserError(f"{where}: unknown rule '{name}'{nearest(name, known)}")
        shape = {str: (str, "text"), float: (int | float, "a number"), int: (int, "a whole number")}.get(
            type(known[name]), (list, "a list") if isinstance(known[name], tuple) else (dict, "a table")
        )
        if not isinstance(value, shape[0]) or isinstance(value, bool):
            raise UserError(f"{where}: {name} = {value!r}: must be {shape[1]}")
    try:
        return Rules(**table)  # ty: ignore[invalid-argument-type]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def statistics(captions: Iterable[Sequence[str]], rules: Rules) -> Statistics:
    """Counted after the rules that rename and remove, so that two spellings count as one tag."""
    rows = [set(_cleaned(tags, rules)) for tags in captions]
    return Statistics(Counter(tag for row in rows for tag in row), len(rows))


def apply(tags: Sequence[str], rules: Rules, known: Statistics | None = None, count: Count | None = None) -> list[str]:
    """The caption's tags after all rules. `count` counts a text's tokens; without it `max_tokens` has no effect."""
    known = known or Statistics()
    tags = _cleaned(tags, rules)
    tags = [tag for tag in tags if tag not in absorbed(rules, known)]
    tags = _rated(tags, rules.rating)
    tags = [tag for tag in dict.fromkeys(tags) if tag not in rules.fixed]
    if rules.order == "alphabetical":
        tags.sort()
    if rules.order == "common first":
        tags.sort(key=lambda tag: -known.counts.get(tag, 0))
    return within([*rules.fixed, *tags], rules, count)[0]


def within(tags: Sequence[str], rules: Rules, count: Count | None) -> tuple[list[str], list[str]]:
    """(tags that fit into `max_tokens`, those that fall past it); what is fixed in front always stays."""
    kept = list(tags)
    if not rules.max_tokens or count is None:
        return kept, []
    while len(kept) > rules.keep_tokens and count(", ".join(kept)) > rules.max_tokens:
        kept.pop()
    return kept, list(tags[len(kept) :])


def absorbed(rules: Rules, known: Statistics) -> set[str]:
    """Tags in so many captions that the trigger should mean them; left in, they would be needed in every prompt."""
    if not rules.absorb or known.captions < 4:
        return set()
    often = {tag for tag, count in known.counts.items() if count >= rules.absorb * known.captions}
    return {tag for tag in often if not matches(tag, rules.keep) and tag not in RATINGS}


def plain(tag: str, policy: str = "spaces") -> str:
    """A tag with its underscores as the policy wants them; faces like ^_^ keep theirs, and score_9 its own."""
    if policy == "as is" or _KAOMOJI.fullmatch(tag) or re.fullmatch(r"score_\d(_up)?|source_\w+|rating_\w+", tag):
        return tag
    return tag.replace("_", " ") if policy == "spaces" else tag.replace(" ", "_")


def matches(tag: str, patterns: Iterable[str]) -> bool:
    """Whether a whole tag, of any number of words, is one of the patterns; case and underscores do not matter."""
    own = plain(tag).lower()
    return any(fnmatchcase(own, plain(pattern.strip()).lower()) for pattern in patterns)


def _cleaned(tags: Sequence[str], rules: Rules) -> list[str]:
    """Rules 1 to 5."""
    tags = [plain(tag, rules.underscores) for tag in tags]
    alias = {plain(old, rules.underscores): new for old, new in rules.alias.items()}
    tags = [alias.get(tag, tag) for tag in tags]
    imply = {plain(tag, rules.underscores): more for tag, more in rules.imply.items()}
    tags += [more for tag in tags for more in imply.get(tag, ())]
    tags = [tag for tag in tags if tag and not matches(tag, rules.exclude)]
    for group, stay in rules.keep_one_of.items():
        patterns = GROUPS.get(group) or group.split(",")
        if any(matches(tag, stay) for tag in tags):
            tags = [tag for tag in tags if matches(tag, stay) or not matches(tag, patterns)]
    return tags


def _rated(tags: list[str], policy: str) -> list[str]:
    if policy == "keep":
        return tags
    rest = [tag for tag in tags if tag.removeprefix("rating:") not in RATINGS]
    return rest if policy == "drop" else rest + [tag for tag in tags if tag not in rest]
