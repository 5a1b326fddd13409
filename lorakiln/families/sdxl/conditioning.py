"""SDXL is told six numbers about each picture: how large it was, where it was cut, and to what size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lorakiln.base.records import Crop


def time_ids(crops: Sequence[Crop]) -> Tensor:
    """(B, 6) fp32: original height and width, top and left of the cut, target height and width; all in pixels.

    The order is that of diffusers and of SDXL's report (Podell et al. 2023, section 2.2). fp32, since bf16 would
    round 1030 to 1032.
    """
    rows = [
        (*_height_width(crop.original), crop.top, crop.left, *_height_width(crop.target))
        for crop in crops
    ]  # fmt: skip
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), 6)


def _height_width(size) -> tuple[int, int]:
    return size.height, size.width
