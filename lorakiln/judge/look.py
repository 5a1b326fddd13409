"""How pictures are drawn, in the eyes of the base itself: what its UNet makes of them, and how well it explains them.

Means and deviations of feature maps are what style transfer takes a style to be (Huang & Belongie 2017). They hardly
see drawings fall apart; how much of the noise on a picture the base can tell from it does. A base that learned to draw
has both, so no other model is needed. N pictures, F features.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lorakiln.base import images
from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets
from lorakiln.diffusion.noise import slot_noise
from lorakiln.diffusion.objective import Objective
from lorakiln.families.family import Family, TextStates

BATCH = 2  # pictures at once: the VAE is fp32, and takes gigabytes for a large one
# energy distance up to which the base's drawings are like the set's pictures: three times what chance makes of a dozen
ALREADY = 0.09
NOISE = 0.4  # of the schedule: how much noise is laid over a picture

Features = list[np.ndarray]  # groups of (N, F) features of one kind
Kinship = tuple[np.ndarray, np.ndarray]  # a number for each of two samples' pictures: those of one number are kin


@torch.no_grad()
def features(family: Family, pictures: Sequence[Image.Image]) -> Features:
    """Groups of (N, F): means, and log deviations, of the channels that each of the UNet's blocks on the way down, and
    the middle, puts out; and the log of its denoising loss.

    Pictures are those of one size, the base's square. The UNet must be the base's own, with no LoRA on it.
    """
    text = family.encode_text(family.tokenize([""]))
    batches = [_features(family, pictures[start : start + BATCH], text) for start in range(0, len(pictures), BATCH)]
    return [torch.cat(group).cpu().numpy() for group in zip(*batches, strict=True)]


def _features(family: Family, pictures: Sequence[Image.Image], text: TextStates) -> list[Tensor]:
    side = Size(family.resolution, family.resolution)
    crops = [Buckets(side, enabled=False).fit(side)] * len(pictures)
    pixels_BCHW = torch.stack([
        torch.as_tensor(images.to_pixels(one, crop)) for one, crop in zip(pictures, crops, strict=True)
    ])  # fmt: skip
    latent_BCHW = family.scale(family.encode_pixels(pixels_BCHW).mean_BCHW)
    timestep_B = torch.full((len(pictures),), int(NOISE * family.schedule.num_timesteps))
    noise_BCHW = slot_noise(latent_BCHW.shape[1:], 0, 0, [0], use="look").expand_as(latent_BCHW)
    task = Objective(family.schedule).make(latent_BCHW, noise_BCHW, timestep_B)
    same = TextStates(
        *(states.expand(len(pictures), *states.shape[1:]) for states in (text.context_BTC, text.pooled_BC))
    )
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        map_BCHW = (output[0] if isinstance(output, tuple) else output).float()
        found.extend((map_BCHW.mean((2, 3)), (map_BCHW.std((2, 3)) + 1e-4).log()))

    hooks = [
        block.register_forward_hook(keep)
        for name, block in family.unet.named_modules()
        if name == "mid_block" or re.fullmatch(r"down_blocks\.\d+", name)
    ]
    try:
        predicted_BCHW = family.predict(task.noised_BCHW, timestep_B, same, family.conditioning(crops))
    finally:
        for hook in hooks:
            hook.remove()
    return [*found, (predicted_BCHW.float() - task.target_BCHW).square().mean((1, 2, 3)).clamp(min=1e-9).log()[:, None]]


def similarity(drawn: Features, base: Features, own: Features, kinship: Kinship | None = None) -> float | None:
    """1: drawn as the set's `own` pictures are; 0: no nearer to them than what the base draws of the same prompts.

    None where there are not two unrelated ones of each to compare, or where the base draws like the set as it is.
    """
    if not (drawn and base and own):
        return None
    scale = deviations(base, own)
    drawn_NF, base_NF, own_NF = (
        np.concatenate([group / deviation for group, deviation in zip(each, scale, strict=True)], axis=1)
        / len(scale) ** 0.5
        for each in (drawn, base, own)
    )
    try:
        apart = energy_distance(base_NF, own_NF, kinship)
        left = energy_distance(drawn_NF, own_NF, kinship)
    except ValueError:
        return None
    return 1 - left / apart if apart > ALREADY else None


def deviations(one: Features, other: Features) -> list[float]:
    """What makes groups of features comparable: the deviation of each over both sets, half and half, as one number.

    Not each feature by its own: a style whose pictures are all of one blue has features that hardly vary, and what
    missed that blue by a hair would be as wrong as another's red.
    """
    apart = [(a.mean(0) - b.mean(0)) / 2 for a, b in zip(one, other, strict=True)]
    within = [(a.var(0) + b.var(0)) / 2 for a, b in zip(one, other, strict=True)]
    return [float(np.sqrt((gap**2 + own).sum()) + 1e-6) for gap, own in zip(apart, within, strict=True)]


def kinship(prompts: Sequence[str], captions: Sequence[str]) -> Kinship | None:
    """That of drawings of these prompts and pictures of these captions: those of one text are kin, since what a drawing
    was asked for it may have learned by heart. None where all pictures have one caption."""
    if len(set(captions)) < 2:
        return None
    numbers = {text: n for n, text in enumerate({*prompts, *captions})}
    return np.array([numbers[text] for text in prompts]), np.array([numbers[text] for text in captions])


def energy_distance(one_NF: np.ndarray, other_NF: np.ndarray, kinship: Kinship | None = None) -> float:
    """That of two samples (Szekely & Rizzo 2013), unbiased for any number; 0 of one distribution.

    Linear in the distances, so that a few drawings that fell apart weigh no more than they should: with the cubic
    kernel of KID they made the sample seem nearer than unseen pictures are to themselves. Kin are not compared, as none
    is with itself. ValueError where there are no two unrelated ones.
    """
    of_one, of_other = kinship or (np.arange(len(one_NF)), len(one_NF) + np.arange(len(other_NF)))

    def apart(a: np.ndarray, b: np.ndarray, of_a: np.ndarray, of_b: np.ndarray) -> float:
        strangers = of_a[:, None] != of_b[None]
        if not strangers.any():
            raise ValueError("an energy distance needs two unrelated pictures on either side")
        return float(np.stack([np.linalg.norm(b - row, axis=1) for row in a])[strangers].mean())

    within = apart(one_NF, one_NF, of_one, of_one) + apart(other_NF, other_NF, of_other, of_other)
    return 2 * apart(one_NF, other_NF, of_one, of_other) - within
