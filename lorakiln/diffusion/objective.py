"""What the UNet is shown, what it must predict from it, and how each sample's error is weighed.

Shapes: B batch (slots), C latent channels, H and W latent height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lorakiln.base import chance
from lorakiln.base.errors import UserError
from lorakiln.diffusion import loss, noise
from lorakiln.diffusion.schedule import Schedule

# frac(step * a + slot * b) covers 0..1 evenly along steps and along slots when 1, a and b share no rational relation
STEP_STRIDE = (5**0.5 - 1) / 2
SLOT_STRIDE = 2**0.5 - 1


@dataclass(frozen=True, slots=True)
class NoiseOptions:
    """Departures from plain normal noise; 0 leaves each out."""

    offset: float = 0.0
    multires_levels: int = 0
    multires_discount: float = 0.3
    input_perturbation: float = 0.0


@dataclass(frozen=True, slots=True)
class LossOptions:
    """How an error counts. `min_snr_gamma` 0 is off; min-SNR and debiased estimation exclude each other."""

    kind: loss.LossKind = "l2"
    huber_schedule: loss.HuberSchedule = "snr"
    huber_c: float = 0.1
    min_snr_gamma: float = 0.0
    debiased: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("l2", "l1", "huber", "smooth_l1"):
            raise UserError(f"loss kind = '{self.kind}': choose from l2, l1, huber, smooth_l1")
        if self.huber_schedule not in ("constant", "exponential", "snr"):
            raise UserError(f"huber_schedule = '{self.huber_schedule}': choose from constant, exponential, snr")
        if not self.huber_c > 0:
            raise UserError(f"huber_c = {self.huber_c}: must be above 0")
        if self.debiased and self.min_snr_gamma:
            raise UserError("min_snr_gamma and debiased both weigh the loss by the noise: use one of them")


class Noise(NamedTuple):
    """Noise to predict, and what input perturbation adds to the noise that is shown (None: nothing)."""

    target_BCHW: Tensor
    perturbation_BCHW: Tensor | None = None


class Task(NamedTuple):
    """One batch's question, answer and weights, all fp32 on the latent's device."""

    noised_BCHW: Tensor
    target_BCHW: Tensor
    weight_B: Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Objective:
    """Turns clean latents into (noised, target, weight) for an epsilon or a v model.

    Timesteps come from `min_timestep` <= t < `max_timestep` (None: the schedule's end). "uniform" draws each by itself;
    "low_discrepancy" spreads them evenly over consecutive steps and slots, for a calmer loss at small batches.
    """

    schedule: Schedule
    min_timestep: int = 0
    max_timestep: int | None = None
    timesteps: Literal["uniform", "low_discrepancy"] = "uniform"
    noise: NoiseOptions = field(default_factory=NoiseOptions)
    loss: LossOptions = field(default_factory=LossOptions)

    def __post_init__(self) -> None:
        low, high = self.timestep_range
        if not 0 <= low < high <= self.schedule.num_timesteps:
            end = self.schedule.num_timesteps
            raise UserError(f"timesteps from {low} up to {high}: need 0 <= min_timestep < max_timestep <= {end}")
        if self.timesteps not in ("uniform", "low_discrepancy"):
            raise UserError(f"timesteps = '{self.timesteps}': choose from uniform, low_discrepancy")

    @property
    def timestep_range(self) -> tuple[int, int]:
        high = self.schedule.num_timesteps if self.max_timestep is None else self.max_timestep
        return self.min_timestep, high

    def sample_timesteps(self, seed: int, step: int, slots: Sequence[int]) -> Tensor:
        """timestep_B (int64, CPU), each a function of (seed, step, slot) alone."""
        low, high = self.timestep_range
        if self.timesteps == "uniform":
            shares = [chance.rng(seed, "timestep", step, slot).random() for slot in slots]
        else:
            start = chance.rng(seed, "timestep").random()
            shares = [(start + step * STEP_STRIDE + slot * SLOT_STRIDE) % 1 for slot in slots]
        return torch.tensor([low + int(share * (high - low)) for share in shares], dtype=torch.int64)

    def sample_noise(self, shape_CHW: Sequence[int], seed: int, step: int, slots: Sequence[int]) -> Noise:
        """The step's noise (fp32, CPU), each slot's a function of (seed, step, slot) alone."""
        options = self.noise
        target_BCHW = noise.batch_noise(
            shape_CHW,
            seed,
            step,
            slots,
            offset_strength=options.offset,
            multires_levels=options.multires_levels,
            multires_discount=options.multires_discount,
        )
        if not options.input_perturbation:
            return Noise(target_BCHW)
        return Noise(target_BCHW, noise.perturbation(shape_CHW, seed, step, slots, options.input_perturbation))

    def make(self, latent_BCHW: Tensor, noise: Noise | Tensor, timestep_B: Tensor) -> Task:
        """(noised_BCHW, target_BCHW, weight_B) for scaled latents; the noise may still be on the CPU."""
        device = latent_BCHW.device
        target_noise, extra = noise if isinstance(noise, Noise) else (noise, None)
        target_noise = target_noise.to(device, non_blocking=True)
        shown = target_noise if extra is None else target_noise + extra.to(device, non_blocking=True)
        noised_BCHW = self.schedule.add_noise(latent_BCHW, shown, timestep_B)
        if self.schedule.prediction == "v":
            target_BCHW = self.schedule.velocity(latent_BCHW, target_noise, timestep_B)
        else:
            target_BCHW = target_noise.float()
        return Task(noised_BCHW, target_BCHW, self.weight(timestep_B).to(device, non_blocking=True))

    def weight(self, timestep_B: Tensor) -> Tensor:
        """weight_B of each sample's loss, from its timestep's SNR; ones where no weighting is asked for."""
        snr_B = self.schedule.snr(timestep_B)
        if self.loss.min_snr_gamma:
            return loss.min_snr_weight(snr_B, self.loss.min_snr_gamma, self.schedule.prediction)
        if self.loss.debiased:
            return loss.debiased_weight(snr_B, self.schedule.prediction)
        return torch.ones_like(snr_B)

    def compare(
        self, prediction_BCHW: Tensor, target_BCHW: Tensor, timestep_B: Tensor, mask_B1HW: Tensor | None = None
    ) -> Tensor:
        """loss_B of each sample, before its weight; the mean over the mask's pixels where there is a mask."""
        options, threshold_B = self.loss, None
        if options.kind in ("huber", "smooth_l1"):
            threshold_B = loss.huber_threshold(
                timestep_B,
                self.schedule.snr(timestep_B),
                options.huber_schedule,
                options.huber_c,
                self.schedule.num_timesteps,
            )
        return loss.mean(loss.error(prediction_BCHW, target_BCHW, options.kind, threshold_B), mask_B1HW)
