"""What a set holds as a whole: how many pictures of what, in which shapes, how varied, and from how many sources."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorakiln.base.records import Crop, Size
from lorakiln.curate import views
from lorakiln.curate.duplicates import field_array
from lorakiln.curate.picture import Picture

_SAMPLE = 1500  # variety is judged on at most so many pictures, evenly chosen
_MOST_REPEATS = 10
# Width to height; what lies beyond the first and last counts as them.
_SHAPES = ((1, 3), (1, 2), (9, 16), (2, 3), (3, 4), (4, 5), (1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1), (3, 1))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture belongs: its sub-concept (folder or tag), and how often its folder's name repeats it."""

    concept: str
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Balance:
    """The numbers of one set.

    `concepts` counts pictures a sub-concept; `given` is how often the folders' names repeat each, `repeats` what would
    even them out; `buckets` counts pictures a bucket, `aspects` a shape. `variety` is the effective number of different
    pictures (Vendi score, Friedman and Dieng 2023) as a share of all, 0-1; `redundant` the pictures most like five
    others, with that likeness; `sources` the effective number of sources, by file names, formats and sizes.
    """

    concepts: Mapping[str, int]
    given: Mapping[str, int]
    repeats: Mapping[str, int]
    buckets: Mapping[Size, int]
    aspects: Mapping[str, int]
    variety: float
    redundant: Sequence[tuple[str, float]]
    sources: float


def weigh(pictures: Sequence[Picture], crops: Mapping[str, Crop], place: Callable[[Picture], Place]) -> Balance:
    """Everything about a set of pictures; `crops` says by name how each is trained."""
    places = [place(picture) for picture in pictures]
    concepts = Counter(each.concept for each in places)
    seen = Counter()
    for each in places:
        seen[each.concept] += each.repeats
    given = {name: round(seen[name] / count) for name, count in concepts.items()}
    variety, redundant = _variety(pictures)
    return Balance(
        concepts=dict(concepts.most_common()),
        given=given,
        repeats=even_out(concepts, given),
        buckets=dict(sorted(Counter(crops[picture.name].target for picture in pictures).items())),
        aspects=aspects(picture.size for picture in pictures),
        variety=variety,
        redundant=redundant,
        sources=round(effective(Counter(source(picture) for picture in pictures).values()), 1),
    )


def even_out(concepts: Mapping[str, int], given: Mapping[str, int]) -> dict[str, int]:
    """Repeats that bring every sub-concept near the largest one, at most 10 (more teaches the pictures by heart); those
    given where they are about as even."""
    most = max(concepts.values(), default=0)
    wanted = {name: min(max(round(most / count), 1), _MOST_REPEATS) for name, count in concepts.items()}
    if _unevenness(concepts, given) < max(1.5, 1.01 * _unevenness(concepts, wanted)):
        return dict(given)
    return wanted


def _unevenness(concepts: Mapping[str, int], repeats: Mapping[str, int]) -> float:
    """How many times as often the most visited sub-concept is seen as the least visited one."""
    visits = [count * repeats[name] for name, count in concepts.items()]
    return max(visits) / min(visits) if visits else 1.0


def aspects(sizes: Iterable[Size]) -> dict[str, int]:
    """Pictures a shape, the tallest first; each counts as the shape that it is nearest to."""
    logs = np.log([width / height for width, height in _SHAPES])
    found = Counter(int(np.abs(logs - np.log(size.width / size.height)).argmin()) for size in sizes)
    return {":".join(map(str, _SHAPES[at])): found[at] for at in sorted(found)}


def effective(counts: Iterable[float]) -> float:
    """How many equally common things would be as varied: exp of the entropy of the shares."""
    shares = np.array([count for count in counts if count > 0], float)
    if not len(shares):
        return 0.0
    shares /= shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def source(picture: Picture) -> tuple:
    """What tells one source from another: the words of the file name, the format, its quality, the size."""
    stem = picture.name.rpartition("/")[2].rpartition(".")[0]
    return re.sub(r"[\d\W_]+", " ", stem).strip().lower(), picture.format, picture.measures.jpeg_quality, picture.size


def likeness(pictures: Sequence[Picture]) -> np.ndarray:
    """(N, N): 0-1, half composition (the whole view's spectrum) and half tones (a histogram of the lightness)."""
    fields = field_array(pictures)
    spectra = views.spectra(fields[:, 1], 1)[:, 0]
    composition = (spectra @ spectra.T).clip(0, 1)
    levels = (fields.reshape(len(pictures), -1) // 16).astype(np.int64)
    counts = np.stack([np.bincount(row, minlength=16) for row in levels]).astype(np.float32)
    roots = np.sqrt(counts / counts.sum(axis=1, keepdims=True))
    return (composition + roots @ roots.T) / 2


def _variety(pictures: Sequence[Picture]) -> tuple[float, list[tuple[str, float]]]:
    chosen = pictures
    if len(pictures) > _SAMPLE:
        chosen = [pictures[at] for at in np.linspace(0, len(pictures) - 1, _SAMPLE).astype(int)]
    if len(chosen) < 2:
        return 1.0, []
    alike = likeness(chosen)
    np.fill_diagonal(alike, 1)
    values = np.linalg.eigvalsh(alike.astype(np.float64) / len(chosen)).clip(0, None)
    variety = (effective(values.tolist()) - 1) / (len(chosen) - 1)
    np.fill_diagonal(alike, 0)
    near = min(5, len(chosen) - 1)
    closest = np.sort(alike, axis=1)[:, -near:].mean(axis=1)
    order = np.argsort(-closest)[:10]
    return round(variety, 3), [(chosen[at].name, round(float(closest[at]), 3)) for at in order]
