"""How long to train: as many epochs as make a length that was seen to work, and fewer where the purse is small."""

from collections.abc import Iterable

from lorakiln.advise.estimate import Time
from lorakiln.advise.methods import Choice, Method
from lorakiln.advise.pictures import Pictures
from lorakiln.base.errors import UserError

MOST_STEPS, FEWEST_STEPS = 8160, 336  # T4's longest and T7's shortest run
NOVEL_STEPS = 2560  # T4's shortest
CHECKPOINTS = 10


def steps(method: Method, per_epoch: int) -> int:
    """The optimizer steps of a method whose epoch has so many."""
    whole = method.value("train.epochs") * per_epoch
    return min(method.value("train.steps") or whole, whole)


def tried(method: Method, pictures: Pictures, *, novel: bool) -> Iterable[Choice]:
    """Epochs, where the set is so small or large that the method's own would leave what the guides have tried.

    `pictures` as they are visited; `novel`: a style that the base does not know, which needs longer.
    """
    epochs = method.value("train.epochs")
    if method.value("train.steps") or method.name == "starter":
        return
    per_epoch = pictures.steps_per_epoch(method.value("train.batch"))
    fewest, row = (NOVEL_STEPS, "T4") if novel else (FEWEST_STEPS, "T7")
    new = epochs
    if epochs * per_epoch < fewest:
        new = -(-fewest // per_epoch)
        known = "the fewest that the report gives a larger set; novel styles are harder" if novel else ""
        why = f"so that it comes to {fewest:,} steps, {known or 'the fewest seen to work'}"
        yield Choice("train.epochs", new, why, (row, "T12") if novel else (row,))
    elif epochs * per_epoch > MOST_STEPS:
        new = max(6, MOST_STEPS // per_epoch)
        why = f"{new * per_epoch:,} steps; more than {MOST_STEPS:,} nobody reports" + (
            "" if new > 6 else ", but 6 epochs at least"
        )
        yield Choice("train.epochs", new, why, ("T4",))
    if new != epochs:
        yield from _watched("epochs", new)


def affordable(method: Method, pictures: Pictures, time: Time, seconds: float) -> Method:
    """The method cut to the steps that the slower end of an estimate says fit into `seconds`.

    Raises UserError where not even one does.
    """
    per_epoch = pictures.steps_per_epoch(method.value("train.batch"))
    rest = time.first[1] + time.samples[1]
    most = int((seconds - rest) / time.step[1])
    if most >= steps(method, per_epoch):
        return method
    if most < 1:
        raise UserError(
            f"the budget is {seconds / 60:.0f} min, but encoding and samples may take {rest / 60:.0f}: no step fits"
        )
    few = f"; fewer than the {FEWEST_STEPS} that were seen to work" if most < FEWEST_STEPS else ""
    why = f"cut from {steps(method, per_epoch):,} steps to fit {seconds / 60:.0f} min by the estimate's slow end{few}"
    if most >= per_epoch and not method.value("train.steps"):
        epochs = most // per_epoch
        return method.but(Choice("train.epochs", epochs, why, ("W6",)), *_watched("epochs", epochs))
    cut = [Choice("train.steps", most, why, ("W6",)), *_watched("steps", most)]
    if not method.value("train.steps"):
        cut.append(Choice("train.epochs", 1, "not even one fits whole: the steps below decide", ("W6",)))
    return method.without("save.epochs", "sample.epochs").but(*cut)


def _watched(unit: str, length: int) -> Iterable[Choice]:
    every = max(1, round(length / CHECKPOINTS))
    yield Choice(f"save.{unit}", every, "about ten checkpoints to choose from", ("W1", "P1"))
    yield Choice(f"sample.{unit}", every, "watch it while it trains", ("W2",))
