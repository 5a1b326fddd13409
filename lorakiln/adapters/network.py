"""All adapters of one LoRA on one model: its trained tensors, its strength, its file, and taking it off again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lorakiln.adapters.lora import LoRA, SharedInput
from lorakiln.adapters.norms import Norms
from lorakiln.adapters.part import Adapter
from lorakiln.adapters.place import Junction
from lorakiln.adapters.spec import AdapterSpec
from lorakiln.base.chance import key
from lorakiln.base.errors import UserError

# sibling layers called with one and the same tensor; a transformer block's attn2 asks the text, whatever its width
SELF_ATTENTION = (("to_q", "to_k", "to_v"), ("q_proj", "k_proj", "v_proj"))
CROSS_ATTENTION = (("to_k", "to_v"),)


@dataclass(frozen=True, slots=True)
class Trained:
    """One trained tensor: its part, its layer's kohya name and path, its suffix in files, and whether it is `fast`.

    `fast` tensors start at zero; LoRA+ (Hayou et al. 2024) gives them a higher learning rate.
    """

    part: str
    module: str
    path: str
    suffix: str
    parameter: nn.Parameter
    fast: bool

    @property
    def name(self) -> str:
        """The tensor's name in files."""
        return f"{self.module}.{self.suffix}"


class Network:
    """Adapters put on their layers. Several networks may stand on one model; their changes of a weight add up."""

    def __init__(
        self,
        adapters: Sequence[Adapter],
        spec: AdapterSpec | None = None,
        seed: int = 0,
        roots: Iterable[nn.Module] = (),
    ):
        self.adapters, self.spec, self.seed = list(adapters), spec, seed
        self.notes: list[str] = []  # what a user should hear of how they came out
        self._strength = 1.0
        self._merged = False
        for adapter in self.adapters:
            Junction.of(adapter.place.layer).add(adapter)
        self.shared = list(_share(self.adapters, spec))
        self._norms = Norms(self.adapters)
        normalised = bool(self._norms.groups or self._norms.single)
        self._paced, self._step = False, -1
        self._hooks = [root.register_forward_pre_hook(self._before_forward) for root in roots if normalised]
        self.refresh()

    @property
    def strength(self) -> float:
        """What every change is multiplied by, live. At 0 the model computes what it computed before, to the bit."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        assert not self._merged, "a merged network has the strength it was merged at; unmerge it first"
        self._strength = float(value)
        for adapter in self.adapters:
            adapter.strength, adapter.active = self._strength, self._strength != 0

    def begin(self, step: int, micro: int = 0) -> None:
        """Call before each forward of a training step: draws its dropout, and once a step takes DoRA's norms.

        The masks are a function of the seed, the step and the micro-batch, so a resumed run draws the same, and every
        process of one step too. A network on which this was never called takes the norms before each forward.
        """
        self._paced = True
        if micro == 0 or step != self._step:  # a process may have no part in a step's first batch
            self.refresh()
        self._step = step
        if self.spec is None or not (self.spec.rank_dropout or self.spec.module_dropout):
            return
        rng = torch.Generator().manual_seed(key(self.seed, "adapter dropout", step, micro))
        for adapter in self.adapters:
            kept = torch.rand(1, generator=rng).item() >= self.spec.module_dropout
            adapter.active = kept and self._strength != 0
            if self.spec.rank_dropout:
                mask = torch.rand(adapter.mask_size, generator=rng) >= self.spec.rank_dropout
                mask = mask.to(adapter.place.weight.device, adapter.place.master_dtype)
                adapter.mask = mask / (1 - self.spec.rank_dropout)

    def rest(self) -> None:
        """Call before the network is used for anything but training: no dropout, and DoRA's norms as of now."""
        for adapter in self.adapters:
            adapter.mask, adapter.active = None, self._strength != 0
        self.refresh()

    def refresh(self) -> None:
        """Take DoRA's norms from the weights as they are now."""
        with torch.inference_mode(False):
            self._norms.refresh()

    def _before_forward(self, *_: object) -> None:
        if not self._paced:
            self.refresh()

    def trained(self) -> list[Trained]:
        """Every trained tensor, in the order of the modules."""
        return [
            Trained(a.place.part, a.place.name, a.place.path, suffix, parameter, suffix in a.fast)
            for a in self.adapters
            for suffix, parameter in a.tensors.items()
        ]

    def parameters_by_part(self) -> dict[str, list[nn.Parameter]]:
        """Part ("unet", "te1", "te2") -> its trained tensors."""
        parts: dict[str, list[nn.Parameter]] = {}
        for trained in self.trained():
            parts.setdefault(trained.part, []).append(trained.parameter)
        return parts

    def state_dict(self) -> dict[str, Tensor]:
        """kohya's names -> tensors (the live values, detached; `alpha` in fp32)."""
        return {f"{a.place.name}.{suffix}": tensor for a in self.adapters for suffix, tensor in a.state().items()}

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Set every trained tensor, from kohya's names. Raises UserError unless modules, shapes and scales agree."""
        own = self.state_dict()
        _same_names(own, tensors)
        for name, mine in own.items():
            theirs = tensors[name]
            if name.endswith(".alpha"):
                if not torch.isclose(theirs.float().cpu(), mine, rtol=1e-2):  # bf16 files round it
                    raise UserError(f"{name}: {float(theirs):g} in the file, {float(mine):g} here")
            elif theirs.shape != mine.shape:
                raise UserError(f"{name}: shape {tuple(theirs.shape)} in the file, {tuple(mine.shape)} here")
        for name, mine in own.items():
            if not name.endswith(".alpha"):
                mine.copy_(tensors[name])
        self.refresh()

    def remove(self) -> None:
        """Take the adapters off; the model is what it was before them."""
        if self._merged:
            self.unmerge()
        for adapter in self.adapters:
            Junction.of(adapter.place.layer).discard(adapter)
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def merge(self) -> None:
        """Write the changes into the base's weights, computed in fp32, and stop adding them; keeps the old weights."""
        assert not self._merged, "already merged"
        for adapter in self.adapters:
            weight = adapter.place.weight
            merged = weight.to(adapter.place.master_dtype) + adapter.weight_change()
            Junction.of(adapter.place.layer).keep(adapter, weight)
            weight.copy_(merged)
            adapter.active = False
        self._merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Undo `merge`, to the bit; of several merged networks the last one first."""
        for adapter in self.adapters:
            adapter.place.weight.copy_(Junction.of(adapter.place.layer).kept(adapter))
            adapter.active = self._strength != 0
        self._merged = False


def _share(adapters: Iterable[Adapter], spec: AdapterSpec | None) -> Iterable[SharedInput]:
    """Group the LoRAs on sibling layers that are called with one tensor and leave none of them out.

    DoRA scales the input for each layer anew, so there is nothing to share.
    """
    if spec is not None and spec.module_dropout:
        return
    siblings: dict[tuple[str, str], dict[str, LoRA]] = {}
    for adapter in adapters:
        if isinstance(adapter, LoRA) and adapter.magnitude is None and not adapter.place.is_conv:
            home, _, last = adapter.place.path.rpartition(".")
            siblings.setdefault((adapter.place.part, home), {})[last] = adapter
    for (_, home), found in siblings.items():
        for ends in CROSS_ATTENTION if home.endswith("attn2") else SELF_ATTENTION:
            members = [found[end] for end in ends if end in found]
            if len(members) > 1:
                yield SharedInput(members)


def _same_names(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    modules, theirs = ({name.partition(".")[0] for name in names} for names in (own, tensors))
    if not modules & theirs:
        raise UserError(f"not a LoRA of this model family: the base has no layer {min(theirs, default='at all')}")
    for missing in sorted(set(own) - set(tensors)):
        raise UserError(f"{missing}: not in the file; was it trained with other targets or another kind?")
    for extra in sorted(set(tensors) - set(own)):
        raise UserError(f"{extra}: in the file but not here; was it trained with other targets or another kind?")
