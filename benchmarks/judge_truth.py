"""What a right verdict is: the quality Q(t) of a checkpoint at strength t, on pictures that nobody trained on.

By descriptors that the judge does not use: statistics of pixels, held against several hundred unseen pictures, where
the judge has denoising losses, tags, alignments and the UNet's own features. Pictures are uint8 arrays.

N pictures, H and W height and width, F features.
"""

import numpy as np

from lorakiln.judge.look import deviations, energy_distance
from lorakiln.judge.strengths import Rule

DRIFT_WEIGHT, COPY_WEIGHT = 0.1, 0.5
GROUPS = (6, 27, 6, 4, 6)  # of features: colours' means and deviations, which colours, edges, detail, slopes
CHANCE = 0.01  # share of unseen pictures that lie as near to a training picture by chance alone
LITTLE = 1 / 3  # of the best that any run of the style reached: less, turned up, is not the style yet
STRENGTHS = (0.3, 0.5, 0.7, 0.9, 1.1, 1.4)
NOISE = 0.06  # of Q between two strengths of one checkpoint, as a deviation: strengths nearer than that are one


def scale(base_NF: np.ndarray, unseen_NF: np.ndarray) -> np.ndarray:
    """(F,) what features are divided by: one deviation a group, see `look.deviations`."""
    parts = [np.split(each, np.cumsum(GROUPS)[:-1], axis=1) for each in (base_NF, unseen_NF)]
    return np.repeat(deviations(*parts), GROUPS)


def features(pictures_NHWC: np.ndarray) -> np.ndarray:
    """(N, F): how a picture is drawn and what of, not where it shows it; in the groups of `GROUPS`.

    Means and deviations of the colours; shares of 27 colours, a pixel between them counting for each as it is near;
    a histogram of how strong the edges are; strength of the detail at four scales; how much each colour changes across
    and down from one sixteenth of the picture to the next.
    """
    rgb = pictures_NHWC.astype(np.float32) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    slopes = np.hypot(np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1])
    edges = np.stack([np.histogram(one, bins=[0, 0.01, 0.03, 0.08, 0.16, 0.32, 2])[0] / one.size for one in slopes])
    detail = []
    for _ in range(4):
        small = _shrunk(grey[..., None], 2)[..., 0]
        left = grey - small.repeat(2, 1).repeat(2, 2)
        detail.append(np.log(np.sqrt((left**2).mean((1, 2))) + 1e-3))
        grey = small
    cells = _shrunk(rgb, rgb.shape[1] // 16)
    changes = [np.sqrt((np.diff(cells, axis=axis) ** 2).mean((1, 2))) for axis in (2, 1)]
    moments = [rgb.mean((1, 2)), rgb.std((1, 2))]
    return np.concatenate([*moments, np.sqrt(_colours(rgb)), np.sqrt(edges), np.stack(detail, 1), *changes], axis=1)


def _shrunk(pictures_NHWC: np.ndarray, by: int) -> np.ndarray:
    """Smaller by a factor, each pixel the mean of those that it stands for."""
    count, height, width, channels = pictures_NHWC.shape
    return pictures_NHWC.reshape(count, height // by, by, width // by, by, channels).mean((2, 4))


def _colours(rgb_NHWC: np.ndarray) -> np.ndarray:
    """(N, 27) shares of the colours whose channels are 0, a half or 1; pixels between them are shared out linearly."""
    red, green, blue = (
        np.stack([np.clip(1 - 2 * one, 0, 1), 1 - np.abs(2 * one - 1), np.clip(2 * one - 1, 0, 1)], -1)
        for one in np.moveaxis(rgb_NHWC.reshape(len(rgb_NHWC), -1, 3), -1, 0)
    )
    return np.einsum("npa,npb,npc->nabc", red, green, blue).reshape(-1, 27) / red.shape[1]


def similarity(drawn_NF: np.ndarray, base_NF: np.ndarray, unseen_NF: np.ndarray) -> float:
    """1: drawn as the unseen pictures are; 0: no nearer to them than what the base draws of the same prompts."""
    return 1 - energy_distance(drawn_NF, unseen_NF) / max(energy_distance(base_NF, unseen_NF), 1e-9)


def drift(drawn_NF: np.ndarray, base_NF: np.ndarray, other_seed_NF: np.ndarray) -> float:
    """How far drawings without the trigger moved from the base's of the same seeds; 1: as far as another seed does."""
    moved = np.linalg.norm(drawn_NF - base_NF, axis=1).mean()
    return float(moved / max(np.linalg.norm(other_seed_NF - base_NF, axis=1).mean(), 1e-9))


def near(trained_NHWC: np.ndarray, unseen_NHWC: np.ndarray) -> float:
    """The distance to a training picture that all but `CHANCE` of the unseen pictures keep."""
    return float(np.quantile(nearest(unseen_NHWC, trained_NHWC), CHANCE))


def copied(drawn_NHWC: np.ndarray, trained_NHWC: np.ndarray, within: float) -> float:
    """Share of drawings nearer than `within` to a training picture, mirrored or not."""
    return float((nearest(drawn_NHWC, trained_NHWC) < within).mean())


def nearest(pictures_NHWC: np.ndarray, trained_NHWC: np.ndarray) -> np.ndarray:
    """(N,) distance of each to its nearest training picture: at 16 x 16, free of the whole's light and contrast."""
    small, mirrored = _small(trained_NHWC), _small(trained_NHWC[:, :, ::-1])
    own = _small(pictures_NHWC)
    return np.minimum(*(np.linalg.norm(own[:, None] - each[None], axis=2).min(1) for each in (small, mirrored)))


def _small(pictures_NHWC: np.ndarray) -> np.ndarray:
    count, height = pictures_NHWC.shape[:2]
    flat = _shrunk(pictures_NHWC.astype(np.float32), height // 16).reshape(count, -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)


def quality(like: float, drifted: float, copies: float) -> float:
    """Q(t): likeness to what was never seen, less drift beyond what another seed does, and copying beyond chance.

    A style is meant to change how everything is drawn, so drift as such is no fault. It also comes first: LoRAs that
    had learned next to nothing drifted by two seeds, and a quarter of that made the weakest strength their best one.
    """
    return like - DRIFT_WEIGHT * max(0.0, drifted - 1) - COPY_WEIGHT * max(0.0, copies - CHANCE)


def rule(style_best: float) -> Rule:
    """What counts as alike, and as little beside the best Q that any run of the style reached."""
    return Rule(NOISE, LITTLE * style_best)
