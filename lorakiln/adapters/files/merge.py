"""LoRAs merged into one file, or into a single-file base that any program loads."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lorakiln.adapters.files.history import without_hashes
from lorakiln.adapters.files.modules import Module, modules, scale_one
from lorakiln.adapters.files.read import refuse_pickle
from lorakiln.adapters.files.resize import resize
from lorakiln.adapters.files.write import header, raw
from lorakiln.adapters.inject import by_module, kind_of
from lorakiln.adapters.lora import DOWN, MID, UP
from lorakiln.adapters.place import Place
from lorakiln.base.errors import UserError
from lorakiln.base.files import atomic

Strengths = Sequence[tuple[Mapping[str, Tensor], float]]
UNET, TEXT_1 = "model.diffusion_model.", "conditioner.embedders.0.transformer."
TEXT_2 = "conditioner.embedders.1.model.transformer.resblocks."
OPENCLIP = {"mlp.c_fc": "mlp_fc1", "mlp.c_proj": "mlp_fc2", "attn.out_proj": "self_attn_out_proj"}


@torch.no_grad()
def together(loras: Strengths, rank: int = 0) -> dict[str, Tensor]:
    """One LoRA whose change of every weight is the sum of strength * change of each of `loras` (kohya's names).

    Exact: ranks add up. With `rank`, cut back to the best approximation of that rank. Raises UserError for kinds
    other than LoRA, and for DoRA, whose change depends on the base.
    """
    found: dict[str, list[tuple[Module, float]]] = {}
    for tensors, strength in loras:
        for module in modules(tensors):
            if module.kind != "lora" or MID in module.tensors or module.dora:
                what = f"DoRA on {module.kind}" if module.dora else module.kind
                raise UserError(f"{module.name}: {what} cannot be added to another file; merge it into a base instead")
            found.setdefault(module.name, []).append((module, strength))
    merged: dict[str, Tensor] = {}
    for name, parts in found.items():
        held = [(scale_one(module), strength) for module, strength in parts]
        down = torch.cat([tensors[DOWN] for tensors, _ in held])
        up = torch.cat([tensors[UP] * strength for tensors, strength in held], 1)
        merged |= {f"{name}.{DOWN}": down, f"{name}.{UP}": up, f"{name}.alpha": torch.tensor(float(len(down)))}
    return resize(merged, rank).tensors if rank else merged


@torch.no_grad()
def into_base(base: Path, loras: Strengths, out: Path, told: Mapping[str, str] | None = None) -> int:
    """Write the SDXL single file `base` with every LoRA added, in the base's dtypes; returns how many weights changed.

    `told` is added to the header. The sums are in fp32, one tensor in memory at a time; of several DoRAs each is
    reckoned from the base's own weight. Raises UserError for a base that is no single file, for LoRAs that change none
    of its layers or unknown ones, and for a sum that is too large for the base's dtype.
    """
    refuse_pickle(base)
    grouped = [(by_module(tensors), strength) for tensors, strength in loras]
    wanted = {name for held, _ in grouped for name in held}
    try:
        with safe_open(base, framework="pt") as file, atomic(Path(out)) as stream:
            names = sorted(file.keys())
            missing = sorted(wanted - {name for key in names for name, _ in targets(key)})
            if missing:
                raise UserError(f"{base}: has no layer {missing[0]} that a LoRA changes; is it an SDXL single file?")
            metadata = without_hashes(file.metadata() or {}) | dict(told or {})
            shapes = {key: (file.get_slice(key).get_dtype(), list(file.get_slice(key).get_shape())) for key in names}
            order, head = header(shapes, metadata)
            stream.write(head)
            changed = 0
            for key in order:
                tensor, count = _merged(key, file.get_tensor(key), grouped)
                changed += count
                stream.write(raw(tensor))
    except SafetensorError as error:
        raise UserError(f"{base}: not a whole safetensors file ({str(error).splitlines()[0]})") from error
    return changed


def targets(key: str) -> Iterator[tuple[str, slice]]:
    """(kohya's module name, rows of the tensor) that a single file's weight holds; OpenCLIP's q, k and v are one."""
    if key.startswith(UNET) and key.endswith(".weight"):
        yield "lora_unet_" + key.removeprefix(UNET).removesuffix(".weight").replace(".", "_"), slice(None)
    elif key.startswith(TEXT_1) and key.endswith(".weight"):
        yield "lora_te1_" + key.removeprefix(TEXT_1).removesuffix(".weight").replace(".", "_"), slice(None)
    elif key.startswith(TEXT_2):
        layer, _, rest = key.removeprefix(TEXT_2).partition(".")
        stem = f"lora_te2_text_model_encoder_layers_{layer}_"
        if rest == "attn.in_proj_weight":
            for third, letter in enumerate("qkv"):
                yield f"{stem}self_attn_{letter}_proj", slice(third, third + 1)
        elif rest.removesuffix(".weight") in OPENCLIP:
            yield stem + OPENCLIP[rest.removesuffix(".weight")], slice(None)


def _merged(key: str, tensor: Tensor, loras: Sequence[tuple[Mapping, float]]) -> tuple[Tensor, int]:
    total, count = tensor, 0
    for name, rows in targets(key):
        for held, strength in loras:
            if name not in held:
                continue
            if not count:
                total = tensor.to(torch.float32, copy=True)  # the next change is reckoned from `tensor` again
            size = len(tensor) // 3
            part = slice(None) if rows == slice(None) else slice(rows.start * size, rows.stop * size)
            total[part] += _change(name, tensor[part].float(), held[name], strength)
            count += 1
    merged = total.to(tensor.dtype)
    if count and not torch.isfinite(merged.float()).all():
        dtype = str(tensor.dtype).removeprefix("torch.")
        cause = f"too large for the base's {dtype}" if torch.isfinite(total).all() else "not a finite number"
        raise UserError(f"{key}: with the LoRAs added a weight is {cause}; nothing was written")
    return merged, count


def _change(name: str, weight: Tensor, held: Mapping[str, Tensor], strength: float) -> Tensor:
    """What one LoRA adds to one weight, DoRA included."""
    out_size, in_size, *kernel = weight.shape
    if kernel:
        layer: nn.Linear | nn.Conv2d = nn.Conv2d(in_size, out_size, (kernel[0], kernel[1]), bias=False, device="meta")
    else:
        layer = nn.Linear(in_size, out_size, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    adapter = kind_of(name, held).from_tensors(Place("unet", name, name, layer), held)
    adapter.strength = strength
    adapter.refresh()
    return adapter.weight_change()
