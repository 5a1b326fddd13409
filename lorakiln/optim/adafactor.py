"""Adafactor (Shazeer & Stern 2018): second moments in rows and columns, so that the state is nearly nothing."""

import torch
from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.optim.factored import clip_rms_, inverse_root, matrices, moments, name_of, rms, stacks
from lorakiln.optim.flat import FlatParameters, ParamGroup, Stack
from lorakiln.optim.optimizers import check_positive, check_share, optimizers
from lorakiln.optim.stepper import Stepper


@optimizers.register("adafactor")
class Adafactor(Stepper):
    """The learning rate always counts: as it is, or, with `relative_step`, as a factor on the paper's own rate.

    relative_step: min(0.01, 1 / sqrt(step)), or min(step / 10^6, 1 / sqrt(step)) with `warmup_init`; use lr = 1 and a
    constant schedule for the paper's. scale_parameter multiplies the rate by each tensor's root mean square, at least
    eps2. eps1 keeps squares above 0. decay_rate: second moments forget by 1 - step^decay_rate. beta1: momentum (None:
    none, which saves its memory). clip_threshold: the most that an update's root mean square may be.
    """

    def __init__(
        self,
        flat: FlatParameters,
        /,
        *,
        eps1: float = 1e-30,
        eps2: float = 1e-3,
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = False,
        relative_step: bool = False,
        warmup_init: bool = False,
    ):
        super().__init__(flat)
        self.eps1, self.eps2 = check_positive("eps1", eps1), check_positive("eps2", eps2)
        self.clip_threshold = check_positive("clip_threshold", clip_threshold)
        self.beta1 = None if beta1 is None else check_share("beta1", beta1)
        self.weight_decay = check_positive("weight_decay", weight_decay, zero=True)
        if not decay_rate < 0:
            raise UserError(f"decay_rate = {decay_rate}: must be below 0")
        if warmup_init and not relative_step:
            raise UserError("warmup_init = true: has no effect without relative_step = true; use optim.warmup")
        self.decay_rate, self.scale_parameter = decay_rate, scale_parameter
        self.relative_step, self.warmup_init = relative_step, warmup_init
        self.state = moments(flat, "square")
        if beta1 is not None:
            for group, stack in stacks(flat):
                self.state[f"{name_of(group, stack)}.mean"] = torch.zeros_like(matrices(stack.values))

    def logged_lr(self) -> dict[str, float | Tensor]:
        """The rate before `scale_parameter`, which is another for each tensor."""
        return {name: rate * self._relative() for name, rate in self.rates.items()}

    def _relative(self) -> float:
        if not self.relative_step:
            return 1.0
        return min(1e-6 * self.steps if self.warmup_init else 1e-2, 1 / max(1, self.steps) ** 0.5)

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        for group, stack in stacks(self.flat):
            self._step(group, stack, self.rates[group.name] * self._relative())

    def _step(self, group: ParamGroup, stack: Stack, rate: float) -> None:
        """Algorithm 4 of the paper, for n tensors at once."""
        name = name_of(group, stack)
        values, gradient = matrices(stack.values), matrices(stack.gradients)
        scaled_rate: Tensor | float = rate
        if self.scale_parameter:
            scaled_rate = rms(values).clamp_(min=self.eps2) * rate
        square = (gradient * gradient).add_(self.eps1)
        update = inverse_root(self.state, f"{name}.square", square, self.steps**self.decay_rate).mul_(gradient)
        clip_rms_(update, self.clip_threshold).mul_(scaled_rate)
        if self.beta1 is not None:
            update = self.state[f"{name}.mean"].lerp_(update, 1 - self.beta1)
        if self.weight_decay:
            values.mul_(1 - scaled_rate * self.weight_decay)
        values.sub_(update)
