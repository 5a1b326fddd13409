"""Measures what the starter has learned, through Kiln's own loader and sampler: `python -m benchmarks.starter`.

Needs the emoji that `make starter` fetches and renders (build/starter), and takes about ten minutes on two CPU cores.
"""

import argparse
import json
import os
import random
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: OpenMP must not spin

import numpy as np
import torch
from torch import Tensor

from lorakiln import families
from lorakiln.adapters.inject import inject
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.base.records import Crop, Size
from lorakiln.sample.generate import Request, draw
from tools.starter import classifier, fetch, known, latents, masters
from tools.starter.captions import full_caption
from tools.starter.catalogue import Emoji
from tools.starter.compose import Picture, compose
from tools.starter.places import RESOLUTION

TARGETS = {
    "vae_psnr": ("VAE on held-out OpenMoji, dB", ">= 25"),
    "vae_psnr_twemoji": ("VAE on Twemoji, dB", ">= 23"),
    "caption_top1": ("right caption of 10 by loss, training concepts", ">= 0.75"),
    "caption_top1_core": ("the same, the concepts shown most", ""),
    "caption_top1_heldout": ("the same, held-out concepts", "report"),
    "guided_accuracy": ("group of drawings named, scale 4", ">= 0.8"),
    "unguided_accuracy": ("the same, scale 1", "clearly below"),
    "real_accuracy": ("the classifier on real renders", ""),
    "score_gap": ("sharpness of score_9 over score_4", ">= 1.5"),
    "picture_s": ("a picture, 25 steps, eight at a time, seconds", "<= 0.8"),
    "step_s": ("a training step, batch 4, rank 16, seconds", "<= 0.30"),
}
SIZE = Size(RESOLUTION, RESOLUTION)
TIMESTEPS = (150, 300, 400, 500, 600, 700, 800, 900)


def pixels(pictures: list[Picture]) -> Tensor:
    """Pictures as a batch in -1..1."""
    stacked = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def rendered(name: str, concepts: list[Emoji], count: int, seed: str) -> tuple[list[Emoji], list[Picture]]:
    """New clean pictures of concepts drawn by chance, from the masters of one emoji family."""
    rows, index = masters.load(name)
    rng = random.Random(seed)
    there = [emoji for emoji in concepts if emoji.code in index]
    chosen = rng.choices(there, k=count)
    return chosen, [compose(rows[index[emoji.code]], rng) for emoji in chosen]


@torch.no_grad()
def vae_psnr(family, pictures: list[Picture]) -> float:
    """Mean over pictures of the PSNR of decode(posterior mean), dB."""
    found = []
    for start in range(0, len(pictures), 16):
        picture_BCHW = pixels(pictures[start : start + 16])
        latent_BCHW = family.encode_pixels(picture_BCHW).mean_BCHW
        drawn_BCHW = family.decode(latent_BCHW, scaled=False).clamp(-1, 1)
        error_B = ((drawn_BCHW - picture_BCHW) / 2).square().mean((1, 2, 3))
        found.append(-10 * error_B.log10())
    return torch.cat(found).mean().item()


@torch.no_grad()
def caption_top1(family, shown: list[Emoji], pictures: list[Picture], choices: list[Emoji]) -> float:
    """How often the true name has the lowest denoising loss among ten names, all else in the caption equal."""
    rng, right = random.Random("captions"), 0
    alphas_T = family.schedule.alphas_cumprod_T.float()
    timestep_B = torch.tensor(TIMESTEPS)
    kept_B = alphas_T[timestep_B].view(-1, 1, 1, 1)
    crops = [Crop(SIZE, SIZE, 0, 0, SIZE)] * (10 * len(TIMESTEPS))
    others = {emoji.name: emoji for emoji in choices}
    for number, (emoji, picture) in enumerate(zip(shown, pictures, strict=True)):
        wrong = rng.sample([name for name in others if name != emoji.name], 9)
        facts = (picture.background, picture.size, picture.score)
        texts = [full_caption(one, facts) for one in (emoji, *(others[name] for name in wrong))]
        latent = family.scale(family.encode_pixels(pixels([picture])).mean_BCHW)
        noise = torch.randn((len(TIMESTEPS), *latent.shape[1:]), generator=torch.Generator().manual_seed(number))
        noised = kept_B.sqrt() * latent + (1 - kept_B).sqrt() * noise
        text = family.encode_text(family.tokenize([line for line in texts for _ in TIMESTEPS]))
        guess = family.predict(noised.repeat(10, 1, 1, 1), timestep_B.repeat(10), text, family.conditioning(crops))
        if family.schedule.prediction == "v":
            guess = kept_B.sqrt().repeat(10, 1, 1, 1) * guess + ((1 - kept_B).sqrt() * noised).repeat(10, 1, 1, 1)
        error = (guess - noise.repeat(10, 1, 1, 1)).square().mean((1, 2, 3))
        snr_B = (kept_B / (1 - kept_B)).flatten()
        losses = (error.view(10, -1) * snr_B.sqrt()).sum(1)  # so that no timestep drowns the others
        right += int(losses.argmin() == 0)
    return right / len(shown)


def drawings(family, captions: list[str], scale: float) -> np.ndarray:
    """Pictures of the captions, B x H x W x 3 bytes; the seeds are 0, 1, 2, ..."""
    requests = [
        Request(caption, width=RESOLUTION, height=RESOLUTION, steps=25, cfg=scale, seed=seed)
        for seed, caption in enumerate(captions)
    ]
    return np.stack([np.asarray(picture) for picture in draw(family, requests, batch=8)])


@torch.no_grad()
def group_accuracy(net, pictures: np.ndarray, concepts: list[Emoji]) -> float:
    """How often the classifier names the group that was asked for."""
    labels = torch.tensor([classifier.GROUPS.index(emoji.group) for emoji in concepts])
    return (net(classifier.seen(pictures)).argmax(1) == labels).float().mean().item()


def picture_seconds(family, captions: list[str]) -> float:
    """Seconds a picture, eight drawn at a time with guidance: the median of six rounds."""
    taken = []
    for _ in range(6):
        began = time.perf_counter()
        drawings(family, captions[:8], 4.0)
        taken.append((time.perf_counter() - began) / 8)
    return float(np.median(taken))


def sharpness(pictures: np.ndarray) -> float:
    """Mean absolute Laplacian of the grey pictures."""
    grey = pictures.astype(np.float32).mean(-1)
    middle = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return float(np.abs(around - 4 * middle).mean())


def step_seconds(family) -> float:
    """The median second of a training step at batch 4, rank 16, text states ready."""
    names = {"unet": family.module_names("unet")}
    network = inject({"unet": family.parts["unet"]}, names, AdapterSpec(rank=16), seed=0)
    weights = [weight for part in network.parameters_by_part().values() for weight in part]
    optimizer = torch.optim.AdamW(weights, 1e-3)
    noised, timestep_B = torch.randn(4, 4, 16, 16), torch.tensor([100, 300, 500, 700])
    with torch.no_grad():
        text = family.encode_text(family.tokenize(["score_9, fox, white background"] * 4))
    time_ids = family.conditioning([Crop(SIZE, SIZE, 0, 0, SIZE)] * 4)
    taken = []
    for _ in range(15):
        began = time.perf_counter()
        family.predict(noised, timestep_B, text, time_ids).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - began)
    network.remove()
    return float(np.median(taken[3:]))


def measure(base: str, quick: bool) -> dict[str, float]:
    """Every figure; `quick` takes a quarter of the pictures."""
    share = 4 if quick else 1
    family, found = families.load(base), {}
    training, heldout = latents.concepts(), latents.concepts(heldout=True)
    core = [emoji for emoji in training if emoji.name in known.CORE]
    found["vae_psnr"] = vae_psnr(family, rendered("openmoji", heldout, 128 // share, "psnr")[1])
    found["vae_psnr_twemoji"] = vae_psnr(family, rendered("twemoji", training, 128 // share, "twemoji")[1])
    sides = {"": (training, 200), "_core": (core, 100), "_heldout": (heldout, 100)}
    for name, (concepts, count) in sides.items():
        shown = rendered("openmoji", concepts, count // share, f"top1{name}")
        found[f"caption_top1{name}"] = caption_top1(family, *shown, concepts)
    net, found["real_accuracy"] = classifier.load()
    weights = [known.weight(emoji) for emoji in training]  # asked for as often as they were shown
    asked = random.Random("guidance").choices(training, weights, k=96 // share)
    captions = [full_caption(emoji, ("white", "large", "score_9")) for emoji in asked]
    guided = drawings(family, captions, 4.0)
    found["picture_s"] = picture_seconds(family, captions)
    found["guided_accuracy"] = group_accuracy(net, guided, asked)
    found["unguided_accuracy"] = group_accuracy(net, drawings(family, captions, 1.0), asked)
    low = [caption.replace("score_9", "score_4") for caption in captions[:48]]
    found["score_gap"] = sharpness(guided[: len(low)]) / sharpness(drawings(family, low, 4.0))
    found["step_s"] = step_seconds(family)
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="starter", help="starter, starter-v or a file")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a quarter of the pictures")
    options = parser.parse_args()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    fetch.fetch()
    masters.make()
    figures = measure(options.base, options.quick)
    for key, (what, target) in TARGETS.items():
        print(f"{what:<52}{figures[key]:>8.3f}   {target}")
    if options.json:
        print(json.dumps(figures))
