"""Fine-tunes the trained UNet to predict velocity under zero-terminal SNR, as NoobAI's v model does."""

import argparse
import functools

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from . import progress, train_unet
from .model import SCHEDULER, Drawer
from .muon import optimizers, restore, set_pace, trapezoid
from .places import BUILD, SEED

CHECKPOINT = BUILD / "twin.pt"
STEPS, LR = 800, 1e-3
SCHEDULER_V = {
    **SCHEDULER,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


@functools.cache
def alphas_cumprod_v() -> Tensor:
    """Signal left at each step, shifted so that none is at the last (Lin et al. 2023)."""
    return DDPMScheduler(**SCHEDULER_V).alphas_cumprod


def v_loss(drawer: Drawer, batch: tuple[Tensor, list[str], Tensor], step: int) -> Tensor:
    """Velocity error, with min-SNR's weight for velocity."""
    latent_BCHW, texts, time_ids = batch
    rng = torch.Generator().manual_seed(SEED + step)
    noise = torch.randn(latent_BCHW.shape, generator=rng)
    time_B = torch.randint(0, 1000, (len(texts),), generator=rng)
    kept = alphas_cumprod_v()[time_B].view(-1, 1, 1, 1)
    signal, noisiness = kept.sqrt(), (1 - kept).sqrt()
    velocity = signal * noise - noisiness * latent_BCHW
    guess = drawer(signal * latent_BCHW + noisiness * noise, time_B, texts, time_ids)
    error_B = (guess - velocity).square().mean((1, 2, 3))
    snr_B = (kept / (1 - kept)).flatten()
    weight_B = snr_B.clamp(max=train_unet.SNR_CAP) / (snr_B + 1)
    return torch.stack([error_B.mean(), (error_B * (weight_B + 0.1)).mean()])


def train(steps: int) -> None:
    """Train the UNet alone: text encoders stay those of the base, whose file the twin shares."""
    progress.claim()
    drawer = train_unet.trained().train()
    drawer.unet.requires_grad_(True)
    average = train_unet.trained()
    optimize = optimizers([drawer.unet], LR, LR)
    step, log = 0, progress.Log("twin")
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT, weights_only=True)
        drawer.load_state_dict(state["drawer"])
        average.load_state_dict(state["average"])
        restore(optimize, state["optimizers"])
        step, log = state["step"], progress.Log("twin", state["seconds"])
    pictures, sums, saved_at = train_unet.Pictures(), torch.zeros(2), log.spent
    while step < (steps := progress.asked_steps("twin", steps)):
        set_pace(optimize, trapezoid(step, steps, 20, 0.6))
        losses = v_loss(drawer, pictures.batch(10**6 + step, train_unet.BATCH), step)
        losses[1].backward()
        for optimizer in optimize:
            optimizer.step()
            optimizer.zero_grad()
        train_unet.follow(average, drawer, step)
        sums, step = sums + losses.detach(), step + 1
        if step % 20 == 0:
            plain, weighted = (sums / 20).tolist()
            log.write(step=step, mse=round(plain, 4), loss=round(weighted, 4))
            sums = torch.zeros(2)
        if step == steps or log.spent - saved_at > 120:
            saved_at = log.spent
            state = train_unet.state_of(drawer, average, optimize, step, log.spent)
            progress.save(state, CHECKPOINT)


def trained() -> Drawer:
    """The twin as it is so far."""
    drawer = train_unet.fresh()
    drawer.load_state_dict(torch.load(CHECKPOINT, weights_only=True)["average"])
    return drawer.eval().requires_grad_(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=STEPS)
    train(parser.parse_args().steps)
