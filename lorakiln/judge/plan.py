"""How thoroughly to judge: from a quick look to all of it, and what each costs in UNet calls of one picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorakiln.judge.verdict import STRENGTHS


@dataclass(frozen=True, slots=True)
class Plan:
    """`timesteps` a loss; at most so many `unseen` and `trained` pictures; for `finalists` checkpoints drawings of
    `prompts` prompts with and `plain` without the trigger at `drawn` strengths, of `seeds` seeds at 1, `steps` each."""

    timesteps: int
    unseen: int
    trained: int
    strengths: tuple[float, ...]
    finalists: int
    prompts: int
    plain: int
    seeds: int
    drawn: tuple[float, ...]
    steps: int

    def cost(self, checkpoints: int, unseen: int, trained: int) -> int:
        """UNet calls of one picture; a drawing with guidance makes two a step, and a picture through the VAE and back
        takes about as long as one."""
        pictures, unseen, trained = trained, min(unseen, self.unseen), min(trained, self.trained)
        curve, own = unseen or trained, trained if unseen else 0
        losses = self.timesteps * (unseen + trained + checkpoints * (curve * len(self.strengths) + own))
        finalists = min(checkpoints, self.finalists)
        base = (self.prompts + self.plain) * max(2, self.seeds)
        drawings = base + finalists * (self.prompts * (len(self.drawn) + self.seeds - 1) + self.plain)
        return losses + pictures + 2 * self.steps * drawings


DRAWN = (0.4, 0.7, 1.0, 1.4)
PLANS = (
    Plan(24, 20, 20, STRENGTHS, 3, 20, 4, 3, DRAWN, 20),
    Plan(16, 16, 12, STRENGTHS, 3, 16, 4, 2, DRAWN, 12),
    Plan(9, 8, 6, STRENGTHS, 3, 16, 4, 1, DRAWN, 8),
    Plan(9, 8, 6, STRENGTHS, 2, 8, 2, 1, (0.7, 1.0, 1.4), 8),
    Plan(9, 6, 4, (0.3, 0.6, 0.8, 1.0, 1.3), 2, 4, 2, 1, (0.7, 1.0), 8),
    Plan(6, 4, 4, (0.3, 0.6, 0.8, 1.0, 1.3), 1, 2, 1, 1, (1.0,), 8),
)  # fmt: skip


def choose(seconds: float, rate: float, checkpoints: int, unseen: int, trained: int) -> tuple[Plan, float]:
    """(the most thorough plan that fits into so many seconds at `rate` calls a second, its seconds).

    0 seconds: the second one, whatever it takes. Where none fits: the quickest, which takes longer than asked.
    """
    plans = PLANS if seconds else PLANS[1:2]
    needs = [plan.cost(checkpoints, unseen, trained) / rate for plan in plans]
    at = next((n for n, need in enumerate(needs) if need <= seconds), len(plans) - 1)
    return plans[at], needs[at]


def spread(count: int, most: int) -> list[int]:
    """At most `most` of 0..count-1, evenly spread."""
    if count <= most:
        return list(range(count))
    return [number * count // most for number in range(most)]


def finalists(gains: Sequence[float], most: int) -> list[int]:
    """Which checkpoints are worth drawing with, in order: the last, which is what lies there; the best other; and then
    those furthest from any drawn, since what drawings show of one is taken to hold between it and the next. Those
    whose gain is not a number draw nothing, as long as there is another."""
    known = [n for n, gain in enumerate(gains) if gain == gain] or list(range(len(gains)))
    last = known[-1]
    others = sorted(known[:-1], key=lambda n: gains[n], reverse=True)
    if most == 1 and others:
        return [max(others[0], last, key=lambda n: (gains[n], n))]
    chosen = [last, *others[:1]][:most]
    while len(chosen) < min(most, len(known)):
        left = [n for n in others if n not in chosen]
        chosen.append(max(left, key=lambda n: min(abs(n - one) for one in chosen)))
    return sorted(chosen)
