"""`kiln tell RUN ...`: words to a running training, passed through control.jsonl in its run folder."""

import json
from pathlib import Path

from lorakiln.base.errors import UserError

COMMANDS = ("sample", "save", "stop")


def tell(run: Path, command: str) -> None:
    """Append a command for the run in folder `run`; it is read at the end of the step."""
    if not (run / "recipe.toml").exists():
        raise UserError(f"{run}: not a run folder (it has no recipe.toml)")
    with (run / "control.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"command": command}) + "\n")


class Inbox:
    """The commands that were told since the last look; what was told before the run started is old news."""

    def __init__(self, run: Path):
        self._path = run / "control.jsonl"
        self._read = self._size()

    def commands(self) -> list[str]:
        size = self._size()
        if size <= self._read:
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._read)
            lines = stream.read(size - self._read).split(b"\n")
        whole, rest = lines[:-1], lines[-1]
        self._read = size - len(rest)
        return [json.loads(line)["command"] for line in whole if line]

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0
