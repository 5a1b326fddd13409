"""A small set of LoRA-like tensors and gradients that every optimizer test shares."""

import importlib.util
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import optimizers

# A and B matrices of two sizes, a convolution, a bias; shapes interleaved so that stacking has to sort them
SHAPES = [(4, 12), (10, 4), (4, 12), (6,), (10, 4), (4, 3, 3, 3), (7, 1, 1, 1), (4, 12), (6,)]
STEPS = 50


def parameters(zero: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Fresh parameters, the same each time; those at the places `zero` start at 0, as a LoRA's B does."""
    rng = torch.Generator().manual_seed(11)
    values = [torch.randn(shape, generator=rng) * 0.3 for shape in SHAPES]
    return [nn.Parameter((torch.zeros_like(one) if i in zero else one).to(dtype)) for i, one in enumerate(values)]


def gradient(step: int, index: int) -> Tensor:
    """The gradient of one tensor at one step: a slope and noise, of a size that changes from tensor to tensor.

    The slope stays for a while, so that there is somewhere to go; an estimate of the distance (Prodigy's) then grows.
    """
    return _gradients()[step][index].clone()


@cache
def _gradients() -> list[list[Tensor]]:
    rng = torch.Generator().manual_seed(12)
    slopes = [torch.randn(shape, generator=rng) for shape in SHAPES]
    return [
        [
            (slope * math.cos(step / 8) + torch.randn(slope.shape, generator=rng))
            * 10.0 ** (i % 3 - 2)
            * (1 + step % 5)
            for i, slope in enumerate(slopes)
        ]
        for step in range(STEPS)
    ]


def run(tensors: list[nn.Parameter], step: Callable[[int], None], first: int = 0, last: int = STEPS) -> None:
    """Give each tensor its gradients (in place where it has one) and call `step(number)`, for each step."""
    for number in range(first, last):
        for index, tensor in enumerate(tensors):
            if tensor.grad is None:
                tensor.grad = gradient(number, index).to(tensor.dtype)
            else:
                tensor.grad.copy_(gradient(number, index))
        step(number)


def here() -> list[str]:
    """The optimizers that can be built in this installation."""
    return [name for name in optimizers if name != "adamw8bit" or importlib.util.find_spec("bitsandbytes")]


def flat(tensors: list[nn.Parameter]) -> FlatParameters:
    """Two groups, of five and four tensors."""
    return FlatParameters({"unet": tensors[:5], "te1": tensors[5:]})


def rates(number: int, base: float = 0.01) -> float:
    """A rate that changes each step."""
    return base * (1 + number % 7)
