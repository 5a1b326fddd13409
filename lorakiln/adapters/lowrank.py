"""A frozen layer plus a low-rank product, forward and backward, with nothing computed or kept that is not needed.

Letters: T rows (batch x tokens), B batch, C channels, H W height and width, R rank. The base's weight is never trained.
"""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

# stride, padding and dilation of a convolution
Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """x W^T + b + scale (x down^T) up^T for x (..., in), W (out, in), down (R, in), up (out, R).

    The factors are cast to x's dtype; their gradients come back in their own. Not differentiable twice.
    """
    return _Linear.apply(x, weight, bias, down, up, scale)


def linears(
    x: Tensor, frozen: Sequence[tuple[Tensor, Tensor | None]], factors: Sequence[tuple[Tensor, Tensor, float]]
) -> Sequence[Tensor]:
    """`linear` for several layers that read the same x: one product makes the middles of them all.

    Of each layer (weight, bias) and (down, up, scale).
    """
    downs, ups, scales = zip(*factors, strict=True)
    return _Linears.apply(x, frozen, scales, *downs, *ups)


def scaled_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    factors: tuple[Tensor, Tensor, float],
    m: Tensor,
    inverse: Tensor,
) -> Tensor:
    """DoRA over the input axis: (W + scale up down) (x c) + b with c = m inverse; factors (down, up, scale).

    m and `inverse`, one over the norm, have shape (1, in). `inverse` is a constant; x, down, up and m get gradients.
    Beside a bf16 base c is rounded as x is, to 0.2 % of each column: of scales that differ from 1 by 0.05 % nothing is
    heard, of 0.2 % and more on average all (the output's error grows from 0.17 to 0.29 % of its size). To multiply in
    fp32 and round then gives the same, since x is on bf16's grid; m and its gradient are fp32, so small steps add up.
    """
    return _ScaledLinear.apply(x, weight, bias, *factors, m, inverse)


def conv2d(
    x_BCHW: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    down: Tensor,
    up: Tensor,
    scale: float,
    geometry: Geometry,
) -> Tensor:
    """conv(x, W) + b + scale * up(conv(x, down)): down (R, in, k, k) slides as W does, up (out, R) is 1x1."""
    return _Conv2d.apply(x_BCHW, weight, bias, down, up, scale, geometry)


class _Linear(torch.autograd.Function):
    """Accumulates into the base's output and into its input gradient, so no output-sized tensor is made or added."""

    @staticmethod
    def forward(ctx, x, weight, bias, down, up, scale):
        ctx.weight, ctx.scale, ctx.shape, ctx.dtype = weight, scale, x.shape, down.dtype
        if down.dtype is not x.dtype:
            down, up = down.to(x.dtype), up.to(x.dtype)
        x_T = x.reshape(-1, x.shape[-1])
        mid_T = x_T.mm(down.t())
        y_T = x_T.mm(weight.t()) if bias is None else torch.addmm(bias, x_T, weight.t())
        y_T.addmm_(mid_T, up.t(), alpha=scale)
        ctx.save_for_backward(x_T, mid_T, down, up)
        return y_T.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, *gradients):
        (dy,) = gradients
        _refuse_second_derivative()
        x_T, mid_T, down, up = ctx.saved_tensors
        dy_T = dy.reshape(-1, dy.shape[-1])
        dmid_T = _scaled(dy_T.mm(up), ctx.scale)
        wants_x, _, _, wants_down, wants_up, _ = ctx.needs_input_grad
        dx = dy_T.mm(ctx.weight).addmm_(dmid_T, down).view(ctx.shape) if wants_x else None
        ddown = dmid_T.t().mm(x_T) if wants_down else None
        dup = _scaled(dy_T.t().mm(mid_T), ctx.scale) if wants_up else None
        return dx, None, None, _cast(ddown, ctx.dtype), _cast(dup, ctx.dtype), None


class _Linears(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, frozen, scales, *factors):
        n = len(frozen)
        ranks = [up.shape[1] for up in factors[n:]]
        ctx.frozen, ctx.scales, ctx.ranks, ctx.shape, ctx.dtype = frozen, scales, ranks, x.shape, factors[0].dtype
        down, ups = torch.cat(factors[:n]), factors[n:]
        if down.dtype is not x.dtype:
            down, ups = down.to(x.dtype), [up.to(x.dtype) for up in ups]
        x_T = x.reshape(-1, x.shape[-1])
        mid_T = x_T.mm(down.t())
        outputs = []
        for i, mid in enumerate(mid_T.split(ranks, 1)):
            weight, bias = frozen[i]
            y_T = x_T.mm(weight.t()) if bias is None else torch.addmm(bias, x_T, weight.t())
            outputs.append(y_T.addmm_(mid, ups[i].t(), alpha=scales[i]).view(*x.shape[:-1], -1))
        ctx.save_for_backward(x_T, mid_T, down, *ups)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *dys):
        _refuse_second_derivative()
        x_T, mid_T, down, *ups = ctx.saved_tensors
        n, scales = len(ups), ctx.scales
        dys_T = [dy.reshape(-1, dy.shape[-1]) for dy in dys]
        dmid_T = torch.cat([_scaled(dys_T[i].mm(ups[i]), scales[i]) for i in range(n)], 1)
        dx = None
        if ctx.needs_input_grad[0]:
            dx_T = dys_T[0].mm(ctx.frozen[0][0])
            for i in range(1, n):
                dx_T.addmm_(dys_T[i], ctx.frozen[i][0])
            dx = dx_T.addmm_(dmid_T, down).view(ctx.shape)
        ddowns = dmid_T.t().mm(x_T).to(ctx.dtype).split(ctx.ranks)
        mids = mid_T.split(ctx.ranks, 1)
        dups = [_cast(_scaled(dys_T[i].t().mm(mids[i]), scales[i]), ctx.dtype) for i in range(n)]
        return dx, None, None, *ddowns, *dups


class _ScaledLinear(torch.autograd.Function):
    """`_Linear` of the scaled input, which is not kept: two more passes over x forward, four backward."""

    @staticmethod
    def forward(ctx, x, weight, bias, down, up, scale, m, inverse):
        ctx.weight, ctx.scale, ctx.inverse, ctx.shape = weight, scale, inverse, x.shape
        c = m * inverse
        x_T, narrow_c = x.reshape(-1, x.shape[-1]), c
        if down.dtype is not x.dtype:
            down, up, narrow_c = down.to(x.dtype), up.to(x.dtype), c.to(x.dtype)
        scaled_T = _short_lived(x_T, narrow_c)
        mid_T = scaled_T.mm(down.t())
        y_T = scaled_T.mm(weight.t()) if bias is None else torch.addmm(bias, scaled_T, weight.t())
        y_T.addmm_(mid_T, up.t(), alpha=scale)
        ctx.save_for_backward(x_T, mid_T, down, up, c)
        return y_T.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, *gradients):
        (dy,) = gradients
        _refuse_second_derivative()
        x_T, mid_T, down, up, c = ctx.saved_tensors
        dy_T = dy.reshape(-1, dy.shape[-1])
        dmid_T = _scaled(dy_T.mm(up), ctx.scale)
        dscaled_T = dy_T.mm(ctx.weight).addmm_(dmid_T, down)
        wants_x = ctx.needs_input_grad[0]
        products_T = _short_lived(x_T, dscaled_T) if wants_x else dscaled_T.mul_(x_T)
        dm = products_T.sum(0, keepdim=True, dtype=c.dtype).mul_(ctx.inverse)
        ddown = dmid_T.t().mm(x_T).to(c.dtype).mul_(c)
        dup = _cast(_scaled(dy_T.t().mm(mid_T), ctx.scale), c.dtype)
        dx = dscaled_T.mul_(_cast(c, dscaled_T.dtype)).view(ctx.shape) if wants_x else None
        return dx, None, None, ddown, dup, None, dm, None


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, down, up, scale, geometry):
        ctx.scale, ctx.geometry, ctx.dtype = scale, geometry, down.dtype
        down, up = down.to(x.dtype), up.to(x.dtype)
        y = torch.nn.functional.conv2d(x, weight, bias, *geometry)
        mid = torch.nn.functional.conv2d(x, down, None, *geometry)
        ctx.save_for_backward(x, mid, weight, down, up)
        # flat pixels are a view both of a contiguous and of a channels-last picture
        return y.flatten(2).baddbmm_(up.expand(len(y), -1, -1), mid.flatten(2), alpha=scale).view(y.shape)

    @staticmethod
    def backward(ctx, *gradients):
        (dy,) = gradients
        _refuse_second_derivative()
        x, mid, weight, down, up = ctx.saved_tensors
        dmid = _scaled(up.t().matmul(dy.flatten(2)), ctx.scale).view(mid.shape)
        wants_x, wants_down, wants_up = (ctx.needs_input_grad[i] for i in (0, 3, 4))
        dx, ddown, _ = _conv_backward(dmid, x, down, ctx.geometry, (wants_x, wants_down, False))
        if wants_x:
            dx = _conv_backward(dy, x, weight, ctx.geometry, (True, False, False))[0].add_(dx)
        dup = _scaled(dy.flatten(2).matmul(mid.flatten(2).mT).sum(0), ctx.scale) if wants_up else None
        return dx, None, None, _cast(ddown, ctx.dtype), _cast(dup, ctx.dtype), None, None


class _Room(threading.local):
    """Memory of one thread for products that nobody keeps: as much as the largest of them, whatever their types."""

    def __init__(self):
        self.bytes = torch.empty(0, dtype=torch.uint8)
        self.views: dict[tuple[torch.dtype, torch.Size], Tensor] = {}

    def view(self, like: Tensor) -> Tensor:
        """Room for a contiguous tensor of `like`'s type and shape; what lay there is lost."""
        key = like.dtype, like.shape
        view = self.views.get(key)
        if view is None:
            size = like.numel() * like.element_size()
            with torch.inference_mode(False):
                if size > len(self.bytes):
                    self.bytes, self.views = torch.empty(size, dtype=torch.uint8), {}
                view = self.views[key] = self.bytes[:size].view(like.dtype).view(like.shape)
        return view


_room = _Room()


def _short_lived(a: Tensor, b: Tensor) -> Tensor:
    """a * b in a's shape, good until the thread's next call.

    On a CPU in memory that is used again: made anew in every layer, between tensors that the backward pass needs, it
    would leave holes there, and each step would ask the system for pages that the last one gave back.
    """
    return torch.mul(a, b, out=_room.view(a)) if a.device.type == "cpu" else a * b


def _conv_backward(dy, x, weight, geometry, wanted):
    return torch.ops.aten.convolution_backward(dy, x, weight, None, *geometry, False, [0, 0], 1, wanted)


def _scaled(fresh: Tensor, scale: float) -> Tensor:
    return fresh if scale == 1 else fresh.mul_(scale)


def _cast(gradient: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return gradient if gradient is None or gradient.dtype is dtype else gradient.to(dtype)


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("a low-rank layer cannot be differentiated twice")
