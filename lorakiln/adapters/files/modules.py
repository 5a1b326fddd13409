"""A LoRA file module by module, without a model: kind, rank and scale of each, and the matrix it stands for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lorakiln.adapters.inject import by_module, kind_of
from lorakiln.adapters.lora import DOWN, MID, UP
from lorakiln.adapters.magnitude import SCALE
from lorakiln.adapters.part import Adapter, Width
from lorakiln.adapters.place import Place


@dataclass(frozen=True, slots=True)
class Module:
    """One layer of a file: kohya's name, kind, rank, scale, the tensors by suffix, DoRA's axis ("" without)."""

    name: str
    kind: str
    width: Width
    tensors: Mapping[str, Tensor]
    dora: str

    @property
    def part(self) -> str:
        """ "unet", "te1" or "te2"; "te" for SD 1.5's only encoder."""
        return self.name.removeprefix("lora_").partition("_")[0]

    @property
    def block(self) -> str:
        """The block of the model it belongs to: "input_blocks_4", "middle_block_1", "te1_layers_11"."""
        words = self.name.split("_")
        for word in ("blocks", "block", "layers"):
            if word in words:
                at = words.index(word)
                prefix = words[at - 1] if word != "layers" else words[1]
                return "_".join([prefix, *words[at : at + 2]])
        return "_".join(words[1:3])

    def matrix(self) -> Tensor:
        """The change of the weight before any magnitude, fp32, (out, in * k * k)."""
        return self.adapter().delta({suffix: tensor.float() for suffix, tensor in self.tensors.items()})

    def adapter(self) -> Adapter:
        """An adapter of the kind on a layer that has only the shape of the matrix."""
        rows, columns = _shape(self.tensors)
        layer = nn.Linear(columns, rows, bias=False, device="meta")
        return kind_of(self.name, self.tensors)(Place(self.part, self.name, self.name, layer), self.width)

    def norm(self) -> float:
        """Frobenius norm of the change of the weight; of a LoRA without building it."""
        if self.kind != "lora" or MID in self.tensors:
            return self.matrix().norm().item()
        up, down = self.tensors[UP].double().flatten(1), self.tensors[DOWN].double().flatten(1)
        square = ((up.mT @ up) * (down @ down.mT)).sum().clamp(min=0)
        return square.sqrt().item() * abs(self.width.scale)


def modules(tensors: Mapping[str, Tensor]) -> list[Module]:
    """Every module of a file with kohya's names, sorted. Raises UserError for a kind that is not known."""
    return [_module(name, held) for name, held in sorted(by_module(tensors).items())]


def _module(name: str, held: Mapping[str, Tensor]) -> Module:
    kind = kind_of(name, held)
    rank = kind.rank_of(held)
    alpha = float(held["alpha"]) if "alpha" in held else float(rank)
    dora = ""
    if SCALE in held:
        dora = "input" if held[SCALE].shape[:1] == (1,) else "output"
    return Module(name, kind.kind, Width(rank, kind.scale_of(held, alpha or rank, rank)), held, dora)


def _shape(held: Mapping[str, Tensor]) -> tuple[int, int]:
    """(out, in * k * k) of the weight that a module's tensors change."""
    if UP in held:
        kernel = math.prod(held[MID].shape[2:]) if MID in held else 1
        return len(held[UP]), held[DOWN].flatten(1).shape[1] * kernel
    if "hada_t1" in held:
        return held["hada_w1_a"].shape[1], held["hada_w1_b"].shape[1] * math.prod(held["hada_t1"].shape[2:])
    if "hada_w1_a" in held:
        return held["hada_w1_a"].shape[0], held["hada_w1_b"].shape[1]
    rows = columns = 1
    for i in (1, 2):
        if f"lokr_w{i}" in held:
            whole = held[f"lokr_w{i}"].flatten(1)
            rows, columns = rows * whole.shape[0], columns * whole.shape[1]
        elif i == 2 and "lokr_t2" in held:
            rows *= held["lokr_w2_a"].shape[1]
            columns *= held["lokr_w2_b"].shape[1] * math.prod(held["lokr_t2"].shape[2:])
        else:
            rows, columns = rows * held[f"lokr_w{i}_a"].shape[0], columns * held[f"lokr_w{i}_b"].shape[1]
    return rows, columns


def scale_one(module: Module) -> dict[str, Tensor]:
    """A LoRA module's fp32 tensors with its scale folded into `up`, so that alpha is its rank."""
    held = {suffix: tensor.float() for suffix, tensor in module.tensors.items()}
    held[UP] = held[UP] * module.width.scale
    return held | {"alpha": torch.tensor(float(module.width.rank))}
