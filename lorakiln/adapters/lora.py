"""LoRA and LoCon: the change of a weight as a product of two thin matrices (Hu et al. 2021)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lorakiln.adapters import lowrank
from lorakiln.adapters.dense import rebuild_tucker
from lorakiln.adapters.magnitude import SCALE
from lorakiln.adapters.part import Adapter, Tensors, Width, kinds, uniform
from lorakiln.adapters.place import Place
from lorakiln.adapters.spec import AdapterSpec

DOWN, MID, UP = "lora_down.weight", "lora_mid.weight", "lora_up.weight"


class LoRA(Adapter):
    """delta = scale * up @ down: down (R, in[, k, k]) starts as kohya's does, up (out, R[, 1, 1]) at zero.

    Tucker on convolutions puts the kernel between them: down (R, in, 1, 1), mid (R, R, k, k), up (out, R, 1, 1).
    """

    kind = "lora"
    required = frozenset({DOWN, UP})
    optional = frozenset({MID})
    fast = frozenset({UP})

    def __init__(self, place: Place, width: Width):
        super().__init__(place, width)
        self.shared: SharedInput | None = None

    @classmethod
    def fresh(cls, place: Place, width: Width, spec: AdapterSpec, rng: torch.Generator) -> dict[str, Tensor]:
        out_size, in_size, *kernel = place.weight.shape
        ones, rank = [1] * len(kernel), width.rank
        made = {UP: torch.zeros(out_size, rank, *ones)}
        if spec.tucker and place.spatial:
            mid = uniform(rank, rank, *kernel, like=place, rng=rng)
            return {DOWN: uniform(rank, in_size, *ones, like=place, rng=rng), MID: mid} | made
        return {DOWN: uniform(rank, in_size, *kernel, like=place, rng=rng)} | made

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int:
        return len(tensors[DOWN])

    @classmethod
    def shaped(cls, place: Place, tensors: Tensors) -> dict[str, Tensor]:
        # a 1x1 convolution's factors are sometimes saved as matrices, and a matrix's as 1x1 convolutions
        dims = place.weight.dim()
        held = super().shaped(place, tensors)
        return {
            suffix: tensor.reshape(*tensor.shape[:2], *[1] * (dims - 2))
            if suffix != SCALE and tensor.dim() != dims and math.prod(tensor.shape[2:]) == 1
            else tensor
            for suffix, tensor in held.items()
        }

    def factors(self) -> tuple[Tensor, Tensor, float]:
        """(down, up as a matrix, scale at the present strength); down with this step's dropped ranks at zero."""
        down, up = self.tensors[DOWN], self.tensors[UP]
        if self.mask is not None:
            down = down * self.mask.view(-1, *[1] * (down.dim() - 1))
        return down, up.flatten(1) if self.place.is_conv else up, self.width.scale * self.strength

    @property
    def mask_size(self) -> int:
        return self.width.rank

    def delta(self, tensors: Tensors) -> Tensor:
        up, down = tensors[UP].flatten(1), tensors[DOWN].flatten(1)
        product = rebuild_tucker(tensors[MID], up.t(), down) if MID in tensors else up @ down
        return product.reshape(self.place.weight.shape) * self.width.scale

    def change(self, x: Tensor) -> Tensor:
        if self.magnitude is not None:
            return super().change(x)
        return self._low_rank(x, self.width.scale * self.strength)

    def __call__(self, x: Tensor) -> Tensor:
        if not self.active:
            return self.base(x)
        if self.shared is not None:
            return self.shared.output(self, x)
        if self.magnitude is not None:
            return self._normalised(x)
        if MID in self.tensors:
            return self.base(x) + self._low_rank(x, self.width.scale * self.strength)
        weight, bias = self.place.frozen()
        if self.place.is_conv:
            return lowrank.conv2d(x, weight, bias, *self.factors(), self.place.geometry())
        return lowrank.linear(x, weight, bias, *self.factors())

    def _normalised(self, x: Tensor) -> Tensor:
        """DoRA's layer: (W + t ((W + delta) c - W)) x, c = m / |W + delta| on the input or on the output."""
        assert self.magnitude is not None
        y = self._scaled_input(x) if self.magnitude.axis == "input" else self._scaled_output(x)
        return y if self.strength == 1 else torch.lerp(self.base(x), y, self.strength)

    def _scaled_input(self, x: Tensor) -> Tensor:
        assert self.magnitude is not None
        (down, up, _), (weight, bias), m = self.factors(), self.place.frozen(), self.tensors[SCALE]
        factors = down, up, self.width.scale
        if not self.place.is_conv:
            return lowrank.scaled_linear(x, weight, bias, factors, m, self.magnitude.inverse)
        scaled = x * self.magnitude.factor(m).to(x.dtype)
        if MID not in self.tensors:
            return lowrank.conv2d(scaled, weight, bias, *factors, self.place.geometry())
        return self.place.product(scaled, weight, bias) + self._low_rank(scaled, self.width.scale)

    def _scaled_output(self, x: Tensor) -> Tensor:
        assert self.magnitude is not None
        weight, bias = self.place.frozen()
        channels = (-1, 1, 1) if self.place.is_conv else (-1,)
        c = self.magnitude.factor(self.tensors[SCALE]).view(channels).to(x.dtype)
        y = (self.place.product(x, weight) + self._low_rank(x, self.width.scale)) * c
        return y if bias is None else y + bias.view(channels)

    def _low_rank(self, x: Tensor, scale: float) -> Tensor:
        """scale * up(down(x)) with plain operations."""
        down, up, _ = self.factors()
        down, up = down.to(x.dtype), up.to(x.dtype)
        if not self.place.is_conv:
            return F.linear(F.linear(x, down), up) * scale
        if MID in self.tensors:
            middle = self.place.product(F.conv2d(x, down), self.tensors[MID].to(x.dtype))
        else:
            middle = self.place.product(x, down)
        return F.conv2d(middle, up[:, :, None, None]) * scale


kinds.register("lora")(LoRA)


class SharedInput:
    """Linear layers that are called with one and the same tensor, as attention's query, key and value are.

    Whichever is called first computes them all; the others hand theirs out, if they are asked with that very tensor
    and nothing has changed since. Called with anything else they compute anew, so the result never depends on it.
    """

    def __init__(self, adapters: Sequence[LoRA]):
        self.adapters = tuple(adapters)
        self.parameters = [tensor for adapter in adapters for tensor in adapter.tensors.values()]
        self.forget()
        for adapter in adapters:
            adapter.shared = self

    def forget(self) -> None:
        """Drop what was computed ahead."""
        self.x: Tensor | None = None
        self.stamp: tuple = ()
        self.ready: dict[LoRA, Tensor] = {}

    def output(self, adapter: LoRA, x: Tensor) -> Tensor:
        """The layer's output for x (..., in), base and change."""
        if x is self.x and adapter in self.ready and self._stamp(x) == self.stamp:
            y = self.ready.pop(adapter)
            if not self.ready:
                self.forget()
            return y
        frozen = [member.place.frozen() for member in self.adapters]
        factors = [member.factors() for member in self.adapters]
        outputs = lowrank.linears(x, frozen, factors)
        self.x, self.stamp, self.ready = x, self._stamp(x), dict(zip(self.adapters, outputs, strict=True))
        return self.ready.pop(adapter)

    def _stamp(self, x: Tensor) -> tuple:
        tensors = () if x.is_inference() else (x, *self.parameters)
        return torch.is_grad_enabled(), self.adapters[0].strength, *[tensor._version for tensor in tensors]
