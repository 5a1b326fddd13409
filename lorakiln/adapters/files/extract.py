"""A LoRA out of two checkpoints: the best low-rank approximation of what fine-tuning changed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorakiln.adapters.files.merge import targets
from lorakiln.adapters.files.read import refuse_pickle
from lorakiln.adapters.files.resize import low_rank, smallest_rank, split
from lorakiln.adapters.lora import DOWN, UP
from lorakiln.base.errors import UserError


@dataclass(frozen=True, slots=True)
class Extracted:
    """kohya's names -> tensors, and the share of the difference's energy (sum of squares) that they hold."""

    tensors: dict[str, Tensor]
    kept: dict[str, float]


@torch.no_grad()
def extract(
    original: Path, tuned: Path, names: Iterable[str], rank: int, conv_rank: int = 0, energy: float = 1.0
) -> Extracted:
    """A LoRA that makes SDXL single file `tuned` out of `original`, on the layers `names` (kohya's).

    `rank` for linear layers and 1x1 convolutions, `conv_rank` for the others (0: leave them out); with `energy` below
    1 the least rank up to those that keeps this share. A layer that did not change gets none. Raises UserError where
    the files differ in shape or one lacks a layer.
    """
    wanted, found = set(names), Extracted({}, {})
    for path in (original, tuned):
        refuse_pickle(path)
    try:
        with safe_open(original, "pt") as before, safe_open(tuned, "pt") as after:
            keys = set(after.keys())
            for key in sorted(before.keys()):
                for name, rows in targets(key):
                    if name not in wanted:
                        continue
                    wanted.discard(name)
                    if key not in keys:
                        raise UserError(f"{tuned}: has no {key}; are both SDXL single files?")
                    difference = _difference(key, before.get_tensor(key), after.get_tensor(key), rows)
                    _add(found, name, difference, rank, conv_rank, energy)
    except SafetensorError as error:
        raise UserError(f"{original} or {tuned}: not a whole safetensors file ({error})") from error
    if wanted:
        raise UserError(f"{original}: has no layer {min(wanted)}; is it an SDXL single file?")
    return found


def _difference(key: str, before: Tensor, after: Tensor, rows: slice) -> Tensor:
    if before.shape != after.shape:
        raise UserError(f"{key}: shape {tuple(before.shape)} in one file, {tuple(after.shape)} in the other")
    difference = after.float() - before.float()
    if rows == slice(None):
        return difference
    return difference.chunk(3)[rows.start]


def _add(found: Extracted, name: str, difference: Tensor, rank: int, conv_rank: int, energy: float) -> None:
    spatial = math.prod(difference.shape[2:]) > 1
    most = conv_rank if spatial else rank
    total = difference.square().sum()
    if not most or total == 0:
        return
    left, values, right = low_rank(difference.flatten(1), most)
    squares = values.square()
    share = (squares.sum() / total).item()
    new = smallest_rank(values, min(energy / share, 1.0)) if energy < 1 else len(values)
    up, down = split(left, values, right, new)
    ones = [1] * (difference.dim() - 2)
    found.tensors[f"{name}.{DOWN}"] = down.reshape(new, *difference.shape[1:])
    found.tensors[f"{name}.{UP}"] = up.reshape(-1, new, *ones)
    found.tensors[f"{name}.alpha"] = torch.tensor(float(new))
    found.kept[name] = (squares[:new].sum() / total).item()
