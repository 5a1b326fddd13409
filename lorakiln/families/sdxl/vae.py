"""Pixels to latents and back: SDXL's VAE, in fp32 because it overflows in fp16, and never NaN in silence.

Shapes: B batch, C channels, H and W height and width of pixels or of latents.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lorakiln.base.errors import UserError
from lorakiln.families.family import Posterior

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL


@torch.no_grad()
def encode(vae: "AutoencoderKL", pixels_BCHW: Tensor, names: Sequence[str] | None = None) -> Posterior:
    """The posterior of pixels in -1..1, unscaled, fp32, on the VAE's device; heights and widths in multiples of 8.

    Raises UserError for pixels or latents that are NaN or infinite, with the picture's name out of `names`.
    """
    weight = next(vae.parameters())
    posterior = vae.encode(pixels_BCHW.to(weight.device, weight.dtype)).latent_dist
    mean_BCHW, logvar_BCHW = posterior.mean.float(), posterior.logvar.float()
    fine_B = (mean_BCHW.isfinite() & logvar_BCHW.isfinite()).flatten(1).all(1)
    if not bool(fine_B.all()):
        row = int((~fine_B).nonzero()[0])
        name = names[row] if names else f"picture {row} of the batch"
        if not pixels_BCHW[row].isfinite().all():
            raise UserError(f"{name}: its pixels are not finite")
        kind = _short(weight.dtype)
        raise UserError(
            f"{name}: the VAE makes NaN or infinity of it in {kind}; name another VAE (setting vae), e.g. SDXL's own"
        )
    return Posterior(mean_BCHW, logvar_BCHW)


@torch.no_grad()
def decode(vae: "AutoencoderKL", latent_BCHW: Tensor) -> Tensor:
    """Unscaled latents to pixels in -1..1, fp32, clamped."""
    weight = next(vae.parameters())
    return vae.decode(latent_BCHW.to(weight.device, weight.dtype)).sample.float().clamp(-1, 1)


def scale(config: Any, latent_BCHW: Tensor) -> Tensor:
    """(latent - shift) * factor: unit variance, about, for the UNet."""
    return (latent_BCHW - (config.shift_factor or 0.0)) * config.scaling_factor


def unscale(config: Any, latent_BCHW: Tensor) -> Tensor:
    """The inverse of `scale`."""
    return latent_BCHW / config.scaling_factor + (config.shift_factor or 0.0)


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype))
