"""The same numbers for people who watch their runs in TensorBoard: `tensorboard --logdir runs`."""

from pathlib import Path
from typing import Any


class TensorBoard:
    """A listener of the event log; writes loss, gradient norm and learning rates below `folder`."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._writer = SummaryWriter(str(folder))

    def __call__(self, line: dict[str, Any]) -> None:
        if line["event"] != "step":
            return
        numbers = {"loss": line["loss"], "grad_norm": line["grad_norm"]}
        numbers |= {f"lr/{group}": rate for group, rate in line["lr"].items()}
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self._writer.close()
