"""Which pictures are the same picture, which copy to keep, and which are merely near poses of each other."""

import heapq
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from lorakiln.curate import candidates, views
from lorakiln.curate.align import WHOLE, Box
from lorakiln.curate.candidates import Report, quiet
from lorakiln.curate.compare import Looks, Relation, likelier_mirrored, relate
from lorakiln.curate.index import Index
from lorakiln.curate.picture import FIELD, Picture

_LOSSLESS = {"PNG", "BMP", "TIFF", "GIF"}
_ONE_PLACE = 0.08  # share of differing pixels under which two near poses are the same but for one place
_ALL_PAIRS = 5  # in a group of up to so many, every pair is compared, which tells best which copy is the original


Unfit = Callable[[Picture], bool]


def _untold(name: str) -> Report:
    return quiet


def _never(picture: Picture) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Copy:
    """A picture of a group, and what it is to the best one: "exact copy", "resized, mirrored", ..."""

    picture: Picture
    what: str


@dataclass(frozen=True, slots=True)
class Group:
    """One picture in several files: the one to keep, and the others."""

    best: Picture
    copies: tuple[Copy, ...]

    @property
    def names(self) -> list[str]:
        return [self.best.name, *(copy.picture.name for copy in self.copies)]


@dataclass(frozen=True, slots=True)
class NearPoses:
    """A picture and others that look much like it and are not the same, likest first."""

    pictures: tuple[Picture, ...]
    likeness: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups by the name of their best copy, near poses with the largest group first."""

    groups: tuple[Group, ...]
    near: tuple[NearPoses, ...]


def find(
    pictures: Sequence[Picture], index: Index, stage: Callable[[str], Report] = _untold, unfit: Unfit = _never
) -> Duplicates:
    """Group pictures: same bytes first, then likely pairs, each compared closely (or as remembered by the index).

    `stage(name)` gives each long stage its progress. The best of a group is one that is not `unfit` to stay for
    another reason, where there is one.
    """
    by_content = defaultdict(list)
    for picture in sorted(pictures, key=_by_name):
        by_content[picture.sha256].append(picture)
    kinds = [same[0] for same in by_content.values()]
    comparer = _Comparer(kinds, index)
    edges = _compared(comparer, stage)
    copies = _agreed(len(kinds), edges)
    whole = join(len(kinds), [edge[:2] for edge in copies])
    home = {at: number for number, members in enumerate(whole) for at in members}
    inside: dict[int, list[Edge]] = defaultdict(list)
    for edge in copies:
        inside[home[edge[0]]].append(edge)
    groups = []
    for number, members in enumerate(whole):
        if len(members) > 1 or len(by_content[kinds[members[0]].sha256]) > 1:
            groups.append(_group(comparer, members, inside[number], by_content, unfit))
    index.flush()
    near = _near(kinds, [edge for edge in edges if edge[2].kind == "near"], home, groups)
    return Duplicates(tuple(sorted(groups, key=lambda group: group.best.name)), tuple(near))


def field_array(pictures: Sequence[Picture]) -> np.ndarray:
    """(N, 2, F, F) uint8: both grey fields of each picture."""
    joined = b"".join(picture.fields for picture in pictures)
    return np.frombuffer(joined, np.uint8).reshape(len(pictures), 2, FIELD, FIELD)


Edge = tuple[int, int, Relation]


class _Comparer:
    """Compares contents by their thumbnails; what the index remembers is not compared again."""

    def __init__(self, kinds: Sequence[Picture], index: Index):
        self.kinds, self.index = kinds, index
        self._looks = lru_cache(256)(lambda sha256: Looks(Image.open(io.BytesIO(index.thumbnail(sha256)))))

    def relation(self, first: int, second: int, box: Box = WHOLE, mirrored: bool = False) -> Relation:
        keys = self.kinds[first].sha256, self.kinds[second].sha256
        known = self.index.relation(*keys, (box, mirrored))
        if known is None:
            known = relate(self._looks(keys[0]), self._looks(keys[1]), box, mirrored)
            self.index.relate(*keys, (box, mirrored), known)
        return known

    def as_guessed(self, first: int, second: int) -> Edge:
        """Where nothing is known of the pair: mirrored if that is likelier; a framed one contains the other."""
        left, top, right, bottom = self.kinds[second].measures.border
        box = WHOLE
        if self.kinds[second].measures.framed:
            width, height = self.kinds[second].size
            first, second, box = second, first, (left / width, top / height, 1 - right / width, 1 - bottom / height)
        looks = [self._looks(self.kinds[at].sha256) for at in (first, second)]
        return first, second, self.relation(first, second, box, likelier_mirrored(*looks))


def _compared(comparer: _Comparer, stage: Callable[[str], Report]) -> list[Edge]:
    """The relations of all likely pairs of different contents."""
    if len(comparer.kinds) < 2:
        return []
    likely = candidates.find(field_array(comparer.kinds), stage("look up"))
    report = stage("compare")
    joined = _Joined(len(comparer.kinds))
    edges = []
    # likest first, so that large groups are joined early and need no further look
    for done, at in enumerate(range(len(likely.whole)), 1):
        first, second = int(likely.part_of[at]), int(likely.whole[at])
        report(done, len(likely.whole))
        if joined.find(first) == joined.find(second) and len(joined.members(first)) > _ALL_PAIRS:
            continue
        relation = comparer.relation(first, second, box_of(int(likely.view[at])), bool(likely.mirrored[at]))
        if relation.kind == "copy":
            joined.join(first, second)
        edges.append((first, second, relation))
    return edges


def box_of(view: int) -> Box:
    """The part of a picture that a view shows."""
    rows, columns = views.VIEWS[view]
    (top, bottom), (left, right) = views.INTERVALS[rows], views.INTERVALS[columns]
    return (float(left), float(top), float(right), float(bottom)) if view else WHOLE


class _Joined:
    """Sets that only grow together (union-find)."""

    def __init__(self, count: int):
        self._parent = list(range(count))
        self._members = [[one] for one in range(count)]

    def find(self, one: int) -> int:
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one

    def members(self, one: int) -> list[int]:
        return self._members[self.find(one)]

    def join(self, one: int, other: int) -> None:
        one, other = self.find(one), self.find(other)
        if len(self._members[one]) < len(self._members[other]):
            one, other = other, one
        if one != other:
            self._parent[other] = one
            self._members[one] += self._members[other]
            self._members[other] = []


def _agreed(count: int, edges: Sequence[Edge]) -> list[Edge]:
    """The copies that most other comparisons do not speak against.

    A change of colour can hide what sets two pictures apart, as a darker copy hides a darker skin. So such copies do
    not tie two groups together when more pairs between them are alike all over but in one place.
    """
    kept = [edge for edge in edges if edge[2].kind == "copy" and not edge[2].change]
    joined = _Joined(count)
    for first, second, _ in kept:
        joined.join(first, second)
    votes: dict[int, dict[int, int]] = defaultdict(dict)
    for first, second, relation in edges:
        near = relation.kind == "near" and relation.share < _ONE_PLACE
        votes[first][second] = votes[second][first] = bool(relation.kind == "copy") - near
    changed = [edge for edge in edges if edge[2].kind == "copy" and edge[2].change]
    for edge in sorted(changed, key=lambda edge: edge[2].share):
        one, other = joined.find(edge[0]), joined.find(edge[1])
        if one != other:
            fewer, more = sorted((one, other), key=lambda root: len(joined.members(root)))
            between = (
                vote for at in joined.members(fewer) for to, vote in votes[at].items() if joined.find(to) == more
            )
            if sum(between) < 0:
                continue
            joined.join(one, other)
        kept.append(edge)
    return kept


def join(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """0..count-1 in the sets that pairs join, each in order, by their first."""
    joined = _Joined(count)
    for first, second in pairs:
        joined.join(first, second)
    found = defaultdict(list)
    for one in range(count):
        found[joined.find(one)].append(one)
    return list(found.values())


def _group(
    comparer: _Comparer, members: list[int], edges: list[Edge], by_content: dict[str, list[Picture]], unfit: Unfit
) -> Group:
    """The best of a group, and what each other is to it."""
    kinds, own = comparer.kinds, defaultdict(list)
    for edge in edges:
        for at in edge[:2]:
            own[at].append(edge)
    most = max(_detail(kinds[at]) for at in members)

    def rank(at: int) -> tuple:
        odd = sum(relation.share for *_, relation in own[at])
        worth = _worth(kinds[at], _spoilt(at, own[at], kinds), most)
        return unfit(kinds[at]), *worth, odd, _by_name(kinds[at])

    best = min(members, key=rank)
    related = {frozenset(edge[:2]): edge for edge in edges}
    same = by_content[kinds[best].sha256]
    copies = [Copy(picture, "exact copy") for picture in same[1:]]
    for at in members:
        if at == best:
            continue
        first, _, relation = related.get(frozenset((best, at))) or comparer.as_guessed(best, at)
        what = _described(kinds[best], kinds[at], relation, first == best)
        copies += [Copy(picture, what) for picture in by_content[kinds[at].sha256]]
    return Group(same[0], tuple(copies))


def _spoilt(at: int, own: list[Edge], kinds: Sequence[Picture]) -> int:
    """How many things were done to a picture, as far as its own relations show."""
    marked = any(relation.marked == (1 if first == at else 2) for first, _, relation in own)
    part = any(
        second == at and relation.cropped and not kinds[first].measures.framed for first, second, relation in own
    )
    # of a recoloured or mirrored pair neither is known to be the original: the odd one out loses
    recoloured = 2 * sum(bool(relation.change) for _, _, relation in own) > len(own)
    mirrored = 2 * sum(relation.mirrored for _, _, relation in own) > len(own)
    return marked + part + recoloured + mirrored


def _by_name(picture: Picture) -> tuple[int, str]:
    """Shortest first: 'cat.png' is the original of 'cat (1).png'."""
    return len(picture.name), picture.name


def _detail(picture: Picture) -> float:
    """Pixels that say something: enlarging and blurring gain none."""
    return picture.pixels * picture.measures.detail**2


def _worth(picture: Picture, spoilt: int, most: float) -> tuple:
    """Smaller is better: framed, spoilt, far from the group's most detail, enlarged, lossy, small."""
    measures = picture.measures
    quality = 101 if picture.format in _LOSSLESS else measures.jpeg_quality or 80
    short = _detail(picture) < most / 2.2
    fine = round(measures.detail, 1)
    return measures.framed, spoilt, short, -fine, -(min(quality, 90) // 10), -picture.pixels, -quality


def _described(best: Picture, other: Picture, relation: Relation, forwards: bool) -> str:
    """`other` in words, as seen from `best`; `forwards` says that the relation was found in that direction."""
    if relation.kind != "copy":
        return "copy of a copy"
    words = []
    if relation.cropped:
        frame = "framed" if other.measures.framed else "less cropped"
        words.append(f"cropped to {relation.shown:.0%}" if forwards else frame)
    if relation.mirrored:
        words.append("mirrored")
    if relation.change:
        words.append({"grey": "without colour"}.get(relation.change, f"recoloured ({relation.change})"))
    if relation.marked:
        words.append("watermarked" if relation.marked == (2 if forwards else 1) else "without the watermark")
    if not relation.cropped and best.size != other.size:
        words.append(f"resized to {other.size}")
    return ", ".join(words) or f"saved again as {other.format}"


def _near(
    kinds: Sequence[Picture], edges: Iterable[Edge], home: dict[int, int], groups: list[Group]
) -> list[NearPoses]:
    """Near poses between different groups, each picture in one list: that of the picture that resembles most others."""
    best = {home[at]: at for at in reversed(range(len(kinds)))}
    names = {picture.name: at for at, picture in enumerate(kinds)}
    best |= {home[names[group.best.name]]: names[group.best.name] for group in groups if group.best.name in names}
    close: dict[int, dict[int, float]] = defaultdict(dict)
    for first, second, relation in edges:
        one, other = best[home[first]], best[home[second]]
        if one != other:
            likeness = max(relation.likeness, close[one].get(other, 0.0))
            close[one][other] = close[other][one] = likeness
    found = []
    busiest = [(-len(others), at) for at, others in close.items()]
    heapq.heapify(busiest)  # an entry is out of date once its picture resembles fewer
    while busiest:
        count, centre = heapq.heappop(busiest)
        if not close.get(centre) or -count != len(close[centre]):
            continue
        others = sorted(close[centre], key=lambda at: (-close[centre][at], at))
        found.append(NearPoses(tuple(kinds[at] for at in [centre, *others]), round(close[centre][others[0]], 3)))
        for gone in [centre, *others]:
            for neighbour in close.pop(gone):
                if neighbour in close:
                    close[neighbour].pop(gone, None)
                    heapq.heappush(busiest, (-len(close[neighbour]), neighbour))
    return found
