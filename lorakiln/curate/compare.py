"""Are two pictures one? Laid over each other, either every pixel agrees after one change of colour, or they differ."""

import functools
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from lorakiln.curate import align, colours
from lorakiln.curate.align import Box

TOLERANCE = 26.0  # levels by which two copies' pixels may differ beyond what an edge moved by a pixel does
_SPECKS = 0.0022  # share of pixels that may differ anyway: compression, resampling
_MOST_WRITTEN = 0.06  # share of pixels that a watermark may change
_LETTER = 7  # rows of the grid (of 96) that a line of writing is high at most
_FLICKER = 0.12  # mean change of the difference from column to column, as a share of it
_SCATTERED = 36.0  # levels by which nine neighbouring pixels may differ on average beyond an edge's move
_INK = 110.0  # the same for writing, whose strokes are thinner than a pixel of the grid
_SPECKS_IN_A_CHANGE = 0.012  # the same where all of the picture has other colours: channels run into their ends
_HARDLY = 0.6  # correlation below which the colours need no look
_LEAST_SHOWN = 0.76  # a smaller part is a detail, not a copy
_ALIKE = 0.87  # correlation from which pictures that differ are a near pose


class Looks:
    """One picture as it is compared: its colours squeezed to a square (S, S, 3), and greys of it (S, S); 0-255."""

    def __init__(self, thumbnail: Image.Image):
        squeezed = thumbnail.convert("RGB").resize((align.SOURCE, align.SOURCE), Image.Resampling.LANCZOS)
        self.colours = np.asarray(squeezed, np.float32)
        self.luma = self.colours @ colours.LUMA
        self._grids: dict[tuple[str, float], np.ndarray] = {}

    @functools.cached_property
    def lightness(self) -> np.ndarray:
        """(max + min) / 2, which a turned hue leaves alone."""
        return (self.colours.max(axis=2) + self.colours.min(axis=2)) / 2

    def grid(self, layer: str, blur: float, mirrored: bool) -> np.ndarray:
        """(G, G) or (G, G, 3): all of one layer, "colours", "luma" or "lightness"."""
        if (layer, blur) not in self._grids:
            self._grids[layer, blur] = align.cut(getattr(self, layer), align.WHOLE, blur)
        whole = self._grids[layer, blur]
        return whole[:, ::-1] if mirrored else whole


@dataclass(frozen=True, slots=True)
class Relation:
    """What a picture is to another: `kind` is copy, near or different.

    `box` is the part of the first that the second shows; `change` how its colours were changed ("" for not at all);
    `marked` is 1 or 2 for the picture that carries a watermark, 0 for none; `share` is the part of pixels that differ,
    `likeness` the correlation of the two, or of their edges, once laid over each other.
    """

    kind: str
    box: Box = align.WHOLE
    mirrored: bool = False
    change: str = ""
    marked: int = 0
    share: float = 1.0
    likeness: float = 0.0

    @property
    def shown(self) -> float:
        """The part of the first picture's sides that the second shows, of the side that it shows least of."""
        left, top, right, bottom = self.box
        return min(right - left, bottom - top)

    @property
    def cropped(self) -> bool:
        return self.shown < 0.965


def relate(first: Looks, second: Looks, box: Box = align.WHOLE, mirrored: bool = False) -> Relation:
    """What `second` is to `first`, where about `box` of the first is what the second shows, mirrored or not."""
    box, likeness = _aligned(first, second, box, mirrored)
    shown, target = align.cut(first.colours, box, align.SOFT), second.grid("colours", align.SOFT, mirrored)
    likeness = max(likeness, align.correlation(_edges(shown), _edges(target)))
    if likeness < _HARDLY:
        return Relation("different", box, mirrored, likeness=likeness)
    change, apart = _explain(shown, target)
    differs = apart > TOLERANCE
    found = Relation("copy", box, mirrored, change, 0, float(differs.mean()), likeness)
    if found.shown < _LEAST_SHOWN:
        return replace(found, kind="different")
    if change or _only_specks(apart, _SPECKS):
        return found
    target = second.grid("colours", align.SHARP, mirrored)
    marked = 0
    if not found.cropped and _strongest(apart) <= _INK:
        marked = _watermark(align.cut(first.colours, box), target, differs)
    if marked:
        return replace(found, marked=marked)
    return replace(found, kind="near" if likeness >= _ALIKE else "different")


def _edges(picture: np.ndarray) -> np.ndarray:
    """(G-1, G-1): how strong the edges are, whatever the colours on either side; faint ones count nearly as much."""
    down, along = np.abs(np.diff(picture, axis=0)).max(axis=2), np.abs(np.diff(picture, axis=1)).max(axis=2)
    return np.sqrt(down[:, :-1] + along[:-1])


def likelier_mirrored(first: Looks, second: Looks) -> bool:
    """Whether the second looks more like the first once it is mirrored."""
    return _alike(first, second, "luma", align.WHOLE, True) > _alike(first, second, "luma", align.WHOLE, False)


def _aligned(first: Looks, second: Looks, box: Box, mirrored: bool) -> tuple[Box, float]:
    """Aligned in luma or in lightness, whichever is more alike at the first guess."""
    layer, likeness = "luma", _alike(first, second, "luma", box, mirrored)
    if likeness > 0.995 and box == align.WHOLE:
        return box, likeness
    if likeness < 0.9 and _alike(first, second, "lightness", box, mirrored) > likeness + 0.02:
        layer = "lightness"
    targets = [(blur, second.grid(layer, blur, mirrored)) for blur in (align.COARSE, align.SOFT)]
    return align.fit(getattr(first, layer), targets, box)


def _alike(first: Looks, second: Looks, layer: str, box: Box, mirrored: bool) -> float:
    shown = align.cut(getattr(first, layer), box, align.SOFT)
    return align.correlation(shown, second.grid(layer, align.SOFT, mirrored))


def _explain(shown: np.ndarray, target: np.ndarray) -> tuple[str, np.ndarray]:
    """The simplest change of colour that leaves only specks, and by how much each pixel still differs; else as is."""
    plain = _apart(shown, target)
    if _only_specks(plain, _SPECKS):
        return "", plain
    calm = _calm(shown) & _calm(target)
    before, after = shown[calm], target[calm]
    ground = _ground_moved(shown, target)
    if len(before) < 64 or not (ground or _moved_as_one(before, after)):
        return "", plain
    for name, change in colours.changes(before[::3], after[::3]):
        if (np.abs(change(before[1::3]) - after[1::3]).max(axis=1) > TOLERANCE).mean() > 0.05:
            continue
        apart = _apart(change(shown.reshape(-1, 3)).reshape(shown.shape), target)
        if _only_specks(apart, _SPECKS_IN_A_CHANGE if ground else _SPECKS):
            return name, apart
    return "", plain


def _only_specks(apart: np.ndarray, allowed: float) -> bool:
    """Whether what differs is little and scattered, as compression leaves it, and not another hand on a clock."""
    return bool((apart > TOLERANCE).mean() <= allowed and _strongest(apart) <= _SCATTERED)


def _strongest(apart: np.ndarray) -> float:
    """The greatest difference of any 3x3 pixels, on average over them."""
    rows = apart[:-2] + apart[1:-1] + apart[2:]
    return float((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]).max() / 9)


def _calm(picture: np.ndarray) -> np.ndarray:
    """(G, G) bool: pixels away from edges, whose colour is one of the picture's own and no mixture."""
    low, high = _range(picture)
    return (high - low).max(axis=2) < 40


def _moved_as_one(before_P3: np.ndarray, after_P3: np.ndarray) -> bool:
    """Whether more than one colour moved: where a single one did, another skin, coat or heart is as likely as a
    change of the whole picture. Turning all colour into its luma is beyond doubt."""
    if np.ptp(after_P3, axis=1).max() < 12 and np.abs(after_P3.mean(axis=1) - before_P3 @ colours.LUMA).max() < 20:
        return True
    moved = np.abs(after_P3 - before_P3).max(axis=1) > 10
    if moved.sum() < 32:
        return False
    own = before_P3[moved]
    coarse = (own // 32).astype(int) @ np.array([64, 8, 1])
    first = own[coarse == np.bincount(coarse).argmax()].mean(axis=0)
    others = np.abs(own - first).max(axis=1) > 48
    return bool(others.sum() >= 10 and others.mean() > 0.004)


def _ground_moved(shown: np.ndarray, target: np.ndarray) -> bool:
    """Whether the rim of the picture has other colours: then it is no single figure that was recoloured."""
    moved = np.abs(shown - target).max(axis=2) > 10
    rim = np.concatenate([moved[1], moved[-2], moved[:, 1], moved[:, -2]])
    return bool(rim.mean() > 0.6)


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(G-4, G-4): how far pixels lie outside what the other picture holds within a pixel around, either way."""
    worst = np.zeros(one.shape[:2], np.float32)
    for first, second in ((one, other), (other, one)):
        low, high = _range(first)
        worst = np.maximum(worst, np.maximum(low - second, second - high).max(axis=2))
    return worst[2:-2, 2:-2]


def _range(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest value within a pixel around, channel by channel."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = [padded[at : at + len(picture)] for at in range(3)]
    low, high = np.minimum(np.minimum(rows[0], rows[1]), rows[2]), np.maximum(np.maximum(rows[0], rows[1]), rows[2])
    width = picture.shape[1]
    lows, highs = ([part[:, at : at + width] for at in range(3)] for part in (low, high))
    return np.minimum(np.minimum(*lows[:2]), lows[2]), np.maximum(np.maximum(*highs[:2]), highs[2])


def _watermark(shown: np.ndarray, target: np.ndarray, differs: np.ndarray) -> int:
    """1 or 2: the first or second carries writing that the other does not; 0: they differ in another way.

    Writing is one or a few low, wide bands in which the difference flickers from column to column, as letters do. A
    face's other eyes or mouth are low bands too, but plain ones.
    """
    if differs.mean() > _MOST_WRITTEN:
        return 0
    apart = np.abs(target - shown).max(axis=2)[2:-2, 2:-2]
    bands = _bands(differs)
    if not bands or max(stop - start for start, stop in bands) > _LETTER:
        return 0
    if not any(_written(differs[start:stop], apart[start:stop]) for start, stop in bands):
        return 0
    busy = [_busy(picture)[differs].sum() for picture in (shown, target)]
    return 1 if busy[0] > busy[1] else 2


def _busy(picture: np.ndarray) -> np.ndarray:
    """(G-4, G-4): steps of the luma from column to column."""
    return np.abs(np.diff(picture @ colours.LUMA, axis=1))[2:-2, 1:-2]


def _bands(differs: np.ndarray) -> list[tuple[int, int]]:
    """The runs of rows that hold differing pixels; gaps of up to three rows do not part them."""
    rows = np.flatnonzero(differs.any(axis=1))
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > 4) + 1) if len(rows) else []
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


def _written(differs: np.ndarray, apart: np.ndarray) -> bool:
    """Whether one band's difference flickers along a wide line."""
    columns = np.flatnonzero(differs.any(axis=0))
    start, stop = int(columns[0]), int(columns[-1]) + 1
    if stop - start < max(3 * len(differs), 10):
        return False
    line = apart[:, start:stop].mean(axis=0)
    flicker = np.abs(line[1:-1] - (line[:-2] + line[2:]) / 2).mean() / max(line.mean(), 1.0)
    return bool((line > TOLERANCE / 4).mean() > 0.6 and flicker > _FLICKER)
