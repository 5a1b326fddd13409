"""The names that tools give to a LoRA's tensors, and the way from each of them to kohya's."""

import json
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lorakiln.adapters.files.read import AdapterFile

# how diffusers and peft begin a tensor's name; a UNet saved alone has no beginning
PREFIXES = {"unet.": "unet", "text_encoder_2.": "te2", "text_encoder.": "te1", "base_model.model.": "unet", "": "unet"}
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

Names = Mapping[str, Mapping[str, str]]


def to_kohya(file: AdapterFile, names: Names) -> dict[str, Tensor]:
    """The file's tensors under kohya's names, whether it came from kohya's tools, LyCORIS, diffusers or peft.

    `names` maps each part's module paths to kohya's names. A name that no layer of this family has stays as it is, so
    that `inject_file` can say which. Where peft left out alpha, it is read from the file's own adapter metadata.
    """
    known = {name for part in names.values() for name in part.values()}
    flat = {STYLES[part] + path.replace(".", "_"): name for part in names for path, name in names[part].items()}
    # transformers 5 dropped the `text_model.` that older files have
    flat |= {
        STYLES[part] + "text_model_" + path.replace(".", "_"): name
        for part in names
        if part != "unet"
        for path, name in names[part].items()
    }
    named: dict[str, Tensor] = {}
    for key, tensor in file.tensors.items():
        module, _, suffix = key.partition(".")
        if module in known:
            named[key] = tensor
        elif module in flat:
            named[f"{flat[module]}.{suffix}"] = tensor
        else:
            # peft's magnitudes are over the output, whatever dimensions it gives them
            named[_from_path(key, flat) or key] = tensor.flatten() if "lora_magnitude_vector" in key else tensor
    return _with_alphas(named, file, names)


def _from_path(key: str, flat: Mapping[str, str]) -> str | None:
    """kohya's name of a tensor that diffusers or peft named by its module's path, if the path is one of ours."""
    for prefix, part in PREFIXES.items():
        if not key.startswith(prefix):
            continue
        for suffix, kohya in SUFFIXES.items():
            path = key.removeprefix(prefix)
            if path.endswith("." + suffix):
                flat_path = path.removesuffix("." + suffix).removesuffix(".processor").replace(".", "_")
                # the old attention-processor layout: ...attn1.processor.to_q_lora
                flat_path = flat_path.replace("_processor_", "_").removesuffix("_lora")
                if flat_path.endswith("to_out"):
                    flat_path += "_0"
                module = flat.get(STYLES[part] + flat_path)
                return module and f"{module}.{kohya}"
    return None


def _with_alphas(named: dict[str, Tensor], file: AdapterFile, names: Names) -> dict[str, Tensor]:
    """Add the alpha that diffusers keeps in its metadata, and give `dora_scale` vectors their two dimensions."""
    config = json.loads(file.metadata.get("lora_adapter_metadata", "{}"))
    paths = {name: (part, path) for part in names for path, name in names[part].items()}
    for key in [key for key in named if key.endswith(".lora_down.weight")]:
        module = key.partition(".")[0]
        if config and module in paths and f"{module}.alpha" not in named:
            part, path = paths[module]
            alpha = _peft_alpha(config, part, path, len(named[key]))
            named[f"{module}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    for key in [key for key in named if key.endswith(".dora_scale") and named[key].dim() == 1]:
        up = named[key.replace(".dora_scale", ".lora_up.weight")]
        named[key] = named[key].reshape(-1, *[1] * (up.dim() - 1))
    return named


def _peft_alpha(config: Mapping[str, object], part: str, path: str, rank: int) -> float:
    """scale * rank, from the configuration that diffusers writes: `unet.lora_alpha`, `unet.use_rslora`, ..."""
    prefix = {"unet": "unet.", "te1": "text_encoder.", "te2": "text_encoder_2."}[part]

    def told(name: str) -> object:
        return config.get(prefix + name, config.get(name))

    alpha, patterns = told("lora_alpha"), told("alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if re.fullmatch(rf"(.*\.)?({pattern})", path):
            alpha = value
            break
    alpha = float(alpha) if isinstance(alpha, int | float) else float(rank)
    return alpha * (rank**0.5 if told("use_rslora") else 1.0)
