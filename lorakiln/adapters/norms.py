"""The norms of W + delta that DoRA divides by, in closed form and many layers at a time.

For delta = s B A no sum W + s B A is made (letters as in the paper: B (out, R) is up, A (R, in) is down):
n_j^2 = |W_j|^2 + 2 s colsum((B^T W) o A)_j + s^2 colsum(A o (B^T B A))_j, and likewise over rows for the output axis.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lorakiln.adapters.lora import DOWN, MID, UP, LoRA
from lorakiln.adapters.magnitude import inverse_root
from lorakiln.adapters.part import Adapter

CPU_NUMBERS = 1 << 16  # of a factor, at a time: a CPU pays more for a large new tensor's memory than for its sums


class Norms:
    """The norms of all adapters that have a magnitude, LoRAs grouped by what they can be reckoned together by."""

    def __init__(self, adapters: Iterable[Adapter]):
        groups: dict[tuple, list[LoRA]] = {}
        self.single: list[Adapter] = []  # LoHa, LoKr and Tucker: the norm of the weight that they build
        for adapter in adapters:
            if adapter.magnitude is None:
                continue
            if isinstance(adapter, LoRA) and MID not in adapter.tensors:
                weight = adapter.place.weight
                alike = (weight.shape, weight.device, adapter.width, adapter.magnitude.axis)
                groups.setdefault(alike, []).append(adapter)
            else:
                self.single.append(adapter)
        self.groups = [piece for group in groups.values() for piece in _pieces(group)]

    @torch.no_grad()
    def refresh(self) -> None:
        """Take every norm from the tensors as they are now."""
        for adapter in self.single:
            adapter.refresh()
        for group in self.groups:
            _closed(group)


def _pieces(group: Sequence[LoRA]) -> Iterator[Sequence[LoRA]]:
    """The whole group on a GPU, where each call costs; a few layers at a time on a CPU."""
    at_once = len(group)
    if group[0].place.weight.device.type == "cpu":
        largest = max(group[0].tensors[DOWN].numel(), group[0].tensors[UP].numel())
        at_once = max(1, CPU_NUMBERS // largest)
    for start in range(0, len(group), at_once):
        yield group[start : start + at_once]


def _closed(group: Sequence[LoRA]) -> None:
    """Layers of one shape, width and axis; letters: n layers, R rank, o rows and f columns of a weight as a matrix."""
    magnitudes = [adapter.magnitude for adapter in group if adapter.magnitude is not None]
    down_nRf = _stacked([adapter.tensors[DOWN] for adapter in group]).flatten(2)
    up_noR = _stacked([adapter.tensors[UP] for adapter in group]).flatten(2)
    weights = [adapter.place.frozen()[0].flatten(1) for adapter in group]
    scale = group[0].width.scale
    if magnitudes[0].axis == "input":
        crossed = _products(up_noR.mT.unbind(), weights, torch.empty_like(down_nRf))
        crossed.baddbmm_(up_noR.mT @ up_noR, down_nRf, beta=2 * scale, alpha=scale**2)
        extra_nf = crossed.mul_(down_nRf).sum(1)
        extra = extra_nf.view(len(group), 1, group[0].place.weight.shape[1], -1).sum(-1)
    else:
        crossed = _products(weights, down_nRf.mT.unbind(), torch.empty_like(up_noR))
        crossed.baddbmm_(up_noR, down_nRf @ down_nRf.mT, beta=2 * scale, alpha=scale**2)
        extra = crossed.mul_(up_noR).sum(2)
    frozen = torch.stack([magnitude.frozen_square for magnitude in magnitudes])
    inverses = inverse_root(frozen + extra.view_as(frozen))
    for magnitude, inverse in zip(magnitudes, inverses, strict=True):
        magnitude.inverse = inverse


def _products(lefts: Sequence[Tensor], rights: Sequence[Tensor], out: Tensor) -> Tensor:
    """left @ right of each pair in `out`'s dtype, into `out`; the frozen weights are not copied into a stack."""
    for left, right, into in zip(lefts, rights, out, strict=True):
        torch.mm(left.to(out.dtype), right.to(out.dtype), out=into)
    return out


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Same-shape tensors along a new first dimension; without a copy where they lie side by side in one buffer."""
    first, size = tensors[0].detach(), tensors[0].numel() * tensors[0].element_size()
    address = first.data_ptr()
    storage = first.untyped_storage()
    inside = storage.data_ptr() + storage.nbytes() >= address + len(tensors) * size
    beside = all(t.data_ptr() == address + i * size and t.is_contiguous() for i, t in enumerate(tensors))
    if not inside or not beside:
        return torch.stack([tensor.detach() for tensor in tensors])
    return first.as_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))
