"""AdamW (Loshchilov & Hutter 2019): torch's own fused kernel, on one long tensor a group."""

from collections.abc import Sequence

import torch

from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.foreign import Foreign, Groups
from lorakiln.optim.optimizers import check_betas, check_positive, optimizers


@optimizers.register("adamw")
def adamw(
    flat: FlatParameters,
    /,
    *,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Foreign:
    """`weight_decay` is decoupled: each step shrinks the weights by lr * weight_decay."""
    beta1, beta2 = check_betas(betas, 2)
    check_positive("eps", eps)
    check_positive("weight_decay", weight_decay, zero=True)

    def make(groups: Groups) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)

    return Foreign(flat, make, flat_buffers=True)
