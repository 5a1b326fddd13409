"""Draws captions with the model as it stands, in a grid, to look at while it trains."""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import latents, train_unet, train_v, train_vae
from .model import LATENT_SIZE, Drawer, alphas_cumprod, plain_time_ids
from .places import BUILD


@torch.no_grad()
def sample(drawer: Drawer, captions: list[str], steps: int, scale: float, seed: int, velocity: bool = False) -> Tensor:
    """DDIM with guidance against the empty caption: scaled latents."""
    kept_of = train_v.alphas_cumprod_v() if velocity else alphas_cumprod()
    times = torch.linspace(999, 0, steps + 1).long().tolist()
    rng = torch.Generator().manual_seed(seed)
    count = len(captions)
    noisy = torch.randn((count, 4, LATENT_SIZE, LATENT_SIZE), generator=rng)
    states, pooled = drawer.text(captions + [""] * count)
    added = {"text_embeds": pooled, "time_ids": plain_time_ids(2 * count)}
    for now, after in itertools.pairwise(times):
        kept, kept_after = kept_of[now], kept_of[after] if after else torch.tensor(1.0)
        both = torch.cat([noisy, noisy])
        said = drawer.unet(both, now, states, added_cond_kwargs=added).sample
        told, untold = said.chunk(2)
        guess = untold + scale * (told - untold)
        if velocity:
            clean = kept.sqrt() * noisy - (1 - kept).sqrt() * guess
            noise = kept.sqrt() * guess + (1 - kept).sqrt() * noisy
        else:
            clean, noise = (noisy - (1 - kept).sqrt() * guess) / kept.sqrt(), guess
        noisy = kept_after.sqrt() * clean + (1 - kept_after).sqrt() * noise
    return noisy


@torch.no_grad()
def pixels(vae, latent_BCHW: Tensor, scaling: float) -> np.ndarray:
    """Decoded pictures, B x H x W x 3, uint8."""
    drawn = vae.decode(latent_BCHW / scaling).sample.clamp(-1, 1)
    return ((drawn + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def grid(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures side by side, two pixels apart."""
    side = pictures.shape[1] + 2
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side - 2, rows * side - 2), "white")
    for number, picture in enumerate(pictures):
        where = ((number % columns) * side, (number // columns) * side)
        sheet.paste(Image.fromarray(picture), where)
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("captions", nargs="+")
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--v", action="store_true")
    parser.add_argument("--out", type=Path, default=BUILD / "drawn.png")
    options = parser.parse_args()
    torch.set_num_threads(2)
    model = train_v.trained() if options.v else train_unet.trained()
    made = sample(model, options.captions, options.steps, options.scale, options.seed, options.v)
    shown = pixels(train_vae.trained(), made, latents.load()["scaling"])
    grid(shown, options.columns).save(options.out)
