"""What every kind of adapter has in common: trained tensors, a scale, a strength, and how it changes a layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from lorakiln.adapters.magnitude import SCALE, Magnitude
from lorakiln.adapters.place import Place
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.base.errors import UserError
from lorakiln.base.registry import Registry

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Width:
    """Rank of one module's adapter, and `scale`, what its change of the weight is multiplied by.

    `alpha` as written in files is scale * rank: the one number from which every loader recovers the scale.
    """

    rank: int
    scale: float

    @property
    def alpha(self) -> float:
        return self.scale * self.rank


class Adapter:
    """One layer's change: y = base(x) + strength * (change of the weight)(x).

    A kind names its tensors by their suffix in kohya's files and says how they make `delta`; with a `magnitude` (DoRA)
    the changed weight is normalised too. `__call__` is whatever computes the layer most cheaply.
    """

    kind: ClassVar[str]
    required: ClassVar[frozenset[str]]  # suffixes that tell the kind; any of `optional` may be there too
    optional: ClassVar[frozenset[str]] = frozenset()
    fast: ClassVar[frozenset[str]] = frozenset()  # tensors that start at zero: LoRA+ gives these their own rate

    def __init__(self, place: Place, width: Width):
        self.place, self.width = place, width
        self.tensors: dict[str, nn.Parameter] = {}
        self.magnitude: Magnitude | None = None
        self.strength = 1.0
        self.active = True
        self.mask: Tensor | None = None  # this step's rank dropout: `mask_size` factors of 0 or 1 / (1 - p)

    @classmethod
    def create(cls, place: Place, width: Width, spec: AdapterSpec, rng: torch.Generator) -> Self:
        """A fresh adapter that changes nothing yet."""
        adapter = cls(place, width)
        for suffix, values in cls.fresh(place, width, spec, rng).items():
            adapter.add_tensor(suffix, values)
        if spec.dora:
            adapter.magnitude = Magnitude(place, spec.dora_axis)
            adapter.add_tensor(SCALE, adapter.magnitude.fresh())
        return adapter

    @classmethod
    def notes(cls, adapters: Sequence["Adapter"], spec: AdapterSpec) -> list[str]:
        """What a user should hear of fresh adapters that did not come out as the spec reads."""
        return []

    @classmethod
    def from_tensors(cls, place: Place, tensors: Tensors) -> Self:
        """The adapter that a file's tensors of one module describe. Raises UserError where they do not fit."""
        rank = cls.rank_of(tensors)
        alpha = float(tensors["alpha"]) if "alpha" in tensors else float(rank)
        adapter = cls(place, Width(rank, cls.scale_of(tensors, alpha or rank, rank)))  # kohya reads alpha 0 as rank
        for suffix, tensor in cls.shaped(place, tensors).items():
            if suffix == SCALE:
                adapter.magnitude = Magnitude.of(place, tensor)
            adapter.add_tensor(suffix, tensor)
        try:
            shape = adapter.delta({suffix: tensor.to("meta") for suffix, tensor in adapter.tensors.items()}).shape
        except RuntimeError:
            shape = None
        if shape != place.weight.shape:
            held = ", ".join(f"{suffix} {tuple(tensor.shape)}" for suffix, tensor in tensors.items())
            raise UserError(f"{place.name}: {held} does not fit a layer of {tuple(place.weight.shape)}")
        return adapter

    @classmethod
    def fresh(cls, place: Place, width: Width, spec: AdapterSpec, rng: torch.Generator) -> dict[str, Tensor]:
        """Suffix -> first values."""
        raise NotImplementedError

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int:
        """The rank that a file's tensors have."""
        raise NotImplementedError

    @classmethod
    def scale_of(cls, tensors: Tensors, alpha: float, rank: int) -> float:
        """What the change of the weight is multiplied by."""
        return alpha / rank

    @classmethod
    def shaped(cls, place: Place, tensors: Tensors) -> dict[str, Tensor]:
        """The trained tensors of a file in the shapes that `delta` expects."""
        return {suffix: tensor for suffix, tensor in tensors.items() if suffix != "alpha"}

    @classmethod
    def recognises(cls, suffixes: frozenset[str]) -> bool:
        """Whether a module with these tensors in a file is of this kind."""
        return cls.required <= suffixes <= cls.required | cls.optional | {"alpha", SCALE}

    def add_tensor(self, suffix: str, values: Tensor) -> None:
        """Make a trained tensor, in the master dtype and on the layer's device."""
        weight = self.place.weight
        self.tensors[suffix] = nn.Parameter(values.to(weight.device, self.place.master_dtype).clone())

    def delta(self, tensors: Tensors) -> Tensor:
        """The trained change of the weight at strength one and before any magnitude, in the weight's shape."""
        raise NotImplementedError

    def weight_change(self, tensors: Tensors | None = None) -> Tensor:
        """The whole change of the weight at the present strength t: t * delta, or t * (W_dora - W)."""
        tensors = self.tensors if tensors is None else tensors
        delta = self.delta(tensors)
        if self.magnitude is not None:
            weight = self.place.weight.to(delta.dtype)
            delta = (weight + delta) * self.magnitude.factor(tensors[SCALE]) - weight
        return delta if self.strength == 1 else delta * self.strength

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the norms that the magnitude divides by from the tensors as they are, by building the weight."""
        if self.magnitude is not None:
            mask, self.mask = self.mask, None  # the norm is that of the whole change, whatever this step drops
            delta = self.delta(self.tensors)
            self.mask = mask
            total = self.place.weight.to(delta.dtype) + delta
            self.magnitude.set_square(total.square().sum(self.magnitude.summed, keepdim=True))

    def change(self, x: Tensor) -> Tensor:
        """The change of the layer's output."""
        return self.place.product(x, self.weight_change().to(x.dtype))

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def base(self, x: Tensor) -> Tensor:
        """The frozen layer's own output."""
        layer = self.place.layer
        return type(layer).forward(layer, x)  # ty: ignore[invalid-argument-type]

    @property
    def mask_size(self) -> int:
        """How many factors a rank dropout mask of this adapter has."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Suffix -> tensor as files hold them; `alpha` is a 0-d fp32 tensor."""
        held = {suffix: tensor.detach() for suffix, tensor in self.tensors.items()}
        return {"alpha": torch.tensor(self.width.alpha, dtype=torch.float32), **held}


kinds: Registry[type[Adapter]] = Registry("kind of adapter")


def uniform(*shape: int, like: Place, rng: torch.Generator) -> Tensor:
    """kaiming_uniform with a = sqrt(5), as torch starts its layers: bound 1 / sqrt(fan in)."""
    bound = torch.Size(shape[1:]).numel() ** -0.5
    return torch.empty(shape, dtype=like.master_dtype).uniform_(-bound, bound, generator=rng)
