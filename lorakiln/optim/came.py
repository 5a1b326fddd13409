"""CAME (Luo et al. 2023): Adafactor's memory, Adam's momentum, and less trust where momentum and update disagree."""

from collections.abc import Sequence

import torch

from lorakiln.optim.factored import clip_rms_, inverse_root, matrices, moments, name_of, stacks
from lorakiln.optim.flat import FlatParameters, ParamGroup, Stack
from lorakiln.optim.optimizers import check_betas, check_positive, optimizers
from lorakiln.optim.stepper import Stepper


@optimizers.register("came")
class Came(Stepper):
    """Works on stacks of same-shape tensors: about forty operations a shape, whatever their number.

    betas: memory of momentum, second moment and instability. eps1 keeps squares of gradients above 0, eps2 those of
    the residual. clip_threshold: the most that an update's root mean square may be. weight_decay is decoupled. Vectors
    have no rows and columns: they step by momentum alone, without the confidence.
    """

    def __init__(
        self,
        flat: FlatParameters,
        /,
        *,
        betas: Sequence[float] = (0.9, 0.999, 0.9999),
        eps1: float = 1e-30,
        eps2: float = 1e-16,
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
    ):
        super().__init__(flat)
        self.beta1, self.beta2, self.beta3 = check_betas(betas, 3)
        self.eps1, self.eps2 = check_positive("eps1", eps1), check_positive("eps2", eps2)
        self.clip_threshold = check_positive("clip_threshold", clip_threshold)
        self.weight_decay = check_positive("weight_decay", weight_decay, zero=True)
        self.state = moments(flat, "square")
        for group, stack in stacks(flat):
            name, values = name_of(group, stack), matrices(stack.values)
            self.state[f"{name}.mean"] = torch.zeros_like(values)
            if values.dim() == 3:
                self.state[f"{name}.residual_row"] = torch.zeros_like(values[:, :, 0])
                self.state[f"{name}.residual_col"] = torch.zeros_like(values[:, 0, :])

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        if self.weight_decay:
            for group in self.flat.groups:
                group.values.mul_(1 - self.rates[group.name] * self.weight_decay)
        for group, stack in stacks(self.flat):
            self._step(group, stack)

    def _step(self, group: ParamGroup, stack: Stack) -> None:
        """Algorithm 2 of the paper, for n tensors at once."""
        name, rate = name_of(group, stack), self.rates[group.name]
        values, gradient = matrices(stack.values), matrices(stack.gradients)
        square = (gradient * gradient).add_(self.eps1)
        update = inverse_root(self.state, f"{name}.square", square, 1 - self.beta2).mul_(gradient)
        clip_rms_(update, self.clip_threshold)
        mean = self.state[f"{name}.mean"].lerp_(update, 1 - self.beta1)
        if values.dim() == 2:
            values.sub_(mean, alpha=rate)
            return
        instability = update.sub_(mean).square_().add_(self.eps2)
        confidence = inverse_root(self.state, f"{name}.residual", instability, 1 - self.beta3)
        values.addcmul_(confidence, mean, value=-rate)
