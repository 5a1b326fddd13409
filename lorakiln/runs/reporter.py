"""What a run tells whoever watches it: stages with progress, notes, events; and the clock that times the stages."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol


class Reporter(Protocol):
    """Something that shows a run: a progress bar, JSON lines, a web page."""

    def begin(self, stage: str, total: int | None, done: int) -> None: ...
    def advance(self, count: int = 1) -> None: ...
    def end(self) -> None: ...
    def note(self, text: str) -> None: ...
    def event(self, line: dict[str, Any]) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, stage: str, total: int | None, done: int) -> None: ...
    def advance(self, count: int = 1) -> None: ...
    def end(self) -> None: ...
    def note(self, text: str) -> None: ...
    def event(self, line: dict[str, Any]) -> None: ...


class Stages:
    """Names what is going on and counts its seconds; a stage inside another is not counted twice."""

    def __init__(self, reporter: Reporter):
        self.reporter = reporter
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._mark = time.monotonic()

    @contextmanager
    def stage(self, name: str, total: int | None = None, done: int = 0) -> Generator[None]:
        """`total` units of work, of which `done` were done before (a resumed run)."""
        self._count()
        self._open.append(name)
        self.reporter.begin(name, total, done)
        try:
            yield
        finally:
            self._count()
            self._open.pop()
            self.reporter.end()

    def _count(self) -> None:
        now = time.monotonic()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._mark
        self._mark = now
