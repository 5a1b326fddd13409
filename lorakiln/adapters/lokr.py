"""LoKr: the change of a weight as a Kronecker product of two smaller ones (Yeh et al. 2023, LyCORIS)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lorakiln.adapters.dense import DenseAdapter, rebuild_tucker
from lorakiln.adapters.part import Adapter, Tensors, Width, kinds, uniform
from lorakiln.adapters.place import Place
from lorakiln.adapters.spec import AdapterSpec

HALVES = [f"lokr_w{i}{part}" for i in (1, 2) for part in ("", "_a", "_b")]


class LoKr(DenseAdapter):
    """delta = scale * w1 (x) w2 with w1 (l, m) and w2 (k, n[, k, k]) for a weight of (l k, m n).

    Each half is whole, or a product of thin ones: w1 = w1_a w1_b, w2 = w2_a w2_b, or Tucker's t2, w2_a (R, k),
    w2_b (R, n). Where both are whole there is no rank to divide by and the scale is one, as every loader has it.
    """

    kind = "lokr"
    required = frozenset()
    optional = frozenset([*HALVES, "lokr_t2"])
    fast = frozenset({"lokr_w2", "lokr_w2_b"})

    @classmethod
    def create(cls, place: Place, width: Width, spec: AdapterSpec, rng: torch.Generator) -> "LoKr":
        whole = {"lokr_w1", "lokr_w2"} <= set(cls.fresh(place, width, spec, torch.Generator()))
        return super().create(place, Width(width.rank, 1.0) if whole else width, spec, rng)

    @classmethod
    def fresh(cls, place: Place, width: Width, spec: AdapterSpec, rng: torch.Generator) -> dict[str, Tensor]:
        out_size, in_size, *kernel = place.weight.shape
        (out_1, out_2), (in_1, in_2) = split(out_size, spec.factor), split(in_size, spec.factor)
        rank = width.rank
        if spec.decompose_both and 2 * rank < max(out_1, in_1):
            made = {
                "lokr_w1_a": uniform(out_1, rank, like=place, rng=rng),
                "lokr_w1_b": uniform(rank, in_1, like=place, rng=rng),
            }
        else:
            made = {"lokr_w1": uniform(out_1, in_1, like=place, rng=rng)}
        if spec.full_matrix or 2 * rank >= max(out_2, in_2):
            return made | {"lokr_w2": torch.zeros(out_2, in_2, *kernel)}
        if spec.tucker and place.spatial:
            made["lokr_t2"] = uniform(rank, rank, *kernel, like=place, rng=rng)
            return made | {"lokr_w2_a": uniform(rank, out_2, like=place, rng=rng), "lokr_w2_b": torch.zeros(rank, in_2)}
        made["lokr_w2_a"] = uniform(out_2, rank, like=place, rng=rng)
        return made | {"lokr_w2_b": torch.zeros(rank, in_2 * math.prod(kernel))}

    @classmethod
    def notes(cls, adapters: Sequence[Adapter], spec: AdapterSpec) -> list[str]:
        whole = [adapter for adapter in adapters if "lokr_w2" in adapter.tensors]
        if spec.full_matrix or not whole:
            return []
        name, rank = whole[0].place.name, whole[0].width.rank
        few = f"{len(whole)} of {len(adapters)} layers"
        return [
            f"adapter.rank: {few} are too small for it, such as {name} for rank {rank}; "
            "their large factor is trained whole, without alpha / rank where the small one is whole too"
        ]

    @classmethod
    def recognises(cls, suffixes: frozenset[str]) -> bool:
        halves = all({f"lokr_w{i}"} <= suffixes or {f"lokr_w{i}_a", f"lokr_w{i}_b"} <= suffixes for i in (1, 2))
        return halves and super().recognises(suffixes)

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int:
        for name in ("lokr_w2_b", "lokr_w1_b"):
            if name in tensors:
                return len(tensors[name])
        return max(1, round(float(tensors.get("alpha", torch.tensor(1.0)))))  # both whole: alpha says what was asked

    @classmethod
    def scale_of(cls, tensors: Tensors, alpha: float, rank: int) -> float:
        return 1.0 if {"lokr_w1", "lokr_w2"} <= set(tensors) else alpha / rank

    def __call__(self, x: Tensor) -> Tensor:
        if self.place.is_conv or self.magnitude is not None or self.mask is not None or not self.active:
            return super().__call__(x)
        scale = self.width.scale * self.strength
        first, second = _half(self.tensors, 1), _half(self.tensors, 2)
        return _Kronecker.apply(x, *self.place.frozen(), first, second, scale)

    def delta(self, tensors: Tensors) -> Tensor:
        shape = self.place.weight.shape
        first_lm, second_kn = _half(tensors, 1), _half(tensors, 2).flatten(1)
        (rows, m), (k, n) = first_lm.shape, second_kn.shape
        # as an outer product its gradient is two matrix-vector products and no large temporary
        outer = torch.outer((first_lm * self.width.scale).flatten(), second_kn.flatten())
        return self.masked(outer.view(rows, m, k, n).transpose(1, 2).reshape(shape))


class _Kronecker(torch.autograd.Function):
    """x W^T + b + scale * x (w1 (x) w2)^T without building the product; letters: T rows, out = l k, in = m n."""

    @staticmethod
    def forward(ctx, x, weight, bias, first_lm, second_kn, scale):
        ctx.weight, ctx.scale, ctx.dtype = weight, scale, first_lm.dtype
        first_lm, second_kn = first_lm.to(x.dtype), second_kn.to(x.dtype)
        (rows, m), (k, n) = first_lm.shape, second_kn.shape
        x_T = x.reshape(-1, m * n)
        y_T = x_T.mm(weight.t()) if bias is None else torch.addmm(bias, x_T, weight.t())
        half_Tmk = x_T.reshape(-1, n).mm(second_kn.t()).view(-1, m, k)
        y_T.view(-1, rows, k).baddbmm_(first_lm.expand(len(x_T), -1, -1), half_Tmk, alpha=scale)
        ctx.save_for_backward(x, first_lm, second_kn)
        return y_T.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, *gradients):
        if torch.is_grad_enabled():
            raise RuntimeError("a Kronecker layer cannot be differentiated twice")
        (dy,) = gradients
        x, first_lm, second_kn = ctx.saved_tensors
        (rows, m), (k, n) = first_lm.shape, second_kn.shape
        x_Tmn, dy_T = x.reshape(-1, n), dy.reshape(-1, rows * k)
        dy_Tlk = dy_T.reshape(-1, rows, k)
        half_Tmk = x_Tmn.mm(second_kn.t()).view(-1, m, k)  # as large as the output: computed again, not kept
        dfirst = dy_Tlk.bmm(half_Tmk.mT).sum(0).mul_(ctx.scale).to(ctx.dtype)
        dhalf_Tmk = (first_lm.t() * ctx.scale).expand(len(dy_T), -1, -1).bmm(dy_Tlk).view(-1, k)
        dsecond = dhalf_Tmk.t().mm(x_Tmn).to(ctx.dtype)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy_T.mm(ctx.weight)
            dx.view(-1, n).addmm_(dhalf_Tmk, second_kn)
            dx = dx.view(x.shape)
        return dx, None, None, dfirst, dsecond, None


def split(size: int, factor: int) -> tuple[int, int]:
    """`size` as (smaller, larger) factors: `factor` and its cofactor where it divides, else the most even split whose
    smaller factor is at most `factor`; -1 puts no limit. As LyCORIS splits, so that its files have the same shapes.
    """
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    most = math.isqrt(size) if factor < 0 else min(factor, math.isqrt(size))
    smaller = max(divisor for divisor in range(1, most + 1) if size % divisor == 0)
    return smaller, size // smaller


def _half(tensors: Tensors, i: int) -> Tensor:
    if f"lokr_w{i}" in tensors:
        return tensors[f"lokr_w{i}"]
    a, b = tensors[f"lokr_w{i}_a"], tensors[f"lokr_w{i}_b"]
    return rebuild_tucker(tensors["lokr_t2"], a, b) if i == 2 and "lokr_t2" in tensors else a @ b


kinds.register("lokr")(LoKr)
