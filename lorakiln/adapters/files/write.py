"""Writing a LoRA as safetensors so that equal content is equal bytes: sorted header, sorted tensors, no chance in it.

The safetensors library writes metadata in random order, so the format is written here: 8 bytes of header length
(little-endian), a JSON header padded with spaces to a multiple of 8, then the tensors' bytes.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lorakiln.adapters.magnitude import SCALE
from lorakiln.base.errors import UserError, nearest
from lorakiln.base.files import atomic

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",  # what an 8-bit optimizer keeps
    torch.bool: "BOOL",
}
LEGACY_START, LEGACY_LENGTH = 0x100000, 0x10000  # where AUTOMATIC1111's first hash looked


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], dtype: str = "bf16") -> None:
    """Write named tensors to `path`, whole or not at all, with AUTOMATIC1111's two hashes added to the metadata.

    Every tensor is written in `dtype` ("fp32", "bf16", "fp16") but `alpha` and DoRA's magnitudes, which stay fp32: what
    they round off would be a share of the base's own weight (0.2 % of its output in bf16). Raises UserError for a value
    that is not finite in that dtype, and when the disk is full.
    """
    if dtype not in DTYPES:
        raise UserError(f"save.dtype = '{dtype}': unknown{nearest(dtype, DTYPES)}")
    held = {name: _as(tensor, name, dtype) for name, tensor in tensors.items()}
    with atomic(Path(path)) as stream:
        for piece in pieces(held, {**metadata, **hashes(held, metadata)}):
            stream.write(piece)


def pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterable[bytes]:
    """The file's bytes: length and header, then one tensor at a time."""
    shapes = {name: (CODES[tensor.dtype], list(tensor.shape)) for name, tensor in tensors.items()}
    order, head = header(shapes, metadata)
    yield head
    for name in order:
        yield raw(tensors[name])


def header(shapes: Mapping[str, tuple[str, list[int]]], metadata: Mapping[str, str]) -> tuple[list[str], bytes]:
    """(the order of the tensors, the file's first bytes) for names with safetensors' dtype code and shape.

    Wide dtypes come first, so that every tensor starts aligned.
    """
    assert all(isinstance(value, str) for value in metadata.values()), "safetensors metadata are strings"
    ordered = sorted(shapes, key=lambda name: (-_bytes_each(shapes[name][0]), name))
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name in ordered:
        code, shape = shapes[name]
        end = start + math.prod(shape) * _bytes_each(code)
        table[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(table, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return ordered, len(text).to_bytes(8, "little") + text


def raw(tensor: Tensor) -> bytes:
    """A tensor's own bytes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """`sshs_model_hash` (SHA-256 of the tensors' bytes) and `sshs_legacy_hash`, as sd-scripts and A1111 reckon them.

    The legacy hash is of 64 KiB at 1 MiB into the file as it would be with its `ss_` metadata alone.
    """
    whole, legacy, position = hashlib.sha256(), hashlib.sha256(), 0
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    for index, piece in enumerate(pieces(tensors, training)):
        if index:  # after the header
            whole.update(piece)
        low, high = LEGACY_START - position, LEGACY_START + LEGACY_LENGTH - position
        if high > 0:
            legacy.update(piece[max(low, 0) : high])
        position += len(piece)
    return {"sshs_model_hash": whole.hexdigest(), "sshs_legacy_hash": legacy.hexdigest()[:8]}


def _as(tensor: Tensor, name: str, dtype: str) -> Tensor:
    wide = name.rpartition(".")[2] in ("alpha", SCALE)
    cast = tensor.detach().to("cpu", torch.float32 if wide else DTYPES[dtype]).contiguous()
    if not torch.isfinite(cast).all():
        cause = f"too large for {dtype}" if torch.isfinite(tensor).all() else "not a finite number"
        raise UserError(f"{name}: a value is {cause}; nothing was written")
    return cast


def _bytes_each(code: str) -> int:
    kind = code.partition("_")[0]
    return next((int(digits) // 8 for digits in ("64", "32", "16") if kind.endswith(digits)), 1)
