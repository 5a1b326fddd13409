"""Weights that are bf16 numbers after every step, though the optimizer reckons in fp32."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lorakiln.base import chance
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.optimizers import Optimizer


class Rounded:
    """`inner`, and after each of its steps the weights rounded to bf16, up or down by chance.

    The chance of each neighbour is such that the mean is the fp32 value, so steps too small for bf16 add up all the
    same. It is a function of the seed and of how many steps were taken. The state's tensors stay in full precision.
    """

    def __init__(self, inner: Optimizer, flat: FlatParameters, seed: int):
        self._inner, self._flat, self._seed = inner, flat, seed
        self._steps = 0

    def set_lr(self, rates: Mapping[str, float]) -> None:
        self._inner.set_lr(rates)

    def step(self) -> None:
        self._inner.step()
        self._steps += 1
        rng = torch.Generator(self._flat.values.device).manual_seed(chance.key(self._seed, "rounding", self._steps))
        self._flat.round_to_bf16(rng)

    def logged_lr(self) -> dict[str, float | Tensor]:
        return self._inner.logged_lr()

    def state_tensors(self) -> dict[str, Tensor]:
        return self._inner.state_tensors()

    def state_scalars(self) -> dict[str, float | int]:
        return self._inner.state_scalars() | {"rounded": self._steps}

    def load_state(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, float | int]) -> None:
        self._inner.load_state(tensors, scalars)
        self._steps = int(scalars["rounded"])
