"""From measures to a word: underbaked, baked or overbaked, which checkpoint, at what strength, and why.

What a checkpoint is worth is how its drawings look: how far they come from the base's to the set's, less what they
copy. Losses of held-out pictures stop falling long before drawings reach the style, so they speak against it only where
they are worse than the base's, and alone only where drawings do not tell.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lorakiln.judge import strengths
from lorakiln.judge.interval import Interval, interval
from lorakiln.judge.strengths import BAKED, HIGHEST, LOWEST, UNDER, Curve, Rule, around_best, as_good, at, best
from lorakiln.judge.weights import Weights

UNSURE = "unsure"
STYLE = Rule(reach=0.06, little=0.25)  # of the way from the base's drawings to the set's; `reach` is noise, too
ALIKE, NOTHING = 0.03, 0.01  # by gain: a share of the run's best that is as good, and a gain that is next to nothing
LOST = -4.0  # the gain that counts where a loss is not a number: no drawing makes up for it
COPIES = 0.5  # of the way to the set's that drawings lose which are all copies
LOSSES = 0.25  # of it, that they lose where held-out pictures' loss is twice the base's
DRAWN_AT = 3  # strengths at least, for drawings to tell
USABLE = 0.9  # of a checkpoint's best, or as good as it: strengths that reach it are worth using
COPYING = 0.25  # share of drawings that are copies, from which a strength is not to be used
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
    def broken(self) -> bool:
        """Whether it gives no numbers at any strength."""
        return not any(interval(gains).known for gains in self.curve.values())

    @property
    def gains(self) -> Curve:
        """The mean gain at each strength."""
        means = {strength: interval(gains).mean for strength, gains in self.curve.items()}
        return {strength: mean if math.isfinite(mean) else LOST for strength, mean in means.items()}

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

    `tops` are, of each checkpoint, the strength in the middle of those that are as good as its best, and what it is
    worth there `by` style or gain.
    """

    word: str
    words: Mapping[str, str]
    tops: Mapping[str, tuple[float, float]]
    by: str
    best: str
    strength: float | None  # to use it at
    usable: tuple[float, float] | None
    reasons: tuple[Reason, ...]
    advice: tuple[Reason, ...]
    heldout: int


def judge(checkpoints: Sequence[Measured], heldout: int) -> Verdict:
    """The verdict over a run's checkpoints, in order. `heldout`: how many pictures the gains were measured on; 0: none.

    Without held-out pictures learning looks like memorising, so only `underbaked`, or `overbaked` by copies or NaN, is
    said.
    """
    assert checkpoints, "nothing to judge"
    worth = worth_of(checkpoints)
    told = {one.name: word for one, word in zip(checkpoints, words_of(checkpoints, worth, heldout), strict=True)}
    chosen = best_of(checkpoints, worth)
    most, curve, last = checkpoints[chosen], worth.curves[chosen], checkpoints[-1]
    return Verdict(
        told[last.name],
        told,
        {one.name: top(each, worth.rule) for one, each in zip(checkpoints, worth.curves, strict=True)},
        worth.by,
        most.name,
        within(most, *[top(curve, worth.rule)[0]] * 2)[0] if best(curve) > 0 else None,
        usable(most, curve, worth.rule) if heldout and best(curve) > 0 else None,
        tuple(reasons(most, last, told, worth, heldout)),
        tuple(advice(checkpoints, most if best(curve) > 0 else last, told, heldout)),
        heldout,
    )


def worth_of(checkpoints: Sequence[Measured]) -> Worth:
    """By style where enough was drawn, by gain otherwise.

    A checkpoint that did not draw is taken to lie between those that did, in a straight line over steps; before the
    first of them as far on the way to it as it had learned the pictures. Some of what a checkpoint loses on held-out
    pictures against the base is off. One that gives no numbers is worth nothing.
    """
    gains = tuple({} if one.broken else one.gains for one in checkpoints)
    drew = [one for one in checkpoints if one.styles and not one.broken]
    if not drew:
        return Worth("gain", Rule(max(ALIKE * max(map(best, gains)), NOTHING / 2), NOTHING), gains)
    known = {one.step: one.styles or {} for one in drew}
    curves = []
    for one, own in zip(checkpoints, gains, strict=True):
        share = one.learned(drew[0]) if one.step < drew[0].step else 1.0
        styles = one.styles or strengths.between(known, one.step)
        lost = {strength: LOSSES * min(0.0, at(own, strength)) for strength in styles}
        curve = {} if one.broken else {each: share * style + lost[each] for each, style in styles.items()}
        curves.append(strengths.smoothed(curve, STYLE.reach))
    return Worth("style", STYLE, tuple(curves))


def words_of(checkpoints: Sequence[Measured], worth: Worth, heldout: int) -> Iterable[str]:
    """The word of each checkpoint; what gives no numbers is overbaked, and by gain what copies at any strength."""
    for one, word in zip(checkpoints, strengths.words(worth.curves, worth.rule), strict=True):
        if one.broken or (one.copied >= COPYING and (worth.by == "gain" or not heldout)):
            yield "overbaked"
        else:
            yield word if heldout or word == "underbaked" else UNSURE


def best_of(checkpoints: Sequence[Measured], worth: Worth) -> int:
    """Which checkpoint to use: the most worth, and by gain the last of those about as good, since drawings improve for
    longer; but of those about as good rather one that does not copy. Where none is worth anything, the one that harms
    least."""
    tops = [best(curve) for curve in worth.curves]
    whole = [n for n, one in enumerate(checkpoints) if not one.broken] or [0]
    if not max(tops) > 0:
        return max(whole, key=lambda n: checkpoints[n].gains.get(1.0, LOST))
    good = [n for n in whole if 0 < tops[n] >= max(tops) - worth.rule.reach]
    if worth.by == "style":  # whether one copies is known only of those that drew
        good = [n for n in good if checkpoints[n].styles] or good
    clean = [n for n in good if checkpoints[n].copied < COPYING] or good
    return clean[-1] if worth.by == "gain" else max(clean, key=lambda n: tops[n])


def top(curve: Curve, rule: Rule) -> tuple[float, float]:
    """(strength, worth there): the middle of the strengths that are as good as the best."""
    strength = round(sum(around_best(curve, rule.reach)) / 2, 2) if best(curve) > 0 else 0.0
    return strength, at(curve, strength)


def usable(one: Measured, curve: Curve, rule: Rule) -> tuple[float, float]:
    """The strengths that reach most of its best, `within` what people use."""
    return within(one, *around_best(curve, max(rule.reach, (1 - USABLE) * best(curve))))


def within(one: Measured, low: float, high: float) -> tuple[float, float]:
    """A range of strengths, kept to those that people use and below those whose drawings are copies."""
    copies = [strength for strength, drawn in one.drawn.items() if (drawn.copied or 0) >= COPYING]
    most = max(LOWEST, min([HIGHEST, *(strength - 0.05 for strength in copies)]))
    low, high = (round(min(most, max(LOWEST, strength)), 2) for strength in (low, high))
    return low, high


def reasons(chosen: Measured, last: Measured, told: Mapping[str, str], worth: Worth, heldout: int) -> list[Reason]:
    """What the verdict rests on, most important first."""
    found = []
    low, high = as_good(worth.curves[-1], worth.rule.reach)
    where = f"from strength {low:.2f} to {high:.2f} (baked: some of it at {BAKED:g} to {UNDER:g})"
    if last.broken:
        found.append(Reason(f"{last.name} gives no numbers any more: its weights or outputs are NaN", ("W1",)))
    elif not heldout:
        found.append(Reason(
            "no held-out pictures: what is learned cannot be told from what is memorised; set dataset.heldout, or give "
            "--unseen FOLDER", ("W1",),
        ))  # fmt: skip
    elif not best(worth.curves[-1]) > 0:
        found.append(Reason(f"{last.name} is nowhere nearer to the set than the base is", ("W1",)))
    elif worth.by == "style":
        way = f"{best(worth.curves[-1]):.0%} of the way there from the base"
        found.append(Reason(f"{last.name} draws most like the set {where}, {way}", ("W1", "W3")))
    else:
        found.append(Reason(f"{last.name} explains {heldout} held-out pictures best {where}", ("W1", "W3")))
        cause = "too little was drawn, or the base draws like the set as it is"
        found.append(Reason(f"by the losses alone, since {cause}", ("W1",)))
    if last.gain.known and heldout:
        found.append(Reason(f"at strength 1 it takes {last.gain} off the loss of {heldout} held-out pictures", ("W1",)))
    if last.gap and last.gap.known and heldout:
        doubt = "beyond" if last.gap.above() else "within"
        found.append(Reason(f"it gains {last.gap} more on pictures it was trained on: {doubt} noise", ("W1",)))
    for one in [last] if chosen is last else [last, chosen]:
        for strength, drawn in one.drawn.items():
            if drawn.copied:
                text = f"{drawn.copied:.0%} of {one.name}'s drawings at {strength:g} copy a picture"
                found.append(Reason(text, ("W1",)))
    leak = chosen.drawn[1.0].leak if 1.0 in chosen.drawn else None
    if leak is not None and leak >= LEAKING:
        found.append(Reason(f"without its trigger it still moves pictures {leak:.1f} times as far as a seed", ("S5",)))
    if chosen is not last and any(best(curve) > 0 for curve in worth.curves):
        found.append(Reason(f"{chosen.name} ({told[chosen.name]}) is the one to use", ("W1", "W3")))
    return found


def advice(checkpoints: Sequence[Measured], chosen: Measured, told: Mapping[str, str], heldout: int) -> list[Reason]:
    """What to change next time."""
    last = checkpoints[-1]
    found = []
    if told[last.name] == "underbaked":
        found.append(Reason("train longer, or raise optim.lr", ("W1", "T12")))
    elif told[last.name] == "overbaked" and chosen is not last:
        found.append(Reason(f"stop at step {chosen.step}, or lower optim.lr", ("W1", "T4")))
    elif told[last.name] in ("overbaked", "slightly overbaked"):
        found.append(Reason("lower optim.lr, or save more often to find a milder checkpoint", ("W1", "T1")))
    elif chosen is last and len(checkpoints) > 1 and heldout:
        found.append(Reason("the last checkpoint is the best: a longer run may be better still", ("W1",)))
    if last.gap and last.gap.above() and last.trained and last.gap.mean > last.trained.mean / 2:
        found.append(
            Reason("more or more varied pictures: most of the gain is on those it was trained on", ("S1", "S3"))
        )
    if last.weights and last.weights.broken:
        found.append(Reason("lower optim.lr: weights became NaN", ("T12",)))
    elif last.weights and len(last.weights.saturated) > 2 and "overbaked" in told[last.name]:
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
