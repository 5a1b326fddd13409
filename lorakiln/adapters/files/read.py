"""Reading a LoRA file: safetensors only, whoever wrote it, with one clear line for what cannot be read."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorakiln.base import pickles
from lorakiln.base.errors import UserError

PEFT_CONFIG = "lora_adapter_metadata"  # the header's key under which diffusers keeps peft's configuration
PEFT_FILE, PEFT_CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"  # what peft itself saves


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """Tensors and metadata as they are in the file, under the names that its writer chose.

    `peft` is the configuration that peft or diffusers kept with them (`lora_alpha`, `use_rslora`, ...): they leave
    alpha out of the tensors. diffusers puts the part before each key ("unet.lora_alpha").
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    peft: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> AdapterFile:
    """A whole safetensors file in memory. Raises UserError for a missing, truncated or other kind of file."""
    path = Path(path)
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({str(error).splitlines()[0]})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not tensors:
        raise UserError(f"{path}: holds no tensors")
    return AdapterFile(tensors, dict(sorted(metadata.items())), _peft_config(path, metadata))


def _peft_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's configuration, from the header or from the file that peft puts beside its own; empty without one."""
    beside = path.with_name(PEFT_CONFIG_FILE)
    if PEFT_CONFIG in metadata:
        where, text = f"{path}: its header's '{PEFT_CONFIG}'", metadata[PEFT_CONFIG].encode()
    elif path.name == PEFT_FILE and beside.is_file():
        where, text = str(beside), beside.read_bytes()
    else:
        return {}
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise UserError(f"{where}: must be a JSON object, not {type(config).__name__}")
    return config


def refuse_pickle(path: Path) -> None:
    """Raise UserError for a missing file, a folder, or a pickle: opening a pickle can run whatever is in it."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the .safetensors file in it")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: cannot be read (permission denied)")
    with path.open("rb") as stream:
        start = stream.read(pickles.START)
    if path.suffix.lower() in pickles.SUFFIXES or pickles.begins_as_pickle(start):
        raise UserError(
            f"{path}: a pickle, which can run code when opened; load it where you trust it and save it as .safetensors"
        )
