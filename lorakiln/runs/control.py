"""`kiln tell RUN ...`: words to a running training, passed through control.jsonl in its run folder."""

import json
from pathlib import Path

from lorakiln.base import recipe as recipes
from lorakiln.base.errors import UserError
from lorakiln.base.files import disk_errors
from lorakiln.base.ledger import alive
from lorakiln.runs.row import row_of, run_folder

COMMANDS = ("sample", "save", "stop")
FILE = "control.jsonl"


def tell(run: Path, command: str) -> None:
    """Append a command for the run in folder `run`; it is read at the end of the step.

    Raises UserError where nobody would carry it out: the run is not going on, or it has nothing to sample.
    """
    folder = run_folder(run)
    status = alive(row_of(folder)).status
    if status != "running":
        raise UserError(f"{run}: this run is not going on (it is {status}), so nobody would hear '{command}'")
    sample = recipes.read(folder.recipe).sample
    if command == "sample" and not (sample.prompts or sample.file):
        raise UserError(f"{run}: this run has no sample.prompts and no sample.file, so there is nothing to draw")
    with disk_errors(run / FILE), (run / FILE).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"command": command}) + "\n")


class Inbox:
    """The commands that were told since the last look. A run that begins or goes on removes what is older."""

    def __init__(self, run: Path):
        self._path = run / FILE
        self._read = 0

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
