"""The norms of W + delta that DoRA divides by, in closed form and many layers at a time.

For delta = s B A no sum W + s B A is made (letters as in the paper: B (out, R) is up, A (R, in) is down):
n_j^2 = |W_j|^2 + 2 s colsum((B^T W) o A)_j + s^2 colsum(A o (B^T B A))_j, and likewise over rows for the output axis.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lorakiln.adapters.lora import DOWN, MID, UP, LoRA
from lorakiln.adapters.part import Adapter


@torch.no_grad()
def refresh(adapters: Iterable[Adapter]) -> None:
    """Take the norms of every adapter that has a magnitude, from the tensors as they are now."""
    groups: dict[tuple, list[LoRA]] = {}
    for adapter in adapters:
        if adapter.magnitude is None:
            continue
        if isinstance(adapter, LoRA) and MID not in adapter.tensors:
            shape = (adapter.place.weight.shape, adapter.width.rank, adapter.magnitude.axis)
            groups.setdefault((*shape, adapter.place.weight.device), []).append(adapter)
        else:
            _whole(adapter)
    for group in groups.values():
        _closed(group)


def _whole(adapter: Adapter) -> None:
    """LoHa, LoKr and Tucker: the norm of the weight that they build."""
    assert adapter.magnitude is not None
    mask, adapter.mask = adapter.mask, None  # the norm is that of the whole change, whatever this step drops
    delta = adapter.delta(adapter.tensors)
    adapter.mask = mask
    total = adapter.place.weight.to(delta.dtype) + delta
    adapter.magnitude.set_square(total.square().sum(adapter.magnitude.summed, keepdim=True))


def _closed(group: Sequence[LoRA]) -> None:
    """Layers of one shape, rank and axis; letters: n layers, R rank, o rows and f columns of the weight as a matrix."""
    magnitudes = [adapter.magnitude for adapter in group if adapter.magnitude is not None]
    down_nRf = torch.stack([adapter.tensors[DOWN].flatten(1) for adapter in group])
    up_noR = torch.stack([adapter.tensors[UP].flatten(1) for adapter in group])
    scale_n11 = down_nRf.new_tensor([adapter.width.scale for adapter in group])[:, None, None]
    weights = [adapter.place.weight.flatten(1) for adapter in group]
    if magnitudes[0].axis == "input":
        crossed = _products([up.t() for up in up_noR], weights, torch.empty_like(down_nRf))
        gram_nRR = up_noR.mT @ up_noR
        extra_nf = (down_nRf * (2 * scale_n11 * crossed + scale_n11**2 * (gram_nRR @ down_nRf))).sum(1)
        extra = extra_nf.view(len(group), 1, group[0].place.weight.shape[1], -1).sum(-1)
    else:
        crossed = _products(weights, [down.t() for down in down_nRf], torch.empty_like(up_noR))
        gram_nRR = down_nRf @ down_nRf.mT
        extra = (up_noR * (2 * scale_n11 * crossed + scale_n11**2 * (up_noR @ gram_nRR))).sum(2)
    shape = magnitudes[0].frozen_square.shape
    squares = torch.stack([magnitude.frozen_square for magnitude in magnitudes]) + extra.view(-1, *shape)
    for magnitude, square in zip(magnitudes, squares, strict=True):
        magnitude.set_square(square)


def _products(lefts: Sequence[Tensor], rights: Sequence[Tensor], out: Tensor) -> Tensor:
    """left @ right of each pair in `out`'s dtype, into `out`; the frozen weights are not copied into a stack."""
    for left, right, into in zip(lefts, rights, out, strict=True):
        torch.mm(left.to(out.dtype), right.to(out.dtype), out=into)
    return out
