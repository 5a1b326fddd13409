"""The trained weights and what moves them: gradients in, one optimizer step out, everything that resuming needs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from lorakiln.adapters.network import Network
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import Optimizer
from lorakiln.train.scale import LossScale


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step: each group's rate, and the gradient's norm before it was clipped, both perhaps on the device.

    `skipped`: the gradients overflowed under the loss scale, which is lowered; the weights stay as they were.
    """

    rates: dict[str, float | Tensor]
    norm: Tensor
    skipped: bool = False


class Learner:
    """Adapter, optimizer and learning rates. `rates(step)` gives each group's rate at a step counted from 1."""

    def __init__(
        self,
        network: Network,
        flat: FlatParameters,
        optimizer: Optimizer,
        rates: Callable[[int], dict[str, float]],
        clip: float = 0.0,
        scale: LossScale | None = None,
    ):
        self.network, self.flat, self.optimizer, self.rates = network, flat, optimizer, rates
        self.clip, self.scale = clip, scale

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one batch's share of the step's loss."""
        (loss * self.scale.factor if self.scale else loss).backward()

    def update(self, step: int) -> Update:
        """One optimizer step on the gradients gathered, which are then zero."""
        if torch.distributed.is_initialized():
            for buffer in self.flat.gradients():
                torch.distributed.all_reduce(buffer)
        if self.scale:
            self.flat.scale_gradients(1 / self.scale.factor)
        norm = self.flat.clip(self.clip)
        finite = not self.scale or bool(torch.isfinite(norm))
        skipped = self.scale is not None and not finite and self.scale.factor > 1
        self.optimizer.set_lr(self.rates(step))
        if finite:
            self.optimizer.step()
        if self.scale:
            self.scale.update(finite)
        self.flat.zero_grad()
        return Update(self.optimizer.logged_lr(), norm, skipped)

    def finite(self) -> bool:
        """Whether every trained weight is a number; waits for the device."""
        return bool(torch.isfinite(self.flat.values).all())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, scalars) that `load_state` continues from, to the bit."""
        tensors = {f"adapter:{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"optimizer:{name}": tensor for name, tensor in self.optimizer.state_tensors().items()}
        scalars: dict[str, Any] = {"optimizer": self.optimizer.state_scalars()}
        if self.scale:
            scalars["scale"] = asdict(self.scale)
        return tensors, scalars

    def load_state(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Take up a state. Raises UserError when it belongs to another network or optimizer."""
        self.network.load_state_dict(_part(tensors, "adapter"))
        self.optimizer.load_state(_part(tensors, "optimizer"), scalars["optimizer"])
        if self.scale:
            self.scale = LossScale(**scalars["scale"])


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}:"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}:")}
