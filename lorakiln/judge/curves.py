"""Curves with their intervals as SVG, to stand inside a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorakiln.base.html import escape
from lorakiln.judge.interval import Interval

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 260, 52, 34, 14
COLOURS = ("#b3541e", "#2e6da4", "#2d7d46", "#8a5bb0", "#b9770e", "#6b6b70")


@dataclass(frozen=True, slots=True)
class Line:
    """A named curve: x values and the interval at each; what is not a number is left out."""

    name: str
    xs: Sequence[float]
    intervals: Sequence[Interval]

    def points(self) -> list[tuple[float, Interval]]:
        return [(x, one) for x, one in zip(self.xs, self.intervals, strict=True) if one.known]


def plot(lines: Sequence[Line], across: str, up: str) -> str:
    """All lines in one picture, zero always on it; "" where there is nothing to show."""
    points = [(x, one) for line in lines for x, one in line.points()]
    if not points:
        return ""
    xs = [x for x, _ in points]
    ends = [0.0, *(value for _, one in points for value in _ends(one))]
    frame = _Frame(min(xs), max(xs), min(ends), max(ends))
    parts = [_axes(frame, sorted(set(xs)), across, up)]
    parts += [_curve(frame, line, COLOURS[n % len(COLOURS)]) for n, line in enumerate(lines)]
    legend = " ".join(
        f'<tspan fill="{COLOURS[n % len(COLOURS)]}">&#9632; {escape(line.name)}</tspan>' for n, line in enumerate(lines)
    )
    parts.append(f'<text x="{LEFT + 8}" y="{TOP}" font-size="12">{legend}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" fill="currentColor">{"".join(parts)}</svg>'


@dataclass(frozen=True, slots=True)
class _Frame:
    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.left) / ((self.right - self.left) or 1) * (WIDTH - LEFT - 16)

    def y(self, value: float) -> float:
        room = HEIGHT - BOTTOM - TOP - 12
        return HEIGHT - BOTTOM - (value - self.low) / ((self.high - self.low) or 1) * room


def _ends(one: Interval) -> tuple[float, float]:
    """Low and high, or the mean where one picture bounds nothing; cut where they would dwarf the curve."""
    reach = min(one.high - one.mean, 2 * abs(one.mean) + 0.05)
    return one.mean - reach, one.mean + reach


def _axes(frame: _Frame, xs: Sequence[float], across: str, up: str) -> str:
    step = max(1, len(xs) // 8)
    words = "".join(
        f'<text x="{frame.x(x):.0f}" y="{HEIGHT - 18}" font-size="11" text-anchor="middle">{x:g}</text>'
        for x in xs[::step]
    )
    for value in sorted({frame.low, 0.0, frame.high}):
        y = frame.y(value)
        words += f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity=".2"/>'
        words += f'<text x="{LEFT - 6}" y="{y + 4:.1f}" font-size="11" text-anchor="end">{value:+.2f}</text>'
    middle = (LEFT + WIDTH) / 2
    words += f'<text x="{middle}" y="{HEIGHT - 3}" font-size="12" text-anchor="middle">{escape(across)}</text>'
    return words + f'<text x="12" y="{HEIGHT / 2}" font-size="12" text-anchor="middle" ' \
        f'transform="rotate(-90 12 {HEIGHT / 2})">{escape(up)}</text>'  # fmt: skip


def _curve(frame: _Frame, line: Line, colour: str) -> str:
    held = line.points()
    if not held:
        return ""
    high = [(frame.x(x), frame.y(_ends(one)[1])) for x, one in held]
    low = [(frame.x(x), frame.y(_ends(one)[0])) for x, one in reversed(held)]
    middle = [(frame.x(x), frame.y(one.mean)) for x, one in held]
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in middle)
    return (
        f'<polygon points="{_joined([*high, *low])}" fill="{colour}" opacity=".13"/>'
        f'<polyline points="{_joined(middle)}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'
    )


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
