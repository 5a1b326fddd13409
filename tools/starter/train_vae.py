"""Trains the starter's VAE: 128 px pictures to 16 x 16 latents of 4 channels, and back."""

import argparse
import random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from . import catalogue, masters, progress
from .compose import CLEAN, SPOILED, compose
from .muon import optimizers, restore, set_pace, trapezoid
from .places import BUILD, RESOLUTION, SEED

CHECKPOINT = BUILD / "vae.pt"
POLISHED = BUILD / "vae-polished.pt"
CONFIG = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [16, 32, 64, 96],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": RESOLUTION,
}
BATCH, STEPS, LR = 8, 3000, 2e-3


def sources(heldout: bool) -> list[tuple[np.ndarray, list[int], float]]:
    """(masters, rows, share of a batch) of each emoji family; never Twemoji."""
    rows, index = masters.load("openmoji")
    everything = [e for e in catalogue.everything() if e.code in index]
    side = [e for e in everything if catalogue.held_out(e.concept) == heldout]
    plain = [index[e.code] for e in side if e.plain and e.group]
    other = [index[e.code] for e in side if not (e.plain and e.group)]
    if heldout:
        return [(rows, plain, 1.0)]
    parts = [(rows, plain, 0.7), (rows, other, 0.15)]
    if (BUILD / "masters" / "noto.json").exists():
        noto, codes = masters.load("noto")
        kept = [row for c, row in codes.items() if not catalogue.held_out(catalogue.concept_of(c))]
        parts.append((noto, kept, 0.15))
    return parts


def batch(parts: list[tuple[np.ndarray, list[int], float]], step: int, size: int) -> Tensor:
    """Pictures of this step, in [-1, 1]: the same for the same step."""
    rng = random.Random(f"{SEED} vae {step}")
    pictures = []
    for _ in range(size):
        rows, indices, _ = rng.choices(parts, [part[2] for part in parts])[0]
        score = CLEAN if rng.random() < 0.9 else rng.choice(SPOILED)
        pictures.append(compose(rows[rng.choice(indices)], rng, score).pixels)
    pixels_BHWC = torch.from_numpy(np.stack(pictures))
    return pixels_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(picture_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbouring pixels, down and across."""
    down = picture_BCHW[:, :, 1:] - picture_BCHW[:, :, :-1]
    across = picture_BCHW[:, :, :, 1:] - picture_BCHW[:, :, :, :-1]
    return down, across


def loss_of(vae: AutoencoderKL, picture_BCHW: Tensor, noise: torch.Generator) -> Tensor:
    """L1 and MSE of pixels, L1 of edges (it keeps thin outlines), and a little KL."""
    with torch.autocast("cpu", torch.bfloat16):  # 1.6-2x faster than fp32 on CPUs that have it
        posterior = vae.encode(picture_BCHW).latent_dist
        drawn = vae.decode(posterior.sample(noise)).sample
    drawn, mean, logvar = drawn.float(), posterior.mean.float(), posterior.logvar.float()
    edge = sum(F.l1_loss(ours, theirs) for ours, theirs in zip(edges(drawn), edges(picture_BCHW), strict=True))
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    pixels = F.l1_loss(drawn, picture_BCHW) + 4 * F.mse_loss(drawn, picture_BCHW)
    return pixels + edge + 1e-3 * kl


@torch.no_grad()
def psnr(vae: AutoencoderKL, picture_BCHW: Tensor) -> float:
    """Mean over pictures of the PSNR of decode(posterior mean), in fp32, in dB."""
    mean = vae.encode(picture_BCHW).latent_dist.mean
    drawn = vae.decode(mean).sample.clamp(-1, 1)
    error_B = ((drawn - picture_BCHW) / 2).square().mean((1, 2, 3))
    return (-10 * error_B.log10()).mean().item()


def train(steps: int, minutes_between_saves: float = 2.0) -> None:
    """Train, or go on from the last checkpoint."""
    torch.manual_seed(SEED)
    progress.claim()
    vae = AutoencoderKL(**CONFIG)
    optimize = optimizers([vae], LR, LR)
    step, log = 0, progress.Log("vae")
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT, weights_only=True)
        vae.load_state_dict(state["vae"])
        restore(optimize, state["optimizers"])
        step, log = state["step"], progress.Log("vae", state["seconds"])
    train_parts, heldout_parts = sources(False), sources(True)
    heldout = batch(heldout_parts, -1, 64)
    saved_at = log.spent
    while step < steps:
        set_pace(optimize, trapezoid(step, steps, 50, 0.5))
        noise = torch.Generator().manual_seed(SEED + step)
        loss = loss_of(vae, batch(train_parts, step, BATCH), noise)
        loss.backward()
        for optimizer in optimize:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            log.write(step=step, loss=round(loss.item(), 4))
        if step == steps or log.spent - saved_at > 60 * minutes_between_saves:
            saved_at = log.spent
            log.write(step=step, heldout_psnr=round(psnr(vae, heldout), 2))
            progress.save(
                {
                    "vae": vae.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimize],
                    "step": step,
                    "seconds": log.spent,
                },
                CHECKPOINT,
            )


def polish(steps: int) -> None:
    """Train the decoder alone for a little longer: latents, and so the UNet, stay what they are."""
    progress.claim()
    vae, log = trained(), progress.Log("polish")
    parts = [vae.decoder, vae.post_quant_conv]
    for part in parts:
        part.train().requires_grad_(True)
    optimize = optimizers(parts, LR / 2, LR / 2)
    train_parts, heldout = sources(False), batch(sources(True), -1, 64)
    for step in range(steps):
        set_pace(optimize, trapezoid(step, steps, 10, 0.8))
        noise = torch.Generator().manual_seed(step)
        loss = loss_of(vae, batch(train_parts, 10**6 + step, BATCH), noise)
        loss.backward()
        for optimizer in optimize:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 49:
            log.write(step=step + 1, loss=round(loss.item(), 4))
    log.write(step=steps, heldout_psnr=round(psnr(vae, heldout), 2))
    progress.save({"vae": vae.state_dict()}, POLISHED)


def trained() -> AutoencoderKL:
    """The VAE as it is so far."""
    vae = AutoencoderKL(**CONFIG)
    newest = POLISHED if POLISHED.exists() else CHECKPOINT
    vae.load_state_dict(torch.load(newest, weights_only=True)["vae"])
    return vae.eval().requires_grad_(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--polish", action="store_true", help="the decoder alone, from the trained VAE")
    options = parser.parse_args()
    if options.polish:
        polish(options.steps)
    else:
        train(options.steps)
