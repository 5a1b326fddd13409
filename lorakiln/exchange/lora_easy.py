"""derrian's LoRA Easy Training: its saved .toml, or the .json its screen sends, as sd-scripts' arguments."""

from collections.abc import Mapping
from typing import Any

from lorakiln.exchange.arguments import ARGUMENTS, Unreadable, read_value
from lorakiln.exchange.network import PREFIX
from lorakiln.exchange.report import Given, Key, Sheet
from lorakiln.exchange.sd_scripts import DATASET_KEYS, DEFAULTS, read_datasets, translate

OPTIMIZERS = {"came": "LoraEasyCustomOptimizer.came.CAME", "compass": "LoraEasyCustomOptimizer.compass.Compass"}
PAIRS = ("optimizer_args", "network_args", "lr_scheduler_args")
OWN = {
    "sdxl": ("mapped", "base", "Kiln trains SDXL"),
    "name": ("no-effect", "", "a label on the screen"),
    "save_toml": ("no-effect", "", "a button of the screen"),
    "save_toml_location": ("no-effect", "", "a button of the screen"),
    "train_mode": ("no-effect", "", "Kiln trains adapters"),
    "tag_occurrence": ("no-effect", "", "writes a list of tags, changes no training"),
    "tag_file_location": ("no-effect", "", "writes a list of tags, changes no training"),
    "disabled": ("no-effect", "", "a switch of the screen"),
}


def looks_like(table: Mapping[str, Any]) -> bool:
    """Whether the tables are those of this tool: [something_args.args], [[subsets]], or {"args", "dataset"}."""
    if set(table) >= {"args", "dataset"}:
        return True
    return any(key.endswith("_args") and isinstance(value, Mapping) and set(value) & {"args", "dataset_args"}
               for key, value in table.items())  # fmt: skip


def settings_file(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """The whole file: the sheet with every key told, and the settings still to give."""
    given: dict[str, Given] = {}
    rows: list[Key] = []
    datasets: dict[str, Any] = {"general": {}, "subsets": []}
    paths: dict[str, str] = {}
    for path, value in _leaves(table):
        _take(path, value, given, rows, datasets, paths)
    _finish_arguments(given, rows)
    sheet = Sheet(given, DEFAULTS)
    sheet.add(rows)
    subsets = datasets["subsets"] or [{}]
    read_datasets(sheet, {"general": datasets["general"], "datasets": [{"subsets": subsets}]}, strict=False)
    sheet.rows = {paths.get(key, key): _renamed(row, paths) for key, row in sheet.rows.items()}
    asked = translate(sheet)
    sheet.rows = {paths.get(key, key): _renamed(row, paths) for key, row in sheet.rows.items()}
    return sheet, asked


def _leaves(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(path, value) of everything; lists of tables are numbered, `optimizer_args` and its like stay whole."""
    found: list[tuple[str, Any]] = []

    def walk(path: str, value: Any) -> None:
        last = path.rpartition(".")[2]
        pairs = last in PAIRS and isinstance(value, Mapping) and not {"args", "dataset_args"} & value.keys()
        if isinstance(value, Mapping) and not pairs:
            for key, inner in value.items():
                walk(f"{path}.{key}" if path else key, inner)
        elif last == "subsets" and isinstance(value, list):
            for n, inner in enumerate(value):
                walk(f"{path}.{n}", inner)
        else:
            found.append((path, value))

    walk("", table)
    return found


def _take(
    path: str, value: Any, given: dict[str, Given], rows: list[Key], datasets: dict[str, Any], paths: dict[str, str]
) -> None:
    parts = path.split(".")
    name = parts[-1]
    if "subsets" in parts:
        number = int(parts[parts.index("subsets") + 1])
        if name in OWN:
            rows.append(_own(path, value, name))
            return
        while len(datasets["subsets"]) <= number:
            datasets["subsets"].append({})
        datasets["subsets"][number][name] = value
        paths[f"datasets.0.subsets.{number}.{name}"] = path
    elif name in OWN:
        rows.append(_own(path, value, name))
    elif "dataset_args" in parts or parts[:2] == ["dataset", "general"]:
        if name in DATASET_KEYS or name == "batch_size":
            datasets["general"][name] = value
            paths[f"general.{name}"] = path
        else:
            rows.append(Key(path, value, "no-effect", "", "the trainer knows no such key"))
    else:
        _argument(path, name, value, given, rows)


def _own(path: str, value: Any, name: str) -> Key:
    fate, to, why = OWN[name]
    return Key(path, value, fate, to, why)  # ty: ignore[invalid-argument-type]


def _argument(path: str, name: str, value: Any, given: dict[str, Given], rows: list[Key]) -> None:
    if name in ("algo", "unit", "fa", "lycoris_preset", "preset"):
        key = {"lycoris_preset": "preset"}.get(name, name)
        given[PREFIX + key] = Given(path, value, str(value))
        return
    if name in ("warmup_ratio", "lr_warmup_ratio"):
        given["lr_warmup_steps"] = Given(path, value, float(value))
        return
    if isinstance(value, Mapping):
        _pairs(path, name, value, given)
        return
    if name not in ARGUMENTS:
        rows.append(Key(path, value, "no-effect", "", "sd-scripts knows no such argument and passes over it"))
        return
    if name == "optimizer_type":
        value = OPTIMIZERS.get(str(value).lower(), value)
    try:
        given[name] = Given(path, value, read_value(name, value))
    except Unreadable as error:
        rows.append(Key(path, value, "invalid", "", str(error)))


def _pairs(path: str, name: str, table: Mapping[str, Any], given: dict[str, Given]) -> None:
    """A table where sd-scripts wants `k=v` words: each of its keys is one of the file's."""
    given[name] = Given("", dict(table), [f"{key}={value}" for key, value in table.items()])
    prefix = PREFIX if name == "network_args" else f"{name}."
    for key, value in table.items():
        given[prefix + key] = Given(f"{path}.{key}", value, str(value))


def _finish_arguments(given: dict[str, Given], rows: list[Key]) -> None:
    """The network's module follows from the other switches; the trainer never asks for it."""
    if PREFIX + "fa" in given:
        given["network_module"] = Given("", None, "networks.lora_fa")
        given[PREFIX + "fa"] = Given(given[PREFIX + "fa"].key, given[PREFIX + "fa"].value, None)
    elif PREFIX + "unit" in given:
        given["network_module"] = Given("", None, "networks.dylora")
    elif PREFIX + "algo" in given:
        given["network_module"] = Given("", None, "lycoris.kohya")
    else:
        given.setdefault("network_module", Given("", None, "networks.lora"))


def _renamed(row: Key, paths: Mapping[str, str]) -> Key:
    return Key(paths.get(row.key, row.key), row.value, row.fate, row.to, row.why)
