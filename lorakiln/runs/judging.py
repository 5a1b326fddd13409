"""Judging while training goes on: the gain on held-out pictures on a schedule, and the end once it has peaked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from lorakiln.adapters.network import Network
from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic
from lorakiln.base.settings import Judge
from lorakiln.data.dataset import Example
from lorakiln.families.family import Family
from lorakiln.judge.heldout import denoising_losses, gains, peaked, read_held_out
from lorakiln.judge.interval import interval
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.hooks import CheckpointHook, scheduled
from lorakiln.runs.reporter import Stages
from lorakiln.train.events import EventLog, read_events
from lorakiln.train.loop import Stop
from lorakiln.train.plan import Moment

TIMESTEPS, BATCH = 12, 4


def check(settings: Judge, heldout: Sequence[Example]) -> None:
    """UserError for settings that would have no effect."""
    due = settings.epochs or settings.steps
    if due and not heldout:
        raise UserError("[judge]: there are no held-out pictures to measure; set dataset.heldout, e.g. to 0.1")
    if settings.stop and not due:
        raise UserError(f"judge.stop = '{settings.stop}': needs judge.epochs or judge.steps, which say when to measure")


class Measure:
    """The present gain on held-out pictures; nothing of the training depends on whether it was taken."""

    def __init__(self, family: Family, network: Network, heldout: Sequence[Example], seed: int):
        self.family, self.network, self.seed = family, network, seed
        self.captions = [example.spec.plain(example.caption, 0) for example in heldout]
        self.pictures = read_held_out(family, [example.path for example in heldout], self.captions)
        self.before_BN = None

    @torch.no_grad()
    def __call__(self) -> list[float]:
        """The gain on each picture."""
        if self.before_BN is None:
            self.network.strength = 0.0
            self.before_BN = self._losses()
            self.network.strength = 1.0
        return gains(self.before_BN, self._losses())

    def _losses(self) -> torch.Tensor:
        # anew each time: the text encoders may be trained too
        text = self.family.encode_text(self.family.tokenize(self.captions))
        asked = replace(self.pictures, text=text)
        return denoising_losses(self.family, asked, timesteps=TIMESTEPS, seed=self.seed, batch=BATCH)


class JudgeHook:
    """Writes the held-out gain to the events; with `stop = "baked"` keeps the best checkpoint, and ends the run."""

    def __init__(
        self,
        settings: Judge,
        folder: RunFolder,
        log: EventLog,
        stages: Stages,
        checkpoint: CheckpointHook,
        start: Callable[[], Callable[[], list[float]]],
    ):
        """`start()` makes ready what measures, at the first measurement. What was measured before is in the events."""
        self.settings, self.folder, self.log, self.stages = settings, folder, log, stages
        self.checkpoint, self.start = checkpoint, start
        self.measure: Callable[[], list[float]] | None = None
        events = [event for event in read_events(folder.events) if event["event"] == "judge"]
        self.steps = [event["step"] for event in events]
        self.history = [event["gains"] for event in events]
        self.saves = bool(settings.stop)
        self._spare()

    def due(self, moment: Moment) -> bool:
        return scheduled(moment, self.settings.epochs, self.settings.steps)

    def act(self, moment: Moment) -> Stop | None:
        with self.stages.stage("judge"):
            self.measure = self.measure or self.start()
            found = [round(gain, 6) for gain in self.measure()]
        self.steps.append(moment.step)
        self.history.append(found)
        known = interval(found)
        low, high = (round(end, 6) if math.isfinite(end) else None for end in (known.low, known.high))
        self.log.write("judge", moment.step, gain=round(known.mean, 6), low=low, high=high, gains=found)
        if not self.settings.stop:
            return None
        if self._best() == moment.step and not self.checkpoint.due(moment):
            self.checkpoint.act(moment)
        self._spare()
        peak = peaked(self.history)
        if peak is None or moment.ends_run:
            return None
        self._keep(self.steps[peak])
        return Stop(f"baked: the gain on held-out pictures peaked at step {self.steps[peak]}", complete=True)

    def _best(self) -> int | None:
        means = {step: interval(found).mean for step, found in zip(self.steps, self.history, strict=True)}
        return max(means, key=lambda step: (means[step] == means[step], means[step]), default=None)

    def _spare(self) -> None:
        best = self._best() if self.settings.stop else None
        self.checkpoint.spared = self.folder.checkpoint(best) if best is not None else None

    def _keep(self, step: int) -> None:
        """Make the checkpoint of a step the run's LoRA."""
        with atomic(self.folder.lora) as stream:
            stream.write(self.folder.checkpoint(step).read_bytes())
