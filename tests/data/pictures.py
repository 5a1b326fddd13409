"""Real little pictures, and an encoder that is cheap, deterministic and shows what it was given."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lorakiln.base.records import Size
from lorakiln.data.buckets import Buckets

SMALL = Buckets(Size(64, 64), step=16)


def picture(path: Path, width: int = 64, height: int = 64, seed: int = 0, caption: str | None = "a, b, c") -> Path:
    """A noisy picture of its own, with a caption file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


def captions(path: Path) -> str | None:
    beside = path.with_suffix(".txt")
    return beside.read_text() if beside.is_file() else None


class Encoder:
    """A stand-in for a VAE: means are 8x8 averages (4 channels), and it counts the pictures it saw."""

    def __init__(self):
        self.seen = 0
        self.batches = []

    def __call__(self, pixels_BCHW):
        self.seen += len(pixels_BCHW)
        self.batches.append(tuple(pixels_BCHW.shape))
        mean_BCHW = torch.nn.functional.avg_pool2d(pixels_BCHW, 8)
        mean_BCHW = torch.cat([mean_BCHW, mean_BCHW.mean(1, keepdim=True)], dim=1)
        return mean_BCHW, torch.full_like(mean_BCHW, -4.0)
