"""What Kiln's own optimizers share: rates by group, a count of steps, and named state that saves and restores."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.optim.flat import FlatParameters


class Stepper:
    """The part of `Optimizer` that is not the mathematics; a subclass fills `state` and writes `step`."""

    def __init__(self, flat: FlatParameters):
        self.flat = flat
        self.rates: dict[str, float] = {}
        self.steps = 0
        self.state: dict[str, Tensor] = {}

    def set_lr(self, rates: Mapping[str, float]) -> None:
        self.rates = {group.name: float(rates[group.name]) for group in self.flat.groups}

    def logged_lr(self) -> dict[str, float | Tensor]:
        return dict(self.rates)

    def state_tensors(self) -> dict[str, Tensor]:
        return dict(self.state)

    def state_scalars(self) -> dict[str, float | int]:
        return {"steps": self.steps}

    def load_state(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, float | int]) -> None:
        mine = self.state
        if set(mine) != set(tensors) or any(mine[name].shape != tensors[name].shape for name in mine):
            raise UserError("the saved optimizer state belongs to another network or optimizer; start a new run")
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(tensors[name])
        self.steps = int(scalars["steps"])
