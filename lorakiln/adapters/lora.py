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
        return self._low_rank(x, self.factors()[0])

    def __call__(self, x: Tensor) -> Tensor:
        if not self.active:
            return self.base(x)
        if self.shared is not None:
            return self.shared.output(self, x)
        if self.magnitude is not None:
            return self._normalised(x)
        if MID in self.tensors:
            return self.base(x) + self._low_rank(x, self.factors()[0])
        weight, bias = self.place.frozen()
        if self.place.is_conv:
            return lowrank.conv2d(x, weight, bias, *self.factors(), self.place.geometry())
        return lowrank.linear(x, weight, bias, *self.factors())

    def _normalised(self, x: Tensor) -> Tensor:
        """DoRA's layer: (W + t ((W + delta) c - W)) x = W (1 + t (c - 1)) x + t delta c x, c on the input or output."""
        assert self.magnitude is not None
        down, up, scale = self.factors()
        m, (weight, bias), t = self.tensors[SCALE], self.place.frozen(), self.strength
        if self.magnitude.axis == "input" and not self.place.is_conv:
            lengths = [(m, self.magnitude.inverse)]
            return lowrank.scaled_linears(x, [(weight, bias)], [(down, up, scale)], lengths, t)[0]
        c = self.magnitude.factor(m)
        base_c = (c if t == 1 else 1 + t * (c - 1)).to(x.dtype)
        if self.magnitude.axis == "input":
            if t == 1 and MID not in self.tensors:
                return lowrank.conv2d(x * base_c, weight, bias, down, up, scale, self.place.geometry())
            return self.place.product(x * base_c, weight, bias) + self._low_rank(x, down * c)
        channels = (-1,) if not self.place.is_conv else (-1, 1, 1)
        y = self.place.product(x, weight) * base_c.view(channels) + self._low_rank(x, down) * c.view(channels).to(
            x.dtype
        )
        return y if bias is None else y + bias.view(channels)

    def _low_rank(self, x: Tensor, down: Tensor) -> Tensor:
        """scale * up(down(x)) with plain operations."""
        _, up, scale = self.factors()
        up = up.to(x.dtype)
        if not self.place.is_conv:
            return F.linear(F.linear(x, down.to(x.dtype)), up) * scale
        if MID in self.tensors:
            middle = self.place.product(F.conv2d(x, down.to(x.dtype)), self.tensors[MID].to(x.dtype))
        else:
            middle = self.place.product(x, down.to(x.dtype))
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
        lengths = [(m.tensors[SCALE], m.magnitude.inverse) for m in self.adapters if m.magnitude is not None]
        if lengths:
            outputs = lowrank.scaled_linears(x, frozen, factors, lengths, adapter.strength)
        else:
            outputs = lowrank.linears(x, frozen, factors)
        self.x, self.stamp, self.ready = x, self._stamp(x), dict(zip(self.adapters, outputs, strict=True))
        return self.ready.pop(adapter)

    def _stamp(self, x: Tensor) -> tuple:
        tensors = () if x.is_inference() else (x, *self.parameters)
        return torch.is_grad_enabled(), self.adapters[0].strength, *[tensor._version for tensor in tensors]
