"""A small network that names the group of an emoji picture, to judge drawings without an eye."""

import itertools
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import catalogue, known, latents, masters
from .compose import CLEAN, SPOILED, compose
from .places import BUILD, SEED

CHECKPOINT = BUILD / "classifier.pt"
GROUPS = sorted(set(catalogue.GROUPS.values()))
SIDE = 64  # pixels it looks at; drawings are shrunk to it
POOL, STEPS, BATCH = 14_000, 2500, 64


def network() -> nn.Sequential:
    """Four strided convolutions and a mean."""
    layers, widths = [], (3, 32, 64, 128, 192)
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(192 * 16, len(GROUPS)))


def seen(pictures: np.ndarray) -> Tensor:
    """B x H x W x 3 bytes as the network sees them."""
    pixels_BCHW = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    return F.interpolate(pixels_BCHW / 127.5 - 1, (SIDE, SIDE), mode="area")


def renders(concepts: list[catalogue.Emoji], rng: random.Random, size: int) -> tuple[Tensor, Tensor]:
    """New pictures of these concepts, shown as often as the starter was shown them, and their groups."""
    rows, index = masters.load("openmoji")
    weights = [known.weight(emoji) for emoji in concepts]
    chosen = rng.choices(concepts, weights, k=size)
    pictures = []
    for emoji in chosen:
        score = CLEAN if rng.random() < 0.7 else rng.choice(SPOILED)
        pictures.append(compose(rows[index[emoji.code]], rng, score).pixels)
    labels = torch.tensor([GROUPS.index(emoji.group) for emoji in chosen])
    return seen(np.stack(pictures)), labels


def shifted(pixels_BCHW: Tensor, rng: random.Random) -> Tensor:
    """The same pictures a few pixels aside."""
    shift = (rng.randint(-4, 4), rng.randint(-4, 4))
    return torch.roll(pixels_BCHW, shift, (2, 3))


def train() -> float:
    """Train on renders of the starter's concepts; accuracy on new pictures of the same concepts."""
    torch.manual_seed(SEED)
    net, concepts, rng = network(), latents.concepts(), random.Random(f"{SEED} groups")
    pool, labels = renders(concepts, rng, POOL)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.tensor(rng.sample(range(POOL), BATCH))
        loss = F.cross_entropy(net(shifted(pool[rows], rng)), labels[rows])
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    net.eval()
    with torch.no_grad():
        pixels, labels = renders(concepts, random.Random(f"{SEED} group test"), 400)
        accuracy = (net(pixels).argmax(1) == labels).float().mean().item()
    torch.save({"net": net.state_dict(), "accuracy": accuracy}, CHECKPOINT)
    return accuracy


def load() -> tuple[nn.Module, float]:
    """The trained network and its accuracy on real renders."""
    if not CHECKPOINT.exists():
        train()
    state = torch.load(CHECKPOINT, weights_only=True)
    net = network()
    net.load_state_dict(state["net"])
    return net.eval(), state["accuracy"]


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(f"groups named on new renders: {train():.3f}")
