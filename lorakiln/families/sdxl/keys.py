"""What one SDXL weight is called in each naming: LDM's (single files), diffusers' (our modules) and kohya's (LoRAs)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Part = Literal["unet", "vae", "te1", "te2"]
PARTS: tuple[Part, ...] = ("unet", "te1", "te2", "vae")
# where each part lives in a single file
LDM_PREFIX: dict[str, str] = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "te1": "conditioner.embedders.0.transformer.text_model.",
    "te2": "conditioner.embedders.1.model.",
}

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
# a resblock of OpenCLIP; its fused in_proj is handled by `pairs`
OPENCLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OPENCLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One tensor of a single file and the tensor(s) of our module that it holds."""

    ldm: str
    ours: tuple[str, ...]
    how: Literal["same", "fused", "transposed", "conv"] = "same"

    def to_ldm(self, state: Mapping[str, Tensor]) -> Tensor:
        """The single file's tensor, from a state dict of the module."""
        tensors = [state[name] for name in self.ours]
        match self.how:
            case "fused":
                return torch.cat(tensors)
            case "transposed":
                return tensors[0].T.contiguous()
            case "conv":
                return tensors[0][:, :, None, None]
            case _:
                return tensors[0]

    def to_ours(self, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) for each of the module's tensors, from the single file's."""
        match self.how:
            case "fused":
                yield from zip(self.ours, tensor.chunk(len(self.ours)), strict=True)
            case "transposed":
                yield self.ours[0], tensor.T.contiguous()
            case "conv":  # newer tools write the VAE's attention as the matrix it is
                yield self.ours[0], tensor.reshape(tensor.shape[:2])
            case _:
                yield self.ours[0], tensor


def pairs(part: Part, names: Iterable[str], config: Mapping[str, Any]) -> list[Pair]:
    """A `Pair` for every state-dict name of a module of `part`, in the order of `names`, LDM prefix included.

    `config` is the part's own (unet.json, vae.json, ...): block counts and layers decide the numbering.
    """
    prefix = LDM_PREFIX[part]
    if part == "te1":
        return [Pair(prefix + name.removeprefix("text_model."), (name,)) for name in names]
    if part == "te2":
        return list(_openclip_pairs(prefix, list(names)))
    table = unet_modules(config) if part == "unet" else vae_modules(config)
    found = []
    for name in names:
        ldm = prefix + rename(name, table)
        matrix = part == "vae" and ".attn_1." in ldm and ldm.endswith(".weight") and ".norm." not in ldm
        found.append(Pair(ldm, (name,), "conv" if matrix else "same"))
    return found


def to_ldm(part: Part, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A module's state dict under single-file names and in their layout; works on the meta device too."""
    return {pair.ldm: pair.to_ldm(state) for pair in pairs(part, state, config)}


def to_diffusers(
    part: Part, ldm: Mapping[str, Tensor], names: Iterable[str], config: Mapping[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) for every one of the module's state-dict `names`, read from single-file tensors one at a time.

    Raises KeyError for a tensor that `ldm` lacks; `load` checks that before.
    """
    for pair in pairs(part, names, config):
        yield from pair.to_ours(ldm[pair.ldm])


def kohya_names(part: Part, module: nn.Module, config: Mapping[str, Any], *, conv: bool = False) -> dict[str, str]:
    """Module path -> kohya's LoRA name for what sd-scripts trains by default; with `conv` also what `conv_dim` adds.

    True SDXL: 722 Linear layers of the UNet's transformers (788 with `conv`: resnets and samplers), 72 and 192 of the
    text encoders. Time and label embeddings, first and last convolution and norms are never among them.
    """
    if part == "vae":
        return {}
    if part in ("te1", "te2"):
        homes, kinds = {"CLIPAttention", "CLIPMLP"}, (nn.Linear,)
        return {
            path: f"lora_{part}_text_model_" + path.removeprefix("text_model.").replace(".", "_")
            for path in _inside(module, homes, kinds)
        }
    table = unet_modules(config)
    paths = set(_inside(module, {"Transformer2DModel"}, (nn.Linear, nn.Conv2d)))
    if conv:
        paths |= set(_inside(module, {"ResnetBlock2D", "Downsample2D", "Upsample2D"}, (nn.Linear, nn.Conv2d)))
    ordered = [path for path, _ in module.named_modules() if path in paths]
    return {path: "lora_unet_" + rename(path, table).replace(".", "_") for path in ordered}


def rename(name: str, table: Mapping[str, str]) -> str:
    """`name` with its longest prefix (at a dot) that `table` knows replaced; unchanged where it knows none."""
    pieces = name.split(".")
    for end in range(len(pieces), 0, -1):
        head = ".".join(pieces[:end])
        if head in table:
            return ".".join([table[head], *pieces[end:]])
    return name


def unet_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """diffusers module path -> LDM module path of the UNet, generated from its block types and layers."""
    table = dict(UNET_ENDS)
    layers, down, up = config["layers_per_block"], config["down_block_types"], config["up_block_types"]
    for block, kind in enumerate(down):
        for layer in range(layers):
            home = f"input_blocks.{1 + block * (layers + 1) + layer}"
            _resnet(table, f"down_blocks.{block}.resnets.{layer}", f"{home}.0")
            if "CrossAttn" in kind:
                table[f"down_blocks.{block}.attentions.{layer}"] = f"{home}.1"
        if block + 1 < len(down):
            table[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
    _resnet(table, "mid_block.resnets.0", "middle_block.0")
    table["mid_block.attentions.0"] = "middle_block.1"
    _resnet(table, "mid_block.resnets.1", "middle_block.2")
    for block, kind in enumerate(up):
        attends = "CrossAttn" in kind
        for layer in range(layers + 1):
            home = f"output_blocks.{block * (layers + 1) + layer}"
            _resnet(table, f"up_blocks.{block}.resnets.{layer}", f"{home}.0")
            if attends:
                table[f"up_blocks.{block}.attentions.{layer}"] = f"{home}.1"
        if block + 1 < len(up):
            last = f"output_blocks.{block * (layers + 1) + layers}"
            table[f"up_blocks.{block}.upsamplers.0.conv"] = f"{last}.{2 if attends else 1}.conv"
    return table


def vae_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """diffusers module path -> LDM module path of the VAE; LDM counts the decoder's levels from the picture's side."""
    table = {}
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    for half in ("encoder", "decoder"):
        table[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        for index in (0, 1):
            table[f"{half}.mid_block.resnets.{index}"] = f"{half}.mid.block_{index + 1}"
        for ours, ldm in VAE_ATTENTION.items():
            table[f"{half}.mid_block.attentions.0.{ours}"] = f"{half}.mid.attn_1.{ldm}"
    for level in range(levels):
        sides = [
            (f"encoder.down_blocks.{level}", f"encoder.down.{level}", "down", layers),
            (f"decoder.up_blocks.{level}", f"decoder.up.{levels - 1 - level}", "up", layers + 1),
        ]
        for ours, ldm, way, count in sides:
            table[f"{ours}.{way}samplers.0.conv"] = f"{ldm}.{way}sample.conv"
            for layer in range(count):
                table[f"{ours}.resnets.{layer}"] = f"{ldm}.block.{layer}"
                table[f"{ours}.resnets.{layer}.conv_shortcut"] = f"{ldm}.block.{layer}.nin_shortcut"
    return table


def _resnet(table: dict[str, str], ours: str, ldm: str) -> None:
    for inner, theirs in RESNET.items():
        table[f"{ours}.{inner}"] = f"{ldm}.{theirs}"


def _openclip_pairs(prefix: str, names: list[str]) -> Iterator[Pair]:
    """OpenCLIP keeps query, key and value in one matrix, and the projection transposed."""
    for name in names:
        inner = name.removeprefix("text_model.")
        if inner == "text_projection.weight":
            yield Pair(prefix + OPENCLIP_ENDS[inner], (name,), "transposed")
            continue
        if not inner.startswith("encoder.layers."):
            yield Pair(prefix + rename(inner, OPENCLIP_ENDS), (name,))
            continue
        _, _, number, rest = inner.split(".", 3)
        layer = f"{prefix}transformer.resblocks.{number}."
        if rest.startswith("self_attn.q_proj."):
            kind = rest.rsplit(".", 1)[1]
            fused = tuple(name.replace("q_proj", f"{letter}_proj") for letter in "qkv")
            yield Pair(f"{layer}attn.in_proj_{kind}", fused, "fused")
        elif not rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
            yield Pair(layer + rename(rest, OPENCLIP_LAYER), (name,))


def _inside(module: nn.Module, homes: set[str], kinds: tuple[type, ...]) -> Iterator[str]:
    """Paths of the modules of `kinds` that live in a module whose class is named in `homes`."""
    for home, parent in module.named_modules():
        if type(parent).__name__ in homes:
            for path, child in parent.named_modules(prefix=home):
                if isinstance(child, kinds):
                    yield path
