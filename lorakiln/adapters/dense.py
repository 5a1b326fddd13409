"""A frozen layer plus a change of its weight that is built whole: LoHa, LoKr, and DoRA on them.

Forward is one product with W + D, backward one for x and one for D: three products where adding D(x) to W(x) takes
five. D is built again in the backward pass, so only x and the small factors are kept.
"""

import torch
from torch import Tensor

from lorakiln.adapters.part import Adapter


class DenseAdapter(Adapter):
    """A kind whose change of the weight is cheap to build and expensive to apply in factors."""

    def __call__(self, x: Tensor) -> Tensor:
        if not self.active:
            return self.base(x)
        return _Dense.apply(x, self, *self.tensors.values())

    @property
    def mask_size(self) -> int:
        """Rank dropout leaves out whole output rows of the change, as LyCORIS does for these kinds."""
        return len(self.place.weight)

    def masked(self, delta: Tensor) -> Tensor:
        """`delta` with this step's dropped rows at zero."""
        return delta if self.mask is None else delta * self.mask.view(-1, *[1] * (delta.dim() - 1))


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, adapter, *tensors):
        place = adapter.place
        weight, bias = place.frozen()
        change = adapter.weight_change()
        ctx.save_for_backward(x, *tensors)
        ctx.adapter, ctx.strength, ctx.mask = adapter, adapter.strength, adapter.mask
        if change.dtype == weight.dtype:
            return place.product(x, weight + change, bias)
        # beside a half-precision base the sum would round the change away
        return place.product(x, weight, bias).add_(place.product(x, change.to(x.dtype)))

    @staticmethod
    def backward(ctx, *gradients):
        if torch.is_grad_enabled():
            raise RuntimeError("a dense adapter cannot be differentiated twice")
        (dy,) = gradients
        x, *tensors = ctx.saved_tensors
        adapter, place = ctx.adapter, ctx.adapter.place
        unchanged = adapter.strength == ctx.strength and adapter.mask is ctx.mask
        assert unchanged, "strength or dropout changed between forward and backward"
        held = {name: tensor.detach().requires_grad_() for name, tensor in zip(adapter.tensors, tensors, strict=True)}
        with torch.enable_grad():
            change = adapter.weight_change(held)
        total = place.weight + change.detach().to(x.dtype)
        dx, dtotal = place.gradients(dy, x, total, ctx.needs_input_grad[0])
        return dx, None, *torch.autograd.grad(change, list(held.values()), dtotal.to(change.dtype))


def rebuild_tucker(core: Tensor, out_factor: Tensor, in_factor: Tensor) -> Tensor:
    """Tucker form of a convolution's weight (LyCORIS, "CP decomposition"): sum_ij core_ij.. out_ip in_jq -> pq..

    core (R, R, k, k), out_factor (R, out), in_factor (R, in).
    """
    return torch.einsum("ijhw,ip,jq->pqhw", core, out_factor, in_factor)
