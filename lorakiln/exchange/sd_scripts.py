"""sd-scripts' own files, `--config_file` and `dataset_config`, and the translation that every dialect of it shares."""

from collections.abc import Iterable, Mapping
from typing import Any

from lorakiln.base.errors import nearest
from lorakiln.exchange import elsewhere, training
from lorakiln.exchange.arguments import ARGUMENTS, Unreadable, read_value
from lorakiln.exchange.dataset_config import dataset_tables
from lorakiln.exchange.network import PREFIX, network
from lorakiln.exchange.optimizer import optimizer
from lorakiln.exchange.pictures import cache, judging, pictures
from lorakiln.exchange.report import STRONGEST, UNSET, Fate, Given, Key, Sheet

PARTS = "each of its parts has a line"
# what sdxl_train_network.py works with where nothing is said
DEFAULTS: dict[str, Any] = {
    "network_alpha": 1.0, "learning_rate": 2e-6, "optimizer_type": "AdamW", "lr_scheduler": "constant",
    "lr_warmup_steps": 0, "max_grad_norm": 1.0, "max_train_steps": 1600, "train_batch_size": 1,
    "mixed_precision": "no", "multires_noise_discount": 0.3, "prior_loss_weight": 1.0, "caption_extension": ".caption",
    "bucket_reso_steps": 64, "min_bucket_reso": 256, "max_bucket_reso": 1024, "max_token_length": None,
    "caption_separator": ",", "token_warmup_min": 1, "lr_scheduler_num_cycles": 1, "sample_sampler": "ddim",
}  # fmt: skip


def translate(sheet: Sheet) -> list[str]:
    """Fill the recipe and a row for every argument of the sheet; returns the settings that the source does not tell."""
    network(sheet)
    training.length(sheet)
    optimizer(sheet)
    training.arithmetic(sheet)
    training.prediction(sheet)
    training.loss(sheet)
    training.saving(sheet)
    training.sampling(sheet)
    if "dataset" not in sheet.recipe:
        pictures(sheet)
    cache(sheet)
    judging(sheet)
    return finish(sheet)


def finish(sheet: Sheet) -> list[str]:
    """Rows for what is left, and placeholders for what must be asked."""
    elsewhere.rest(sheet)
    for name in [name for name in sheet.given if not sheet.told(name)]:
        off = sheet.given[name].read in (None, False, 0, "")
        sheet.no_effect(name, "empty or 0: off" if off else "Kiln has nothing like it and it was not read")
    if not sheet.recipe.get("base"):
        sheet.set("base", UNSET)
    folders = [f"dataset.{n}.folder" for n, table in enumerate(sheet.recipe["dataset"]) if table["folder"] == UNSET]
    return [*(["base"] if sheet.recipe["base"] == UNSET else []), *folders]


def read_config(table: Mapping[str, Any], *, tool: str = "sd-scripts") -> tuple[dict[str, Given], list[Key]]:
    """The arguments of a `--config_file` table. Sections mean nothing there: a later key of the same name wins."""
    given: dict[str, Given] = {}
    rows: list[Key] = []
    flat = flatten(table)
    for path, value in flat.items():
        *outer, name = path.split(".")
        if len(outer) > 1 and outer[-1] in ARGUMENTS and name not in ARGUMENTS:
            rows.append(Key(path, value, "invalid", "", f"{outer[-1]} is no table; {tool} stops"))
            continue
        if len(outer) > 1:
            rows.append(Key(path, value, "no-effect", "", f"{tool} looks into one level of tables, no deeper"))
            continue
        if name not in ARGUMENTS:
            hint = nearest(name, ARGUMENTS) if nearest(name, ARGUMENTS).startswith("; did") else ""
            rows.append(Key(path, value, "no-effect", "", f"{tool} knows no such argument and passes over it{hint}"))
            continue
        if name in given:
            rows.append(Key(given[name].key, given[name].value, "no-effect", "", f"the later {path} wins"))
        try:
            if name == "resolution" and not isinstance(value, str):
                raise Unreadable("must be text here, such as '1024,1024'")
            if ARGUMENTS[name] == "words" and isinstance(value, str) and value:
                raise Unreadable("must be a list; sd-scripts reads text letter by letter, and stops")
            given[name] = Given(path, value, read_value(name, value))
        except Unreadable as error:
            given.pop(name, None)
            rows.append(Key(path, value, "invalid", "", str(error)))
    return with_network_args(given), rows


def with_network_args(given: Mapping[str, Given]) -> dict[str, Given]:
    """`given` with each `k=v` of network_args as an argument of its own, told by a row of its own."""
    full = dict(given)
    words = given.get("network_args")
    if words is None:
        return full
    for word in words.read or []:
        name, found, value = str(word).partition("=")
        key = f"{words.key}:{name.strip()}" if words.key else ""
        full[PREFIX + name.strip()] = Given(key, value if found else word, value if found else None)
    return full


def network_args_row(sheet: Sheet) -> None:
    """The row of network_args itself: what became of the arguments in it."""
    words = sheet.given.get("network_args")
    if words is None or not words.key:
        return
    inside = [row for key, row in sheet.rows.items() if key.startswith(f"{words.key}:")]
    fate, settings_told = together(inside)
    sheet.row("network_args", fate, settings_told, PARTS if inside else "empty")


def together(parts: Iterable[Key]) -> tuple[Fate, str]:
    """(the strongest fate of several rows, the settings they name), for the key that holds them all."""
    told = list(parts)
    settings = dict.fromkeys(to for row in told for to in row.to.split(", ") if to)
    return next((one for one in STRONGEST if one in [row.fate for row in told]), "no-effect"), ", ".join(settings)


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of a nested table, in the order of the file."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def dataset_only(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """A dataset_config alone: everything else stays Kiln's own."""
    sheet = Sheet({}, DEFAULTS)
    dataset_tables(sheet, table)
    if "train_batch_size" in sheet.given:
        sheet.mapped("train_batch_size", "train.batch", sheet.value("train_batch_size"))
    judging(sheet)
    return sheet, finish(sheet)


def config(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """A `--config_file` of sdxl_train_network.py."""
    given, rows = read_config(table)
    sheet = Sheet(given, DEFAULTS)
    sheet.add(rows)
    asked = translate(sheet)
    network_args_row(sheet)
    return sheet, asked
