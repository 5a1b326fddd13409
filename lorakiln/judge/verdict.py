"""From measures to a word: underbaked, baked or overbaked, which checkpoint, at what strength, and why.

What a checkpoint is worth is how its drawings look: how far they come from the base's to the set's, less what they
copy. Losses of held-out pictures stop falling long before drawings reach the style, so they speak against it only where
they are worse than the base's, and alone only where too little was drawn.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lorakiln.judge.interval import Interval, interval
from lorakiln.judge.strengths import BAKED, HIGHEST, LOWEST, UNDER, Curve, Rule, as_good, at, best, between, words
from lorakiln.judge.weights import Weights

UNSURE = "unsure"
STYLE = Rule(reach=0.06, little=0.25)  # of the way from the base's drawings to the set's
ALIKE = 0.03  # of the run's best gain: no more below it is as good
COPIES = 0.5  # of the way to the set's that drawings lose which are all copies
DRAWN_AT = 3  # strengths at least, for drawings to tell
USABLE = 0.9  # of a checkpoint's best: strengths that reach it are worth using
COPYING = 0.25  # share of drawings that are copies, from which a checkpoint is overbaked whatever it is worth
LEAKING = 2.0  # drift without the trigger, in seeds, from which it is said
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

    @property
    def gains(self) -> Curve:
        """The mean gain at each strength, as far as it is a number."""
        means = {strength: interval(gains).mean for strength, gains in self.curve.items()}
        return {strength: mean for strength, mean in means.items() if math.isfinite(mean)}

    @property
    def styles(self) -> Curve | None:
        """How far drawings come to the set's, less their copies; None where they were drawn at too few strengths."""
        known = {
            strength: one.style - COPIES * (one.copied or 0)
            for strength, one in self.drawn.items() if one.style is not None
        }  # fmt: skip
        return known if len(known) >= DRAWN_AT else None

    def learned(self, later: "Measured") -> float:
        """The share, 0 to 1, of a later checkpoint's gain on trained pictures; of its steps where those are unknown."""
        if self.trained and later.trained and later.trained.mean > 0:
            return min(1.0, max(0.0, self.trained.mean / later.trained.mean))
        return self.step / later.step

    @property
    def copied(self) -> float:
        """The largest share of copies at any strength."""
        return max((one.copied or 0 for one in self.drawn.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, or what to change: a sentence, and the rows of the evidence that it stands on."""

    text: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Worth:
    """What the checkpoints of a run are worth over strengths, in their order, `by` "style" or "gain"."""

    by: str
    rule: Rule
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The run's verdict: its last checkpoint's word, a word for each, the best one and how to use it.

    `tops` are the strength and the worth of each checkpoint at its best, `by` style or gain.
    """

    word: str
    words: Mapping[str, str]
    tops: Mapping[str, tuple[float, float]]
    by: str
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
    worth = worth_of(checkpoints)
    told = {one.name: word for one, word in zip(checkpoints, words_of(checkpoints, worth, heldout), strict=True)}
    tops = {one.name: top(curve, worth.rule) for one, curve in zip(checkpoints, worth.curves, strict=True)}
    chosen = best_of(checkpoints, worth)
    most, last = checkpoints[chosen], checkpoints[-1]
    strength, height = tops[most.name]
    return Verdict(
        told[last.name],
        told,
        tops,
        worth.by,
        most.name,
        min(HIGHEST, max(LOWEST, strength)) if height > 0 else None,
        usable(most, worth.curves[chosen]) if heldout else None,
        tuple(reasons(most, last, told, tops, worth, heldout)),
        tuple(advice(checkpoints, most, told, heldout)),
        heldout,
    )


def worth_of(checkpoints: Sequence[Measured]) -> Worth:
    """By style where enough was drawn, by gain otherwise.

    A checkpoint that did not draw is taken to lie between those that did, in a straight line over steps; before the
    first of them as far on the way to it as it had learned the pictures. What a checkpoint loses on held-out pictures
    against the base is off.
    """
    drawn = {one.step: styles for one in checkpoints if (styles := one.styles)}
    if not drawn:
        gains = tuple(one.gains for one in checkpoints)
        return Worth("gain", Rule(ALIKE * max(map(best, gains)), 0.0), gains)
    first = next(one for one in checkpoints if one.styles)
    curves = []
    for one in checkpoints:
        share, gains = one.learned(first) if one.step < first.step else 1.0, one.gains
        styles = between(drawn, one.step)
        curves.append({strength: share * style + min(0.0, at(gains, strength)) for strength, style in styles.items()})
    return Worth("style", STYLE, tuple(curves))


def words_of(checkpoints: Sequence[Measured], worth: Worth, heldout: int) -> Iterable[str]:
    """The word of each checkpoint; what copies or gives no numbers is overbaked whatever it is worth."""
    for one, word in zip(checkpoints, words(worth.curves, worth.rule), strict=True):
        if not one.gains or one.copied >= COPYING:
            yield "overbaked"
        else:
            yield word if heldout or word == "underbaked" else UNSURE


def best_of(checkpoints: Sequence[Measured], worth: Worth) -> int:
    """Which checkpoint to use: the most worth; of those about as good one that does not copy, and by gain the last,
    since drawings improve for longer."""
    tops = [best(curve) for curve in worth.curves]
    good = [n for n, height in enumerate(tops) if height >= max(tops) - worth.rule.reach and checkpoints[n].gains]

    def rank(n: int) -> tuple[bool, float, float]:
        one = checkpoints[n]
        return (
            one.copied < COPYING,
            one.step if worth.by == "gain" and tops[n] else tops[n],
            one.gains.get(1.0, -math.inf),
        )

    return max(good, key=rank, default=0)


def top(curve: Curve, rule: Rule) -> tuple[float, float]:
    """(strength, worth there): the middle of the strengths that are as good as the best."""
    strength = round(sum(as_good(curve, rule.reach)) / 2, 2) if best(curve) > 0 else 0.0
    return strength, at(curve, strength)


def usable(one: Measured, curve: Curve) -> tuple[float, float] | None:
    """The strengths, of those that people use, that reach most of its best and copy nothing; None where none does."""
    if not best(curve) > 0:
        return None
    low, high = as_good(curve, (1 - USABLE) * best(curve))
    high = min([high, *(strength - 0.05 for strength, drawn in one.drawn.items() if (drawn.copied or 0) >= COPYING)])
    low, high = (round(min(HIGHEST, max(LOWEST, strength)), 2) for strength in (low, high))
    return min(low, high), high


def reasons(
    chosen: Measured, last: Measured, told: Mapping[str, str], tops: Mapping[str, tuple[float, float]], worth: Worth,
    heldout: int,
) -> list[Reason]:  # fmt: skip
    """What the verdict rests on, most important first."""
    found = []
    strength, height = tops[last.name]
    if not last.gains:
        found.append(Reason(f"{last.name} gives no numbers any more: its weights or outputs are NaN", ("W1",)))
    elif not heldout:
        found.append(Reason(
            "no held-out pictures: what is learned cannot be told from what is memorised; set dataset.heldout, or give "
            "--unseen FOLDER", ("W1",),
        ))  # fmt: skip
    elif worth.by == "style":
        found.append(Reason(
            f"{last.name} draws most like the set around strength {strength:.2f}, {max(0.0, height):.0%} of the way "
            f"there from the base (baked: as good at {BAKED:g} to {UNDER:g})", ("W1", "W3"),
        ))  # fmt: skip
    else:
        found.append(Reason(
            f"{last.name} explains {heldout} held-out pictures best around strength {strength:.2f} (baked: {BAKED:g} "
            f"to {UNDER:g}); too little was drawn to tell by the drawings", ("W1", "W3"),
        ))  # fmt: skip
    if last.gains and heldout:
        found.append(Reason(f"at strength 1 it takes {last.gain} off the loss of {heldout} held-out pictures", ("W1",)))
    if last.gap and last.gap.known and heldout:
        doubt = "beyond" if last.gap.above() else "within"
        found.append(Reason(f"it gains {last.gap} more on pictures it was trained on: {doubt} noise", ("W1",)))
    for strength, drawn in chosen.drawn.items():
        if drawn.copied:
            text = f"{drawn.copied:.0%} of {chosen.name}'s drawings at {strength:g} copy a picture"
            found.append(Reason(text, ("W1",)))
    leak = chosen.drawn[1.0].leak if 1.0 in chosen.drawn else None
    if leak is not None and leak >= LEAKING:
        found.append(Reason(f"without its trigger it still moves pictures {leak:.1f} times as far as a seed", ("S5",)))
    if chosen.name != last.name:
        found.append(Reason(f"{chosen.name} ({told[chosen.name]}) is the one to use", ("W1", "W3")))
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
