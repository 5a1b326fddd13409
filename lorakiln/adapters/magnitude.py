"""DoRA (Liu et al. 2024): a trained length for every column (or row) of a weight whose direction the adapter changes.

W_dora = (W + delta) * m / |W + delta|, the norm over every axis but one. Over the input axis (m of shape (1, in)) the
file is applied as trained by ComfyUI, Forge and A1111; over the output axis ComfyUI divides by the norm of W alone.
The norm counts as a constant in the backward pass, as in the paper's section 4.3.
"""

from typing import Literal

import torch
from torch import Tensor

from lorakiln.adapters.place import Place
from lorakiln.base.errors import UserError

SCALE = "dora_scale"


class Magnitude:
    """The axis of one layer's norms, and their inverse as of the last refresh, of m's own shape."""

    def __init__(self, place: Place, axis: Literal["input", "output"]):
        self.axis = axis
        kept = 1 if axis == "input" else 0
        self.summed = tuple(dim for dim in range(place.weight.dim()) if dim != kept)
        weight = place.weight.detach().to(place.master_dtype)
        self.frozen_square = weight.square().sum(self.summed, keepdim=True)
        self.set_square(self.frozen_square)

    @classmethod
    def of(cls, place: Place, values: Tensor) -> "Magnitude":
        """The magnitude that a file's `dora_scale` belongs to. Raises UserError for a shape of neither axis."""
        out_size, in_size, *kernel = place.weight.shape
        ones = [1] * len(kernel)
        for axis, shape in (("input", (1, in_size, *ones)), ("output", (out_size, 1, *ones))):
            if values.shape == shape:
                return cls(place, axis)
        raise UserError(f"{place.name}.{SCALE}: shape {tuple(values.shape)} fits neither axis of the layer")

    def fresh(self) -> Tensor:
        """The first values of m: the norms of the frozen weight."""
        return self.frozen_square.sqrt()

    def set_square(self, square: Tensor) -> None:
        """Take over the squared norms of W + delta, in m's shape."""
        self.inverse = inverse_root(square)

    def factor(self, m: Tensor) -> Tensor:
        """m / |W + delta|, what multiplies the changed weight."""
        return m * self.inverse


def inverse_root(square: Tensor) -> Tensor:
    """1 / sqrt, finite where a column of the weight is zero."""
    return square.clamp(min=torch.finfo(square.dtype).tiny).rsqrt()
