"""Runs `kiln` in this process and kills it with SIGKILL, as a power cut does, at a chosen place.

`python -m tests.runs.killed PLACE COUNT train recipe.toml ...`: PLACE is part of a file's path (the kill comes when
such a file was written for the COUNT-th time, before it has its name), or `step` (after step COUNT was logged).
"""

import os
import signal
import sys
from pathlib import Path

from lorakiln.cli import main
from lorakiln.train.events import EventLog


def kill_in_writes(place: str, count: int) -> None:
    real, seen = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal seen
        seen += place in str(target)
        if place in str(target) and seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, target)

    Path.replace = replace


def kill_after_step(number: int) -> None:
    real = EventLog.write

    def write(self, event, step, **fields):
        real(self, event, step, **fields)
        if event == "step" and step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    EventLog.write = write


if __name__ == "__main__":
    place, count, *arguments = sys.argv[1:]
    if place == "step":
        kill_after_step(int(count))
    else:
        kill_in_writes(place, int(count))
    import torch

    torch.set_num_threads(1)
    main(arguments)
