"""The training loop, readable from top to bottom: batches, gradients, update, hooks, state."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.distributed
from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.train.events import EventLog
from lorakiln.train.learner import Learner, Update
from lorakiln.train.plan import Moment, Plan
from lorakiln.train.step import Step


@dataclass(frozen=True)
class Stop:
    """What a hook returns to end the run after this step; `complete`: its LoRA is written, nothing is left to do."""

    reason: str
    complete: bool = False


class Hook(Protocol):
    """Something that happens between steps: samples, checkpoints, verdicts. `saves`: the state is saved with it."""

    saves: bool

    def due(self, moment: Moment) -> bool: ...
    def act(self, moment: Moment) -> Stop | None: ...


@dataclass
class Loop:
    """One run's loop. `save_state(step)` is called after the hooks, so that a state implies all before it was done.

    `begin_epoch` hears of each epoch after the one begun with, counted from 1, before its first step; `saved` is the
    step of the newest state.
    """

    step: Step
    learner: Learner
    plan: Plan
    log: EventLog
    hooks: Sequence[Hook]
    save_state: Callable[[int], None]
    state_seconds: float = 300.0
    stop_asked: Callable[[], Stop | None] = lambda: None
    begin_epoch: Callable[[int], None] = lambda epoch: None
    read_every: int = 1  # steps between looks at the loss; each look makes a GPU wait
    saved: int = 0
    _skipped: int = 0
    _unread: list[tuple[Moment, Tensor, Update]] = field(default_factory=list)

    def begin(self) -> Stop | None:
        """Do what is due before the first step of a run."""
        return _agreed(self._run_hooks(self.plan.moment(0))[0])

    def run(self, start: int = 0) -> Stop | None:
        """Train from after step `start` to the plan's end; the reason if it ended before.

        Raises UserError when loss, gradients or weights are no numbers; the last saved state and checkpoints are good.
        """
        stop, saved_at = None, time.monotonic()
        self.saved = start
        for number in range(start + 1, self.plan.steps + 1):
            moment = self.plan.moment(number)
            if number > start + 1 and self.plan.begins_epoch(number):
                self.begin_epoch(moment.epoch)
            self._one_step(moment)
            stop, saves = self._run_hooks(moment)
            stop = None if moment.ends_run else _agreed(stop or self.stop_asked())
            if moment.ends_run:
                self._refuse_untrained(moment)
            if saves or stop or moment.ends_run or time.monotonic() - saved_at >= self.state_seconds:
                self._check(moment)
                self.save_state(number)
                self.saved, saved_at = number, time.monotonic()
            if stop:
                break
        return stop

    def _one_step(self, moment: Moment) -> None:
        count = self.plan.count(moment.step)
        total = torch.zeros((), device=self.step.family.device)
        for batch in self.plan.batches(moment.step):
            self.learner.network.begin(moment.step, batch.place)
            loss = self.step.losses(batch, moment.step).sum() / count
            self.learner.backward(loss)
            total += loss.detach()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        if self.read_every == 1 and not math.isfinite(total):  # before the weights move
            raise self._broken(moment, f"the loss is {float(total)}")
        self._unread.append((moment, total, self.learner.update(moment.step)))
        if len(self._unread) >= self.read_every:
            self.read_losses()

    def read_losses(self) -> None:
        """Write the steps not yet written; the only place where the host waits for the device."""
        for moment, total, update in self._unread:
            loss, norm = float(total), float(update.norm)
            if not math.isfinite(loss):
                raise self._broken(moment, f"the loss is {loss}")
            if not math.isfinite(norm) and not update.skipped:
                raise self._broken(moment, f"the gradient's norm is {norm}")
            self._skipped += update.skipped
            lr = {name: float(rate) for name, rate in update.rates.items()}
            told = {"grad_norm": None, "skipped": True} if update.skipped else {"grad_norm": norm}
            self.log.write("step", moment.step, epoch=moment.epoch, loss=loss, lr=lr, **told)
        self._unread.clear()

    def _check(self, moment: Moment) -> None:
        """Raise UserError rather than let weights be saved or shown that are no numbers."""
        self.read_losses()
        if not self.learner.finite():
            raise self._broken(moment, "the weights are no longer finite")

    def _refuse_untrained(self, moment: Moment) -> None:
        self.read_losses()
        if self._skipped == self.plan.steps:
            raise self._broken(moment, "the gradients of every step overflowed in fp16, so nothing was trained,")

    def _broken(self, moment: Moment, what: str) -> UserError:
        rates = ", ".join(f"{name} {rate:g}" for name, rate in self.learner.rates(moment.step).items())
        kept = f"the state of step {self.saved} is kept" if self.saved else "no state was saved yet"
        return UserError(
            f"step {moment.step}: {what} at learning rate {rates}; stopped, {kept}; lower optim.lr, or "
            "train.precision = 'fp32' or 'bf16'"
        )

    def _run_hooks(self, moment: Moment) -> tuple[Stop | None, bool]:
        """Run the hooks that are due; what stops the run, and whether one of them wants the state saved."""
        stop, saves = None, False
        for hook in self.hooks:
            if hook.due(moment):
                self._check(moment)
                self.learner.network.rest()
                stop = hook.act(moment) or stop
                saves |= hook.saves
        return stop, saves


def _agreed(stop: Stop | None) -> Stop | None:
    """Of several processes the first decides for all, so that none waits for a gradient that never comes."""
    if not torch.distributed.is_initialized():
        return stop
    decision = [stop]
    torch.distributed.broadcast_object_list(decision)
    return decision[0]
