"""From measures to a word: underbaked, baked or overbaked, which checkpoint, at what strength, and why.

The word follows from the strength at which a checkpoint explains held-out pictures best. One that wants to be turned up
has learned too little; one that wants to be turned down has learned too much of it, or too roughly. Held-out loss stops
falling before drawings reach the style, though, so a checkpoint is also held against what its run still learned after
it, and against how far its drawings are on their way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lorakiln.judge.interval import Interval, interval
from lorakiln.judge.weights import Weights

WORDS = ("underbaked", "baked", "slightly overbaked", "overbaked")
UNSURE = "unsure"
# best strengths between which a checkpoint is called what it is called: those of the truth in docs/judge.md
UNDER, BAKED, SLIGHTLY = 1.1, 0.85, 0.5
ENOUGH = 0.95  # of the best gain of the run: less, turned down and beyond noise, is overbaked
ALIKE = 0.97  # of the best gain of the run: as good
ON_ITS_WAY = 0.75  # of the best checkpoint's gain on trained pictures: less, before it, is not there yet
LITTLE = 1 / 3  # of the way from the base's drawings to the set's: less at every strength has learned too little
USABLE = 0.9  # of a checkpoint's best gain: strengths that reach it are worth using
COPYING = 0.25  # share of drawings that are copies, from which a checkpoint is overbaked whatever it gains
LEAKING = 2.0  # drift without the trigger, in seeds, from which it is said
LOWEST, HIGHEST = 0.3, 1.2  # strengths that people use
STRENGTHS = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What drawings of one checkpoint at one strength showed; None: not measured.

    `style` is `look.similarity`; the others are those of `copying` and `likeness`.
    """

    copied: float | None = None
    style: float | None = None
    fidelity: float | None = None
    following: float | None = None
    base_following: float | None = None
    leak: float | None = None
    diversity: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One checkpoint. `curve` maps strengths to the gains on each held-out picture (on trained ones without any).

    `trained` is the gain on pictures that were trained on, `gap` the memorising gap, both at strength 1.
    """

    name: str
    step: int
    curve: Mapping[float, Sequence[float]]
    bands: Mapping[str, Interval] = field(default_factory=dict)
    trained: Interval | None = None
    gap: Interval | None = None
    drawn: Mapping[float, Drawn] = field(default_factory=dict)
    weights: Weights | None = None

    @property
    def gain(self) -> Interval:
        """At strength 1."""
        return interval(self.curve.get(1.0, ()))

    def top(self) -> tuple[float, float]:
        """(strength, gain) at the top of the curve, between its points by the parabola through the highest three.

        Strength 0 gains 0, so a LoRA that only harms is best at 0. (NaN, NaN) where it gives no numbers at all.
        """
        means = {strength: interval(gains).mean for strength, gains in sorted(self.curve.items())}
        points = [(strength, mean) for strength, mean in means.items() if math.isfinite(mean)]
        if not points:
            return math.nan, math.nan
        points.insert(0, (0.0, 0.0))
        at = max(range(len(points)), key=lambda n: (points[n][1], points[n][0]))
        if at in (0, len(points) - 1):
            return points[at]
        return _vertex(*points[at - 1 : at + 2])

    def at_top(self) -> list[float]:
        """The gain on each picture at the best strength, between measured strengths as the straight line has it."""
        strengths = [0.0, *sorted(self.curve)]
        pictures = len(next(iter(self.curve.values()), ()))
        table = np.array([[0.0] * pictures, *(self.curve[strength] for strength in strengths[1:])])
        best, _ = self.top()
        return [float(np.interp(best, strengths, gains)) for gains in table.T]

    def short_of(self, other: "Measured") -> bool:
        """Whether it gains less than `ENOUGH` of what the other does, each at its best, beyond the pictures' noise.

        Paired by picture. One picture shows no noise, so there the means alone decide.
        """
        pairs = list(zip(other.at_top(), self.at_top(), strict=True))
        lacking = interval(ENOUGH * theirs - own for theirs, own in pairs)
        return lacking.above() or (lacking.count == 1 and lacking.mean > 0)

    def behind(self, best: "Measured") -> bool:
        """Whether training on helped: the run's best checkpoint comes later, and learned more of what it was shown."""
        if self.step >= best.step or not (self.trained and best.trained):
            return False
        return self.trained.mean < ON_ITS_WAY * best.trained.mean

    def reached(self) -> float | None:
        """How far its drawings come from the base's to the set's at the best of the strengths drawn; None where fewer
        than two were."""
        styles = [one.style for one in self.drawn.values() if one.style is not None]
        return max(styles) if len(styles) > 1 else None

    def usable(self) -> tuple[float, float] | None:
        """The strengths, of those that people use, that reach most of the best gain; None where none gains anything."""
        strength, most = self.top()
        if not most > 0:
            return None
        points = sorted((s, interval(gains).mean) for s, gains in self.curve.items())
        grid = np.arange(LOWEST, HIGHEST + 1e-9, 0.05)
        gains = np.interp(grid, [s for s, _ in points], [mean for _, mean in points])
        good = [float(s) for s, gain in zip(grid, gains, strict=True) if gain >= USABLE * most and not self._copies(s)]
        good = good or [min(HIGHEST, max(LOWEST, strength))]
        return round(min(good), 2), round(max(good), 2)

    def _copies(self, strength: float) -> bool:
        """Whether drawings at this strength or below were copies."""
        return any((one.copied or 0) >= COPYING and strength >= at - 1e-9 for at, one in self.drawn.items())


def _vertex(left: tuple[float, float], top: tuple[float, float], right: tuple[float, float]) -> tuple[float, float]:
    """The top of the parabola through three points, the middle one the highest; itself where all are alike."""
    (x0, y0), (x1, y1), (x2, y2) = left, top, right
    rise, fall = (y1 - y0) / (x1 - x0), (y1 - y2) / (x2 - x1)
    bend = (rise + fall) / (x2 - x0)
    if bend < 1e-9:
        return top
    slope = (rise * (x2 - x1) - fall * (x1 - x0)) / (x2 - x0)
    return x1 + slope / (2 * bend), y1 + slope**2 / (4 * bend)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, or what to change: a sentence, and the rows of the evidence that it stands on."""

    text: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The run's verdict: its last checkpoint's word, a word for each, the best one and how to use it."""

    word: str
    words: Mapping[str, str]
    best: str
    strength: float | None  # at which the best is best
    usable: tuple[float, float] | None
    reasons: tuple[Reason, ...]
    advice: tuple[Reason, ...]
    heldout: int


def judge(checkpoints: Sequence[Measured], heldout: int) -> Verdict:
    """The verdict over a run's checkpoints, in order. `heldout`: how many pictures the gains were measured on; 0: none.

    Without held-out pictures learning looks like memorising, so only `underbaked`, or `overbaked` by copies, is said.
    """
    assert checkpoints, "nothing to judge"
    tops = {one.name: one.top() for one in checkpoints}
    most = max((gain for _, gain in tops.values() if math.isfinite(gain)), default=math.nan)
    top = max(checkpoints, key=lambda one: (math.isfinite(tops[one.name][1]), tops[one.name][1]))
    best = best_of(checkpoints, most)
    ways = ways_of(checkpoints)
    words = {one.name: word(one, top, best, ways[one.name], heldout) for one in checkpoints}
    last = checkpoints[-1]
    strength = tops[best.name][0]
    return Verdict(
        words[last.name],
        words,
        best.name,
        round(min(HIGHEST, max(LOWEST, strength)), 2) if math.isfinite(strength) and most > 0 else None,
        best.usable() if heldout else None,
        tuple(reasons(best, last, words, heldout)),
        tuple(advice(checkpoints, best, words, heldout)),
        heldout,
    )


def ways_of(checkpoints: Sequence[Measured]) -> dict[str, float]:
    """How far the drawings of each come towards the set's, in a straight line over steps between those that drew; 1
    for all where none did."""
    known = [(one.step, way) for one in checkpoints if (way := one.reached()) is not None] or [(0, 1.0)]
    steps, ways = zip(*known, strict=True)
    return {one.name: float(np.interp(one.step, steps, ways)) for one in checkpoints}


def word(one: Measured, top: Measured, best: Measured, way: float, heldout: int) -> str:
    """The word for one checkpoint; `top` is the checkpoint of its run with the best gain, `best` the one to use, `way`
    how far its drawings come."""
    strength, gain = one.top()
    if not math.isfinite(strength) or any((drawn.copied or 0) >= COPYING for drawn in one.drawn.values()):
        return "overbaked"
    if strength > UNDER or (gain > 0 and (one.behind(best) or way < LITTLE)):
        return "underbaked"
    if not heldout:
        return UNSURE
    if strength >= BAKED:
        return "baked"
    return "slightly overbaked" if strength >= SLIGHTLY and gain > 0 and not one.short_of(top) else "overbaked"


def best_of(checkpoints: Sequence[Measured], most: float) -> Measured:
    """The checkpoint with the best gain; of those about as good the last, since drawings improve for longer."""

    def copies(one: Measured) -> float:
        return max((drawn.copied or 0 for drawn in one.drawn.values()), default=0)

    good = [one for one in checkpoints if one.top()[1] >= ALIKE * most] if most > 0 else []
    if not good:
        known = [one for one in checkpoints if math.isfinite(one.top()[1])]
        return max(known, key=lambda one: (one.top()[1], one.gain.known, one.gain.mean), default=checkpoints[0])
    return min(good, key=lambda one: (copies(one) >= COPYING, -one.step))


def reasons(best: Measured, last: Measured, words: Mapping[str, str], heldout: int) -> list[Reason]:
    """What the verdict rests on, most important first."""
    found = []
    strength, _ = last.top()
    if not math.isfinite(strength):
        found.append(Reason(f"{last.name} gives no numbers any more: its weights or outputs are NaN", ("W1",)))
    elif heldout:
        found.append(Reason(
            f"{last.name} explains {heldout} held-out pictures best at strength {strength:.2f} (baked: {BAKED:g} to "
            f"{UNDER:g}); at strength 1 it takes {last.gain} off their loss", ("W1", "W3"),
        ))  # fmt: skip
    else:
        found.append(Reason(
            "no held-out pictures: what is learned cannot be told from what is memorised; set dataset.heldout, or give "
            "--unseen FOLDER", ("W1",),
        ))  # fmt: skip
    if last.gap and last.gap.known and heldout:
        doubt = "beyond" if last.gap.above() else "within"
        found.append(Reason(f"it gains {last.gap} more on pictures it was trained on: {doubt} noise", ("W1",)))
    way = best.reached()
    if way is not None and way < LITTLE:
        found.append(Reason(f"{best.name}'s drawings come {max(0.0, way):.0%} of the way to the set's", ("W1",)))
    for at, drawn in best.drawn.items():
        if drawn.copied:
            found.append(Reason(f"{drawn.copied:.0%} of {best.name}'s drawings at {at:g} copy a picture", ("W1",)))
    leak = best.drawn[1.0].leak if 1.0 in best.drawn else None
    if leak is not None and leak >= LEAKING:
        found.append(Reason(f"without its trigger it still moves pictures {leak:.1f} times as far as a seed", ("S5",)))
    if best.name != last.name:
        found.append(Reason(f"{best.name} ({words[best.name]}) is the one to use", ("W1", "W3")))
    return found


def advice(checkpoints: Sequence[Measured], best: Measured, words: Mapping[str, str], heldout: int) -> list[Reason]:
    """What to change next time."""
    last = checkpoints[-1]
    found = []
    if words[last.name] == "underbaked":
        found.append(Reason("train longer, or raise optim.lr", ("W1", "T12")))
    elif words[last.name] == "overbaked" and best is not last:
        found.append(Reason(f"stop at step {best.step} (judge.stop = 'baked' does), or lower optim.lr", ("W1", "T4")))
    elif words[last.name] in ("overbaked", "slightly overbaked"):
        found.append(Reason("lower optim.lr, or save more often to find a milder checkpoint", ("W1", "T1")))
    elif best is last and len(checkpoints) > 1 and heldout:
        found.append(Reason("the last checkpoint is the best: a longer run may be better still", ("W1",)))
    if last.gap and last.gap.above() and last.trained and last.gap.mean > last.trained.mean / 2:
        found.append(
            Reason("more or more varied pictures: most of the gain is on those it was trained on", ("S1", "S3"))
        )
    if last.weights and last.weights.broken:
        found.append(Reason("lower optim.lr: weights became NaN", ("T12",)))
    elif last.weights and len(last.weights.saturated) > 2 and "overbaked" in words[last.name]:
        found.append(Reason(
            f"lower optim.lr: in {len(last.weights.saturated)} layers the change is larger than the weight", ("T12",)
        ))  # fmt: skip
    if last.weights and last.weights.directions < 0.25 and last.weights.blocks:
        found.append(
            Reason(f"a lower adapter.rank would do: {last.weights.directions:.0%} of it is used", ("S1", "T7"))
        )
    if not heldout:
        found.append(Reason("hold pictures out: dataset.heldout = 0.1", ("W1",)))
    return found


def with_drawn(one: Measured, drawn: Mapping[float, Drawn]) -> Measured:
    """The same checkpoint with what its drawings showed."""
    return replace(one, drawn=dict(drawn))
