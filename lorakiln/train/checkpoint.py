"""The state that a run continues from: adapter in fp32, optimizer, step. One file, whole or not there; two are kept."""

import json
from pathlib import Path

from lorakiln.adapters.files.read import read
from lorakiln.adapters.files.write import pieces
from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic
from lorakiln.train.basis import Basis
from lorakiln.train.learner import Learner

KEPT = 2
SCALARS = "lorakiln.state"  # header key: step, optimizer's numbers, loss scale, basis


def save_state(folder: Path, step: int, learner: Learner, basis: Basis) -> None:
    """Write the state after `step` steps and remove all but the last two."""
    tensors, scalars = learner.state()
    table = {"step": step, "basis": basis.table()} | scalars
    with atomic(folder / f"state-{step:08d}.safetensors") as stream:
        for piece in pieces(tensors, {SCALARS: json.dumps(table)}):
            stream.write(piece)
    for old in _states(folder)[:-KEPT]:
        old.unlink()


def load_state(folder: Path, learner: Learner, basis: Basis) -> int:
    """Load the newest state that is whole and return its step; 0, and nothing loaded, where there is none yet.

    Raises UserError when states are there but none can be read, or the newest stands on another basis.
    """
    states = _states(folder)
    for path in reversed(states):
        try:
            file = read(path)
        except UserError:
            continue  # cut short by a full disk or a bad sector; the one before it is whole
        scalars = json.loads(file.metadata[SCALARS])
        if "basis" in scalars:  # the first states had none
            basis.refuse_other(scalars["basis"])
        learner.load_state(file.tensors, scalars)
        return scalars["step"]
    if states:
        raise UserError(f"{folder}: none of the {len(states)} saved states can be read; start again with --overwrite")
    return 0


def saved_step(folder: Path) -> int:
    """The step of the newest state, 0 where there is none."""
    return max((int(path.stem.removeprefix("state-")) for path in _states(folder)), default=0)


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.safetensors"))
