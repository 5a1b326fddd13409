"""A mean of a few measurements with the interval that it lies in, so that noise is not taken for a finding."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom; beyond: the normal distribution's 1.96 is near enough
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and between which values it lies with 95 %. One measurement has no bounds: low and high are infinite.

    Where a measurement was not a number, mean, low and high are NaN: nothing that is compared with them holds.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def known(self) -> bool:
        return math.isfinite(self.mean)

    def above(self, value: float = 0.0) -> bool:
        """Whether the mean is larger, beyond noise."""
        return self.low > value

    def below(self, value: float = 0.0) -> bool:
        """Whether the mean is smaller, beyond noise."""
        return self.high < value

    def __str__(self) -> str:
        return f"{self.mean:+.3f}" + (f" ({self.low:+.3f} to {self.high:+.3f})" if math.isfinite(self.low) else "")


def interval(values: Iterable[float]) -> Interval:
    """Student's interval (Gosset 1908) of the mean of independent values, such as one for each picture."""
    held = [float(value) for value in values]
    if not held:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(held) / len(held)
    if not math.isfinite(mean):
        return Interval(math.nan, math.nan, math.nan, len(held))
    if len(held) == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    return _around(mean, math.fsum((value - mean) ** 2 for value in held) / (len(held) - 1) / len(held), len(held))


def difference(one: Iterable[float], other: Iterable[float]) -> Interval:
    """The mean of one sample less that of another (Welch 1947, with the freedom of the smaller one)."""
    first, second = interval(one), interval(other)
    if not (first.known and second.known):
        return Interval(math.nan, math.nan, math.nan, 0)
    fewest = min(first.count, second.count)
    if fewest == 1:
        return Interval(first.mean - second.mean, -math.inf, math.inf, 1)
    squares = sum(((each.high - each.mean) / _t(each.count)) ** 2 for each in (first, second))
    return _around(first.mean - second.mean, squares, fewest)


def _around(mean: float, square_of_error: float, count: int) -> Interval:
    reach = _t(count) * math.sqrt(square_of_error)
    return Interval(mean, mean - reach, mean + reach, count)


def _t(count: int) -> float:
    return _T[count - 2] if count - 2 < len(_T) else 1.96
