"""What one does with LoRA files: describe, merge, resize, extract, convert. Paths in, paths and facts out."""

from collections.abc import Sequence
from pathlib import Path

from lorakiln import families
from lorakiln.adapters.files import convert, extract, history, merge, resize
from lorakiln.adapters.files.inspect import Inspection, inspect
from lorakiln.adapters.files.names import to_kohya
from lorakiln.adapters.files.read import read
from lorakiln.adapters.files.write import write
from lorakiln.base.errors import UserError
from lorakiln.families.places import find

Loras = Sequence[tuple[Path, float]]


def describe(path: Path, base: str = "") -> Inspection:
    """What a LoRA file is; `base` names the model it was made for, true SDXL where it is empty."""
    file = read(path)
    return inspect(file, to_kohya(file, families.layer_names(base)))


def merge_into_base(base: str, loras: Loras, out: Path, overwrite: bool = False) -> int:
    """Write a base with LoRAs added to its weights; how many weights changed."""
    refuse_existing(out, overwrite)
    where = find(base)
    if where.is_dir():
        raise UserError(f"{base}: is a folder; LoRAs are merged into a single .safetensors file")
    names = families.layer_names(base)
    files = [(read(path), strength) for path, strength in loras]
    tensors = [(to_kohya(file, names), strength) for file, strength in files]
    return merge.into_base(where, tensors, out, history.sources(files))


def merge_together(loras: Loras, out: Path, *, rank: int = 0, dtype: str = "bf16", overwrite: bool = False) -> int:
    """Write one LoRA that does what several do; its number of modules."""
    refuse_existing(out, overwrite)
    names = families.layer_names()
    files = [(read(path), strength) for path, strength in loras]
    tensors = merge.together([(to_kohya(file, names), strength) for file, strength in files], rank)
    write(out, tensors, history.merged(files, tensors, rank), dtype)
    return len(tensors) // 3


def resize_file(
    path: Path, out: Path, *, rank: int = 0, energy: float = 0.0, dtype: str = "bf16", overwrite: bool = False
) -> resize.Resized:
    """Write a LoRA at another rank; the new ranks and what they keep."""
    refuse_existing(out, overwrite)
    file = read(path)
    result = resize.resize(to_kohya(file, families.layer_names()), rank, energy)
    write(out, result.tensors, history.resized(file, result.tensors, rank, energy), dtype)
    return result


def extract_file(
    original: str,
    tuned: str,
    out: Path,
    *,
    rank: int,
    conv_rank: int = 0,
    energy: float = 1.0,
    dtype: str = "bf16",
    overwrite: bool = False,
) -> extract.Extracted:
    """Write the LoRA that makes one checkpoint out of another; what share of the difference it keeps."""
    refuse_existing(out, overwrite)
    names = [name for part in families.layer_names(original).values() for name in part.values()]
    places = (find(original), find(tuned))
    found = extract.extract(*places, names, rank, conv_rank, energy)
    if not found.tensors:
        raise UserError(f"{tuned}: has the weights of {original}; there is nothing to extract")
    write(out, found.tensors, history.widths(found.tensors) | {"ss_base_model_version": "sdxl_base_v1-0"}, dtype)
    return found


def convert_file(
    path: Path, out: Path, to: str, *, base: str = "", dtype: str = "bf16", overwrite: bool = False
) -> int:
    """Write a LoRA under kohya's or diffusers' names; its number of tensors. `base` as in `describe`."""
    refuse_existing(out, overwrite)
    file, names = read(path), families.layer_names(base)
    tensors = to_kohya(file, names)
    metadata = history.renamed(file, tensors, kohya=to == "kohya")
    if to == "diffusers":
        tensors, told = convert.to_diffusers(tensors, names)
        metadata |= told
    write(out, tensors, metadata, dtype)
    return len(tensors)


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise UserError for a file in the way."""
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists; choose another --out, or --overwrite")
