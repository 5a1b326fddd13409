"""Lion (Chen et al. 2023): every number moves by lr, in the direction of its momentum's sign."""

from collections.abc import Sequence

import torch

from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import check_betas, check_positive, optimizers
from lorakiln.optim.stepper import Stepper


@optimizers.register("lion")
class Lion(Stepper):
    """Wants a rate 3 to 10 times below AdamW's, and as much more `weight_decay` (decoupled)."""

    def __init__(self, flat: FlatParameters, /, *, betas: Sequence[float] = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(flat)
        self.beta1, self.beta2 = check_betas(betas, 2)
        self.weight_decay = check_positive("weight_decay", weight_decay, zero=True)
        self.state = {"mean": torch.zeros_like(flat.values)}

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        mean, gradient = self.state["mean"], self.flat.gradients_buffer
        direction = mean.lerp(gradient, 1 - self.beta1).sign_()
        mean.lerp_(gradient, 1 - self.beta2)
        for group in self.flat.groups:
            rate = self.rates[group.name]
            if self.weight_decay:
                group.values.mul_(1 - rate * self.weight_decay)
            group.values.add_(group.part_of(direction), alpha=-rate)
