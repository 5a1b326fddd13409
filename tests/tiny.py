"""A really tiny SDXL for tests: the true topology with random weights in one single file, 13 MB, most of it vocabulary.

`tiny_sdxl_file(path)` writes one, `tiny_family()` loads one that is written once for the whole test run. Its weights
have learned nothing: pictures are noise, but every shape, name and gradient is as in the real one.
"""

import json
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorakiln import families
from lorakiln.families.family import Family
from lorakiln.families.sdxl import keys
from lorakiln.families.sdxl.load import build
from lorakiln.families.sdxl.source import CONFIG_NAME, MODEL_CONFIG, shipped

# differing widths of the two encoders, as in SDXL: diffusers' loader tells them apart by it
TINY: dict[str, Any] = {
    "unet": {
        "block_out_channels": [32, 64, 64],
        "attention_head_dim": [2, 4, 4],
        "transformer_layers_per_block": [1, 1, 2],
        "cross_attention_dim": 64,
        "norm_num_groups": 8,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 40 + 6 * 8,
        "sample_size": 8,
    },
    "vae": {"block_out_channels": [16, 16, 32, 32], "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 64},
    "text_encoder": {
        "hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2,
        "projection_dim": 24,
    },
    "text_encoder_2": {
        "hidden_size": 40, "intermediate_size": 80, "num_attention_heads": 2, "num_hidden_layers": 2,
        "projection_dim": 40,
    },
    "resolution": 64,
}  # fmt: skip
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def tiny_config(part: keys.Part) -> dict[str, Any]:
    """The whole configuration of one part of the tiny model."""
    return shipped(CONFIG_NAME[part]) | TINY[CONFIG_NAME[part]]


def tiny_tensors(seed: int = 0, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Random weights of the tiny model under single-file names; norms near 1, so that activations stay in range.

    The dictionary is the caller's; its tensors are shared and must not be written to.
    """
    return dict(_tensors(seed, dtype))


@cache
def _tensors(seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for part in keys.PARTS:
        config = tiny_config(part)
        shapes = build(part, config).state_dict()
        state = {name: _random(name, tuple(shape.shape), rng) for name, shape in shapes.items()}
        tensors |= {key: tensor.to(dtype) for key, tensor in keys.to_ldm(part, state, config).items()}
    return tensors


def tiny_metadata(**scheduler: Any) -> dict[str, str]:
    """The header of the tiny model; `scheduler` adds what it says of its noise (prediction_type=...)."""
    return {MODEL_CONFIG: json.dumps(TINY | ({"scheduler": scheduler} if scheduler else {}))}


def tiny_sdxl_file(
    path: Path, *, seed: int = 0, dtype: torch.dtype = torch.float16, metadata: dict[str, str] | None = None
) -> Path:
    """Write the tiny model to `path`, the same bytes for the same arguments."""
    header = tiny_metadata() if metadata is None else metadata
    return write_safetensors(Path(path), tiny_tensors(seed, dtype), header)


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """A .safetensors file with a sorted header."""
    table: dict[str, Any] = {"__metadata__": dict(sorted((metadata or {}).items()))}
    end = 0
    for key, tensor in sorted(tensors.items()):
        start, end = end, end + tensor.numel() * tensor.element_size()
        table[key] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(head)) + head)
        for _, tensor in sorted(tensors.items()):
            stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return path


def tiny_family(dtype: torch.dtype = torch.float32) -> Family:
    """A fresh load of the tiny model: change it as you like."""
    return families.load(_shared_file(), dtype=dtype)


@cache
def _shared_file() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="tiny-sdxl-")
    _folders.append(folder)  # removed when Python ends
    return tiny_sdxl_file(Path(folder.name) / "tiny.safetensors")


_folders: list[tempfile.TemporaryDirectory] = []


def _random(name: str, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=rng)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.05 * noise
    if len(shape) < 2:
        return 0.02 * noise
    if "embedding." in name and "linear" not in name:
        return 0.1 * noise
    return noise / (noise[0].numel() ** 0.5)
