"""events.jsonl: what happened in a run, one JSON object a line, each step once however often it was resumed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lorakiln.base.errors import UserError
from lorakiln.base.files import disk_errors, write_text


class EventLog:
    """Appends events to a file and hands each to the listeners (progress bar, TensorBoard); no path: does neither."""

    def __init__(self, path: Path | None, *listeners: Any):
        self.path = path
        self.listeners = listeners
        self._stream: TextIO | None = path.open("a", encoding="utf-8") if path else None

    def write(self, event: str, step: int, **fields: Any) -> None:
        """Write one line and flush it; UserError when the disk is full."""
        if self.path is None or self._stream is None:
            return
        line = {"event": event, "step": step, **fields}
        with disk_errors(self.path):
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
        for listener in self.listeners:
            listener(line)

    def close(self) -> None:
        if self._stream:
            self._stream.close()


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a run; a last line cut short by a kill is left out."""
    if not path.exists():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        try:
            if line:
                yield json.loads(line)
        except json.JSONDecodeError:
            if line.endswith("}"):
                raise UserError(f"{path}, line {number}: not an event; the file was edited") from None
            return


def rewind(path: Path, step: int) -> None:
    """Forget what happened after `step`, so that a run resumed there holds each step once."""
    kept = [json.dumps(event) for event in read_events(path) if event["step"] <= step and event["event"] != "end"]
    write_text(path, "".join(f"{line}\n" for line in kept))
