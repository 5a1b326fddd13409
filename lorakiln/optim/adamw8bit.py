"""AdamW with its two moments in 8 bits (Dettmers et al. 2022): a quarter of the state's memory, by bitsandbytes."""

from collections.abc import Sequence

import torch

from lorakiln.base.errors import UserError
from lorakiln.optim.flat import FlatParameters
from lorakiln.optim.foreign import Foreign, Groups
from lorakiln.optim.optimizers import check_betas, check_positive, optimizers


@optimizers.register("adamw8bit")
def adamw8bit(
    flat: FlatParameters,
    /,
    *,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Foreign:
    """As "adamw". Each 256 numbers of a group's row share a scale; groups below 4,096 numbers keep 32 bits.

    UserError when bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError("optimizer 'adamw8bit' needs bitsandbytes: pip install bitsandbytes") from error
    beta1, beta2 = check_betas(betas, 2)
    check_positive("eps", eps)
    check_positive("weight_decay", weight_decay, zero=True)

    def make(groups: Groups) -> torch.optim.Optimizer:
        return AdamW8bit(groups, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)

    return Foreign(flat, make, flat_buffers=True)
