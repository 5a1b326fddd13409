"""Changing the rank of a LoRA, and making one from a matrix: the best approximation is the singular value one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakiln.adapters.files.modules import modules, scale_one
from lorakiln.adapters.lora import DOWN, MID, UP
from lorakiln.adapters.magnitude import SCALE
from lorakiln.base.chance import key
from lorakiln.base.errors import UserError

OVERSAMPLING, POWER_STEPS, EXACT_BELOW = 8, 6, 512  # Halko, Martinsson & Tropp 2011, sections 4.4 and 5.1


@dataclass(frozen=True, slots=True)
class Resized:
    """New tensors, and for each module its new rank and the share of its energy (sum of squares) that is kept."""

    tensors: dict[str, Tensor]
    ranks: dict[str, int]
    kept: dict[str, float]


@torch.no_grad()
def resize(tensors: Mapping[str, Tensor], rank: int = 0, energy: float = 0.0) -> Resized:
    """A LoRA file's tensors at another rank: at most `rank`, or in each module the least that keeps a share `energy`.

    With both, `rank` is the limit. A rank is never raised. DoRA's magnitudes stay as they are. Raises UserError for
    modules that are no LoRA, and without a rank or an energy in 0..1.
    """
    if rank < 0 or not 0 <= energy <= 1 or not (rank or energy):
        raise UserError(f"resize: rank = {rank}, energy = {energy}: give a rank from 1, or an energy above 0 up to 1")
    result = Resized({}, {}, {})
    for module in modules(tensors):
        if module.kind != "lora" or MID in module.tensors:
            raise UserError(f"{module.name}: a {module.kind} cannot be resized, a LoRA can")
        held = scale_one(module)
        left, values, right = _svd_of_product(held[UP].flatten(1), held[DOWN].flatten(1))
        new = smallest_rank(values, energy) if energy else len(values)
        new = min(new, rank or new, len(values))
        up, down = split(left, values, right, new)
        made = {UP: up.view(-1, new, *held[UP].shape[2:]), DOWN: down.view(new, *held[DOWN].shape[1:])}
        made["alpha"] = torch.tensor(float(new))
        if SCALE in held:
            made[SCALE] = held[SCALE]
        result.tensors.update({f"{module.name}.{suffix}": tensor for suffix, tensor in made.items()})
        total = values.square().sum()
        result.kept[module.name] = (values[:new].square().sum() / total).item() if total > 0 else 1.0
        result.ranks[module.name] = new
    return result


def smallest_rank(values: Tensor, energy: float) -> int:
    """How many of the descending singular values hold the share `energy` of the sum of squares; at least one."""
    squares = values.double().square()
    if not squares.sum() > 0:
        return 1
    share = squares.cumsum(0) / squares.sum()
    return min(int((share < energy - 1e-12).sum()) + 1, len(values))


def split(left: Tensor, values: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(up (out, rank), down (rank, in)) from singular vectors and values, the values' roots in each."""
    roots = values[:rank].sqrt()
    return left[:, :rank] * roots, roots[:, None] * right[:rank]


def low_rank(matrix: Tensor, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Leading `rank` singular triplets (left (out, R), values (R), right (R, in)) of a matrix.

    Exact where it is small, else by a random range finder with power iteration whose draws depend on `seed` alone.
    """
    rank = min(rank, *matrix.shape)
    if min(matrix.shape) <= max(EXACT_BELOW, 4 * rank):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :rank], values[:rank], right[:rank]
    rng = torch.Generator().manual_seed(key(seed, "range finder"))
    probe = torch.randn(matrix.shape[1], rank + OVERSAMPLING, generator=rng).to(matrix)
    basis = torch.linalg.qr(matrix @ probe).Q
    for _ in range(POWER_STEPS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.mT @ basis).Q).Q
    inner, values, right = torch.linalg.svd(basis.mT @ matrix, full_matrices=False)
    return (basis @ inner)[:, :rank], values[:rank], right[:rank]


def _svd_of_product(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of up @ down from two thin QR factorisations: only a rank-sized matrix is ever decomposed."""
    up_basis, up_rest = torch.linalg.qr(up)
    down_basis, down_rest = torch.linalg.qr(down.mT)
    inner, values, outer = torch.linalg.svd(up_rest @ down_rest.mT, full_matrices=False)
    return up_basis @ inner, values, outer @ down_basis.mT
