"""What the words mean: which strengths of a checkpoint are as good as its best, and how good that is.

A curve maps strengths to what the checkpoint is worth there; strength 0, the base alone, is worth 0. Between its points
the straight line has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Curve = Mapping[float, float]

WORDS = ("underbaked", "baked", "slightly overbaked", "overbaked")
UNDER, BAKED, SLIGHTLY = 1.1, 0.85, 0.5  # strengths between which a checkpoint is called what it is called
LOWEST, HIGHEST = 0.3, 1.2  # strengths that people use
ENOUGH = 0.95  # of the best that the run can do: less, turned down, is overbaked
SHORT = 0.75  # of it: a checkpoint that reaches less, before the best one, has not got there yet


@dataclass(frozen=True, slots=True)
class Rule:
    """In the measure of the curves: how much less is as good, and how little is next to nothing."""

    reach: float
    little: float


def points(curve: Curve) -> tuple[list[float], list[float]]:
    """(strengths, what it is worth there), the base first."""
    held = [(0.0, 0.0), *sorted(curve.items())]
    return [strength for strength, _ in held], [worth for _, worth in held]


def at(curve: Curve, strength: float) -> float:
    """What it is worth at any strength; beyond the last point as much as there."""
    return float(np.interp(strength, *points(curve)))


def best(curve: Curve) -> float:
    """The most that it is worth; never less than the base."""
    return max([0.0, *curve.values()])


def as_good(curve: Curve, reach: float) -> tuple[float, float]:
    """The lowest and the highest strength that are worth at most `reach` less than the best."""
    strengths, worths = points(curve)
    grid = np.arange(0, strengths[-1] + 1e-9, 0.01)
    good = grid[np.interp(grid, strengths, worths) >= best(curve) - reach - 1e-9]
    return round(float(good.min()), 2), round(float(good.max()), 2)


def around_best(curve: Curve, reach: float) -> tuple[float, float]:
    """As `as_good`, but only as far as all strengths between are as good too."""
    strengths, worths = points(curve)
    grid = np.arange(0, strengths[-1] + 1e-9, 0.01)
    heights = np.interp(grid, strengths, worths)
    peak, short = int(heights.argmax()), np.flatnonzero(heights < best(curve) - reach - 1e-9)
    low = max((n + 1 for n in short if n < peak), default=0)
    high = min((n - 1 for n in short if n > peak), default=len(grid) - 1)
    return round(float(grid[low]), 2), round(float(grid[high]), 2)


def smoothed(curve: Curve, noise: float) -> Curve:
    """The parabola through the base and, by least squares, the points, where none lies further from it than noise; the
    curve itself where one does, or where there are too few to tell."""
    if len(curve) < 3:
        return curve
    strengths, worths = (np.array(each) for each in zip(*sorted(curve.items()), strict=True))
    rise_bend, *_ = np.linalg.lstsq(np.stack([strengths, strengths**2], 1), worths, rcond=None)
    grid = np.round(np.arange(0.1, strengths[-1] + 1e-9, 0.1), 2)
    if np.abs(worths - np.stack([strengths, strengths**2], 1) @ rise_bend).max() > noise:
        return curve
    return {float(at): float(worth) for at, worth in zip(grid, np.stack([grid, grid**2], 1) @ rise_bend, strict=True)}


def between(known: Mapping[int, Curve], step: int) -> Curve:
    """The curve at a step, straight between the nearest known ones, before the first and after the last as there."""
    strengths, steps = sorted({strength for curve in known.values() for strength in curve}), sorted(known)
    return {s: float(np.interp(step, steps, [at(known[one], s) for one in steps])) for s in strengths}


def word(curve: Curve, run_best: float, rule: Rule, place: int = 0) -> str:
    """The word for a checkpoint whose run is worth `run_best` at its best; `place`: -1 before that, 1 after it.

    Which strength is the very best is chance where a curve is flat, so a checkpoint is as strong as the strengths that
    are as good as its best allow. On the way to something drawings may fall apart first; what training on mends is
    underbaked all the same, and next to nothing after something is what training on broke.
    """
    most, (low, high) = best(curve), as_good(curve, rule.reach)
    little, something = most <= rule.little, run_best > rule.little
    if place < 0 and something and most < SHORT * run_best:
        return "underbaked"
    if place > 0 and something and little:
        return "overbaked"
    if low > UNDER or (high >= BAKED and little):
        return "underbaked"
    if high >= BAKED:
        return "baked"
    return "slightly overbaked" if high >= SLIGHTLY and most >= ENOUGH * run_best and not little else "overbaked"


def words(curves: Sequence[Curve], rule: Rule) -> list[str]:
    """The words for the checkpoints of one run, in the order of their training."""
    tops = [best(curve) for curve in curves]
    peak = tops.index(max(tops))
    return [word(curve, tops[peak], rule, (n > peak) - (n < peak)) for n, curve in enumerate(curves)]
