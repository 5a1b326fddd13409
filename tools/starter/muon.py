"""Muon, the optimizer that gave the most drawing for the least time here: orthogonalised momentum.

Jordan et al. 2024. Matrices and convolution kernels get it; tables, biases and norms get AdamW.
"""

import torch
from torch import Tensor, nn


def orthogonalise(matrix_NRC: Tensor, rounds: int = 5) -> Tensor:
    """Quintic Newton-Schulz iteration: nearly the closest orthogonal matrix, for a stack of N.

    The iteration runs on the small R x R Gram matrix and touches the matrix itself only twice.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix_NRC.size(1) > matrix_NRC.size(2)
    x = matrix_NRC.mT if tall else matrix_NRC
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.mT
    identity = torch.eye(x.size(1)).expand_as(gram)
    product = identity
    for _ in range(rounds):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update has all singular values near one, so no direction is left behind."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        assert closure is None
        for group in self.param_groups:
            stacks: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                nesterov = weight.grad.lerp(momentum, group["momentum"]).flatten(1)
                stacks.setdefault(nesterov.shape, []).append((weight, nesterov))
            for shape, pairs in stacks.items():
                update = orthogonalise(torch.stack([pair[1] for pair in pairs]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5  # an AdamW-like step length
                for (weight, _), change in zip(pairs, update, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.sub_(size * change.view_as(weight))


def optimizers(
    modules: list[nn.Module], lr: float, table_lr: float, weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Muon for what multiplies, AdamW for the rest; both are to be stepped."""
    kernels, tables, rest = [], [], []
    for module in modules:
        embedded = {m.weight for m in module.modules() if isinstance(m, nn.Embedding)}
        for weight in module.parameters():
            if weight in embedded:
                tables.append(weight)
            elif weight.ndim >= 2 and min(weight.flatten(1).shape) >= 8:
                kernels.append(weight)
            else:
                rest.append(weight)
    adam = torch.optim.AdamW(
        [{"params": rest, "lr": lr}] + ([{"params": tables, "lr": table_lr}] if tables else []),
        betas=(0.9, 0.98), weight_decay=0.0,
    )  # fmt: skip
    return [Muon(kernels, lr, weight_decay=weight_decay), adam]


def set_pace(optimizers: list[torch.optim.Optimizer], pace: float) -> None:
    """Scale every learning rate by `pace`, of what it was built with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("full_lr", group["lr"])
            group["lr"] = group["full_lr"] * pace


def restore(optimizers: list[torch.optim.Optimizer], saved: list[dict]) -> None:
    """Take up saved momenta, but keep the learning rates of today's recipe."""
    for optimizer, state in zip(optimizers, saved, strict=True):
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = group["full_lr"] = rate


def trapezoid(step: int, steps: int, warmup: int, decay: float) -> float:
    """Warm up, hold, then fall in a straight line over the last `decay` share of the steps."""
    falling = (steps - step) / (steps * decay)
    return max(0.0, min((step + 1) / warmup, 1.0, falling))
