"""Reading a LoRA file: safetensors only, whoever wrote it, with one clear line for what cannot be read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorakiln.base.errors import UserError

PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"}
ZIP_OR_PICKLE = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """Tensors and metadata as they are in the file, under the names that its writer chose."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


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
    return AdapterFile(tensors, dict(sorted(metadata.items())))


def refuse_pickle(path: Path) -> None:
    """Raise UserError for a missing file, a folder, or a pickle: opening a pickle can run whatever is in it."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the .safetensors file in it")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: cannot be read (permission denied)")
    with path.open("rb") as stream:
        start = stream.read(4)
    if path.suffix.lower() in PICKLES or start.startswith(ZIP_OR_PICKLE):
        raise UserError(
            f"{path}: a pickle, which can run code when opened; load it where you trust it and save it as .safetensors"
        )
