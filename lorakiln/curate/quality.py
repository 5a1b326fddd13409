"""How good a picture is to learn from, in numbers taken from its pixels. Arrays in, numbers out.

Legend: H rows, W columns; grey pictures are uint8 luma.
"""

from collections.abc import Mapping, Sequence

import numpy as np

# The sum of the luminance table of the JPEG standard (annex K.1), which encoders scale for their quality setting.
_STANDARD_SUM = 3685
_BANDS = 32  # of the spectrum, when detail is judged


def sharpness(grey_HW: np.ndarray) -> float:
    """1 for edges one pixel wide, about 1/width for blurred ones; 1 where there is no edge to judge.

    Along the steepest edges, the second difference is compared with the first: a blur leaves the height of an edge
    and spreads its turn. What the picture shows does not matter, only how its edges run.
    """
    ratios = []
    for grey in (grey_HW, grey_HW.T):
        step = np.diff(grey.astype(np.int16), axis=1)
        steep = np.abs(step)
        few = steep.size - np.cumsum(np.bincount(steep.ravel(), minlength=256))
        level = max(int(np.argmax(few <= steep.size // 500)) // 2, 3)  # half the height of the steepest 0.2 %
        rows, columns = np.nonzero(steep[:, 1:-1] > level)
        if len(rows) < 16:
            continue
        thin = max(len(rows) // 20_000, 1)
        rows, columns = rows[::thin], columns[::thin]
        before, here, after = (step[rows, columns + shift] for shift in range(3))
        around = np.maximum(np.abs(here - before), np.abs(after - here))
        ratios.append(float(np.median(around / np.abs(here))))
    return min(sum(ratios) / len(ratios), 1.0) if ratios else 1.0


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int:
    """1-100: the quality at which libjpeg would have used this luminance table."""
    scale = 100 * sum(tables[min(tables)]) / _STANDARD_SUM  # a file may number its tables from 1
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return int(min(max(round(quality), 1), 100))


def border(grey_HW: np.ndarray) -> tuple[int, int, int, int]:
    """Widths of the plain bars at left, top, right and bottom, in pixels; all 0 where there are none.

    A bar ends along its whole length at once. A drawing on a plain ground touches such a line only in places, so its
    ground is no bar. A bar with none on the opposite side counts only where it is black or white: a plain sky above a
    straight horizon is part of the picture.
    """
    height, width = grey_HW.shape
    left, right = _two_bars(grey_HW.T)
    top, bottom = _two_bars(grey_HW[:, left : width - right])
    # where two bars meet in a corner, each is first taken off roughly to judge the other
    rough_left, rough_right = (left, right) if left else _one_bar(grey_HW[top : height - bottom].T, 0.6)
    rough_top, rough_bottom = (top, bottom) if top else _one_bar(grey_HW[:, left : width - right], 0.6)
    if not left:
        left, right = _one_bar(grey_HW[rough_top : height - rough_bottom].T, 0.9)
    if not top:
        top, bottom = _one_bar(grey_HW[:, rough_left : width - rough_right], 0.9)
    return left, top, right, bottom


def _two_bars(grey_HW: np.ndarray) -> tuple[int, int]:
    """Heights of the bars at the first and last rows, of whatever colour; 0 and 0 unless there are both."""
    (first, first_edge), (last, last_edge) = _bar(grey_HW), _bar(grey_HW[::-1])
    return (first, last) if min(first_edge, last_edge) > 0.6 else (0, 0)


def _one_bar(grey_HW: np.ndarray, least: float) -> tuple[int, int]:
    """The same of a single black or white bar, that ends along `least` of its length or more."""
    (first, first_edge), (last, last_edge) = _bar(grey_HW), _bar(grey_HW[::-1])
    if first_edge > least and _pure(grey_HW[:first]):
        return first, 0
    return (0, last) if last_edge > least and _pure(grey_HW[::-1][:last]) else (0, 0)


def _pure(bar_HW: np.ndarray) -> bool:
    """Whether a bar is as black or as white as screens and editors make them."""
    return bool(((bar_HW < 6).mean() > 0.99) or ((bar_HW > 249).mean() > 0.99))


def _bar(grey_HW: np.ndarray) -> tuple[int, float]:
    """(rows of one colour from the first on, the share of the next rows' pixels that have another)."""
    count = len(grey_HW)
    colour = np.median(grey_HW[0])
    sample = grey_HW[: count // 2, :: max(grey_HW.shape[1] // 256, 1)].astype(np.int16)
    share = (np.abs(sample - int(colour)) > 14).mean(axis=1)
    busy = np.flatnonzero(share > 0.01)
    height = int(busy[0]) if len(busy) else 0
    if not 2 <= height < 0.45 * count:
        return 0, 0.0
    return height, float(share[height : height + max(count // 200, 2)].max())


def text_band(grey_HW: np.ndarray) -> float:
    """0-1: how much a strip near the top or bottom edge looks like a line of text laid over the picture.

    Letters are many short, steep steps up and down in a few rows, with calm rows above and below.
    """
    height, width = grey_HW.shape
    strip = max(height // 40, 4)
    if height < 4 * strip or width < 64:
        return 0.0
    step = np.diff(grey_HW.astype(np.int16), axis=1)
    up, down = step > 18, step < -18
    turns = (up[:, :-1] & ~up[:, 1:]).astype(np.float32) + (down[:, :-1] & ~down[:, 1:])
    pieces = max(width // 16, 4)  # some two letters each
    edge = turns.shape[1] // pieces * pieces
    cells = turns[: height // strip * strip, :edge].reshape(height // strip, strip, pieces, -1).sum(axis=3).mean(axis=1)
    busy = cells >= 1.0  # on average over a letter's rows, one side of a stem
    longest = np.array([_longest(row) for row in busy]) / pieces
    rows = len(longest)
    near = max(round(0.15 * rows), 1)
    best = 0.0
    for places in (range(near), range(rows - near, rows)):
        for place in places:
            around = [longest[other] for other in (place - 3, place + 3) if 0 <= other < rows]
            best = max(best, float(longest[place] - max(around, default=0.0)))
    return min(best * 4, 1.0)


def _longest(flags: np.ndarray) -> int:
    """The longest run of true values."""
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best


def palette(rgb_HWC: np.ndarray) -> tuple[float, int]:
    """The share of pixels of the commonest colour, and how many colours there are (5 bits a channel)."""
    five = (rgb_HWC[::2, ::2] >> 3).astype(np.int32)
    counts = np.bincount((five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).ravel(), minlength=1)
    return float(counts.max() / counts.sum()), int((counts > counts.sum() / 20_000).sum())


def detail(grey_HW: np.ndarray) -> float:
    """The part of its side at which the picture would hold the same detail: 1 as taken or drawn, about 1/k when
    enlarged k times, less still when blurred.

    Edges give a spectrum that falls as 1/frequency^2; where a picture was enlarged or blurred it breaks off.
    """
    side = min(512, *grey_HW.shape)
    if side < 64:
        return 1.0
    top, left = ((length - side) // 2 for length in grey_HW.shape)
    middle = grey_HW[top : top + side, left : left + side].astype(np.float32)
    window = np.hanning(side).astype(np.float32)
    return max(_break_off(part * window) for part in (_levelled(middle), _levelled(middle.T)))


def _levelled(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(axis=1, keepdims=True)


def _break_off(rows: np.ndarray) -> float:
    """The frequency, as a share of the highest, from which 1/frequency^2 is missed by a factor of 5."""
    power = (np.abs(np.fft.rfft(rows, axis=1)) ** 2).mean(axis=0)[1:]
    level = power * np.linspace(0, 1, len(power) + 1)[1:] ** 2
    edges = np.linspace(0, len(level), _BANDS + 1).astype(int)
    bands = np.add.reduceat(level, edges[:-1]) / np.diff(edges)
    smooth = np.convolve(np.pad(bands, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    low = smooth[6:] < np.median(bands[2:10]) / 5
    return round((int(np.argmax(low)) + 6) / _BANDS, 3) if low.any() else 1.0
