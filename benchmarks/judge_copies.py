"""Planted copies: training pictures as a model draws them from memory, to be found; others drawn alike, not to be."""

import random

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.judge_styles import Style
from lorakiln.families.family import Family
from lorakiln.judge.copying import Gallery
from lorakiln.runs.measuring import drawable
from lorakiln.sample.generate import to_picture


@torch.no_grad()
def redrawn(family: Family, pictures_NHWC: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Pictures through the VAE and back, with so much noise on their latents; (N, H, W, 3), uint8."""
    pixels_NCHW = torch.from_numpy(pictures_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1
    latent = family.scale(family.encode_pixels(pixels_NCHW).mean_BCHW)
    latent = latent + noise * torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    return np.stack([np.asarray(to_picture(one)) for one in family.decode(latent)])


def copying(family: Family, style: Style, count: int) -> tuple[list[bool], list[bool]]:
    """Whether each planted copy, that is a training picture as a model draws it from memory, was found and named; and
    whether each of as many other pictures drawn alike was taken for one."""
    rng = random.Random(f"copies {style.name}")
    trained = [Image.fromarray(style.picture(thing, rng)[0]) for thing in style.training[:40]]
    gallery, hits, alarms = Gallery(trained, drawable(family, trained)), [], []
    for n in range(count):
        picture = spoilt(family, trained[n % len(trained)], rng, n)
        found = gallery.nearest(picture)
        hits.append(found.copied and found.index == n % len(trained))
    pictures, _ = style.unseen(count, "innocent")
    for pixels in pictures:
        alarms.append(gallery.nearest(spoilt(family, Image.fromarray(pixels), rng, len(alarms))).copied)
    return hits, alarms


def spoilt(family: Family, picture: Image.Image, rng: random.Random, seed: int) -> Image.Image:
    """A picture as a model draws it from memory: through the VAE, a little wrong, and changed in one way or none."""
    memory = Image.fromarray(redrawn(family, np.array(picture)[None], 0.15, seed)[0])
    left, top = rng.randint(0, 16), rng.randint(0, 16)
    return rng.choice([
        lambda one: one, lambda one: one, ImageOps.mirror,
        lambda one: one.crop((left, top, left + 112, top + 112)).resize(one.size),
        lambda one: ImageEnhance.Color(one).enhance(0.5), lambda one: ImageEnhance.Brightness(one).enhance(0.75),
    ])(memory)  # fmt: skip
