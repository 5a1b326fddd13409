"""events.jsonl: what happened in a run, one JSON object a line, each step once however often it was resumed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorakiln.base.errors import UserError
from lorakiln.base.files import disk_errors, write_text


class EventLog:
    """Appends events to a file and hands each to the listeners (progress bar, TensorBoard); no path: does neither."""

    def __init__(self, path: Path | None, *listeners: Any):
        self.path = path
        self.listeners = listeners
        # unbuffered: what a full disk did not take would be written, and fail, once more when it is closed
        with disk_errors(path or Path()):
            self._stream = path.open("ab", buffering=0) if path else None

    def write(self, event: str, step: int, **fields: Any) -> None:
        """Write one line at once; UserError when the disk is full."""
        if self.path is None or self._stream is None:
            return
        line = {"event": event, "step": step, **fields}
        data = f"{json.dumps(line)}\n".encode()
        with disk_errors(self.path):
            while data:  # a disk that is nearly full takes a part
                data = data[self._stream.write(data) :]
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
    """Forget what happened after `step`, so that a run resumed there holds each step once.

    With `step` 0 all of it: a run from its start also does anew what is due before the first step.
    """
    before = [event for event in read_events(path) if 0 < step >= event["step"] and event["event"] != "end"]
    kept = [json.dumps(event) for event in before]
    write_text(path, "".join(f"{line}\n" for line in kept))
