"""The same numbers for people who watch their runs in TensorBoard: `tensorboard --logdir runs`."""

from pathlib import Path
from typing import Any


class TensorBoard:
    """A listener of the event log; writes loss, gradient norm, learning rates and held-out gain below `folder`.

    What was written of the steps after `start`, before the run was stopped and resumed there, is hidden.
    """

    def __init__(self, folder: Path, start: int = 0):
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def __call__(self, line: dict[str, Any]) -> None:
        if line["event"] == "judge":
            self._writer.add_scalar("heldout_gain", line["gain"], line["step"])
        if line["event"] != "step":
            return
        numbers = {"loss": line["loss"], "grad_norm": line["grad_norm"]}
        numbers |= {f"lr/{group}": rate for group, rate in line["lr"].items()}
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self._writer.close()
