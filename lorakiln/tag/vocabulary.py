"""The words of a whole set: counts, what stands together, and what does not fit together."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from lorakiln.tag.caption import Caption
from lorakiln.tag.rules import QUALITY, plain

_NAMED = 3  # examples in a notice
Split = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Counts over a set of captions; `sentences` is the share of them with a sentence (the guides want half)."""

    counts: Mapping[str, int]
    pairs: Mapping[tuple[str, str], int]
    captions: int
    missing: int
    sentences: float

    def together(self, tag: str, most: int = 10) -> list[tuple[str, int]]:
        """The tags that stand most often with this one."""
        found = Counter({(set(pair) - {tag}).pop(): count for pair, count in self.pairs.items() if tag in pair})
        return found.most_common(most)


def of(captions: Mapping[str, Caption]) -> Vocabulary:
    """Counts of all captions (by picture); a tag counts once a caption."""
    counts: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for caption in captions.values():
        tags = sorted(set(caption.tags))
        counts.update(tags)
        pairs.update(combinations(tags, 2))
    missing = sum(not caption.tags and not caption.sentence for caption in captions.values())
    told = sum(bool(caption.sentence) for caption in captions.values())
    return Vocabulary(dict(counts.most_common()), pairs, len(captions), missing, round(told / max(len(captions), 1), 3))


def notices(
    captions: Mapping[str, Caption], known: Collection[str] = (), trigger: str = "", split: Split | None = None
) -> Iterator[str]:
    """What does not fit together in a set. `known` is a tagger's vocabulary, `split` a text's tokens."""
    words = of(captions)
    yield from _spelling(words)
    yield from _two_styles(captions)
    yield from _quality(words)
    yield from _typos(words, known)
    yield from _trigger(words, known, trigger, split)
    if words.missing:
        yield f"{words.missing} of {words.captions} pictures have no caption"
    if 0 < words.sentences < 0.3:
        yield f"{words.sentences:.0%} of the captions hold a sentence; the guides want about half, or none"


def nearest_known(tag: str, known: Collection[str]) -> str:
    """The tag of a vocabulary that this one is most likely a typo of, or ""."""
    close = difflib.get_close_matches(plain(tag), known, n=1, cutoff=0.85)
    return close[0] if close else ""


def _spelling(words: Vocabulary) -> Iterator[str]:
    """One tag written two ways."""
    forms: dict[str, list[str]] = {}
    for tag in words.counts:
        forms.setdefault(plain(tag).lower(), []).append(tag)
    double = [spelt for spelt in forms.values() if len(spelt) > 1]
    if double:
        examples = "; ".join(" and ".join(f"'{tag}'" for tag in spelt) for spelt in double[:_NAMED])
        yield f"{len(double)} tags are written in two ways: {examples}; settle it with the underscores rule or an alias"
    under = sum("_" in tag and plain(tag) != tag for tag in words.counts)
    spaced = sum(" " in tag for tag in words.counts)
    if under and spaced:
        yield f"underscores ({under} tags) beside spaces ({spaced} tags), as when two taggers' outputs are mixed"


def _two_styles(captions: Mapping[str, Caption]) -> Iterator[str]:
    """Pictures with prose alone beside pictures with tags alone."""
    prose = [name for name, caption in captions.items() if caption.sentence and len(caption.tags) < 2]
    tags = [name for name, caption in captions.items() if len(caption.tags) > 3 and not caption.sentence]
    if prose and tags and min(len(prose), len(tags)) >= max(1, 0.02 * len(captions)):
        yield f"tags alone in {len(tags)} captions, prose alone in {len(prose)}; give each picture the same kinds"


def _quality(words: Vocabulary) -> Iterator[str]:
    """Quality tags of different bases in one set."""
    found = {}
    bases = {base: tags for base, tags in QUALITY.items() if base != "starter"}  # whose score_9 is Pony's
    for base, tags in bases.items():
        own = [tag for tag in tags if sum(tag in other for other in bases.values()) == 1 and tag in words.counts]
        if own:
            found[base] = own
    if len(found) > 1:
        text = "; ".join(f"{base}: {', '.join(tags)}" for base, tags in found.items())
        yield f"quality tags of more than one base ({text}); keep those of the base you train on"


def _typos(words: Vocabulary, known: Collection[str]) -> Iterator[str]:
    """Tags that no tagger knows and that are nearly one it does."""
    if not known:
        return
    vocabulary = {plain(tag) for tag in known}
    by_first: dict[str, list[str]] = {}
    for tag in vocabulary:
        by_first.setdefault(tag[:1], []).append(tag)
    strange = [tag for tag in words.counts if plain(tag) not in vocabulary and 3 < len(tag) < 30]
    for tag in strange[:500]:
        near = nearest_known(tag, by_first.get(tag[:1], []))
        if near:
            yield f"'{tag}' ({words.counts[tag]}): unknown to the tagger; did you mean '{near}'?"


def _trigger(words: Vocabulary, known: Collection[str], trigger: str, split: Split | None) -> Iterator[str]:
    """A trigger that is missing, known already, or cut into odd pieces."""
    if not trigger:
        return
    there = words.counts.get(trigger, 0)
    if there < words.captions - words.missing:
        yield f"trigger '{trigger}': stands in {there} of {words.captions} captions; it belongs in every one"
    if plain(trigger).lower() in {plain(tag).lower() for tag in known}:
        yield f"trigger '{trigger}': is a tag that the base knows already, so the LoRA must unlearn it first"
    if split is not None:
        pieces = [piece.replace("</w>", "") for piece in split(trigger)]
        if len(pieces) > 4 or any(len(piece) == 1 for piece in pieces):
            parts = "+".join(pieces)
            yield f"trigger '{trigger}': the tokenizer splits it into {parts}; 2-4 longer pieces bind better"
        elif len(pieces) == 1 and re.fullmatch(r"[a-z]+", trigger):
            yield f"trigger '{trigger}': is one token, so most likely a word that the base knows already"
