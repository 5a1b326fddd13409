"""What a LoRA's header says of how it was made: the keys other programs read, and everything to make it again.

A header is a function of recipe, data and weights alone: no time, host, path, session or library version is in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lorakiln.adapters.spec import AdapterSpec


@dataclass(frozen=True, slots=True)
class Header:
    """What the caller knows of a run, for `metadata`.

    `settings` holds further `ss_*` values by their name without the prefix (`{"noise_offset": 0.05}`); what is None is
    left out. `tag_frequency` maps a dataset's folder name to its tags' counts. `prediction` is "epsilon" or "v".
    `resolution` is (width, height). Hashes are SHA-256 in hex.
    """

    recipe: str
    adapter: AdapterSpec
    title: str
    dataset_hash: str
    base_name: str
    base_hash: str
    steps: int
    epoch: int
    max_steps: int
    num_epochs: int
    seed: int
    learning_rates: Mapping[str, float]
    optimizer: str = "adamw"
    scheduler: str = "cosine"
    prediction: str = "epsilon"
    resolution: tuple[int, int] = (1024, 1024)
    num_images: int = 0
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    trigger_phrase: str = ""
    description: str = ""
    author: str = ""
    license: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def metadata(header: Header) -> dict[str, str]:
    """`lorakiln.*`, `ss_*` (sd-scripts) and `modelspec.*` (Stability's ModelSpec 1.0.1) keys; all values strings.

    `sshs_*` hashes are of the file's bytes and are added by `write`.
    """
    own = {
        "lorakiln.recipe": header.recipe,
        "lorakiln.dataset_hash": header.dataset_hash,
        "lorakiln.base_hash": header.base_hash,
    }
    return own | network_keys(header.adapter) | _training_keys(header) | _modelspec_keys(header)


def network_keys(spec: AdapterSpec) -> dict[str, str]:
    """What loaders need to know of the adapter: sd-scripts' module, dim, alpha and arguments."""
    plain = spec.kind == "lora" and not spec.dora
    arguments: dict[str, Any] = {} if plain else {"algo": spec.kind}
    if spec.conv_rank:
        arguments |= {"conv_dim": spec.conv_rank, "conv_alpha": spec.conv_alpha}
    if spec.dora:
        arguments |= {"dora_wd": True, "wd_on_output": spec.dora_axis == "output"}
    named: dict[str, bool | float] = {
        "rs_lora": spec.rank_stabilised,
        "use_tucker": spec.tucker,
        "full_matrix": spec.full_matrix,
        "decompose_both": spec.decompose_both,
        "rank_dropout": spec.rank_dropout,
        "module_dropout": spec.module_dropout,
    }
    arguments |= {name: value for name, value in named.items() if value}
    if spec.kind == "lokr":
        arguments["factor"] = spec.factor
    keys = {
        "ss_network_module": "networks.lora" if plain else "lycoris.kohya",
        "ss_network_dim": str(spec.rank),
        "ss_network_alpha": str(float(spec.alpha)),
    }
    if arguments:
        keys["ss_network_args"] = json.dumps({name: str(value) for name, value in arguments.items()}, sort_keys=True)
    return keys


def _training_keys(header: Header) -> dict[str, str]:
    rates = header.learning_rates
    text = [rates[part] for part in ("te1", "te2") if rates.get(part)]
    values = {
        **header.settings,
        "base_model_version": "sdxl_base_v1-0",
        "v2": False,
        "output_name": header.title,
        "sd_model_name": header.base_name,
        "new_sd_model_hash": header.base_hash or None,
        "seed": header.seed,
        "steps": header.steps,
        "epoch": header.epoch,
        "max_train_steps": header.max_steps,
        "num_epochs": header.num_epochs,
        "num_train_images": header.num_images,
        "learning_rate": rates.get("unet") or max(text, default=0.0),
        "unet_lr": rates.get("unet", 0.0),
        "text_encoder_lr": text[0] if len(set(text)) == 1 else text or 0.0,
        "optimizer": header.optimizer,
        "lr_scheduler": header.scheduler,
        "resolution": f"({header.resolution[0]}, {header.resolution[1]})",
        "tag_frequency": json.dumps(header.tag_frequency, sort_keys=True, ensure_ascii=False),
    }
    return {f"ss_{name}": str(value) for name, value in values.items() if value is not None}


def _modelspec_keys(header: Header) -> dict[str, str]:
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": "stable-diffusion-xl-v1-base/lora",
        "implementation": "https://github.com/Stability-AI/generative-models",
        "title": header.title,
        "resolution": f"{header.resolution[0]}x{header.resolution[1]}",
        "prediction_type": header.prediction,
        "trigger_phrase": header.trigger_phrase,
        "description": header.description,
        "author": header.author,
        "license": header.license,
    }
    return {f"modelspec.{name}": value for name, value in values.items() if value}
