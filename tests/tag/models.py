"""Tiny real ONNX taggers, made by the tests: what they answer can be worked out by hand."""

import csv
from pathlib import Path

import torch
from torch import nn

from tools.starter import onnx_file

ROWS = [("general", 9), ("explicit", 9), ("blue_sky", 0), ("red_hat", 0), ("^_^", 0), ("miku_(vocaloid)", 4)]


class Colours(nn.Module):
    """Chances read off the mean colour: sky is blue, hat is red, the face is green, the character is bright."""

    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        blue, green, red = (pixels_BHWC.mean(dim=(1, 2)) / 255).unbind(1)
        bright = (blue + green + red) / 3
        return torch.stack([1 - bright, bright, blue, red, green, bright], dim=1)


class Broken(nn.Module):
    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        return torch.log(pixels_BHWC.mean(dim=(1, 2)).repeat(1, 2) - 300)


def write(folder: Path, module: nn.Module, side: int = 16, batch: int = 0) -> Path:
    """A tagger folder; `batch` 0 leaves the batch free."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx_file.write(module, torch.zeros(batch or 1, side, side, 3), folder / "model.onnx", any_batch=not batch)
    with (folder / "selected_tags.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([at, name, category, 1] for at, (name, category) in enumerate(ROWS))
    return folder
