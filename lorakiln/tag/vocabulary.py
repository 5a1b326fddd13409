"""The words of a whole set: counts, what stands together, and what does not fit together."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lorakiln.tag.caption import Caption
from lorakiln.tag.rules import QUALITY, plain
from lorakiln.tag.sentences import names

_NAMED = 3  # examples in a notice
_TYPOS = 100  # told one by one; further ones count as unknown
_LONGEST = 40  # characters of a tag
Split = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Counts over a set of captions, and the tags of each; `sentences` is the share of them with a sentence (the guides
    want half)."""

    counts: Mapping[str, int]
    rows: Sequence[frozenset[str]]
    captions: int
    missing: int
    sentences: float

    def together(self, tag: str, most: int = 10) -> list[tuple[str, int]]:
        """The tags that stand most often with this one."""
        found = Counter(other for row in self.rows if tag in row for other in sorted(row) if other != tag)
        return found.most_common(most)


def of(captions: Mapping[str, Caption]) -> Vocabulary:
    """Counts of all captions (by picture); a tag counts once a caption."""
    rows = [frozenset(caption.tags) for caption in captions.values()]
    counts = Counter(tag for row in rows for tag in sorted(row))
    missing = sum(not caption.tags and not caption.sentence for caption in captions.values())
    told = sum(bool(caption.sentence) for caption in captions.values())
    return Vocabulary(dict(counts.most_common()), rows, len(captions), missing, round(told / max(len(captions), 1), 3))


def notices(
    captions: Mapping[str, Caption], known: Collection[str] = (), trigger: str = "", split: Split | None = None
) -> Iterator[str]:
    """What does not fit together in a set. `known` is a tagger's vocabulary, `split` a text's tokens."""
    words = of(captions)
    yield from _spelling(words)
    yield from _two_styles(captions)
    yield from _quality(words)
    if known:
        own = {trigger, *(tag for tags in QUALITY.values() for tag in tags)}  # known to the base, not to a tagger
        yield from _unknown(words, {_folded(tag) for tag in known}, {_folded(tag) for tag in own})
    yield from _trigger(captions, words, known, trigger, split)
    if words.missing:
        yield f"{words.missing} of {words.captions} pictures have no caption"
    if 0 < words.sentences < 0.3:
        yield f"{words.sentences:.0%} of the captions hold a sentence; the guides want about half, or none"


class Nearest:
    """Finds the tag of a vocabulary that a word is most likely a typo of: one letter more, less, other or swapped.

    Two such words share what is left of them when one letter is taken out, so each word is looked up, not compared
    with all.
    """

    def __init__(self, known: Collection[str]):
        self._by_rest: dict[str, list[str]] = {}
        for tag in known:
            for rest in _rests(tag):
                self._by_rest.setdefault(rest, []).append(tag)

    def __call__(self, word: str) -> str:
        """That tag; "" where none is near."""
        near = sorted({tag for rest in _rests(word) for tag in self._by_rest.get(rest, ())})
        close = difflib.get_close_matches(word, near, n=1, cutoff=0.7)
        return close[0] if close else ""


def _rests(word: str) -> set[str]:
    return {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}


def _folded(tag: str) -> str:
    return plain(tag).lower()


def _spelling(words: Vocabulary) -> Iterator[str]:
    """One tag written two ways."""
    forms: dict[str, list[str]] = {}
    for tag in words.counts:
        forms.setdefault(_folded(tag), []).append(tag)
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


def _unknown(words: Vocabulary, known: Collection[str], own: Collection[str]) -> Iterator[str]:
    """Tags that the tagger does not know: those nearly one it does, the others, and captions that hold mostly such."""
    strange = [tag for tag in words.counts if _folded(tag) not in known and _folded(tag) not in own]
    near, rest, typos = Nearest(known), [], 0
    for tag in strange:
        # a short tag is near to many others, and a very long one is no tag
        meant = near(_folded(tag)) if 3 < len(tag) < _LONGEST else ""
        if meant and typos < _TYPOS:
            typos += 1
            yield f"'{tag}' ({words.counts[tag]}): unknown to the tagger; did you mean '{meant}'?"
        else:
            rest.append(tag)
    if rest:
        examples = ", ".join(f"'{tag[:_LONGEST]}' ({words.counts[tag]})" for tag in rest[:_NAMED])
        yield f"{len(rest)} tags are unknown to the tagger: {examples}{', ...' if len(rest) > _NAMED else ''}"
    odd = set(strange)
    shares = [len(row & odd) / len(row) for row in words.rows if len(row) > 1]
    ours, others = sum(share <= 0.2 for share in shares), sum(share >= 0.6 for share in shares)
    if min(ours, others) >= max(1, 0.1 * len(shares)):
        yield f"{others} captions hold mostly tags that the tagger does not know, {ours} hold its own"


def _trigger(
    captions: Mapping[str, Caption], words: Vocabulary, known: Collection[str], trigger: str, split: Split | None
) -> Iterator[str]:
    """A trigger that is missing, known already, or cut into odd pieces."""
    if not trigger:
        return
    there = sum(trigger in one.tags or names(one.sentence, trigger) for one in captions.values())
    if there < words.captions - words.missing:
        yield f"trigger '{trigger}': stands in {there} of {words.captions} captions; it belongs in every one"
    if _folded(trigger) in {_folded(tag) for tag in known}:
        yield f"trigger '{trigger}': is a tag that the base knows already, so the LoRA must unlearn it first"
    if split is not None:
        pieces = [piece.replace("</w>", "") for piece in split(trigger)]
        if len(pieces) > 4 or any(len(piece) == 1 for piece in pieces):
            parts = "+".join(pieces)
            yield f"trigger '{trigger}': the tokenizer splits it into {parts}; 2-4 longer pieces bind better"
        elif len(pieces) == 1 and re.fullmatch(r"[a-z]+", trigger):
            yield f"trigger '{trigger}': is one token, so most likely a word that the base knows already"
