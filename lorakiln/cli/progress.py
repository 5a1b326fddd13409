"""A run in the terminal: a bar with step, loss, rate and time left; plain lines when piped; JSON when asked."""

import json
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn


class TerminalReporter:
    """A `runs.reporter.Reporter`. On a terminal a bar a stage; elsewhere a line for every tenth of a stage."""

    def __init__(self, as_json: bool = False):
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False, markup=False)
        self._bar = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=as_json or not self.console.is_terminal,
        )
        self._tasks: list[TaskID] = []
        self._loss: float | None = None

    def __enter__(self) -> "TerminalReporter":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, stage: str, total: int | None, done: int) -> None:
        began = time.monotonic()
        self._tasks.append(self._bar.add_task(stage, total=total or 1, completed=done, text="", done=done, began=began))

    def advance(self, count: int = 1) -> None:
        task = self._task(self._tasks[-1])
        before = task.completed
        self._bar.update(task.id, advance=count, text=self._text(task, task.completed + count))
        total = task.total or 1
        if self._bar.disable and not self.as_json and int(10 * before / total) < int(10 * task.completed / total):
            self.console.print(f"{task.description}: {task.completed:.0f}/{total:.0f} {task.fields['text']}".rstrip())

    def end(self) -> None:
        task_id = self._tasks.pop()
        if self._tasks:  # a stage inside another, such as samples during training, leaves no bar behind
            self._bar.remove_task(task_id)
        elif self._task(task_id).total == 1:
            self._bar.update(task_id, completed=1)

    def steps(self, stage: str) -> Callable[[int, int], None]:
        """A callback (done, total) that shows a stage whose length is only known once it runs."""
        shown = 0

        def show(done: int, total: int) -> None:
            nonlocal shown
            if not self._tasks:
                self.begin(stage, total, 0)
                shown = 0
            self.advance(done - shown)
            shown = done
            if done == total:
                self.end()

        return show

    def note(self, text: str) -> None:
        if self.as_json:
            print(json.dumps({"event": "note", "text": text}), flush=True)
        else:
            self._bar.console.print(text, soft_wrap=True)

    def event(self, line: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(line), flush=True)
        if line["event"] == "step":
            # a running mean over about 20 steps: single losses jump with their timesteps
            self._loss = line["loss"] if self._loss is None else 0.95 * self._loss + 0.05 * line["loss"]
            self.advance()

    def _task(self, task_id: TaskID) -> Task:
        return self._bar.tasks[self._bar.task_ids.index(task_id)]

    def _text(self, task: Task, completed: float) -> str:
        seconds = time.monotonic() - task.fields["began"]
        rate = (completed - task.fields["done"]) / max(seconds, 1e-9)
        left = ((task.total or 1) - completed) / max(rate, 1e-9)
        loss = "" if task.description != "train" or self._loss is None else f"loss {self._loss:.4f}  "
        unit = "step" if task.description == "train" else "it"
        return f"{loss}{rate:.2f} {unit}/s  {int(left) // 60}:{int(left) % 60:02d} left"
