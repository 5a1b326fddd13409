"""What happens between steps: samples, checkpoints, and what `kiln tell` asks for."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from lorakiln.base.settings import Sample, Save
from lorakiln.runs import samples
from lorakiln.runs.control import Inbox
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.reporter import Stages
from lorakiln.sample.generate import Request
from lorakiln.sample.grid import save_png
from lorakiln.train.events import EventLog
from lorakiln.train.loop import Stop
from lorakiln.train.plan import Moment


def scheduled(moment: Moment, epochs: int, steps: int) -> bool:
    """Whether an every-so-many-epochs or every-so-many-steps schedule (0: none) falls on this moment."""
    by_epoch = epochs and moment.ends_epoch and moment.epoch % epochs == 0
    by_step = steps and moment.step and moment.step % steps == 0
    return bool(by_epoch or by_step)


class SampleHook:
    """Draws the same prompts with the same seeds before, during and after training."""

    saves = False

    def __init__(
        self,
        settings: Sample,
        folder: RunFolder,
        log: EventLog,
        stages: Stages,
        wanted: Sequence[Request],
        draw: Callable[[Sequence[Request]], list[Image.Image]],
    ):
        self.settings, self.folder, self.log, self.stages = settings, folder, log, stages
        self.wanted, self.draw = wanted, draw

    def due(self, moment: Moment) -> bool:
        return moment.step == 0 or moment.ends_run or scheduled(moment, self.settings.epochs, self.settings.steps)

    def act(self, moment: Moment) -> None:
        with self.stages.stage("draw samples"):
            pictures = self.draw(self.wanted)
        files = [samples.path(self.folder, moment.step, number) for number in range(1, len(pictures) + 1)]
        for path, picture, request in zip(files, pictures, self.wanted, strict=True):
            save_png(picture, path, request.facts())
        self.log.write("sample", moment.step, files=[path.name for path in files])


class CheckpointHook:
    """Writes the LoRA as it is now, and removes checkpoints beyond `keep`."""

    saves = True

    def __init__(
        self, settings: Save, folder: RunFolder, log: EventLog, stages: Stages, write: Callable[[Path, Moment], None]
    ):
        self.settings, self.folder, self.log, self.stages, self.write = settings, folder, log, stages, write
        self.spared: Path | None = None  # the best one so far, which `keep` does not count

    def due(self, moment: Moment) -> bool:
        return scheduled(moment, self.settings.epochs, self.settings.steps)

    def act(self, moment: Moment) -> None:
        path = self.folder.checkpoint(moment.step)
        with self.stages.stage("save"):
            self.write(path, moment)
        self.log.write("save", moment.step, file=path.name)
        if self.settings.keep:
            for old in self.folder.checkpoints()[: -self.settings.keep]:
                if old != self.spared:
                    old.unlink()


class ControlHook:
    """Does what `kiln tell` asked for since the last step."""

    saves = True

    def __init__(self, inbox: Inbox, sample: SampleHook | None, checkpoint: CheckpointHook):
        self.inbox, self.sample, self.checkpoint = inbox, sample, checkpoint
        self._told: set[str] = set()

    def due(self, moment: Moment) -> bool:
        self._told = set(self.inbox.commands())
        return bool(self._told)

    def act(self, moment: Moment) -> Stop | None:
        if "sample" in self._told and self.sample and not self.sample.due(moment):
            self.sample.act(moment)
        if self._told & {"save", "stop"} and not self.checkpoint.due(moment):
            self.checkpoint.act(moment)
        return Stop("told to stop") if "stop" in self._told else None
