"""One batch to one loss: noise the latents, ask the UNet, weigh its error.

Shapes: B batch, C latent channels, H and W latent height and width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakiln.data.loader import Batch
from lorakiln.diffusion.objective import Objective
from lorakiln.families.family import Family, TextStates


@dataclass(frozen=True)
class Step:
    """What lies between a batch and its loss. `encode` gives the text states of this visit's captions."""

    family: Family
    objective: Objective
    encode: Callable[[Sequence[str]], TextStates]
    seed: int

    def losses(self, batch: Batch, step: int) -> Tensor:
        """weighted loss_B of a batch; its noise and timesteps are functions of (seed, step, slot)."""
        family, objective = self.family, self.objective
        latent_BCHW = family.scale(batch.latents_BCHW.to(family.device))
        noise = objective.sample_noise(latent_BCHW.shape[1:], self.seed, step, batch.slots)
        timestep_B = objective.sample_timesteps(self.seed, step, batch.slots)
        task = objective.make(latent_BCHW, noise, timestep_B)
        prediction_BCHW = family.predict(
            task.noised_BCHW,
            timestep_B.to(family.device),
            self.encode(batch.captions),
            family.conditioning(batch.crops),
        )
        mask_B1HW = None if batch.masks_B1HW is None else batch.masks_B1HW.to(family.device)
        loss_B = objective.compare(prediction_BCHW, task.target_BCHW, timestep_B, mask_B1HW)
        return task.weight_B * loss_B * torch.tensor(batch.weights, device=loss_B.device)
