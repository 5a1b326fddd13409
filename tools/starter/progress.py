"""Training that survives being killed: checkpoints, a pid file, and a log of what took how long."""

import json
import os
import time
from pathlib import Path

import torch

from .places import BUILD

PID_FILE = Path(os.environ.get("KILN_STARTER_PID", BUILD / "train.pid"))


def claim() -> None:
    """Write this process's id, so that it can be paused with `kill -STOP`."""
    PID_FILE.write_text(str(os.getpid()))


def save(state: dict, path: Path) -> None:
    """Write a checkpoint, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def asked_steps(name: str, steps: int) -> int:
    """The length of training, unless a number in build/starter/<name>.steps asks for another meanwhile."""
    asked = BUILD / f"{name}.steps"
    return int(asked.read_text()) if asked.exists() else steps


class Log:
    """Lines of JSON: the step, its figures, and the seconds spent so far over all restarts."""

    def __init__(self, name: str, spent: float = 0.0):
        self.path = BUILD / "logs" / f"{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.spent_before, self.began = spent, time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds of training, restarts included."""
        return self.spent_before + time.monotonic() - self.began

    def write(self, **figures) -> None:
        """Add a line and show it."""
        line = json.dumps({**figures, "seconds": round(self.spent, 1)})
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")
