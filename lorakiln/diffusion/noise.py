"""The noise a latent is mixed with: a function of (seed, use, step, slot), never of what was drawn before.

Shapes: B batch (slots), C latent channels, H and W latent height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorakiln.base import chance


def generator(seed: int, use: str, *where: int) -> torch.Generator:
    """A CPU generator for one draw: the run's seed, what the draw is for, and where (step or epoch, slot)."""
    return torch.Generator("cpu").manual_seed(chance.key(seed, use, *where))


def slot_noise(shape_CHW: Sequence[int], seed: int, step: int, slots: Sequence[int], use: str = "noise") -> Tensor:
    """Standard normal noise_BCHW in fp32 on the CPU, one generator a slot.

    A slot is the sample's place in the global batch, so its noise does not depend on how many processes, or how many
    micro-batches, share that batch.
    """
    return torch.stack([torch.randn(*shape_CHW, generator=generator(seed, use, step, slot)) for slot in slots])


def offset(noise_BCHW: Tensor, draw_BC11: Tensor, strength: float) -> Tensor:
    """Shift each channel by one normal draw, so that mean brightness is learned too (Guttenberg 2023, noise offset)."""
    return noise_BCHW + strength * draw_BC11


def multires(noise_CHW: Tensor, rng: torch.Generator, levels: int, discount: float) -> Tensor:
    """Add `levels` coarser noises, each weaker by `discount`, and scale the sum back to standard deviation 1.

    Whitaker's multi-resolution ("pyramid") noise (2023): level i is drawn at 1 / r^i of the size, r uniform in 2..4 for
    each level, and enlarged bilinearly. Level 0 is a second noise of full size, as in sd-scripts. The deviation is the
    sample's own (sd-scripts takes the batch's, which makes a sample's noise depend on its neighbours).
    """
    height, width = noise_CHW.shape[-2:]
    total_CHW = noise_CHW.clone()
    for level in range(levels):
        ratio = float(2 + 2 * torch.rand((), generator=rng)) ** level
        small = max(1, int(height / ratio)), max(1, int(width / ratio))
        coarse_1CHW = torch.randn(1, noise_CHW.shape[0], *small, generator=rng)
        large_CHW = torch.nn.functional.interpolate(coarse_1CHW, (height, width), mode="bilinear")[0]
        total_CHW += discount**level * large_CHW
        if 1 in small:
            break
    return total_CHW / total_CHW.std()


def batch_noise(
    shape_CHW: Sequence[int],
    seed: int,
    step: int,
    slots: Sequence[int],
    *,
    offset_strength: float = 0.0,
    multires_levels: int = 0,
    multires_discount: float = 0.3,
) -> Tensor:
    """noise_BCHW (fp32, CPU) of a training step: normal, then multi-resolution, then offset, each where asked for."""
    noise_BCHW = slot_noise(shape_CHW, seed, step, slots)
    if multires_levels:
        rngs = [generator(seed, "multires", step, slot) for slot in slots]
        noise_BCHW = torch.stack(
            [
                multires(noise, rng, multires_levels, multires_discount)
                for noise, rng in zip(noise_BCHW, rngs, strict=True)
            ]
        )
    if offset_strength:
        draw_BC11 = slot_noise((shape_CHW[0], 1, 1), seed, step, slots, use="noise offset")
        noise_BCHW = offset(noise_BCHW, draw_BC11, offset_strength)
    return noise_BCHW


def perturbation(shape_CHW: Sequence[int], seed: int, step: int, slots: Sequence[int], strength: float) -> Tensor:
    """What input perturbation adds to the noise that the model sees, not to the one it must predict.

    Ning et al. 2023 ("IP noise"): the input is made with noise + strength * xi, the target with noise alone, so that
    the model learns to forgive its own errors while sampling. Returns strength * xi as a tensor_BCHW.
    """
    return strength * slot_noise(shape_CHW, seed, step, slots, use="input perturbation")
