"""The state that a run continues from: adapter in fp32, optimizer, step. One file, whole or not there; two are kept."""

import json
from pathlib import Path

from lorakiln.adapters.files.read import read
from lorakiln.adapters.files.write import pieces
from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic
from lorakiln.train.learner import Learner

KEPT = 2


def save_state(folder: Path, step: int, learner: Learner) -> None:
    """Write the state after `step` steps and remove all but the last two."""
    tensors, scalars = learner.state()
    with atomic(folder / f"state-{step:08d}.safetensors") as stream:
        for piece in pieces(tensors, {"lorakiln.state": json.dumps({"step": step} | scalars)}):
            stream.write(piece)
    for old in _states(folder)[:-KEPT]:
        old.unlink()


def load_state(folder: Path, learner: Learner) -> int:
    """Load the newest state that is whole and return its step; 0, and nothing loaded, where there is none yet.

    Raises UserError when states are there but none can be read.
    """
    states = _states(folder)
    for path in reversed(states):
        try:
            file = read(path)
        except UserError:
            continue  # cut short by a full disk or a bad sector; the one before it is whole
        scalars = json.loads(file.metadata["lorakiln.state"])
        learner.load_state(file.tensors, scalars)
        return scalars["step"]
    if states:
        raise UserError(f"{folder}: none of the {len(states)} saved states can be read; start again with --overwrite")
    return 0


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.safetensors"))
