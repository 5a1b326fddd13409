"""The sample pictures of a run: what is asked for, and the grid that shows them before, during and after."""

import re
from dataclasses import replace
from pathlib import Path

from PIL import Image

from lorakiln.base.settings import Sample
from lorakiln.families.family import Family
from lorakiln.runs.folder import RunFolder
from lorakiln.sample import prompts
from lorakiln.sample.generate import Request, check
from lorakiln.sample.grid import grid, save_png

_NAME = re.compile(r"step(\d+)-(\d+)\.png")


def requests(settings: Sample, family: Family) -> list[Request]:
    """The recipe's sample prompts, each with its own seed; none where the recipe has no prompts.

    Raises UserError for a prompt, flag or size that this base cannot draw.
    """
    defaults = Request(
        prompt="",
        negative=settings.negative,
        width=settings.width or family.resolution,
        height=settings.height or family.resolution,
        steps=settings.count,
        cfg=settings.cfg,
        sampler=settings.sampler,
        rescale=settings.rescale,
        seed=-1,
    )
    wanted = prompts.read(Path(settings.file), defaults) if settings.file else []
    if settings.prompts:
        wanted += prompts.parse("\n".join(settings.prompts), defaults, "sample.prompts")
    wanted = [replace(one, seed=settings.seed + number) if one.seed == -1 else one for number, one in enumerate(wanted)]
    for one in wanted:
        check(one, family)
    return wanted


def path(folder: RunFolder, step: int, number: int) -> Path:
    """Where the picture of prompt `number` (from 1) after `step` steps lies."""
    return folder.samples / f"step{step:06d}-{number}.png"


def draw_grid(folder: RunFolder, wanted: list[Request]) -> None:
    """Write the samples as one picture, a row a prompt and a column a step; nothing where none were drawn.

    A picture that was drawn for another request, before a resumed run changed its prompts, is left out.
    """
    found: dict[tuple[int, int], Path] = {}
    for file in folder.samples.glob("step*.png"):
        if match := _NAME.fullmatch(file.name):
            step, number = map(int, match.groups())
            if number <= len(wanted) and _shows(file, wanted[number - 1]):
                found[step, number] = file
    if not found:
        return
    steps = sorted({step for step, _ in found})
    rows = []
    for number in range(1, len(wanted) + 1):
        files = [found.get((step, number)) for step in steps]
        rows.append([Image.open(file) if file else Image.new("RGB", (8, 8)) for file in files])
    titles = ["before" if step == 0 else f"step {step}" for step in steps]
    sheet = grid(rows, [f"{one.prompt}  seed {one.seed}" for one in wanted], titles)
    save_png(sheet, folder.grid, {})


def _shows(file: Path, wanted: Request) -> bool:
    with Image.open(file) as picture:
        told = picture.info
    return all(told.get(name, value) == value for name, value in wanted.facts().items())
