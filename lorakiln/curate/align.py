"""Laying one picture over another: the box of the first that shows what the second shows, to a fraction of a pixel.

A box is (left, top, right, bottom) as parts of the first picture's sides. Found by Gauss-Newton steps on the box's
edges (Lucas and Kanade 1981), brightness and contrast free. Legend: S source side, G grid side, C channels.
"""

from collections.abc import Sequence

import numpy as np

SOURCE = 128  # side of the squeezed picture that a box is cut from
GRID = 96  # side at which two pictures are laid over each other
# Standard deviations of the blur, in pixels of the grid.
SHARP, SOFT, COARSE = 0.45, 0.9, 3.0

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_PLACES = np.arange(SOURCE, dtype=np.float32)
_AT = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID


def sampler(start: float, stop: float, blur: float) -> np.ndarray:
    """(G, S): the weights that read an interval of a source row at G places through a Gaussian."""
    place = ((start + _AT * (stop - start)) * SOURCE - 0.5).clip(0, SOURCE - 1)
    reach = max(blur * (stop - start) * SOURCE / GRID, 0.45)
    weights = np.exp(-(((place[:, None] - _PLACES) / reach) ** 2) / 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def cut(source: np.ndarray, box: Box = WHOLE, blur: float = SHARP) -> np.ndarray:
    """(G, G) or (G, G, C): what the box shows of a source of (S, S) or (S, S, C)."""
    left, top, right, bottom = box
    rows = (sampler(top, bottom, blur) @ source.reshape(SOURCE, -1)).reshape(GRID, *source.shape[1:])
    columns = sampler(left, right, blur)
    return rows @ columns.T if source.ndim == 2 else np.matmul(columns, rows)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """-1 to 1; 0 where one of them is plain."""
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(np.sqrt((one**2).sum() * (other**2).sum()), 1e-3))


def fit(source_SS: np.ndarray, targets: Sequence[tuple[float, np.ndarray]], box: Box) -> tuple[Box, float]:
    """The box of a grey source that looks most like a grey target, from a first guess; their correlation.

    `targets` holds the target as (blur, (G, G)), the most blurred first: far moves are found in blurred pictures.
    """
    place, (last, sharp) = box, targets[-1]
    for blur, target in targets:
        for _ in range(6):
            step = _step(source_SS, target, place, blur)
            place = tuple(np.clip(np.add(place, step), -0.06, 1.06).tolist())
            if place[2] - place[0] < 0.5 or place[3] - place[1] < 0.5:
                return box, correlation(cut(source_SS, box, last), sharp)
            if np.abs(step).max() < 0.0005:
                break
    before, after = (correlation(cut(source_SS, each, last), sharp) for each in (box, place))
    return (place, after) if after > before else (box, before)


def _step(source_SS: np.ndarray, target_GG: np.ndarray, box: Box, blur: float) -> np.ndarray:
    """How far to move left, top, right and bottom: least squares on the picture's slopes, gain and offset free."""
    shown = cut(source_SS, box, blur)
    down, along = np.gradient(shown, 1 / GRID)
    along, down = along / (box[2] - box[0]), down / (box[3] - box[1])
    slopes = [along * (1 - _AT), down * (1 - _AT[:, None]), along * _AT, down * _AT[:, None]]
    centred, wanted = shown - shown.mean(), target_GG - target_GG.mean()
    gain = float((centred * wanted).sum() / max((centred**2).sum(), 1e-3))
    system = np.stack([*(gain * slope for slope in slopes), shown, np.ones_like(shown)]).reshape(6, -1)
    normal = system @ system.T
    normal[np.arange(6), np.arange(6)] *= 1 + 1e-4
    left = system @ (target_GG - gain * shown).ravel()
    return np.linalg.solve(normal.astype(np.float64) + 1e-6 * np.eye(6), left)[:4]
