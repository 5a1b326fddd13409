"""All trained weights in one buffer and all their gradients in another, so that a step is a few operations.

SDXL's LoRA is 1,444 tensors of nine shapes; an optimizer that loops over them keeps a fast GPU waiting for the host.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 64  # elements: a group starts where vector loads like it
ROUNDED_AT_ONCE = 1 << 22  # elements: random bits for all of them at a time would take as much memory as the weights


@dataclass(frozen=True, eq=False, slots=True)
class Stack:
    """Same-shape tensors that lie side by side: views (n, *shape) of a group's values and gradients."""

    values: Tensor
    gradients: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one tensor of the stack."""
        return tuple(self.values.shape[1:])


@dataclass(frozen=True, eq=False, slots=True)
class ParamGroup:
    """Weights that share a learning rate: 1-D views of the buffers, and the same memory as stacks by shape."""

    name: str
    values: Tensor
    gradients: Tensor
    stacks: tuple[Stack, ...]
    parameters: tuple[nn.Parameter, ...]
    start: int

    def part_of(self, buffer: Tensor) -> Tensor:
        """This group's part of a buffer that is laid out as the values are."""
        return buffer[self.start : self.start + len(self.values)]


class FlatParameters:
    """Moves named groups of fp32 (or fp64) parameters into one buffer of values and one of gradients.

    Each parameter keeps its shape and identity; its data and its `.grad` become views. Tensors of one shape lie side by
    side within their group, in the order given. `.grad` must stay where it is: clear it with `zero_grad`, never with
    None. A parameter that a step does not reach has gradient 0, not None, so momentum and decay still move it.
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]]):
        tensors = [parameter for group in groups.values() for parameter in group]
        assert tensors, "nothing to train"
        assert len({id(tensor) for tensor in tensors}) == len(tensors), "a parameter is in two groups"
        assert all(tensor.dtype.itemsize >= 4 for tensor in tensors), "trained weights are kept in fp32"
        assert len({(tensor.device, tensor.dtype) for tensor in tensors}) == 1, "on one device, of one type"
        sizes = {name: sum(tensor.numel() for tensor in group) for name, group in groups.items()}
        total = sum(_aligned(size) for size in sizes.values())
        self.values = tensors[0].new_zeros(total)
        self.gradients_buffer = torch.zeros_like(self.values)
        self.groups: list[ParamGroup] = []
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        start = 0
        for name, group in groups.items():
            self.groups.append(self._move(name, group, start, sizes[name]))
            start += _aligned(sizes[name])

    @torch.no_grad()
    def _move(self, name: str, parameters: Sequence[nn.Parameter], start: int, size: int) -> ParamGroup:
        values = self.values[start : start + size]
        gradients = self.gradients_buffer[start : start + size]
        stacks, ordered, at = [], [], 0
        for shape, same in _by_shape(parameters):
            end = at + len(same) * math.prod(shape)
            stack = Stack(values[at:end].view(-1, *shape), gradients[at:end].view(-1, *shape))
            for parameter, value, gradient in zip(same, stack.values, stack.gradients, strict=True):
                value.copy_(parameter)
                parameter.data, parameter.grad = value, gradient
                self._views.append((parameter, gradient))
            stacks.append(stack)
            ordered += same
            at = end
        return ParamGroup(name, values, gradients, tuple(stacks), tuple(ordered), start)

    def gradients(self) -> list[Tensor]:
        """The buffers that hold every gradient: what several processes all-reduce (one here)."""
        return [self.gradients_buffer]

    def scale_gradients(self, factor: float) -> None:
        self.gradients_buffer.mul_(factor)

    def zero_grad(self) -> None:
        """Set every gradient to 0. AssertionError if someone replaced a `.grad`, whose step would have been lost."""
        assert all(parameter.grad is view for parameter, view in self._views), "a .grad was replaced; use zero_grad()"
        self.gradients_buffer.zero_()

    def norm(self) -> Tensor:
        """The Euclidean norm of all gradients, on the device."""
        # in two stages: one fp32 sum over 42 million squares is wrong in the third digit on a CPU
        rows = torch.linalg.vector_norm(self.gradients_buffer.view(-1, ALIGNMENT), dim=1)
        return torch.linalg.vector_norm(rows, dtype=torch.float64).to(self.gradients_buffer.dtype)

    def clip(self, most: float) -> Tensor:
        """Shrink all gradients so that their norm is at most `most` (0: leave them); the norm before, on the device.

        As torch's clip_grad_norm_, in a few operations and without waiting for the device.
        """
        norm = self.norm()
        if most:
            self.gradients_buffer.mul_((most / (norm + 1e-6)).clamp(max=1))
        return norm

    @torch.no_grad()
    def round_to_bf16(self, rng: torch.Generator) -> None:
        """Make every value one of its two bf16 neighbours, by chance, such that the mean is the value.

        bf16 is the upper half of fp32's bits: a random lower half is added to the lower one and the sum cut off. What
        is bf16 already stays. `rng` is on the values' device.
        """
        assert self.values.dtype is torch.float32, "only fp32 is rounded to bf16"
        for bits in self.values.view(torch.int32).split(ROUNDED_AT_ONCE):
            bits.add_(torch.empty_like(bits).random_(0, 1 << 16, generator=rng)).bitwise_and_(-(1 << 16))


def _by_shape(parameters: Sequence[nn.Parameter]) -> Iterator[tuple[torch.Size, list[nn.Parameter]]]:
    shapes: dict[torch.Size, list[nn.Parameter]] = {}
    for parameter in parameters:
        shapes.setdefault(parameter.shape, []).append(parameter)
    yield from shapes.items()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
