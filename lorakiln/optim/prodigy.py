"""Prodigy (Mishchenko & Defazio 2024): Adam that finds its own step size d while it trains. Leave lr at 1.

N all trained numbers in one row; every scalar that depends on gradients stays on the device, so a step never waits.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import check_betas, check_positive, check_share, optimizers
from lorakiln.optim.stepper import Stepper


def _total(values_N: Tensor) -> Tensor:
    """The sum in fp64; rows first, since a CPU sums fp32 into fp64 twenty times slower than into fp32."""
    whole = len(values_N) // 64 * 64
    rows = values_N[:whole].view(-1, 64).sum(1)
    return rows.sum(dtype=torch.float64) + values_N[whole:].sum(dtype=torch.float64)


@optimizers.register("prodigy")
class Prodigy(Stepper):
    """prodigyopt's algorithm and options on flat buffers; d is one for all groups, so all must have one rate.

    betas, eps, weight_decay: as Adam's; `decouple` false adds decay to the gradient instead. beta3: memory of the
    estimate (None: sqrt(beta2)). d0: the first d. d_coef: factor on the estimate, the knob to turn. growth_rate: the
    most that d may grow by in a step. use_bias_correction: Adam's. safeguard_warmup: keeps a warm-up's small rates out
    of the estimate. slice_p: estimate from every p-th number only, for less memory.
    """

    def __init__(
        self,
        flat: FlatParameters,
        /,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        beta3: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decouple: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float = math.inf,
        slice_p: int = 1,
    ):
        super().__init__(flat)
        self.beta1, self.beta2 = check_betas(betas, 2)
        self.beta3 = math.sqrt(self.beta2) if beta3 is None else check_share("beta3", beta3)
        self.eps, self.d0, self.d_coef = (
            check_positive(*pair) for pair in (("eps", eps), ("d0", d0), ("d_coef", d_coef))
        )
        self.weight_decay, self.decouple = check_positive("weight_decay", weight_decay, zero=True), decouple
        self.use_bias_correction, self.safeguard_warmup = use_bias_correction, safeguard_warmup
        if not growth_rate >= 1 or slice_p < 1 or slice_p != int(slice_p):
            raise UserError(f"growth_rate = {growth_rate}, slice_p = {slice_p}: both must be at least 1, slice_p whole")
        self.growth_rate, self.slice_p = growth_rate, int(slice_p)
        self._lr = 0.0
        self._moved_by: Tensor | None = None
        self._start()

    def _start(self) -> None:
        """State before the first step; the anchor (prodigyopt's p0) is filled in when that step comes."""
        values_N = self.flat.values
        sliced = torch.zeros_like(values_N[:: self.slice_p])
        self.state = {"square": torch.zeros_like(values_N), "s": sliced, "anchor": sliced.clone()}
        if self.beta1:
            self.state["mean"] = torch.zeros_like(values_N)
        number = values_N.new_tensor(0, dtype=torch.float64)
        self.state |= {"d": number + self.d0, "d_max": number + self.d0, "numerator": number, "k": number.clone()}

    def set_lr(self, rates: Mapping[str, float]) -> None:
        """One rate for all groups: d is estimated from all of them, so another rate would only rescale it."""
        super().set_lr(rates)
        if len(set(self.rates.values())) > 1:
            given = ", ".join(f"{name} {rate:g}" for name, rate in self.rates.items())
            raise UserError(
                f"prodigy finds one step size for all parts, so they need one learning rate, not {given}; "
                "set optim.text_lr to 0 or optim.lr, and leave optim.rates and optim.loraplus out"
            )
        self._lr = next(iter(self.rates.values()))

    def logged_lr(self) -> dict[str, float | Tensor]:
        """d * lr, with the d that the last step moved by."""
        return dict.fromkeys(self.rates, 0.0 if self._moved_by is None else self._moved_by)

    @torch.no_grad()
    def step(self) -> None:
        """A rate of 0 leaves everything as it is, the estimate too."""
        if self.steps == 0:
            self.state["anchor"].copy_(self.flat.values[:: self.slice_p])
        self.steps += 1
        self._moved_by = self.state["d"] * self._lr
        if not self._lr:
            return
        state, values_N = self.state, self.flat.values
        gradient_N = self.flat.gradients_buffer
        if self.weight_decay and not self.decouple:
            gradient_N = torch.add(gradient_N, values_N, alpha=self.weight_decay)
        rate = self._moved_by * self._bias_correction() if self.use_bias_correction else self._moved_by

        scaled_N = gradient_N * state["d"]  # d g: Prodigy's moments are of this
        if self.beta1:
            state["mean"].lerp_(scaled_N, 1 - self.beta1)
        state["square"].mul_(self.beta2).addcmul_(scaled_N, scaled_N, value=1 - self.beta2)
        moved = self._estimate(gradient_N, rate)

        direction_N = state["mean"] if self.beta1 else gradient_N * state["d"]
        if self.weight_decay and self.decouple:
            values_N.mul_(1 - rate * (moved * self.weight_decay))
        denominator_N = torch.sqrt(state["square"], out=scaled_N).add_(state["d"] * self.eps)
        values_N.sub_(torch.div(direction_N, denominator_N, out=denominator_N).mul_(rate))
        state["k"].add_(moved)

    def _bias_correction(self) -> Tensor:
        after = self.state["k"] + 1
        return (1 - self.beta2**after).sqrt() / (1 - self.beta1**after)

    def _estimate(self, gradient_N: Tensor, rate: Tensor) -> Tensor:
        """Update d from <g, x_0 - x> over |s|_1; returns 1, or 0 while every gradient has been 0 (then nothing decays).

        With d_t before the step: numerator = beta3 numerator + (d_t / d_0) rate <g, x_0 - x>, and s likewise of g.
        """
        state, d = self.state, self.state["d"]
        sliced_N, weight = gradient_N[:: self.slice_p], d / self.d0
        towards_N = (state["anchor"] - self.flat.values[:: self.slice_p]).mul_(sliced_N)
        numerator = state["numerator"] * self.beta3 + weight * rate * _total(towards_N)
        gain = weight * (d if self.safeguard_warmup else rate)
        state["s"].mul_(self.beta3).add_(torch.mul(sliced_N, gain, out=towards_N))
        denominator = _total(torch.abs(state["s"], out=towards_N))
        moved = denominator > 0

        estimate = self.d_coef * numerator / denominator
        estimate = torch.where(moved, estimate, d)
        grown = torch.where(d == self.d0, torch.maximum(d, estimate), d)
        state["d_max"].copy_(torch.maximum(state["d_max"], estimate))
        d.copy_(torch.minimum(state["d_max"], grown * self.growth_rate))
        state["numerator"].copy_(numerator)
        return moved.double()
