"""How long a step takes here, from the runs that the user's ledger remembers: measured, where there is one."""

import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lorakiln.advise.base_model import BaseFacts
from lorakiln.advise.cards import Card, card
from lorakiln.advise.estimate import Time, flops, precision
from lorakiln.advise.own import same_family
from lorakiln.base.errors import UserError
from lorakiln.base.ledger import Entry
from lorakiln.base.recipe import parse
from lorakiln.base.settings import Recipe

FEWEST_STEPS = 5  # of a run whose speed is believed; the first ones also warm up
MOST = 5  # runs, the likest, that a time is taken from
SPREAD = 0.1  # share by which one run's speed is taken to be off when it is the only one


@dataclass(frozen=True, slots=True)
class Run:
    """A remembered run of the same family on the same device: seconds of a step, and of all that is not steps."""

    recipe: Recipe
    step: float
    rest: float


def refined(time: Time, recipe: Recipe, base: BaseFacts, entries: Sequence[Entry], chosen: Card | None) -> Time:
    """`time` with the step as own runs on this card (None: this machine's CPU) took it; as it was where there is none.

    A run with another batch, size or rank is scaled by its arithmetic. The span is that of the likest runs.
    """
    found = comparable(recipe, base, entries, chosen)
    if not found:
        return time
    work = _work(recipe, base)
    ratios = {id(run): work / _work(run.recipe, base) for run in found}
    likest = sorted(found, key=lambda run: abs(math.log(ratios[id(run)])))[:MOST]
    steps = [run.step * ratios[id(run)] for run in likest]
    low, high = min(steps), max(steps)
    if len(steps) == 1:
        low, high = low * (1 - SPREAD), high * (1 + SPREAD)
    if chosen:
        return replace(time, step=(low, high), measured=len(steps))
    first = min(run.rest for run in likest), max(run.rest for run in likest)  # what they drew is in it
    return replace(time, step=(low, high), first=first, samples=(0.0, 0.0), measured=len(steps))


def comparable(recipe: Recipe, base: BaseFacts, entries: Iterable[Entry], chosen: Card | None) -> list[Run]:
    """Own runs on this device and a base of this family, in the same number format, whose speed is known."""
    found = []
    for one in entries:
        seconds = one.step_seconds
        if one.origin or not seconds or one.timed_steps < FEWEST_STEPS or not _same_device(one, chosen):
            continue
        try:
            other = parse(one.recipe, one.name)
        except UserError:  # of another Kiln, with other settings
            continue
        if same_family(one.base, base) and precision(other) == precision(recipe):
            found.append(Run(other, seconds, one.time - one.seconds["train"]))
    return found


def _same_device(one: Entry, chosen: Card | None) -> bool:
    if chosen is None:
        return one.device.startswith("CPU") and one.host == platform.node()
    try:
        return card(one.device) == chosen
    except UserError:
        return False


def _work(recipe: Recipe, base: BaseFacts) -> float:
    """Arithmetic of one step with its batches full."""
    return flops(recipe, base) * recipe.train.batch * recipe.train.accumulate
