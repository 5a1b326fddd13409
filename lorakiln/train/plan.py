"""Where a step lies in its run: steps and epochs count from 1 here, step 0 is the moment before the first."""

from dataclasses import dataclass

from lorakiln.data.loader import Batch, Loader


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in the run: after `step` steps."""

    step: int
    epoch: int
    ends_epoch: bool
    ends_run: bool


class Plan:
    """The batches of every step of a run of `epochs` epochs, or of `steps` steps where that is less (0: no limit)."""

    def __init__(self, loader: Loader, epochs: int, steps: int = 0):
        self.loader, self.epochs = loader, epochs
        whole = epochs * loader.steps_per_epoch
        self.steps = min(steps or whole, whole)

    def moment(self, step: int) -> Moment:
        epochs, rest = divmod(step, self.loader.steps_per_epoch)
        return Moment(step, epochs + (rest > 0), step > 0 and rest == 0, step == self.steps)

    def begins_epoch(self, step: int) -> bool:
        """Whether a step counted from 1 is the first of its epoch."""
        return self._place(step)[1] == 0

    def batches(self, step: int) -> list[Batch]:
        """This process's batches of a step counted from 1."""
        return self.loader.batches(*self._place(step))

    def count(self, step: int) -> int:
        """Pictures of a step counted from 1, over all processes: what its loss is divided by."""
        return self.loader.count(*self._place(step))

    def _place(self, step: int) -> tuple[int, int]:
        return divmod(step - 1, self.loader.steps_per_epoch)
