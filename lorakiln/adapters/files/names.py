"""The names that tools give to a LoRA's tensors, and the way from each of them to kohya's."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lorakiln.adapters.files.read import AdapterFile

# how diffusers begins a tensor's name; peft saves each model by itself, under one beginning for all
PARTS = {"unet.": "unet", "text_encoder_2.": "te2", "text_encoder.": "te1"}
PEFT = "base_model.model."
# the class that peft was put on, where its configuration tells
CLASSES = {"UNet2DConditionModel": "unet", "CLIPTextModel": "te1", "CLIPTextModelWithProjection": "te2"}
# the start of kohya-style names that follow diffusers' paths
STYLES = {"unet": "lora_unet_", "te1": "lora_te1_", "te2": "lora_te2_"}
SUFFIXES = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_A.default.weight": "lora_down.weight",
    "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_down.weight": "lora_down.weight",
    "lora_up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
    "alpha": "alpha",
}
# before peft diffusers gave its LoRAs to the attention's processor: "attn1.processor.to_out_lora.down.weight"
PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.")

Names = Mapping[str, Mapping[str, str]]


class Located(NamedTuple):
    """Where diffusers or peft put a tensor: part ("" where it is not told), module path, and kohya's suffix."""

    part: str
    module: str
    suffix: str


def to_kohya(file: AdapterFile, names: Names) -> dict[str, Tensor]:
    """The file's tensors under kohya's names, whether it came from kohya's tools, LyCORIS, diffusers or peft.

    `names` maps each part's module paths to kohya's names. A name that no layer of this family has stays as it is, so
    that `inject_file` can say which. Where peft left out alpha, it is reckoned from the file's own configuration.
    """
    known = {name for part in names.values() for name in part.values()}
    flat = _flat(names)
    alone = _part_of(file, flat)
    named: dict[str, Tensor] = {}
    paths: dict[str, Located] = {}
    for key, tensor in file.tensors.items():
        module, _, suffix = key.partition(".")
        path = _path(key)
        if module in known:
            named[key] = tensor
        elif module in flat:
            named[f"{flat[module]}.{suffix}"] = tensor
        elif path and (found := flat.get(_flat_name(path.part or alone, path.module))):
            # peft's magnitudes are over the output, whatever dimensions it gives them
            named[f"{found}.{path.suffix}"] = tensor.flatten() if path.suffix == "dora_scale" else tensor
            paths[found] = path._replace(part=path.part or alone)
        else:
            named[key] = tensor
    return _with_alphas(named, file, paths)


def _flat(names: Names) -> dict[str, str]:
    """diffusers' paths in kohya's style -> kohya's names."""
    flat = {_flat_name(part, path): name for part in names for path, name in names[part].items()}
    # transformers 5 dropped the `text_model.` that older files have
    return flat | {
        _flat_name(part, f"text_model.{path}"): name
        for part in names
        if part != "unet"
        for path, name in names[part].items()
    }


def _flat_name(part: str, path: str) -> str:
    return STYLES[part] + path.replace(".", "_")


def _path(key: str) -> Located | None:
    """What a name of diffusers or peft says; None for a tensor that is of no LoRA of theirs."""
    key = PROCESSOR.sub(lambda found: f".{found[1]}{'.0' * (found[1] == 'to_out')}.lora.", key.removeprefix(PEFT))
    start = next((start for start in PARTS if key.startswith(start)), "")
    for suffix, kohya in SUFFIXES.items():
        if key.endswith(f".{suffix}"):
            return Located(PARTS.get(start, ""), key.removeprefix(start).removesuffix(f".{suffix}"), kohya)
    return None


def _part_of(file: AdapterFile, flat: Mapping[str, str]) -> str:
    """The part that a file is of whose names do not say it: peft's, and a UNet's saved by itself.

    What peft was put on, if it tells; else the first that has most of the layers. The names of the first text encoder
    are among the second's, which is the deeper one.
    """
    model = file.peft.get("auto_mapping")
    told = model.get("base_model_class") if isinstance(model, dict) else None
    if told in CLASSES:
        return CLASSES[told]
    modules = {path.module for key in file.tensors if (path := _path(key)) and not path.part}
    return max(STYLES, key=lambda part: sum(_flat_name(part, module) in flat for module in modules))


def _with_alphas(named: dict[str, Tensor], file: AdapterFile, paths: Mapping[str, Located]) -> dict[str, Tensor]:
    """Add the alpha that peft keeps in its configuration, and give `dora_scale` vectors their dimensions."""
    for key in [key for key in named if key.endswith(".lora_down.weight")]:
        module = key.partition(".")[0]
        if file.peft and module in paths and f"{module}.alpha" not in named:
            alpha = _peft_alpha(file.peft, paths[module], len(named[key]))
            named[f"{module}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    for key in [key for key in named if key.endswith(".dora_scale") and named[key].dim() == 1]:
        up = named.get(key.replace(".dora_scale", ".lora_up.weight"))
        if up is not None:
            named[key] = named[key].reshape(-1, *[1] * (up.dim() - 1))
    return named


def _peft_alpha(config: Mapping[str, object], path: Located, rank: int) -> float:
    """scale * rank, from peft's configuration; diffusers puts the part before its keys: `unet.lora_alpha`."""
    start = next(start for start, part in PARTS.items() if part == path.part)

    def told(name: str) -> object:
        return config.get(start + name, config.get(name))

    alpha, patterns = told("lora_alpha"), told("alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if re.fullmatch(rf"(.*\.)?({pattern})", path.module):
            alpha = value
            break
    alpha = float(alpha) if isinstance(alpha, int | float) else float(rank)
    return alpha * (rank**0.5 if told("use_rslora") else 1.0)
