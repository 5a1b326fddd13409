"""derrian's LoRA Easy Training: its saved .toml, or the .json its screen sends, as sd-scripts' arguments."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lorakiln.exchange.arguments import ARGUMENTS, Unreadable, read_number, read_value
from lorakiln.exchange.dataset_config import KEYS, dataset_tables
from lorakiln.exchange.network import PREFIX
from lorakiln.exchange.report import Fate, Given, Key, Sheet
from lorakiln.exchange.sd_scripts import DEFAULTS, translate

Path = tuple[str, ...]
OPTIMIZERS = {"came": "LoraEasyCustomOptimizer.came.CAME", "compass": "LoraEasyCustomOptimizer.compass.Compass"}
PAIRS = ("optimizer_args", "network_args", "lr_scheduler_args")
OWN: dict[str, tuple[Fate, str, str]] = {
    "sdxl": ("mapped", "base", "Kiln trains SDXL"),
    "name": ("no-effect", "", "a label on the screen"),
    "save_toml": ("no-effect", "", "a button of the screen"),
    "save_toml_location": ("no-effect", "", "a button of the screen"),
    "train_mode": ("no-effect", "", "Kiln trains adapters"),
    "tag_occurrence": ("no-effect", "", "writes a list of tags, changes no training"),
    "tag_file_location": ("no-effect", "", "writes a list of tags, changes no training"),
    "disabled": ("no-effect", "", "a switch of the screen"),
}
DROPPED = "this tool leaves out what is 0 or false"


def looks_like(table: Mapping[str, Any]) -> bool:
    """Whether the tables are those of this tool: [something_args.args], [[subsets]], or {"args", "dataset"}."""
    if set(table) >= {"args", "dataset"}:
        return True
    return any(key.endswith("_args") and isinstance(value, Mapping) and set(value) & {"args", "dataset_args"}
               for key, value in table.items())  # fmt: skip


def settings_file(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """The whole file: the sheet with every key told, and the settings still to give."""
    file = _File()
    for path, value in _leaves((), table):
        file.take(path, value)
    file.choose_module()
    sheet = Sheet(file.given, DEFAULTS)
    sheet.add(file.rows)
    subsets = [file.subsets[key] for key in sorted(file.subsets)]
    dataset_tables(sheet, {"general": file.general, "datasets": [{"subsets": subsets}]}, strict=False)
    _rename(sheet, file.paths)
    asked = translate(sheet)
    _rename(sheet, file.paths)
    _say_what_is_dropped(sheet, file.dropped)
    return sheet, asked


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """(path, value) of everything; lists of subsets are numbered, `optimizer_args` and its like stay whole."""
    last = path[-1] if path else ""
    section = len(path) == 1 or (len(path) == 2 and path[0] in ("args", "dataset"))
    if isinstance(value, Mapping) and (section or last not in PAIRS):
        for key, inner in value.items():
            yield from _leaves((*path, str(key)), inner)
    elif last == "subsets" and isinstance(value, list) and all(isinstance(inner, Mapping) for inner in value):
        for number, inner in enumerate(value):
            yield from _leaves((*path, str(number)), inner)
    else:
        yield path, value


class _File:
    """What the backend makes of a file: sd-scripts' arguments, and the general and subset tables of a dataset."""

    def __init__(self) -> None:
        self.given: dict[str, Given] = {}
        self.rows: list[Key] = []
        self.general: dict[str, Any] = {}
        self.subsets: dict[int, dict[str, Any]] = {}
        self.paths: dict[str, str] = {}  # a dataset_config's key -> this file's
        self.dropped: set[str] = set()
        self.module = "networks.lora"

    def take(self, path: Path, value: Any) -> None:
        name, key = path[-1], ".".join(path)
        number = path[path.index("subsets") + 1] if "subsets" in path[:-1] else ""
        if not value:
            self.dropped.add(key)
        if name in OWN:
            self.tell(key, value, *OWN[name])
        elif number.isdigit():
            self._dataset(self.subsets.setdefault(int(number), {}), f"datasets.0.subsets.{int(number)}", key, value)
        elif "dataset_args" in path or path[0] == "dataset":
            self._dataset(self.general, "general", key, value)
        else:
            self._argument(key, name, value)

    def tell(self, key: str, value: Any, fate: Fate, to: str, why: str) -> None:
        self.rows.append(Key(key, value, fate, to, why))

    def _dataset(self, table: dict[str, Any], where: str, key: str, value: Any) -> None:
        name = key.rpartition(".")[2]
        if name not in KEYS:
            self.tell(key, value, "no-effect", "", "the trainer knows no such key")
        elif not value and isinstance(value, int | float | str):
            self.tell(key, value, "no-effect", "", DROPPED)
        else:
            if name in table:
                self.tell(self.paths[f"{where}.{name}"], table[name], "no-effect", "", f"the later {key} wins")
            table[name] = value
            self.paths[f"{where}.{name}"] = key

    def _argument(self, key: str, name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            self._pairs(key, name, value)
        elif name == "fa":
            self.module = "networks.lora_fa" if value else self.module
            self.give("fa", Given(key, value, None))
        elif name in ("algo", "unit", "lycoris_preset", "preset"):
            self._network(key, {"lycoris_preset": "preset"}.get(name, name), value)
        elif name in ("warmup_ratio", "lr_warmup_ratio"):
            self._number(key, "warmup_ratio", value)
        elif name not in ARGUMENTS:
            self.tell(key, value, "no-effect", "", "sd-scripts knows no such argument and passes over it")
        else:
            word = OPTIMIZERS.get(str(value).lower(), value) if name == "optimizer_type" else value
            try:
                self.give(name, Given(key, value, read_value(name, word) if word else None))
            except Unreadable as error:
                self.tell(key, value, "invalid", "", str(error))

    def _number(self, key: str, name: str, value: Any) -> None:
        try:
            self.give(name, Given(key, value, read_number(value, float) or None))
        except Unreadable as error:
            self.tell(key, value, "invalid", "", str(error))

    def give(self, name: str, given: Given) -> None:
        """An argument; a later one of the same name wins, unless it is left out itself."""
        before = self.given.get(name)
        if before and before.key and before.read is not None and given.read is None:
            self.tell(given.key, given.value, "no-effect", "", f"{DROPPED}, so {before.key} stands")
            return
        if before and before.key:
            self.tell(before.key, before.value, "no-effect", "", f"the later {given.key} wins")
        self.given[name] = given

    def _pairs(self, key: str, name: str, table: Mapping[str, Any]) -> None:
        """A table where sd-scripts wants `k=v` words: each of its keys is one of the file's."""
        words = []
        for inner, value in table.items():
            if name == "network_args":
                self._network(f"{key}.{inner}", inner, value)
                continue
            text = str(value).capitalize() if value in ("true", "false") else str(value)
            words.append(f"{inner}={text}")
            self.give(f"{name}.{inner}", Given(f"{key}.{inner}", value, text))
        if name != "network_args":
            before = self.given.get(name)
            self.given[name] = Given("", dict(table), [*(before.read if before and before.read else []), *words])

    def _network(self, key: str, name: str, value: Any) -> None:
        """One of the network's own arguments; lists become text with commas between."""
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if name == "algo":
            self.module = "lycoris.kohya"
        elif name == "unit":
            self.module = "networks.dylora"
        self.give(PREFIX + name, Given(key, value, None if name == "preset" and not value else text))

    def choose_module(self) -> None:
        """The network's module follows from the other switches, and where warmup_ratio goes from the schedule."""
        schedule = self.given.get("lr_scheduler_type")
        if "warmup_ratio" in self.given and not (schedule and schedule.read):
            self.give("lr_warmup_steps", self.given.pop("warmup_ratio"))
        told = self.given.get("network_module")
        self.given["network_module"] = Given(told.key if told else "", told.value if told else None, self.module)
        for name in ("fa", PREFIX + "unit"):
            given = self.given.pop(name, None)
            if given is None:
                continue
            if self.module == ("networks.lora_fa" if name == "fa" else "networks.dylora"):
                what = "LoRA-FA" if name == "fa" else "DyLoRA"
                self.tell(given.key, given.value, "unsupported", "", f"Kiln has no {what}; the recipe trains a LoRA")
            else:
                why = "off" if name == "fa" and not given.value else f"{self.module} does not read it"
                self.tell(given.key, given.value, "no-effect", "", why)


def _rename(sheet: Sheet, paths: Mapping[str, str]) -> None:
    """Rows under the file's own keys instead of a dataset_config's."""
    sheet.rows = {paths.get(key, key): replace(row, key=paths.get(row.key, row.key)) for key, row in sheet.rows.items()}
    sheet.given = {name: replace(given, key=paths.get(given.key, given.key)) for name, given in sheet.given.items()}


def _say_what_is_dropped(sheet: Sheet, dropped: set[str]) -> None:
    for key in dropped & sheet.rows.keys():
        row = sheet.rows[key]
        if row.fate == "mapped" and row.to != "base" and not isinstance(row.value, bool):
            sheet.rows[key] = replace(row, why=f"{DROPPED}, so what sd-scripts does without it comes in")
