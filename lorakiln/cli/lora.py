"""`kiln inspect`, `merge`, `resize`, `extract`, `convert`: what one does with LoRA files."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from lorakiln.base.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lorakiln.adapters.files.inspect import Inspection

Out = Annotated[Path, typer.Option(help="The file to write.")]
Format = Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Number format of the written LoRA.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_verbs(app: typer.Typer) -> None:
    for verb in (inspect, merge, resize, extract, convert):
        app.command(verb.__name__)(verb)


def inspect(
    file: Annotated[Path, typer.Argument(help="A LoRA file, of whatever tool.")],
    base: Annotated[str, typer.Option(help="The base it was made for; empty: SDXL.")] = "",
    as_json: Json = False,
) -> None:
    """Say what a LoRA file is: kind, ranks, where it acts and how strongly, how it was trained, trigger words."""
    from lorakiln.runs.lora_files import describe

    found = describe(file, base)
    if as_json:
        typer.echo(json.dumps({one.name: getattr(found, one.name) for one in dataclasses.fields(found)}))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _facts(found):
        if value:
            table.add_row(name, value)
    Console(highlight=False).print(table)


def _facts(found: "Inspection") -> list[tuple[str, str]]:
    """The rows that people want, most wanted first."""
    hashes = {None: "", True: " (the file's own word agrees)", False: " (the file says another: it was changed)"}
    largest = max(found.norms.values(), default=0.0)
    blocks = "\n".join(
        f"{block:<34} {norm:9.4f}  {'#' * round(24 * norm / largest)}" for block, norm in found.norms.items() if largest
    )
    return [
        ("kind", _counts(found.kinds) + (f"; DoRA over {_counts(found.dora)}" if found.dora else "")),
        ("parts", _counts(found.parts)),
        ("rank", _counts(found.ranks)),
        ("alpha", _counts(found.alphas)),
        ("numbers", f"{found.parameters:,} ({_counts(found.dtypes)})"),
        ("trigger", found.trigger_phrase),
        ("tags", ", ".join(f"{tag} {share:.0%}" for tag, share in found.tags[:12])),
        ("training", ", ".join(f"{key} {value}" for key, value in sorted(found.training.items())[:40])),
        ("recipe", "whole, in the header" if found.recipe else ""),
        ("since", "\n".join(map(_step, found.history))),
        ("hash", found.model_hash + hashes[found.hash_matches]),
        ("norms", blocks),
    ]


def _step(step: "Mapping[str, Any]") -> str:
    """`merge of emoji at 0.5, sketch at 1; rank 8`, `resize; rank 4`: one step of a file's history."""
    of = step.get("of")
    sources = [one for one in of if isinstance(one, dict)] if isinstance(of, list) else []
    names = ", ".join(f"{one.get('title') or one.get('hash')} at {one.get('strength')}" for one in sources)
    rest = [f"{key} {value}" for key, value in step.items() if key not in ("verb", "of")]
    return "; ".join([f"{step.get('verb')}{' of ' * bool(names)}{names}", *rest])


def _counts(counts: "dict | object") -> str:
    return ", ".join(f"{key} x{count}" for key, count in dict(counts).items())  # ty: ignore[no-matching-overload]


def merge(
    lora: Annotated[list[str], typer.Argument(metavar="FILE[:STRENGTH]...", help="LoRAs, each with its strength.")],
    out: Out,
    base: Annotated[str, typer.Option(help="Merge into this SDXL single file; empty: into one LoRA.")] = "",
    rank: Annotated[int, typer.Option(min=0, help="Cut one LoRA back to this rank; 0: keep all of it.")] = 0,
    dtype: Format = "bf16",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Merge LoRAs into a base, or together into one LoRA."""
    from lorakiln.runs import lora_files
    from lorakiln.runs.drawing import parse_lora

    loras = [parse_lora(text) for text in lora]
    if base:
        if rank:
            raise UserError("--rank has no effect with --base: a base takes the whole change")
        count = lora_files.merge_into_base(base, loras, out, overwrite)
    else:
        count = lora_files.merge_together(loras, out, rank=rank, dtype=dtype, overwrite=overwrite)
    _done(out, as_json, changed=count)


def resize(
    file: Annotated[Path, typer.Argument(help="A LoRA file.")],
    out: Out,
    rank: Annotated[int, typer.Option(min=0, help="Largest rank; 0: as many as the energy asks for.")] = 0,
    energy: Annotated[float, typer.Option(min=0, max=1, help="Keep this share of each module's energy.")] = 0.0,
    dtype: Format = "bf16",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Lower a LoRA's rank by singular values: smaller files that do nearly the same."""
    from lorakiln.runs.lora_files import resize_file

    result = resize_file(file, out, rank=rank, energy=energy, dtype=dtype, overwrite=overwrite)
    least = min(result.kept.values())
    ranks = sorted(result.ranks.values())
    _done(out, as_json, modules=len(ranks), lowest_rank=ranks[0], highest_rank=ranks[-1], least_energy_kept=least)


def extract(
    original: Annotated[str, typer.Argument(help="The checkpoint before fine-tuning.")],
    tuned: Annotated[str, typer.Argument(help="The checkpoint after.")],
    out: Out,
    rank: Annotated[int, typer.Option(min=1, help="Rank of linear layers.")] = 16,
    conv_rank: Annotated[int, typer.Option(min=0, help="Rank of convolutions; 0: leave them out.")] = 0,
    energy: Annotated[float, typer.Option(min=0, max=1, help="Stop at this share of each layer's energy.")] = 1.0,
    dtype: Format = "bf16",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a LoRA out of the difference of two checkpoints."""
    from lorakiln.runs.lora_files import extract_file

    found = extract_file(
        original, tuned, out, rank=rank, conv_rank=conv_rank, energy=energy, dtype=dtype, overwrite=overwrite
    )
    _done(out, as_json, modules=len(found.kept), least_energy_kept=min(found.kept.values()))


def convert(
    file: Annotated[Path, typer.Argument(help="A LoRA file.")],
    out: Out,
    to: Annotated[Literal["kohya", "diffusers"], typer.Option(help="Whose names to write.")] = "kohya",
    base: Annotated[str, typer.Option(help="The base it was made for; empty: SDXL.")] = "",
    dtype: Format = "bf16",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a LoRA under kohya's names (ComfyUI, Forge, A1111) or diffusers' (for `load_lora_weights`)."""
    from lorakiln.runs.lora_files import convert_file

    count = convert_file(file, out, to, base=base, dtype=dtype, overwrite=overwrite)
    _done(out, as_json, tensors=count)


def _done(out: Path, as_json: bool, **facts: float) -> None:
    if as_json:
        typer.echo(json.dumps({"file": str(out)} | facts))
    else:
        said = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in facts.items())
        typer.echo(f"{out}: {said}")
