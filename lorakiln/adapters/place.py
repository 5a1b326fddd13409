"""Where adapters meet the frozen model: a layer, its name in files, and the call that is put before its own."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from lorakiln.adapters.part import Adapter


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One frozen Linear or Conv2d of a part ("unet", "te1", "te2"), by module path and by kohya's name."""

    part: str
    path: str
    name: str
    layer: nn.Linear | nn.Conv2d

    def __post_init__(self) -> None:
        if isinstance(self.layer, nn.Conv2d):
            if self.layer.groups != 1 or self.layer.padding_mode != "zeros" or isinstance(self.layer.padding, str):
                raise UserError(f"{self.name}: a convolution with groups or unusual padding cannot take an adapter")
        elif not isinstance(self.layer, nn.Linear):
            raise UserError(f"{self.name}: a {type(self.layer).__name__} cannot take an adapter, Linear and Conv2d can")

    @property
    def weight(self) -> Tensor:
        """The frozen weight: (out, in) or (out, in, kernel height, kernel width)."""
        return self.layer.weight

    def frozen(self) -> tuple[Tensor, Tensor | None]:
        """(weight, bias), looked up without the detour that a module's attributes take: this is on the hot path."""
        held = self.layer._parameters
        return held["weight"], held["bias"]  # ty: ignore[invalid-explicit-return]

    @property
    def is_conv(self) -> bool:
        return isinstance(self.layer, nn.Conv2d)

    def geometry(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(stride, padding, dilation) of a convolution."""
        assert isinstance(self.layer, nn.Conv2d) and not isinstance(self.layer.padding, str)
        return self.layer.stride, self.layer.padding, self.layer.dilation

    @property
    def spatial(self) -> bool:
        """Whether it is a convolution that looks beyond one pixel; kohya gives only those the rank `conv_rank`."""
        return self.is_conv and math.prod(self.weight.shape[2:]) > 1

    @property
    def master_dtype(self) -> torch.dtype:
        """Of trained tensors: at least fp32, fp64 beside an fp64 base."""
        return torch.promote_types(self.weight.dtype, torch.float32)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's own operation with another weight of the same shape."""
        if not self.is_conv:
            return nn.functional.linear(x, weight, bias)
        return nn.functional.conv2d(x, weight, bias, *self.geometry())

    def gradients(self, dy: Tensor, x: Tensor, weight: Tensor, wants_x: bool) -> tuple[Tensor | None, Tensor]:
        """Gradients of `product(x, weight)` for x (None unless wanted) and for the weight."""
        if not self.is_conv:
            rows = dy.reshape(-1, dy.shape[-1])
            dx = rows.mm(weight).view(x.shape) if wants_x else None
            return dx, rows.t().mm(x.reshape(-1, x.shape[-1]))
        wanted = (wants_x, True, False)
        settings = (None, *self.geometry(), False, [0, 0], 1)
        dx, dweight, _ = torch.ops.aten.convolution_backward(dy, x, weight, *settings, wanted)
        return dx, dweight


class Junction:
    """The forward of a layer that carries adapters: the layer itself again once the last one leaves.

    It is set on the one module, never on its class, so the same model can be adapted, cleaned and adapted again.
    """

    def __init__(self, layer: nn.Module):
        self.layer = layer
        self.adapters: list[Adapter] = []
        self._unmerged: list[tuple[Adapter, Tensor]] = []

    @classmethod
    def of(cls, layer: nn.Module) -> "Junction":
        """The layer's junction, made on the first call."""
        junction = layer.__dict__.get("_kiln_junction")
        if junction is None:
            junction = cls(layer)
            layer.__dict__["_kiln_junction"] = junction
        return junction

    def add(self, adapter: "Adapter") -> None:
        self.adapters.append(adapter)
        self._install()

    def discard(self, adapter: "Adapter") -> None:
        """Take one adapter off; without any, the module is as it was before the first."""
        if adapter in self.adapters:
            self.adapters.remove(adapter)
        self._install()

    def _install(self) -> None:
        own = self.layer.__dict__
        if not self.adapters:
            own.pop("_kiln_junction", None)
            own.pop("forward", None)
        else:  # one adapter is called without a detour
            own["forward"] = self.adapters[0] if len(self.adapters) == 1 else self

    def keep(self, adapter: "Adapter", weight: Tensor) -> None:
        """Remember the weight that `adapter` is about to be merged into."""
        self._unmerged.append((adapter, weight.detach().clone()))

    def kept(self, adapter: "Adapter") -> Tensor:
        """The weight from before the last merge, which must have been this adapter's."""
        last, weight = self._unmerged.pop()
        assert last is adapter, "unmerge networks in the reverse order of merging"
        return weight

    def __call__(self, x: Tensor) -> Tensor:
        first, *rest = self.adapters
        y = first(x)
        for adapter in rest:
            if adapter.active:
                y = y + adapter.change(x)
        return y
