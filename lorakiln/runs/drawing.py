"""`kiln sample`: a base, any LoRAs at any strengths, prompts in; pictures and a labelled grid out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from lorakiln.adapters.files.names import to_kohya
from lorakiln.adapters.files.read import read
from lorakiln.adapters.inject import inject_file
from lorakiln.adapters.network import Network
from lorakiln.base.errors import UserError
from lorakiln.families.family import Family
from lorakiln.runs.machine import choose_device, load_base
from lorakiln.sample import prompts
from lorakiln.sample.generate import Request, draw
from lorakiln.sample.grid import grid, save_png


@dataclass(frozen=True)
class Order:
    """What `kiln sample` was asked for. Width and height 0 stand for the base's own resolution."""

    base: str
    loras: Sequence[tuple[Path, float]]
    prompts: Sequence[str]
    file: Path | None
    defaults: Request
    count: int
    out: Path
    vae: str = ""
    prediction: str = "auto"
    ztsnr: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    overwrite: bool = False


def parse_lora(text: str) -> tuple[Path, float]:
    """`file.safetensors:0.7` -> (path, strength); no number: strength 1. UserError for what is neither."""
    path, found, strength = text.rpartition(":")
    if found and not strength.endswith(".safetensors"):
        try:
            return Path(path), float(strength)
        except ValueError:
            pass
    return Path(text), 1.0


def draw_order(order: Order, on_step: Callable[[int, int], None] | None = None) -> list[Path]:
    """Draw every prompt `count` times, each with the next seed; the files, the grid last if they are several.

    Raises UserError for bad input; an existing file is replaced only with `overwrite`.
    """
    device = choose_device(order.device)
    family = load_base(
        order.base, device, order.precision, vae=order.vae, prediction=order.prediction, ztsnr=order.ztsnr
    )
    wanted = _requests(order, family.resolution)
    targets = _targets(order, len(wanted))
    for path, strength in order.loras:
        load_lora(family, path, strength)
    pictures = draw(family, wanted, on_step=on_step)
    loras = " ".join(f"{path.name}:{strength:g}" for path, strength in order.loras)
    for picture, request, path in zip(pictures, wanted, targets, strict=False):
        save_png(picture, path, request.facts() | {"base": Path(order.base).name, "loras": loras})
    if len(wanted) > 1:
        _write_grid(order, pictures, wanted, targets[-1])
    return targets


def load_lora(family: Family, path: Path, strength: float) -> Network:
    """Put a LoRA file on the base. Raises UserError for one of another family."""
    names = {part: family.module_names(part, conv=True) for part in family.parts}
    tensors = to_kohya(read(path), names)
    try:
        network = inject_file(family.parts, names, tensors)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    network.strength = strength
    return network


def _requests(order: Order, resolution: int) -> list[Request]:
    defaults = replace(
        order.defaults, width=order.defaults.width or resolution, height=order.defaults.height or resolution
    )
    wanted = prompts.read(order.file, defaults) if order.file else []
    if order.prompts:
        wanted += prompts.parse("\n".join(order.prompts), defaults, "--prompt")
    if not wanted:
        raise UserError("nothing to draw: give --prompt TEXT or --prompts FILE")
    return [replace(one, seed=one.seed + n) for one in wanted for n in range(order.count)]


def _targets(order: Order, pictures: int) -> list[Path]:
    targets = [order.out / f"{number:03d}.png" for number in range(1, pictures + 1)]
    targets += [order.out / "grid.png"] if pictures > 1 else []
    existing = [path for path in targets if path.exists()]
    if existing and not order.overwrite:
        raise UserError(f"{existing[0]}: exists; choose another --out folder, or --overwrite")
    return targets


def _write_grid(order: Order, pictures: list[Image.Image], wanted: list[Request], path: Path) -> None:
    rows = [pictures[start : start + order.count] for start in range(0, len(pictures), order.count)]
    titles = [one.prompt for one in wanted[:: order.count]]
    columns = (
        [f"seed {one.seed}" for one in wanted[: order.count]]
        if len({one.seed for one in wanted}) <= order.count
        else []
    )
    save_png(grid(rows, titles, columns), path, {"base": order.base})
