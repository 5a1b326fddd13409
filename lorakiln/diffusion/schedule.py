"""How much noise each timestep carries, and what the base model was taught to predict from it.

Shapes: T the schedule's timesteps, B batch, C channels, H and W latent height and width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lorakiln.base.errors import UserError

Prediction = Literal["epsilon", "v"]

# a sampler cannot start from an infinite sigma: the last alpha-bar of a zero-terminal-SNR schedule becomes the smallest
# half-precision number, as diffusers' samplers have it
LEAST_ALPHA_CUMPROD = 2.0**-24


@dataclass(frozen=True, eq=False, slots=True)
class Schedule:
    """A variance-preserving noise schedule: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise.

    `alphas_cumprod_T` is abar in fp64; 0 at the end where the terminal SNR is zero. `prediction` is what the network's
    output means: "epsilon" (the noise) or "v" (the velocity of Salimans & Ho 2022).
    """

    alphas_cumprod_T: Tensor
    prediction: Prediction = "epsilon"
    ztsnr: bool = False

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v"):
            raise UserError(f"prediction = '{self.prediction}': choose from epsilon, v")
        if self.ztsnr and self.prediction == "epsilon":
            raise UserError(
                "zero terminal SNR needs prediction = 'v': an epsilon model cannot start a sample from pure noise"
            )

    @classmethod
    def scaled_linear(
        cls,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        timesteps: int = 1000,
        prediction: Prediction = "epsilon",
        ztsnr: bool = False,
    ) -> "Schedule":
        """Stable Diffusion's schedule (1.5, SDXL): sqrt(beta) linear in t; `ztsnr` rescales it to end in pure noise."""
        beta_T = torch.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=torch.float64) ** 2
        alphas_cumprod_T = torch.cumprod(1 - beta_T, 0)
        if ztsnr:
            alphas_cumprod_T = zero_terminal_snr(alphas_cumprod_T)
        return cls(alphas_cumprod_T, prediction, ztsnr)

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas_cumprod_T)

    def rates(self, timestep_B: Tensor) -> tuple[Tensor, Tensor]:
        """(signal_B, noise_B) = (sqrt(abar), sqrt(1 - abar)) in fp32, on the schedule's device."""
        alpha_bar_B = self.alphas_cumprod_T[timestep_B.to(self.alphas_cumprod_T.device)]
        return alpha_bar_B.sqrt().float(), (1 - alpha_bar_B).sqrt().float()

    def snr(self, timestep_B: Tensor) -> Tensor:
        """Signal-to-noise ratio abar / (1 - abar) of each timestep as fp32; 0 at a zero-terminal-SNR end."""
        alpha_bar_B = self.alphas_cumprod_T[timestep_B.to(self.alphas_cumprod_T.device)]
        return (alpha_bar_B / (1 - alpha_bar_B)).float()

    def sigmas(self) -> Tensor:
        """sigma_T = sqrt((1 - abar) / abar) in fp64: noise per unit of signal, as samplers count it; finite always."""
        alpha_bar_T = self.alphas_cumprod_T.clamp(min=LEAST_ALPHA_CUMPROD)
        return ((1 - alpha_bar_T) / alpha_bar_T).sqrt()

    def add_noise(self, latent_BCHW: Tensor, noise_BCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """sqrt(abar) latent + sqrt(1 - abar) noise, in fp32 on the latent's device."""
        signal_B111, noise_B111 = self._rates_like(latent_BCHW, timestep_B)
        return signal_B111 * latent_BCHW.float() + noise_B111 * noise_BCHW.float()

    def velocity(self, latent_BCHW: Tensor, noise_BCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """v = sqrt(abar) noise - sqrt(1 - abar) latent, in fp32 (Salimans & Ho 2022, appendix D)."""
        signal_B111, noise_B111 = self._rates_like(latent_BCHW, timestep_B)
        return signal_B111 * noise_BCHW.float() - noise_B111 * latent_BCHW.float()

    def _rates_like(self, latent_BCHW: Tensor, timestep_B: Tensor) -> tuple[Tensor, Tensor]:
        signal_B, noise_B = (rate_B.to(latent_BCHW.device, non_blocking=True) for rate_B in self.rates(timestep_B))
        return signal_B[:, None, None, None], noise_B[:, None, None, None]


def zero_terminal_snr(alphas_cumprod_T: Tensor) -> Tensor:
    """Shift and stretch sqrt(abar) so that it ends at 0 and starts where it did (Lin et al. 2024, algorithm 1)."""
    signal_T = alphas_cumprod_T.sqrt()
    first, last = signal_T[0], signal_T[-1]
    return ((signal_T - last) * first / (first - last)) ** 2
