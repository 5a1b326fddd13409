"""Tiny real ONNX taggers, made by the tests: what they answer can be worked out by hand."""

import csv
from collections.abc import Sequence
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


RELEASED = [
    ("general", 9), ("sensitive", 9), ("questionable", 9), ("explicit", 9), ("1girl", 0), ("long_hair", 0), ("hat", 0),
    ("^_^", 0), ("0_0", 0), ("red_theme", 0), ("hatsune_miku", 4), ("saber_(fate)", 4),
]  # fmt: skip


class Released(nn.Module):
    """Fixed chances for RELEASED but for the red theme: how much of the square is red."""

    SIDE = 448

    def __init__(self):
        super().__init__()
        self.fixed = nn.Parameter(torch.tensor([[0.8, 0.15, 0.03, 0.01, 0.9, 0.7, 0.1, 0.5, 0.2, 0.9, 0.6]]), False)

    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        red_B1 = 1 - pixels_BHWC[..., 1].mean(dim=(1, 2)).unsqueeze(1) / 255
        fixed = self.fixed + 0 * red_B1
        return torch.cat([fixed[:, :9], red_B1, fixed[:, 9:]], dim=1)


class Broken(nn.Module):
    def forward(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        return torch.log(pixels_BHWC.mean(dim=(1, 2)).repeat(1, 2) - 300)


def write(
    folder: Path, module: nn.Module, side: int = 16, batch: int = 0, rows: Sequence[tuple[str, int]] = ROWS
) -> Path:
    """A tagger folder; `batch` 0 leaves the batch free."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx_file.write(module, torch.zeros(batch or 1, side, side, 3), folder / "model.onnx", any_batch=not batch)
    with (folder / "selected_tags.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([at, name, category, 1] for at, (name, category) in enumerate(rows))
    return folder
