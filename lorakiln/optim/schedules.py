"""How the learning rate rises and falls over a run: pure functions of the step, each a factor on the recipe's rate.

`schedules["cosine"](step, total, warmup=0.1, min_ratio=0.05)` is the factor of one step. A shape is what comes after
the warm-up, as a function of the share of that part which lies behind.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from lorakiln.base.errors import UserError
from lorakiln.base.registry import Registry
from lorakiln.optim.optimizers import check_options, options_of

Shape = Callable[..., float]
shapes: Registry[Shape] = Registry("schedule")


class Schedule(Protocol):
    """The factor, 0 to 1, on the rate of one update.

    `step` counts the updates already made: 0 for the first, `total` - 1 for the last. A `warmup` below 1 is a share of
    the run, else a number of updates. UserError for an option that the schedule does not have, a value out of range,
    and a warm-up longer than the run.
    """

    def __call__(self, step: int, total: int, warmup: float = 0, **options: Any) -> float: ...


class Schedules:
    """The table of schedules: `schedules["cosine"]` is a Schedule; UserError for an unknown name."""

    def __getitem__(self, name: str) -> Schedule:
        return functools.partial(_factor, name, shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(shapes)

    def options(self, name: str) -> list[str]:
        """What a schedule takes besides step, total and warmup."""
        return options_of(shapes[name])


schedules = Schedules()


def _factor(name: str, shape: Shape, step: int, total: int, warmup: float = 0, **options: Any) -> float:
    check_options(f"schedule '{name}'", shape, options)
    _check_values(name, options)
    rise = warmup_steps(warmup, total)
    if step < rise:
        return rising(step, rise)
    return shape(min(1.0, (step - rise) / max(1, total - rise)), **options)


def warmup_steps(warmup: float, total: int) -> int:
    """A share of the run (below 1) or a number of updates, as a number of updates.

    UserError when it is negative, neither a share nor whole, or longer than the run.
    """
    if warmup < 0 or (warmup > 1 and warmup != int(warmup)):
        raise UserError(f"optim.warmup = {warmup:g}: must be a share from 0 to below 1, or a whole number of steps")
    steps = round(warmup * total) if warmup < 1 else int(warmup)
    if steps > total:
        raise UserError(f"optim.warmup = {warmup:g}: is longer than the run of {total} steps")
    return steps


def rising(step: int, warmup: int) -> float:
    """Warm-up in even steps, from 1 / (warmup + 1) in the first update to 1 in the one after the last.

    The peers start at 0, so that their first update does nothing; this is theirs, one step longer and one step later.
    """
    return (step + 1) / (warmup + 1)


def _check_values(name: str, options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        if option in ("min_ratio", "decay") and not 0 <= value <= 1:
            raise UserError(f"schedule '{name}': {option} = {value}: must be from 0 to 1")
        if option == "cycles" and (value < 1 or value != int(value)):
            raise UserError(f"schedule '{name}': cycles = {value}: must be a whole number from 1")
        if option == "power" and not value > 0:
            raise UserError(f"schedule '{name}': power = {value}: must be above 0")


def between(low: float, share: float) -> float:
    """From `low` at share 0 to 1 at share 1."""
    return low + (1 - low) * share


@shapes.register("constant")
def constant(progress: float) -> float:
    return 1.0


@shapes.register("linear")
def linear(progress: float, *, min_ratio: float = 0.0) -> float:
    """A straight line from 1 to `min_ratio`."""
    return between(min_ratio, 1 - progress)


@shapes.register("cosine")
def cosine(progress: float, *, min_ratio: float = 0.0) -> float:
    """Half a cosine wave from 1 to `min_ratio` (Loshchilov & Hutter 2017)."""
    return between(min_ratio, 0.5 * (1 + math.cos(math.pi * progress)))


@shapes.register("cosine_restarts")
def cosine_restarts(progress: float, *, cycles: int = 2, min_ratio: float = 0.0) -> float:
    """`cycles` equal half waves, each from 1 to `min_ratio` (Loshchilov & Hutter 2017, SGDR with T_mult 1)."""
    within = progress * cycles % 1 if progress < 1 else 1.0
    return cosine(within, min_ratio=min_ratio)


@shapes.register("polynomial")
def polynomial(progress: float, *, power: float = 2.0, min_ratio: float = 0.0) -> float:
    """(1 - progress) to the power, down to `min_ratio`; power 1 is linear."""
    return between(min_ratio, (1 - progress) ** power)


@shapes.register("rex")
def rex(progress: float, *, min_ratio: float = 0.0) -> float:
    """z / (1/2 + z/2) with z = 1 - progress: stays high, then falls fast (Chen et al. 2021, reflected exponential)."""
    left = 1 - progress
    return between(min_ratio, left / (0.5 + 0.5 * left))


@shapes.register("wsd")
def wsd(progress: float, *, decay: float = 0.2, min_ratio: float = 0.0) -> float:
    """Warm-up, stable, decay (Hu et al. 2024): 1, then a straight fall to `min_ratio` over the last `decay` share."""
    return between(min_ratio, min(1.0, (1 - progress) / decay)) if decay else 1.0
