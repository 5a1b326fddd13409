"""A matrix of second moments kept as its row and column means: what CAME and Adafactor have in common.

Shapes: n matrices of one shape in a stack, each of R rows and C columns. A convolution's is (out, in k k).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lorakiln.optim.flat import FlatParameters, ParamGroup, Stack


def name_of(group: ParamGroup, stack: Stack) -> str:
    """`unet.16x1280`: what the state of a stack is called."""
    return f"{group.name}.{'x'.join(map(str, stack.shape))}"


def stacks(flat: FlatParameters) -> Iterator[tuple[ParamGroup, Stack]]:
    for group in flat.groups:
        for stack in group.stacks:
            yield group, stack


def matrices(stack_n: Tensor) -> Tensor:
    """The same memory as (n, R, C), or (n, C) for vectors, which are not factored."""
    return stack_n.flatten(2) if stack_n.dim() > 2 else stack_n


def moments(flat: FlatParameters, name: str) -> dict[str, Tensor]:
    """Zeros for each stack: `<stack>.<name>_row` (n, R) and `_col` (n, C), or `<stack>.<name>` for vectors."""
    found = {}
    for group, stack in stacks(flat):
        values, prefix = matrices(stack.values), f"{name_of(group, stack)}.{name}"
        if values.dim() == 3:
            found[f"{prefix}_row"] = torch.zeros_like(values[:, :, 0])
            found[f"{prefix}_col"] = torch.zeros_like(values[:, 0, :])
        else:
            found[prefix] = torch.zeros_like(values)
    return found


def inverse_root(state: dict[str, Tensor], prefix: str, square_n: Tensor, weight: float) -> Tensor:
    """Average `square_n` into the moments by `weight`; 1 / sqrt of what they stand for, in the memory of `square_n`.

    V = row col^T / mean(row), the rank-one matrix with those means (Shazeer & Stern 2018, equation 4).
    """
    if square_n.dim() == 2:
        whole = state[prefix].lerp_(square_n, weight)
        return torch.rsqrt(whole, out=square_n)
    row = state[f"{prefix}_row"].lerp_(square_n.mean(2), weight)
    col = state[f"{prefix}_col"].lerp_(square_n.mean(1), weight)
    row_scale = (row / row.mean(1, keepdim=True)).rsqrt_()
    return torch.mul(row_scale[:, :, None], col.rsqrt()[:, None, :], out=square_n)


def rms(values_n: Tensor) -> Tensor:
    """Root mean square of each of the n tensors, shaped (n, 1, 1) or (n, 1) to multiply them."""
    dims = tuple(range(1, values_n.dim()))
    return torch.linalg.vector_norm(values_n, dim=dims, keepdim=True) / values_n[0].numel() ** 0.5


def clip_rms_(update_n: Tensor, most: float) -> Tensor:
    """Divide each tensor whose RMS is above `most` so that it is `most` (update clipping, ibid., section 6)."""
    return update_n.div_((rms(update_n) / most).clamp_(min=1))
