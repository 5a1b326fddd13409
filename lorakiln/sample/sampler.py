"""From noise to a latent, a step of falling sigma at a time (in the manner of Karras et al. 2022).

x is the latent in units of signal: x = x_0 + sigma * noise. Every sampler asks `denoise(x, sigma)` for its guess of x_0
and moves part of the way there. Shapes: B batch, C channels, H and W latent height and width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.base.registry import Registry
from lorakiln.diffusion.schedule import Prediction, Schedule

Spacing = Literal["leading", "trailing"]
Denoise = Callable[[Tensor, float], Tensor]
Draw = Callable[[int], Tensor]


class Sampler(Protocol):
    """`draw(i)` is fresh unit noise of x's shape for step i; `sigmas` fall to 0. Returns the latent at the last."""

    def __call__(self, denoise: Denoise, x_BCHW: Tensor, sigmas: Sequence[float], draw: Draw) -> Tensor: ...


samplers: Registry[Sampler] = Registry("sampler")


@dataclass(frozen=True, slots=True)
class Steps:
    """Where a sampler asks the model: the timestep of each step, and its sigma, with a 0 at the end."""

    timesteps: tuple[int, ...]
    sigmas: tuple[float, ...]

    @property
    def start(self) -> float:
        """Deviation of the first x: the noise's sigma and the picture's own deviation of 1."""
        return math.sqrt(self.sigmas[0] ** 2 + 1)

    def timestep(self, sigma: float) -> int:
        return self.timesteps[self.sigmas.index(sigma)]


def spaced(schedule: Schedule, count: int, spacing: Spacing | None = None) -> Steps:
    """`count` steps over the schedule (Lin et al. 2024, table 2), equal to diffusers' with steps_offset 1.

    "leading" stops short of pure noise, as SDXL is sampled; "trailing" starts at the last timestep, which zero terminal
    SNR needs. None picks between them by the schedule. UserError unless 1 <= count < the schedule's timesteps.
    """
    total = schedule.num_timesteps
    if not 1 <= count < total:
        raise UserError(f"steps = {count}: must be from 1 to {total - 1}")
    if spacing is None:
        spacing = "trailing" if schedule.ztsnr else "leading"
    if spacing == "trailing":
        timesteps = [round(total - i * total / count) - 1 for i in range(count)]
    elif spacing == "leading":
        timesteps = [i * (total // count) + 1 for i in reversed(range(count))]
    else:
        raise UserError(f"spacing = '{spacing}': choose from leading, trailing")
    return Steps(tuple(timesteps), (*schedule.sigmas()[timesteps].tolist(), 0.0))


def clean(x_BCHW: Tensor, output_BCHW: Tensor, sigma: float, prediction: Prediction) -> Tensor:
    """x_0 from a network's output for the input x / sqrt(sigma^2 + 1): x - sigma eps, or the same from a velocity."""
    if prediction == "epsilon":
        return x_BCHW - sigma * output_BCHW
    return x_BCHW / (sigma**2 + 1) - sigma / math.sqrt(sigma**2 + 1) * output_BCHW


def guided(positive_BCHW: Tensor, negative_BCHW: Tensor, scale_B: Tensor, rescale_B: Tensor) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022), brought back to the positive's deviation by a share of `rescale`.

    negative + scale (positive - negative), then Lin et al. 2024, equations 14 to 16: strong guidance otherwise
    overexposes a zero-terminal-SNR model.
    """
    scale, rescale = scale_B[:, None, None, None], rescale_B[:, None, None, None]
    strong = negative_BCHW + scale * (positive_BCHW - negative_BCHW)
    calm = strong * (positive_BCHW.std((1, 2, 3), keepdim=True) / strong.std((1, 2, 3), keepdim=True))
    return (1 - rescale) * strong + rescale * calm


@samplers.register("euler")
def euler(denoise: Denoise, x_BCHW: Tensor, sigmas: Sequence[float], draw: Draw) -> Tensor:
    """x' = x + (x - x_0) / sigma * (sigma' - sigma), written without the difference of large numbers."""
    x = x_BCHW
    for sigma, after in pairwise(sigmas):
        x_0 = denoise(x, sigma)
        x = x_0 + after / sigma * (x - x_0)
    return x


@samplers.register("euler_a")
def euler_ancestral(denoise: Denoise, x_BCHW: Tensor, sigmas: Sequence[float], draw: Draw) -> Tensor:
    """Euler down to sigma_down, then fresh noise back up to sigma': down^2 + up^2 = sigma'^2."""
    x = x_BCHW
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        up = math.sqrt(after**2 * (sigma**2 - after**2) / sigma**2)
        down = math.sqrt(after**2 - up**2)
        x_0 = denoise(x, sigma)
        x = x_0 + down / sigma * (x - x_0)
        if up:
            x = x + up * draw(i)
    return x


@samplers.register("dpmpp_2m")
def dpmpp_2m(denoise: Denoise, x_BCHW: Tensor, sigmas: Sequence[float], draw: Draw) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2023, algorithm 2): the last two guesses of x_0, extrapolated in log sigma.

    With lambda = -ln(sigma), h = lambda' - lambda and r = h_before / h: D = x_0 + (x_0 - x_0_before) / (2 r). The first
    step and the one to sigma 0 are of first order.
    """
    x, before, h_before = x_BCHW, None, 0.0
    for sigma, after in pairwise(sigmas):
        x_0 = denoise(x, sigma)
        guess, h = x_0, math.log(sigma / after) if after else math.inf
        if before is not None and after:
            guess = x_0 + (x_0 - before) * (h / (2 * h_before))
        x = after / sigma * x + (1 - after / sigma) * guess  # 1 - sigma' / sigma = -expm1(-h)
        before, h_before = x_0, h
    return x
