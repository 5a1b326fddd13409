"""LoHa: the change of a weight as the entrywise product of two low-rank matrices (Hyeon-Woo et al. 2021, FedPara)."""

import math

import torch
from torch import Tensor

from lorakiln.adapters.dense import DenseAdapter, rebuild_tucker
from lorakiln.adapters.part import Tensors, Width, kinds
from lorakiln.adapters.place import Place
from lorakiln.adapters.spec import AdapterSpec


class LoHa(DenseAdapter):
    """delta = scale * (w1_a w1_b) o (w2_a w2_b): w_a (out, R), w_b (R, in * k * k); rank up to R squared.

    Tucker on convolutions: w_a (R, out), w_b (R, in) and a core t (R, R, k, k) for each of the two.
    """

    kind = "loha"
    required = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
    optional = frozenset({"hada_t1", "hada_t2"})
    fast = frozenset({"hada_w2_a"})

    @classmethod
    def fresh(cls, place: Place, width: Width, spec: AdapterSpec, rng: torch.Generator) -> dict[str, Tensor]:
        out_size, in_size, *kernel = place.weight.shape
        rank = width.rank

        def normal(std: float, *shape: int) -> Tensor:
            return torch.empty(shape, dtype=place.master_dtype).normal_(0, std, generator=rng)

        if spec.tucker and place.spatial:
            made = {f"hada_t{i}": normal(0.1, rank, rank, *kernel) for i in (1, 2)}
            ins, outs = (rank, in_size), (rank, out_size)
        else:
            made = {}
            ins, outs = (rank, in_size * math.prod(kernel)), (out_size, rank)
        made |= {"hada_w1_a": normal(0.1, *outs), "hada_w1_b": normal(1, *ins)}
        return made | {"hada_w2_a": torch.zeros(outs), "hada_w2_b": normal(1, *ins)}

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int:
        return len(tensors["hada_w1_b"])

    def __call__(self, x: Tensor) -> Tensor:
        plain = self.magnitude is None and self.mask is None and self.active
        if not plain or self.place.is_conv or x.dtype != self.place.master_dtype:
            return super().__call__(x)
        factors = [self.tensors[f"hada_w{i}_{side}"] for i in (1, 2) for side in "ab"]
        return _Hadamard.apply(x, *self.place.frozen(), *factors, self.width.scale * self.strength)

    def delta(self, tensors: Tensors) -> Tensor:
        halves = []
        for i in (1, 2):
            a, b, core = tensors[f"hada_w{i}_a"], tensors[f"hada_w{i}_b"], tensors.get(f"hada_t{i}")
            if i == 1 and self.width.scale != 1:
                a = a * self.width.scale
            halves.append(a @ b if core is None else rebuild_tucker(core, a, b))
        return self.masked((halves[0] * halves[1]).reshape(self.place.weight.shape))


class _Hadamard(torch.autograd.Function):
    """x (W + scale * (a1 b1) o (a2 b2))^T + bias, each pass over a weight-sized matrix doing all it can.

    a (out, R), b (R, in), all in x's dtype. The matrices are built again in the backward pass, not kept.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a1, b1, a2, b2, scale):
        ctx.save_for_backward(x, a1, b1, a2, b2)
        ctx.weight, ctx.scale = weight, scale
        total = torch.addcmul(weight, a1.mm(b1), a2.mm(b2), value=scale)
        return torch.nn.functional.linear(x, total, bias)

    @staticmethod
    def backward(ctx, *gradients):
        if torch.is_grad_enabled():
            raise RuntimeError("a Hadamard layer cannot be differentiated twice")
        (dy,) = gradients
        x, a1, b1, a2, b2 = ctx.saved_tensors
        x_T, dy_T = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        first, second = a1.mm(b1), a2.mm(b2)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy_T.mm(torch.addcmul(ctx.weight, first, second, value=ctx.scale)).view(x.shape)
        dtotal = dy_T.t().mm(x_T)
        if ctx.scale != 1:
            dtotal.mul_(ctx.scale)
        dfirst, dsecond = second.mul_(dtotal), first.mul_(dtotal)
        return dx, None, None, dfirst.mm(b1.t()), a1.t().mm(dfirst), dsecond.mm(b2.t()), a2.t().mm(dsecond), None


kinds.register("loha")(LoHa)
