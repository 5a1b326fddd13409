"""What a right verdict is: the quality Q(t) of a checkpoint at strength t, on pictures that nobody trained on.

Written before the judge, and by descriptors that the judge does not use: statistics of pixels, held against several
hundred unseen pictures, where the judge has denoising losses, tags and alignments. Pictures are uint8 arrays.

N pictures, H and W height and width, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

DRIFT_WEIGHT, COPY_WEIGHT = 0.25, 0.5
MOST = 5.0  # deviations beyond which a feature is just as wrong
CHANCE = 0.01  # share of unseen pictures that lie as near to a training picture by chance alone
UNDER, BAKED, SLIGHTLY = 1.1, 0.85, 0.5  # best strengths between which a checkpoint is called what it is called
ENOUGH = 0.95  # of the best that the run can do
SHORT = 0.75  # of it: a checkpoint that reaches less, before the best one, has not got there yet
NOTHING, HARM = (
    0.1,
    -0.25,
)  # a best Q below the one is noise; a Q at full strength below the other is worse than the base
STRENGTHS = (0.3, 0.45, 0.6, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5)


@dataclass(frozen=True)
class Scale:
    """What makes features comparable: their mean and deviation over the unseen pictures."""

    mean_F: np.ndarray
    deviation_F: np.ndarray

    @classmethod
    def of(cls, features_NF: np.ndarray) -> "Scale":
        return cls(features_NF.mean(0), features_NF.std(0) + 1e-6)

    def __call__(self, features_NF: np.ndarray) -> np.ndarray:
        return np.clip((features_NF - self.mean_F) / self.deviation_F, -MOST, MOST)


def features(pictures_NHWC: np.ndarray) -> np.ndarray:
    """(N, F): how a picture is drawn and not what it shows.

    Means and deviations of the colours, a histogram of 27 of them, strength and peakedness of the detail at four
    scales, and a histogram of how strong the edges are.
    """
    rgb = pictures_NHWC.astype(np.float32) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    bins = np.minimum((rgb * 3).astype(int), 2) @ np.array([9, 3, 1])
    colours = np.stack([np.bincount(one.ravel(), minlength=27) / one.size for one in bins])
    slopes = np.hypot(np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1])
    edges = np.stack([np.histogram(one, bins=[0, 0.01, 0.03, 0.08, 0.16, 0.32, 2])[0] / one.size for one in slopes])
    detail = []
    for _ in range(4):
        small = grey.reshape(len(grey), grey.shape[1] // 2, 2, grey.shape[2] // 2, 2).mean((2, 4))
        left = grey - small.repeat(2, 1).repeat(2, 2)
        strength = np.sqrt((left**2).mean((1, 2)))
        detail += [np.log(strength + 1e-3), np.log((left**4).mean((1, 2)) / (strength**4 + 1e-9) + 1e-3)]
        grey = small
    moments = [rgb.mean((1, 2)), rgb.std((1, 2))]
    return np.concatenate([*moments, np.sqrt(colours), np.sqrt(edges), np.stack(detail, 1)], axis=1)


def discrepancy(one_NF: np.ndarray, other_NF: np.ndarray) -> float:
    """The energy distance of two samples (Szekely & Rizzo 2013), unbiased for any number; 0 of one distribution.

    Linear in the distances, so that a few drawings that fell apart weigh no more than they should: with the cubic
    kernel of KID they made the sample seem nearer than the unseen pictures are to themselves.
    """
    if min(len(one_NF), len(other_NF)) < 2:
        raise ValueError("a discrepancy needs two pictures on either side")

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(a[:, None] - b[None], axis=2) / a.shape[1] ** 0.5

    def inside(a: np.ndarray) -> float:
        return float(apart(a, a).sum() / (len(a) * (len(a) - 1)))

    return 2 * float(apart(one_NF, other_NF).mean()) - inside(one_NF) - inside(other_NF)


def similarity(drawn_NF: np.ndarray, base_NF: np.ndarray, unseen_NF: np.ndarray) -> float:
    """1: drawn as the unseen pictures are; 0: no nearer to them than what the base draws of the same prompts."""
    return 1 - discrepancy(drawn_NF, unseen_NF) / max(discrepancy(base_NF, unseen_NF), 1e-9)


def drift(drawn_NF: np.ndarray, base_NF: np.ndarray, other_seed_NF: np.ndarray) -> float:
    """How far drawings without the trigger moved from the base's of the same seeds; 1: as far as another seed does."""
    moved = np.linalg.norm(drawn_NF - base_NF, axis=1).mean()
    return float(moved / max(np.linalg.norm(other_seed_NF - base_NF, axis=1).mean(), 1e-9))


def copied(drawn_NHWC: np.ndarray, trained_NHWC: np.ndarray, unseen_NHWC: np.ndarray) -> float:
    """Share of drawings nearer to a training picture, mirrored or not, than all but `CHANCE` of the unseen ones are."""
    near = np.quantile(nearest(unseen_NHWC, trained_NHWC), CHANCE)
    return float((nearest(drawn_NHWC, trained_NHWC) < near).mean())


def nearest(pictures_NHWC: np.ndarray, trained_NHWC: np.ndarray) -> np.ndarray:
    """(N,) distance of each to its nearest training picture: at 16 x 16, free of the whole's light and contrast."""
    small, mirrored = _small(trained_NHWC), _small(trained_NHWC[:, :, ::-1])
    own = _small(pictures_NHWC)
    return np.minimum(*(np.linalg.norm(own[:, None] - each[None], axis=2).min(1) for each in (small, mirrored)))


def _small(pictures_NHWC: np.ndarray) -> np.ndarray:
    count, height, width, _ = pictures_NHWC.shape
    cells = pictures_NHWC.reshape(count, 16, height // 16, 16, width // 16, 3).astype(np.float32)
    flat = cells.mean((2, 4)).reshape(count, -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)


def quality(like: float, drifted: float, copies: float) -> float:
    """Q(t): likeness to what was never seen, less drift beyond what another seed does, and copying beyond chance.

    A style is meant to change how everything is drawn, so drift as such is no fault: counted in full it made the
    weakest strength the best one, whatever had been learned.
    """
    return like - DRIFT_WEIGHT * max(0.0, drifted - 1) - COPY_WEIGHT * max(0.0, copies - CHANCE)


def best(curve: Mapping[float, float]) -> tuple[float, float]:
    """(strength, Q) at the top of a curve, between its points as a parabola through the highest three has it."""
    strengths = sorted(curve)
    at = max(range(len(strengths)), key=lambda n: curve[strengths[n]])
    if at in (0, len(strengths) - 1):
        return strengths[at], curve[strengths[at]]
    xs = np.array(strengths[at - 1 : at + 2])
    a, b, c = np.polyfit(xs, [curve[x] for x in xs], 2)
    if a > -1e-12:  # flat
        return strengths[at], curve[strengths[at]]
    top = -b / (2 * a)
    return float(top), float(a * top**2 + b * top + c)


def word(curve: Mapping[float, float], run_best: float, rising: bool = False) -> str:
    """The right word for a checkpoint, from its curve of Q over strengths and Q*, the best of its run.

    `rising`: the run's best checkpoint comes after this one. Where little has been learned yet the curve is flat, and
    which strength is its best is chance; that it falls short and training on mends it is not.
    """
    strength, most = best(curve)
    harmful = float(np.interp(1.0, sorted(curve), [curve[each] for each in sorted(curve)])) < HARM
    if strength > UNDER or (most < NOTHING and not harmful) or (rising and most < SHORT * run_best and not harmful):
        return "underbaked"
    if strength >= BAKED:
        return "baked"
    enough = most >= max(NOTHING, ENOUGH * run_best)
    return "slightly overbaked" if strength >= SLIGHTLY and enough else "overbaked"


def words(curves: Sequence[Mapping[float, float]]) -> list[str]:
    """The right words for the checkpoints of one run, in the order of their training."""
    assert all(a < b for a, b in pairwise(STRENGTHS))
    tops = [best(curve)[1] for curve in curves]
    peak = tops.index(max(tops))
    return [word(curve, tops[peak], rising=at < peak) for at, curve in enumerate(curves)]
