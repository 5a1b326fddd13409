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
from lorakiln.train.learner import Learner
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
    """One run's loop. `save_state(step)` is called after the hooks, so that a state implies all before it was done."""

    step: Step
    learner: Learner
    plan: Plan
    log: EventLog
    hooks: Sequence[Hook]
    save_state: Callable[[int], None]
    state_seconds: float = 300.0
    stop_asked: Callable[[], Stop | None] = lambda: None
    read_every: int = 1  # steps between looks at the loss; each look makes a GPU wait
    _unread: list[tuple[Moment, Tensor, dict[str, float | Tensor], Tensor]] = field(default_factory=list)

    def run(self, start: int = 0) -> Stop | None:
        """Train from after step `start` to the plan's end; the reason if it ended before.

        Raises UserError when the loss is not a number; the last saved state and checkpoints are good.
        """
        stop = None
        if start == 0:
            stop = _agreed(self._run_hooks(self.plan.moment(0))[0])
        saved_at = time.monotonic()
        for number in range(start + 1, self.plan.steps + 1):
            if stop:
                break
            moment = self.plan.moment(number)
            self._one_step(moment)
            stop, saves = self._run_hooks(moment)
            stop = None if moment.ends_run else _agreed(stop or self.stop_asked())
            if saves or stop or moment.ends_run or time.monotonic() - saved_at >= self.state_seconds:
                self.read_losses()
                self.save_state(number)
                saved_at = time.monotonic()
        return stop

    def _one_step(self, moment: Moment) -> None:
        count = self.plan.count(moment.step)
        total = torch.zeros((), device=self.step.family.device)
        for micro, batch in enumerate(self.plan.batches(moment.step)):
            self.learner.network.begin(moment.step, micro)
            loss = self.step.losses(batch, moment.step).sum() / count
            self.learner.backward(loss)
            total += loss.detach()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        if self.read_every == 1:  # before the weights move
            self._refuse_nan(moment, float(total))
        rates, norm = self.learner.update(moment.step)
        self._unread.append((moment, total, rates, norm))
        if len(self._unread) >= self.read_every:
            self.read_losses()

    def read_losses(self) -> None:
        """Write the steps not yet written; the only place where the host waits for the device."""
        for moment, total, rates, norm in self._unread:
            loss = float(total)
            self._refuse_nan(moment, loss)
            lr = {name: float(rate) for name, rate in rates.items()}
            self.log.write("step", moment.step, epoch=moment.epoch, loss=loss, lr=lr, grad_norm=float(norm))
        self._unread.clear()

    def _refuse_nan(self, moment: Moment, loss: float) -> None:
        if not math.isfinite(loss):
            rates = ", ".join(f"{name} {rate:g}" for name, rate in self.learner.rates(moment.step).items())
            raise UserError(
                f"step {moment.step}: the loss is {loss} at learning rate {rates}; stopped, the last checkpoint and "
                "state are kept; lower optim.lr, or train.precision = 'fp32' or 'bf16'"
            )

    def _run_hooks(self, moment: Moment) -> tuple[Stop | None, bool]:
        """Run the hooks that are due; what stops the run, and whether one of them wants the state saved."""
        stop, saves = None, False
        for hook in self.hooks:
            if hook.due(moment):
                self.read_losses()
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
