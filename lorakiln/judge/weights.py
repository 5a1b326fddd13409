"""What training did to the weights: how large the changes are against the base's, how many directions they use."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DEAD = 1e-4  # of the typical module's change: nothing was learned there
SATURATED = 1.0  # spectral norm of the change as a share of the base's: it drowns what the base does there


@dataclass(frozen=True, slots=True)
class Changed:
    """One module: `share` is the Frobenius norm of its change over the base weight's, `spectral` the same of the
    largest singular values, `directions` the effective rank of the change (0 of no change)."""

    name: str
    block: str
    share: float
    spectral: float
    directions: float
    rank: int


@dataclass(frozen=True, slots=True)
class Weights:
    """A LoRA's weights as a whole. `blocks` maps each block to the root mean square share of its modules."""

    blocks: dict[str, float]
    directions: float  # mean effective rank as a share of the rank
    dead: tuple[str, ...]
    saturated: tuple[str, ...]
    broken: tuple[str, ...]  # modules with NaN or infinity

    @property
    def share(self) -> float:
        """Root mean square over the blocks; 0 of nothing."""
        return math.sqrt(sum(share**2 for share in self.blocks.values()) / max(1, len(self.blocks)))


def effective_rank(matrix: Tensor, most: int) -> tuple[float, float]:
    """(exp of the entropy of the singular values as shares of their sum, the largest); (Roy & Vetterli 2007).

    `most` is the rank that the matrix can have; 0 and 0 of a matrix of zeros.
    """
    values = _singular_values(matrix.float(), most)
    total = float(values.sum())
    if total == 0:
        return 0.0, 0.0
    shares = values / total
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
    return float(entropy.exp()), float(values.max())


def _singular_values(matrix: Tensor, most: int) -> Tensor:
    """The largest `most`, exact for a matrix of no higher rank: inside its range (Halko et al. 2011), in fp64."""
    matrix, width = matrix.double(), most + 8
    if min(matrix.shape) > 2 * width:
        rng = torch.Generator("cpu").manual_seed(0)
        probes = torch.randn(matrix.shape[1], width, generator=rng, dtype=torch.float64).to(matrix.device)
        matrix = torch.linalg.qr(matrix @ probes).Q.mT @ matrix
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    return torch.linalg.eigvalsh(small @ small.mT).clamp(min=0).sqrt().flip(0)[:most]


def spectral_norm(matrix: Tensor, rounds: int = 12) -> float:
    """The largest singular value, by power iteration from the row of the largest norm: a lower bound, close to it."""
    matrix = matrix.float()
    vector = matrix[matrix.norm(dim=1).argmax()]
    for _ in range(rounds):
        vector = matrix.mT @ (matrix @ vector)
        vector = vector / vector.norm().clamp(min=1e-30)
    return float((matrix @ vector).norm())


def changed(name: str, block: str, change: Tensor, base: Tensor, rank: int) -> Changed:
    """Measure one module's change (out, in) against the base's weight of that shape."""
    if not change.isfinite().all():
        return Changed(name, block, math.nan, math.nan, 0.0, rank)
    directions, largest = effective_rank(change, rank)
    whole, strongest = float(base.float().norm()), spectral_norm(base)
    return Changed(
        name, block, float(change.norm()) / max(whole, 1e-12), largest / max(strongest, 1e-12), directions, rank
    )


def weigh(modules: Sequence[Changed]) -> Weights:
    """All modules together: norms by block, effective rank, dead, saturated and broken modules."""
    good = [one for one in modules if math.isfinite(one.share)]
    blocks: dict[str, list[float]] = {}
    for one in good:
        blocks.setdefault(one.block, []).append(one.share)
    typical = sorted(one.share for one in good)[len(good) // 2] if good else 0.0
    alive = [one for one in good if one.share > DEAD * typical and one.share > 0]
    return Weights(
        {block: math.sqrt(sum(s**2 for s in shares) / len(shares)) for block, shares in sorted(blocks.items())},
        sum(one.directions / max(1, one.rank) for one in alive) / max(1, len(alive)),
        tuple(one.name for one in good if one not in alive),
        tuple(one.name for one in good if one.spectral > SATURATED),
        tuple(one.name for one in modules if not math.isfinite(one.share)),
    )
