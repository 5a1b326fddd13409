"""Where copies may hide: every picture seen whole and through 50 crops, as bits that are alike for pictures that are.

A crop's picture is near one of the 51 *views* of the picture it was cut from, so copies are found by looking each view
up among the whole pictures. Views are exact: each is a linear function of the 32x32 field, taken for all at once.
Legend: N pictures, V views, F the field's side, K frequencies an axis, C coefficients.
"""

import itertools

import numpy as np

from lorakiln.curate.picture import FIELD

FREQUENCIES = 8
BITS = 256
# The part of a side that a view shows: all, 90 % or 80 % of it, at steps of 5 %.
INTERVALS = [(0.0, 1.0)] + [
    (start, start + length) for length in (0.9, 0.8) for start in np.arange(0, 1.001 - length, 0.05)
]
_PAIRS = list(itertools.product(range(len(INTERVALS)), repeat=2))
_SHARES = [round(stop - start, 2) for start, stop in INTERVALS]
# those whose sides are cut alike, and those that are cut on one side: a crop of 90 by 80 % is like one of them
VIEWS = [
    (row, column) for row, column in _PAIRS if _SHARES[row] == _SHARES[column] or 1.0 in (_SHARES[row], _SHARES[column])
]
_SEEN = [_PAIRS.index(view) for view in VIEWS]


def _functionals() -> np.ndarray:
    """(intervals * K, F): the cosines of each interval, so that `R @ field @ R.T` holds every view's spectrum."""
    rows = []
    samples = 64
    for start, stop in INTERVALS:
        position = start + (np.arange(samples) + 0.5) / samples * (stop - start)
        at = np.clip(position * FIELD - 0.5, 0, FIELD - 1)
        low = np.minimum(at.astype(int), FIELD - 2)
        pick = np.zeros((samples, FIELD))
        pick[np.arange(samples), low] = 1 - (at - low)
        pick[np.arange(samples), low + 1] = at - low
        phase = np.pi * np.arange(FREQUENCIES)[:, None] * (np.arange(samples) + 0.5) / samples
        rows.append(np.cos(phase) @ pick / samples)
    return np.concatenate(rows).astype(np.float32)


ROWS = _functionals()
_KEPT = [(u, v) for u in range(FREQUENCIES) for v in range(FREQUENCIES) if u + v]
# Natural pictures hold most of their energy in the lowest frequencies: the higher ones get a say too.
WEIGHTS = np.array([np.hypot(u, v) ** 0.5 for u, v in _KEPT], np.float32)
MIRROR = np.array([-1.0 if v % 2 else 1.0 for _, v in _KEPT], np.float32)
PLANES = np.random.default_rng(20).standard_normal((len(_KEPT), BITS)).astype(np.float32)


def spectra(fields_NFF: np.ndarray, sides: int = len(INTERVALS)) -> np.ndarray:
    """(N, V, C) unit vectors: each view's weighted cosine spectrum without its mean, so that brightness, contrast
    and size do not matter. A view with nothing in it is all zeros. With `sides` 1 only the whole view is taken."""
    count, rows = len(fields_NFF), ROWS[: sides * FREQUENCIES]
    both = rows @ fields_NFF.astype(np.float32) @ rows.T
    grid = both.reshape(count, sides, FREQUENCIES, sides, FREQUENCIES).transpose(0, 1, 3, 2, 4)
    seen = _SEEN if sides == len(INTERVALS) else slice(None)
    flat = grid.reshape(count, sides * sides, FREQUENCIES * FREQUENCIES)[:, seen, 1:] * WEIGHTS
    length = np.linalg.norm(flat, axis=2, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 0.5)


def bits(spectra_C: np.ndarray, centre_C: np.ndarray) -> np.ndarray:
    """(..., 4) uint64: on which side of 256 random planes each spectrum lies (Charikar 2002: the share of bits that
    differ is the angle between two spectra). `centre` is what the whole set has in common."""
    signs = (spectra_C - centre_C) @ PLANES > 0
    return np.packbits(signs, axis=-1).view(np.uint64)


def likeness(one_C: np.ndarray, other_C: np.ndarray, centre_C: np.ndarray) -> np.ndarray:
    """(...): cosine between two spectra, -1 to 1, once what the whole set has in common is taken away."""
    one, other = one_C - centre_C, other_C - centre_C
    length = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(axis=-1) / np.maximum(length, 1e-6)
