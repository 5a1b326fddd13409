"""Whether one change of colour, the same everywhere, turns one picture into another.

What people do to a whole picture: brightness, contrast, gamma, warmth, saturation, hue, grey. A drawing whose skin
alone is darker is none of these, since its outline and ground stay. Legend: P pixels; colours are float32, 0-255.
"""

from collections.abc import Callable, Iterator

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Two axes across the grey axis; their plane holds hue (angle) and saturation (length).
_CHROMA = np.array([[1, -0.5, -0.5], [0, 0.75**0.5, -(0.75**0.5)]], np.float32)
_GAMMAS = np.geomspace(0.5, 2.0, 29)

Change = Callable[[np.ndarray], np.ndarray]


def changes(before_P3: np.ndarray, after_P3: np.ndarray) -> Iterator[tuple[str, Change]]:
    """Each kind of change with the settings that come nearest to `after`, simplest first."""
    yield "balance", _balance(before_P3, after_P3)
    yield "gamma", _gamma(before_P3, after_P3)
    yield "grey", _grey(before_P3, after_P3)
    yield "saturation", _turn(before_P3, after_P3)
    yield "hue", _hue(before_P3, after_P3)


def _trimmed(inputs_PK: np.ndarray, wanted_P: np.ndarray) -> np.ndarray:
    """Least squares of the 85 % of pixels that agree best, so that a mark on the picture does not pull."""
    kept = np.ones(len(wanted_P), bool)
    weights = np.zeros(inputs_PK.shape[1])
    for _ in range(4):
        weights = np.linalg.lstsq(inputs_PK[kept], wanted_P[kept], rcond=None)[0]
        miss = np.abs(inputs_PK @ weights - wanted_P)
        kept = miss <= max(np.quantile(miss, 0.85), 2.0)
    return weights


def _ones(values_P: np.ndarray) -> np.ndarray:
    return np.stack([values_P, np.ones_like(values_P)], axis=-1)


def _balance(before: np.ndarray, after: np.ndarray) -> Change:
    """Each channel's own gain and offset: brightness, contrast, white balance, a tint."""
    pairs = [_trimmed(_ones(before[:, channel]), after[:, channel]) for channel in range(3)]
    gains = np.array([np.clip(gain, 0.3, 2.5) for gain, _ in pairs], np.float32)
    offsets = np.array([offset for _, offset in pairs], np.float32)
    return lambda colours: (colours * gains + offsets).clip(0, 255)


def _gamma(before: np.ndarray, after: np.ndarray) -> Change:
    """One curve for all channels, with a gain and an offset."""
    some = max(len(before) // 400, 1)
    inputs, wanted = before[::some].ravel(), after[::some].ravel()
    fits = []
    for gamma in _GAMMAS:
        gain, offset = np.polyfit(_curve(inputs, gamma), wanted, 1)
        fits.append((float(np.abs(_curve(inputs, gamma) * gain + offset - wanted).mean()), gamma))
    gamma = min(fits)[1]
    gain, offset = _trimmed(_ones(_curve(before, gamma).ravel()), after.ravel())
    gain = float(np.clip(gain, 0.7, 1.4))
    return lambda colours: (_curve(colours, gamma) * gain + offset).clip(0, 255)


def _curve(colours: np.ndarray, gamma: float) -> np.ndarray:
    return 255 * (colours / 255).clip(0, 1) ** gamma


def _grey(before: np.ndarray, after: np.ndarray) -> Change:
    """No colour left, or one tint for all (sepia)."""
    luma = before @ LUMA
    pairs = [_trimmed(_ones(luma), after[:, channel]) for channel in range(3)]

    def change(colours: np.ndarray) -> np.ndarray:
        value = colours @ LUMA
        return np.stack([value * gain + offset for gain, offset in pairs], axis=-1).clip(0, 255)

    return change


def _turn(before: np.ndarray, after: np.ndarray) -> Change:
    """Colours drawn towards or away from their luma, and turned around the grey axis."""
    gain, offset = _trimmed(_ones(before @ LUMA), after @ LUMA)
    one, other = before @ _CHROMA.T, after @ _CHROMA.T
    left = np.concatenate([one[:, :1], one[:, 1:]])[:, 0]
    right = np.concatenate([-one[:, 1:], one[:, :1]])[:, 0]
    along, across = _trimmed(np.stack([left, right], axis=-1), np.concatenate([other[:, 0], other[:, 1]]))
    strength = float(np.hypot(along, across))
    if abs(np.arctan2(across, along)) > 0.15 and not 0.75 <= strength <= 1.3:
        # turned and drained at once is what another skin or coat looks like, not what an editor's slider does
        along, across = strength, 0.0

    def change(colours: np.ndarray) -> np.ndarray:
        luma = colours @ LUMA
        x, y = (colours @ _CHROMA.T).T
        turned = np.stack([along * x - across * y, across * x + along * y], axis=-1)
        rest = turned @ np.linalg.pinv(_CHROMA.T).astype(np.float32)
        return ((luma * gain + offset)[:, None] + rest - (rest @ LUMA)[:, None]).clip(0, 255)

    return change


def _hue(before: np.ndarray, after: np.ndarray) -> Change:
    """Hue turned as in HSV, which keeps the greatest and least channel of every pixel."""
    hue, strong = hue_of(before)
    other, also = hue_of(after)
    turn = 0.0
    used = (strong > 24) & (also > 24)
    if used.sum() > 16:
        apart = np.round((other - hue)[used] % 6, 2)
        bins = np.bincount((apart * 20).astype(int) % 120, minlength=120).astype(float)
        peak = int(np.argmax(bins + np.roll(bins, 1) + np.roll(bins, -1)))
        near = np.abs((apart - peak / 20 + 3) % 6 - 3) < 0.15
        turn = peak / 20 + float(np.median((apart[near] - peak / 20 + 3) % 6 - 3)) if near.any() else peak / 20
    return lambda colours: turned(colours, turn)


def hue_of(colours_P3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hue in sixths of the circle (0 red, 2 green, 4 blue), and chroma (max - min)."""
    red, green, blue = colours_P3.T
    high, low = colours_P3.max(axis=1), colours_P3.min(axis=1)
    chroma = np.maximum(high - low, 1e-3)
    other = np.where(high == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma)
    hue = np.where(high == red, (green - blue) / chroma % 6, other)
    return hue, high - low


def turned(colours_P3: np.ndarray, turn: float) -> np.ndarray:
    """Every hue `turn` sixths of the circle further."""
    hue, chroma = hue_of(colours_P3)
    high = colours_P3.max(axis=1)
    places = (np.array([5.0, 3.0, 1.0]) + (hue + turn)[:, None]) % 6
    return (high[:, None] - chroma[:, None] * np.minimum(places, 4 - places).clip(0, 1)).astype(np.float32)
