"""Which tool a file comes from, and the recipe that it stands for."""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, time
from pathlib import Path
from typing import Any

from lorakiln.base.errors import UserError
from lorakiln.exchange import jupyter, kohya_gui, lora_easy, lora_header, sd_scripts
from lorakiln.exchange.arguments import ARGUMENTS
from lorakiln.exchange.report import UNSET, Import, Key, Sheet
from lorakiln.exchange.settle import settle

KINDS = {
    "kohya_ss preset": kohya_gui.preset,
    "sd-scripts config": sd_scripts.config,
    "sd-scripts dataset": sd_scripts.dataset_only,
    "LoRA Easy Training": lora_easy.settings_file,
    "Jupyter trainer": jupyter.settings_file,
    "LoRA header": lora_header.header,
}


def import_file(path: Path, *, base: str = "", folder: str = "") -> Import:
    """The recipe in another tool's file, and what became of each of its keys.

    `base` and `folder` fill in what presets leave out; what is still missing then is listed in `asked` and stands in
    the recipe as CHANGE-ME. Raises UserError for a file that no known tool writes.
    """
    table, kind = read_table(Path(path))
    sheet, asked = KINDS[kind](table)
    if base:
        sheet.set("base", base)
    if folder and len(sheet.recipe["dataset"]) == 1:
        sheet.recipe["dataset"][0]["folder"] = folder
    elif folder:
        raise UserError(
            f"--folder {folder}: {path} has {len(sheet.recipe['dataset'])} datasets; change their folders in the recipe"
        )
    recipe = settle(sheet, str(path))
    asked = [name for name in asked if _missing(sheet, name)]
    return Import(kind, recipe.model_dump(), in_order(table, sheet), asked)


def in_order(table: Mapping[str, Any], sheet: Sheet) -> list[Key]:
    """The rows in the order of the file; parts of a key follow it."""
    places = {key: n for n, key in enumerate(sd_scripts.flatten(table))}
    rows = list(sheet.rows.values())

    def place(row: Key) -> tuple[int, int]:
        first = row.key.partition(":")[0]
        inside = next((n for key, n in places.items() if first.startswith(f"{key}.")), len(places))
        return places.get(row.key, places.get(first, inside)), row.key.count(":")

    return [replace(row, to=_short(row.to), value=_plain(row.value)) for row in sorted(rows, key=place)]


def _plain(value: Any) -> Any:
    """A value that JSON can hold: TOML's dates and the numbers that are none become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, date | time) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def _short(to: str) -> str:
    """'dataset.0.flip, dataset.1.flip' as 'dataset.*.flip'."""
    names = [name for name in to.split(", ") if name]
    ends = dict.fromkeys(name.split(".", 2)[2] for name in names if name.startswith("dataset.") and name.count(".") > 1)
    if len(names) > 2 and len(ends) == 1 and all(name.startswith("dataset.") for name in names):
        return f"dataset.*.{next(iter(ends))}"
    return to


def _missing(sheet: Sheet, name: str) -> bool:
    value: Any = sheet.recipe
    for part in name.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value == UNSET


def read_table(path: Path) -> tuple[dict[str, Any], str]:
    """(the file's content as a table, which tool wrote it)."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix.lower() == ".safetensors":
        return lora_header.read(path), "LoRA header"
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix.lstrip('.').upper() or 'TOML'} ({error})") from None
    if not isinstance(table, dict):
        raise UserError(f"{path}: holds a list, not settings")
    return table, recognise(table, path)


def recognise(table: Mapping[str, Any], path: Path) -> str:
    """Which tool's settings a table holds, by the keys that only it writes."""
    if lora_easy.looks_like(table):
        return "LoRA Easy Training"
    if "datasets" in table or ("general" in table and isinstance(table["general"], Mapping) and len(table) == 1):
        return "sd-scripts dataset"
    if {"optim", "train", "adapter"} & table.keys() and "base" in table:
        raise UserError(f"{path}: is a Kiln recipe already; use it as it is: kiln check {path}")
    if jupyter.looks_like(table):
        return "Jupyter trainer"
    if path.suffix.lower() == ".json" and table.keys() & kohya_gui.KEYS:
        return "kohya_ss preset"
    if {name.rpartition(".")[2] for name in sd_scripts.flatten(table)} & ARGUMENTS.keys():
        return "sd-scripts config"
    raise UserError(
        f"{path}: not recognised; Kiln reads kohya_ss presets (.json), sd-scripts' config_file and dataset_config "
        "(.toml), LoRA Easy Training's and the Jupyter trainer's .toml, and LoRA files (.safetensors)"
    )
