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

    def delta(self, tensors: Tensors) -> Tensor:
        halves = []
        for i in (1, 2):
            a, b, core = tensors[f"hada_w{i}_a"], tensors[f"hada_w{i}_b"], tensors.get(f"hada_t{i}")
            halves.append(a @ b if core is None else rebuild_tucker(core, a, b))
        delta = (halves[0] * halves[1]).reshape(self.place.weight.shape)
        return self.masked(delta if self.width.scale == 1 else delta * self.width.scale)


kinds.register("loha")(LoHa)
