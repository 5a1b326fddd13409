"""The same numbers for people who watch their runs in TensorBoard: `tensorboard --logdir runs`."""

from pathlib import Path
from typing import Any

from lorakiln.base.files import disk_errors


class TensorBoard:
    """A listener of the event log; writes loss, gradient norm, learning rates and held-out gain below `folder`.

    Raises UserError when the disk is full, also of what was given to it a while ago: it writes in a thread.

    What was written of the steps after `start`, before the run was stopped and resumed there, is hidden.
    """

    def __init__(self, folder: Path, start: int = 0):
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.folder = folder
        with disk_errors(folder):
            self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def __call__(self, line: dict[str, Any]) -> None:
        numbers = {}
        if line["event"] == "judge":
            numbers = {"heldout_gain": line["gain"]}
        if line["event"] == "step":
            numbers = {"loss": line["loss"], "grad_norm": line["grad_norm"]}
            numbers |= {f"lr/{group}": rate for group, rate in line["lr"].items()}
        with disk_errors(self.folder):
            for name, value in numbers.items():
                if value is not None:  # a step that overflowed has no norm
                    self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        with disk_errors(self.folder):
            self._writer.close()
