"""Which pictures are the same picture, which copy to keep, and which are merely near poses of each other."""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
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


def find(pictures: Sequence[Picture], index: Index, report: Report = quiet) -> Duplicates:
    """Group pictures: same bytes first, then likely pairs, each compared closely (or as remembered by the index)."""
    by_content = defaultdict(list)
    for picture in sorted(pictures, key=_by_name):
        by_content[picture.sha256].append(picture)
    kinds = [same[0] for same in by_content.values()]
    comparer = _Comparer(kinds, index)
    edges = _compared(comparer, report)
    copies = _agreed(len(kinds), edges)
    whole = join(len(kinds), [edge[:2] for edge in copies])
    groups = []
    for members in whole:
        files = [picture for at in members for picture in by_content[kinds[at].sha256]]
        if len(files) > 1:
            inside = [edge for edge in copies if edge[0] in set(members)]
            groups.append(_group(comparer, members, inside, by_content))
    home = {at: number for number, members in enumerate(whole) for at in members}
    index.commit()
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
        known = self.index.relation(*keys)
        if known is None:
            known = relate(self._looks(keys[0]), self._looks(keys[1]), box, mirrored)
            self.index.relate(*keys, known)
        return known

    def as_guessed(self, first: int, second: int) -> Edge:
        """Where nothing is known of the pair: mirrored if that is likelier; a framed one contains the other."""
        left, top, right, bottom = self.kinds[second].measures.border
        box = WHOLE
        if left or top:
            width, height = self.kinds[second].size
            first, second, box = second, first, (left / width, top / height, 1 - right / width, 1 - bottom / height)
        looks = [self._looks(self.kinds[at].sha256) for at in (first, second)]
        return first, second, self.relation(first, second, box, likelier_mirrored(*looks))


def _compared(comparer: _Comparer, report: Report) -> list[Edge]:
    """The relations of all likely pairs of different contents."""
    if len(comparer.kinds) < 2:
        return []
    likely = candidates.find(field_array(comparer.kinds))
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
        between = [vote for at in joined.members(one) for to, vote in votes[at].items() if joined.find(to) == other]
        if one == other or sum(between) >= 0:
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


def _group(comparer: _Comparer, members: list[int], edges: list[Edge], by_content: dict[str, list[Picture]]) -> Group:
    """The best of a group, and what each other is to it."""
    kinds, spoilt = comparer.kinds, {at: _spoilt(at, edges, comparer.kinds) for at in members}
    odd = {at: [edge[2].share for edge in edges if at in edge[:2]] for at in members}
    most = max(_detail(kinds[at]) for at in members)
    best = min(members, key=lambda at: (*_worth(kinds[at], spoilt[at], most), sum(odd[at]), _by_name(kinds[at])))
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


def _spoilt(at: int, edges: list[Edge], kinds: Sequence[Picture]) -> int:
    """How many things were done to a picture, as far as its relations show."""
    own = [edge for edge in edges if at in edge[:2]]
    marked = any(relation.marked == (1 if first == at else 2) for first, _, relation in own)
    part = any(
        second == at and relation.cropped and not any(kinds[first].measures.border) for first, second, relation in own
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
    return any(measures.border), spoilt, short, -fine, -(min(quality, 90) // 10), -picture.pixels, -quality


def _described(best: Picture, other: Picture, relation: Relation, forwards: bool) -> str:
    """`other` in words, as seen from `best`; `forwards` says that the relation was found in that direction."""
    if relation.kind != "copy":
        return "copy of a copy"
    words = []
    if relation.cropped:
        frame = "framed" if any(other.measures.border) else "less cropped"
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
    while close:
        centre = max(close, key=lambda at: (len(close[at]), -at))
        if not close[centre]:
            break
        others = sorted(close[centre], key=lambda at: (-close[centre][at], at))
        found.append(NearPoses(tuple(kinds[at] for at in [centre, *others]), round(close[centre][others[0]], 3)))
        for gone in [centre, *others]:
            for neighbour in close.pop(gone):
                close.get(neighbour, {}).pop(gone, None)
    return found
