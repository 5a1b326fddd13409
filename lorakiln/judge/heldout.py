"""How well the model explains pictures it never trained on: denoising loss on fixed noise at fixed timesteps.

Shapes: B pictures, N timesteps, C latent channels, H and W latent height and width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorakiln.base import images
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets
from lorakiln.diffusion import loss
from lorakiln.diffusion.noise import slot_noise
from lorakiln.diffusion.objective import Objective
from lorakiln.families.family import Family, TextStates


@dataclass(frozen=True, eq=False, slots=True)
class HeldOut:
    """Pictures of one size, ready to be measured: latents scaled as the UNet sees them, the mode of the posterior.

    `masks_B1HW` holds 1 where the loss counts; None: everywhere.
    """

    latents_BCHW: Tensor
    text: TextStates
    time_ids_B6: Tensor
    masks_B1HW: Tensor | None = None


@torch.no_grad()
def read_held_out(
    family: Family, pictures: Sequence[Path], captions: Sequence[str], masks: Sequence[Path] | None = None
) -> HeldOut:
    """Cut pictures to the base's square and encode them, and masks (white counts) to latent resolution."""
    side = family.resolution
    buckets = Buckets(Size(side, side), enabled=False)
    crops = [buckets.fit(images.measure(path).size) for path in pictures]
    pixels = [images.to_pixels(images.open_picture(path), crop) for path, crop in zip(pictures, crops, strict=True)]
    posterior = family.encode_pixels(torch.stack([torch.as_tensor(one) for one in pixels]), list(map(str, pictures)))
    mask_B1HW = None
    if masks is not None:
        cut = [
            images.to_mask(images.open_picture(path).convert("L"), crop, family.latent_factor)
            for path, crop in zip(masks, crops, strict=True)
        ]
        mask_B1HW = torch.stack([torch.as_tensor(one) for one in cut])
    text = family.encode_text(family.tokenize(captions))
    return HeldOut(family.scale(posterior.mean_BCHW), text, family.conditioning(crops), mask_B1HW)


@torch.no_grad()
def denoising_losses(family: Family, held_out: HeldOut, *, timesteps: int = 16, seed: int = 0) -> Tensor:
    """Mean squared error loss_BN of each picture at the midpoints of `timesteps` equal parts of the schedule.

    Each picture meets its own fixed noise at each timestep, so two models are compared on the same questions (as in
    Li et al. 2023, "Your Diffusion Model is Secretly a Zero-Shot Classifier"). A pure function of weights and seed.
    """
    objective = Objective(family.schedule)
    latent_BCHW, count = held_out.latents_BCHW, len(held_out.latents_BCHW)
    columns = []
    for n in range(timesteps):
        timestep_B = torch.full((count,), int((n + 0.5) * family.schedule.num_timesteps / timesteps))
        noise_BCHW = slot_noise(latent_BCHW.shape[1:], seed, n, range(count), use="held out")
        task = objective.make(latent_BCHW, noise_BCHW, timestep_B)
        prediction_BCHW = family.predict(task.noised_BCHW, timestep_B, held_out.text, held_out.time_ids_B6)
        error_BCHW = (prediction_BCHW - task.target_BCHW) ** 2
        columns.append(loss.mean(error_BCHW, held_out.masks_B1HW))
    return torch.stack(columns, dim=1)


def gain(before_BN: Tensor, after_BN: Tensor) -> float:
    """Share of the held-out loss that training took away, averaged over pictures and schedule; below 0 it got worse."""
    return 1 - float(after_BN.mean() / before_BN.mean())
