"""`kiln train` from start to end: check everything, cache, train, keep; and continue where a run was stopped."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lorakiln.adapters.files.write import write
from lorakiln.base.errors import UserError
from lorakiln.base.settings import Recipe
from lorakiln.runs.build import build
from lorakiln.runs.control import Inbox
from lorakiln.runs.curve import draw_loss_curve
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.header import lora_metadata
from lorakiln.runs.hooks import CheckpointHook, ControlHook, SampleHook
from lorakiln.runs.judging import JudgeHook, Measure
from lorakiln.runs.parts import Parts
from lorakiln.runs.remember import remembered
from lorakiln.runs.reporter import Reporter, Silent, Stages
from lorakiln.runs.samples import draw_grid
from lorakiln.runs.signals import EXIT_CODES, Interrupted, Signals
from lorakiln.runs.tensorboard import TensorBoard
from lorakiln.sample.generate import draw
from lorakiln.train.checkpoint import load_state, save_state, saved_step
from lorakiln.train.events import EventLog, rewind
from lorakiln.train.loop import Hook, Loop, Stop
from lorakiln.train.plan import Moment


@dataclass
class Result:
    """How a run ended: `stop` is None where it went to its end."""

    folder: RunFolder
    base: str
    prompt: str = ""  # one that suits the LoRA
    stop: Stop | None = None
    begun: bool = False  # its folder was made, so that it can be resumed
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES.get(self.stop.reason, 0) if self.stop else 0


def train(
    recipe: Recipe, source: Path, *, resume: bool = False, overwrite: bool = False, reporter: Reporter | None = None
) -> Result:
    """Train what `recipe`, read from the file `source`, says; everything it makes lies in its run folder.

    Nothing is written there before base, pictures and settings were found good. Raises UserError for bad input.
    """
    folder = RunFolder.of(recipe, source)
    if resume:
        folder.check_resume(recipe)
    else:
        folder.refuse_existing(overwrite)
    stages = Stages(reporter or Silent())
    result = Result(folder, recipe.base, begun=resume, seconds=stages.seconds)
    with Signals() as signals, _out_of_memory(folder):
        try:
            parts = build(recipe, stages)
            start = load_state(folder.state, parts.learner, parts.basis) if resume else 0
            if start >= parts.plan.steps and folder.finished_at() == start:
                raise UserError(f"{folder.path}: finished at step {start}; raise train.epochs to extend it")
            parts.fill_caches(stages, start)
            if parts.world.leads:
                folder.prepare(recipe, resume=resume, overwrite=overwrite)
                rewind(folder.events, start)
            result.begun = True
            with remembered(folder, parts, stages, start) as outcome:
                result.stop = outcome.stop = Session(recipe, folder, parts, stages).run(start, signals)
        except Interrupted as signal:
            result.stop = Stop(str(signal))
            return result
    parts.world.leave()
    result.prompt = parts.samples[0].prompt if parts.samples else parts.dataset.examples[0].caption
    return result


class Session:
    """One process's part in a run: the loop with its hooks, and what is written before and after it."""

    def __init__(self, recipe: Recipe, folder: RunFolder, parts: Parts, stages: Stages):
        self.recipe, self.folder, self.parts, self.stages = recipe, folder, parts, stages

    def run(self, start: int, signals: Signals) -> Stop | None:
        parts, leads = self.parts, self.parts.world.leads
        with ExitStack() as opened:  # each is closed, whatever the closing of another raises
            opened.enter_context(closing(parts.loader))
            listeners: list[Callable[[dict[str, Any]], None]] = [self.stages.reporter.event]
            if leads:
                board = TensorBoard(self.folder.path / "tensorboard", start)
                listeners.insert(0, opened.enter_context(closing(board)))
            log = opened.enter_context(closing(EventLog(self.folder.events if leads else None, *listeners)))
            loop = Loop(
                parts.step,
                parts.learner,
                parts.plan,
                log,
                self._hooks(log) if leads else [],
                self._save_state if leads else lambda step: None,
                self.recipe.save.state_minutes * 60,
                signals.asked,
                partial(parts.encode_captions, stages=self.stages),
                read_every=10 if parts.family.device.type == "cuda" else 1,
            )
            with self.stages.stage("train", parts.plan.steps, start):
                stop = loop.begin() if start == 0 else None
                signals.patient = True  # from here on there is something to save
                stop = stop or loop.run(start)
            if leads:
                self._finish(stop, log)
        return stop

    def _hooks(self, log: EventLog) -> list[Hook]:
        wanted, pen = self.parts.samples, partial(draw, self.parts.family)
        sample = SampleHook(self.recipe.sample, self.folder, log, self.stages, wanted, pen) if wanted else None
        checkpoint = CheckpointHook(self.recipe.save, self.folder, log, self.stages, self._write_lora)
        control = ControlHook(Inbox(self.folder.path), sample, checkpoint)
        judge = self._judge(log, checkpoint)
        return [*filter(None, [sample]), checkpoint, *filter(None, [judge]), control]

    def _judge(self, log: EventLog, checkpoint: CheckpointHook) -> JudgeHook | None:
        settings, parts = self.recipe.judge, self.parts
        if not (settings.epochs or settings.steps):
            return None
        start = partial(Measure, parts.family, parts.network, parts.heldout, self.recipe.seed)
        return JudgeHook(settings, self.folder, log, self.stages, checkpoint, start)

    def _save_state(self, step: int) -> None:
        with self.stages.stage("save"):
            save_state(self.folder.state, step, self.parts.learner, self.parts.basis)

    def _write_lora(self, path: Path, moment: Moment) -> None:
        header = lora_metadata(self.recipe, self.folder.name, self.parts, moment)
        write(path, self.parts.network.state_dict(), header, self.recipe.save.dtype)

    def _finish(self, stop: Stop | None, log: EventLog) -> None:
        """Write the LoRA of a run that went to its end, its curve and its grid."""
        end = self.parts.plan.moment(self.parts.plan.steps)
        if stop is None:
            with self.stages.stage("save"):
                self._write_lora(self.folder.lora, end)
        draw_loss_curve(self.folder.events, self.folder.curve)
        draw_grid(self.folder, self.parts.samples)
        if stop is None:  # last, since it says that all of the above is there
            log.write("end", end.step, file=self.folder.lora.name)


@contextmanager
def _out_of_memory(folder: RunFolder) -> Generator[None]:
    """Say which settings help when the GPU's memory runs out, and from where the run can go on."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        step = saved_step(folder.state)
        kept = f"the state of step {step} is kept, continue with --resume" if step else "no state was saved yet"
        raise UserError(
            "the GPU's memory is full; train.checkpointing = true, a smaller train.batch or a smaller "
            f"dataset.resolution helps; {kept}"
        ) from error
