"""Composes several pictures of every concept and keeps their latents, for the UNet to train on."""

import json
import random

import numpy as np
import torch
from diffusers import AutoencoderKL

from . import catalogue, known, masters, progress
from .compose import SPOILED, Picture, compose, compose_crop
from .places import BUILD, SEED
from .train_vae import trained

LATENTS = BUILD / "latents.pt"
RENDERS = {1: 2, 4: 5, 20: 14}  # pictures of a concept, by its weight
CROPPED_SHARE, SPOILED_SHARE = 0.08, 0.28


def concepts(heldout: bool = False) -> list[catalogue.Emoji]:
    """The concepts of one side of the split."""
    return [e for e in catalogue.concepts() if catalogue.held_out(e.concept) == heldout]


def picture(master: np.ndarray, rng: random.Random) -> Picture:
    """A training picture: mostly whole and clean, some cropped, some spoiled."""
    kind = rng.random()
    if kind < CROPPED_SHARE:
        return compose_crop(master, rng)
    if kind < CROPPED_SHARE + SPOILED_SHARE:
        return compose(master, rng, rng.choice(SPOILED))
    return compose(master, rng)


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: list[Picture]) -> torch.Tensor:
    """Posterior means, unscaled."""
    pixels_BHWC = torch.from_numpy(np.stack([p.pixels for p in pictures]))
    pixels_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.autocast("cpu", torch.bfloat16):
        return vae.encode(pixels_BCHW).latent_dist.mean.float()


def make() -> None:
    """Write every latent with the concept it shows and the facts of its picture."""
    vae, log = trained(), progress.Log("latents")
    rows, index = masters.load("openmoji")
    latents, shown, facts, waiting = [], [], [], []
    chosen = concepts()
    for number, emoji in enumerate(chosen):
        rng = random.Random(f"{SEED} {emoji.code}")
        for _ in range(RENDERS[known.weight(emoji)]):
            made = picture(rows[index[emoji.code]], rng)
            waiting.append(made)
            shown.append(number)
            facts.append(((made.background, made.size, made.score), made.crop))
        if len(waiting) >= 32 or number == len(chosen) - 1:
            latents.append(encode(vae, waiting))
            waiting = []
    latent_NCHW = torch.cat(latents)
    scaling = round(1 / latent_NCHW.std().item(), 4)
    torch.save(
        {
            "latents": (latent_NCHW * scaling).half(),
            "scaling": scaling,
            "shown": torch.tensor(shown),
            "facts": json.dumps(facts),
            "codes": [emoji.code for emoji in chosen],
        },
        LATENTS,
    )
    mean = latent_NCHW.mean((0, 2, 3)).tolist()
    log.write(pictures=len(shown), concepts=len(chosen), scaling=scaling, mean=mean)


def load() -> dict:
    """The latents, with facts as lists and each concept's Emoji."""
    stored = torch.load(LATENTS, weights_only=True)
    by_code = {emoji.code: emoji for emoji in catalogue.everything()}
    stored["facts"] = json.loads(stored["facts"])
    stored["concepts"] = [by_code[code] for code in stored["codes"]]
    return stored


if __name__ == "__main__":
    make()
