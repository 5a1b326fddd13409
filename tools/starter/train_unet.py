"""Trains the starter's UNet and text encoders together, from nothing, on the cached latents."""

import argparse
import random

import torch
from torch import Tensor

from . import known, latents, progress
from .captions import caption
from .model import TOKENS, Drawer, alphas_cumprod
from .muon import optimizers, restore, set_pace, trapezoid
from .places import BUILD, RESOLUTION, SEED

CHECKPOINT = BUILD / "unet.pt"
BATCH, STEPS = 64, 2400
EARLY_BATCH, EARLY_STEPS = 32, 400  # at first, more steps teach more than surer ones
LR, TABLE_LR, WARMUP = 1.5e-3, 4e-3, 60  # token tables: each row is seen rarely, so it may move further
EMA, SNR_CAP = 0.99, 5.0
WEIGHT_CAP, WEIGHT_MEAN = 8.0, 4.0


def weight(time_B: Tensor) -> Tensor:
    """Weight of a noise error: as if velocity were predicted, capped, and min-SNR (Hang et al. 2023) at the clean end.

    Noise alone is mostly guessed from the picture; what the words say shows at high noise, where its error is small.
    """
    kept_B = alphas_cumprod()[time_B]
    snr_B = kept_B / (1 - kept_B)
    return ((snr_B + 1) / snr_B).clamp(max=WEIGHT_CAP) * (snr_B.clamp(max=SNR_CAP) / snr_B) / WEIGHT_MEAN


class Pictures:
    """Draws a step's batch: latents, captions and time ids, the same for the same step."""

    def __init__(self) -> None:
        self.stored = latents.load()
        rows_of: dict[int, list[int]] = {}
        for row, concept in enumerate(self.stored["shown"].tolist()):
            rows_of.setdefault(concept, []).append(row)
        self.rows_of = rows_of
        self.weights = [known.weight(emoji) for emoji in self.stored["concepts"]]

    def batch(self, step: int, size: int) -> tuple[Tensor, list[str], Tensor]:
        """(latents, captions, time ids)."""
        rng = random.Random(f"{SEED} unet {step}")
        shown = rng.choices(range(len(self.weights)), self.weights, k=size)
        rows = [rng.choice(self.rows_of[concept]) for concept in shown]
        texts, ids = [], []
        for concept, row in zip(shown, rows, strict=True):
            words, crop = self.stored["facts"][row]
            texts.append(caption(self.stored["concepts"][concept], words, rng))
            ids.append([*crop, RESOLUTION, RESOLUTION])
        return self.stored["latents"][rows].float(), texts, torch.tensor(ids).float()


def batch_size(step: int) -> int:
    """Pictures in this step's batch."""
    return EARLY_BATCH if step < EARLY_STEPS else BATCH


def epsilon_loss(drawer: Drawer, batch: tuple[Tensor, list[str], Tensor], step: int) -> Tensor:
    """How badly the noise is guessed; plain MSE and the weighted mean that is trained."""
    latent_BCHW, texts, time_ids = batch
    rng = torch.Generator().manual_seed(SEED + step)
    noise = torch.randn(latent_BCHW.shape, generator=rng)
    time_B = torch.randint(0, 1000, (len(texts),), generator=rng)
    kept = alphas_cumprod()[time_B].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * latent_BCHW + (1 - kept).sqrt() * noise
    error_B = (drawer(noisy, time_B, texts, time_ids) - noise).square().mean((1, 2, 3))
    return torch.stack([error_B.mean(), (error_B * weight(time_B)).mean()])


@torch.no_grad()
def follow(average: Drawer, drawer: Drawer, step: int) -> None:
    """Move the averaged weights towards the trained ones."""
    decay = min(EMA, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(drawer.parameters()), 1 - decay)


def fresh() -> Drawer:
    """An untrained model whose token tables are large enough to tell words apart from the start.

    CLIP's own start (0.02) is made for its long training: here the UNet would hardly hear them.
    """
    torch.manual_seed(SEED)
    drawer = Drawer()
    for encoder in (drawer.text_1, drawer.text_2):
        tables = [m.weight for m in encoder.modules() if isinstance(m, torch.nn.Embedding)]
        for table in tables:
            torch.nn.init.normal_(table, std=0.2 if len(table) > TOKENS else 0.05)
    return drawer


def state_of(drawer: Drawer, average: Drawer, optimize: list, step: int, seconds: float) -> dict:
    """All that going on needs; the noise and the batches are functions of the step."""
    return {
        "drawer": drawer.state_dict(),
        "average": average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimize],
        "step": step,
        "seconds": seconds,
    }


def train(steps: int, decay: float, minutes_between_saves: float = 2.0) -> None:
    """Train, or go on from the last checkpoint."""
    progress.claim()
    drawer, average = fresh(), fresh()
    average.requires_grad_(False)
    optimize = optimizers([drawer], LR, TABLE_LR)
    step, anew, log = 0, 0, progress.Log("unet")
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT, weights_only=True)
        drawer.load_state_dict(state["drawer"])
        average.load_state_dict(state["average"])
        step, anew, log = state["step"], state["anew"], progress.Log("unet", state["seconds"])
        if state["optimizers"] is not None:
            restore(optimize, state["optimizers"])
    pictures, sums, saved_at = Pictures(), torch.zeros(2), log.spent
    while step < (steps := progress.asked_steps("unet", steps)):
        set_pace(optimize, min((step - anew + 1) / WARMUP, trapezoid(step, steps, WARMUP, decay)))
        losses = epsilon_loss(drawer, pictures.batch(step, batch_size(step)), step)
        losses[1].backward()
        for optimizer in optimize:
            optimizer.step()
            optimizer.zero_grad()
        follow(average, drawer, step)
        sums, step = sums + losses.detach(), step + 1
        if step % 20 == 0:
            plain, weighted = (sums / 20).tolist()
            log.write(step=step, mse=round(plain, 4), loss=round(weighted, 4))
            sums = torch.zeros(2)
        if step == steps or log.spent - saved_at > 60 * minutes_between_saves:
            saved_at = log.spent
            progress.save(state_of(drawer, average, optimize, step, log.spent) | {"anew": anew}, CHECKPOINT)


def trained() -> Drawer:
    """The averaged model as it is so far."""
    drawer = fresh()
    drawer.load_state_dict(torch.load(CHECKPOINT, weights_only=True)["average"])
    return drawer.eval().requires_grad_(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--decay", type=float, default=0.4, help="share of steps that slow down")
    options = parser.parse_args()
    train(options.steps, options.decay)
