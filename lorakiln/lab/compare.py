"""`kiln compare`: the settings that differ between runs, what they came to, and their samples in one picture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from lorakiln.base.errors import UserError
from lorakiln.base.ledger import Entry, Ledger
from lorakiln.base.where import settings_of
from lorakiln.runs.folder import RunFolder
from lorakiln.runs.row import Judged, gain_of, judged, row_of, run_folder
from lorakiln.sample.grid import grid, save_png

PLACES = ("name", "runs", "device", "cache.folder")  # where a run lay is no difference
_SAMPLE = re.compile(r"step(\d+)-(\d+)\.png")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the runs. `folder` is None where the ledger alone remembers it; `gain` None where none was measured."""

    title: str
    entry: Entry
    folder: RunFolder | None = None
    gain: float | None = None
    judged: Judged = field(default_factory=Judged)


def look(words: Sequence[str]) -> list[Side]:
    """The runs by folder, name or id. Raises UserError for one that is not there, or fewer than two."""
    if len(words) < 2:
        raise UserError("give at least two runs to compare: folders, or names as 'kiln runs' lists them")
    sides = [_side(word) for word in words]
    titles = [side.title for side in sides]
    return [replace(one, title=f"{one.title} {one.entry.id}") if titles.count(one.title) > 1 else one for one in sides]


def differences(sides: Sequence[Side]) -> dict[str, list[Any]]:
    """`section.key` -> its value in each run, for every setting in which they are not all the same."""
    tables = [settings_of(side.entry) for side in sides]
    keys = [key for key in dict.fromkeys(key for table in tables for key in table) if key not in PLACES]
    values = {key: [table.get(key) for table in tables] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def measures(sides: Sequence[Side]) -> dict[str, list[Any]]:
    """What each run came to: outcome, losses, time, memory, cost; None where it is not known."""
    entries = [side.entry for side in sides]
    return {
        "status": [one.status for one in entries],
        "verdict": [one.verdict or None for one in entries],
        "best checkpoint": [side.judged.step for side in sides],
        "at strength": [side.judged.strength for side in sides],
        "its held-out gain": [side.judged.gain for side in sides],
        "gain while training": [side.gain for side in sides],
        "settled loss": [one.loss for one in entries],
        "steps": [one.steps for one in entries],
        "pictures": [one.pictures for one in entries],
        "seconds a step": [one.step_seconds for one in entries],
        "seconds in all": [one.time or None for one in entries],
        "peak GiB": [one.peak_memory for one in entries],
        "cost": [one.cost for one in entries],
    }


def same_pictures(sides: Sequence[Side]) -> bool | None:
    """Whether all were trained on the same pictures and captions; None where one run does not know its own."""
    hashes = {side.entry.dataset for side in sides}
    return None if "" in hashes else len(hashes) == 1


def picture(sides: Sequence[Side], path: Path) -> bool:
    """Write the last samples side by side, a column a run and a row a prompt; False where no run has any."""
    columns = [_samples(side.folder) for side in sides]
    numbers = sorted({number for column in columns for number in column})
    if not numbers:
        return False
    prompts = next((one.entry.recipe.get("sample", {}).get("prompts", []) for one in sides), [])
    rows = []
    for number in numbers:
        shown = [_opened(column[number]) if number in column else None for column in columns]
        size = next(one.size for one in shown if one)
        rows.append([one or Image.new("RGB", size, (225, 225, 222)) for one in shown])
    titles = [prompts[number - 1] if number <= len(prompts) else f"prompt {number}" for number in numbers]
    save_png(grid(rows, titles, [_heading(side) for side in sides]), path, {})
    return True


def _side(word: str) -> Side:
    path = Path(word)
    if (path / "recipe.toml").exists():
        folder = run_folder(path)
        return _told(folder.name, row_of(folder), folder)
    entry = Ledger().find(word)
    folder = RunFolder(Path(entry.folder), entry.name)
    if not entry.folder or not folder.recipe.exists():
        return Side(entry.name, entry)
    return _told(entry.name, entry, folder)


def _told(title: str, entry: Entry, folder: RunFolder) -> Side:
    return Side(title, entry, folder, gain_of(folder), judged(folder))


def _samples(folder: RunFolder | None) -> dict[int, Path]:
    """Number of the prompt -> the run's last picture of it."""
    found: dict[int, Path] = {}
    for path in sorted(folder.samples.glob("step*.png")) if folder else []:
        if match := _SAMPLE.fullmatch(path.name):
            found[int(match[2])] = path
    return found


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _heading(side: Side) -> str:
    one = side.entry
    return f"{side.title}: {one.verdict or one.status}, step {one.steps}"
