"""sd-scripts' own files, `--config_file` and `dataset_config`, and the translation that every dialect of it shares."""

from collections.abc import Mapping
from typing import Any

from lorakiln.base.errors import nearest
from lorakiln.exchange import elsewhere, training
from lorakiln.exchange.arguments import ARGUMENTS, Unreadable, read_value
from lorakiln.exchange.network import PREFIX, network
from lorakiln.exchange.optimizer import optimizer
from lorakiln.exchange.pictures import pictures, scoped, settings
from lorakiln.exchange.report import UNSET, Given, Key, Sheet

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
    optimizer(sheet)
    training.length(sheet)
    training.arithmetic(sheet)
    training.prediction(sheet)
    training.loss(sheet)
    training.saving(sheet)
    training.sampling(sheet)
    if "dataset" not in sheet.recipe:
        pictures(sheet)
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
        name = path.rpartition(".")[2] if path.rpartition(".")[2] in ARGUMENTS or "." in path else path
        if name not in ARGUMENTS:
            hint = nearest(name, ARGUMENTS) if nearest(name, ARGUMENTS).startswith("; did") else ""
            rows.append(Key(path, value, "no-effect", "", f"{tool} knows no such argument and passes over it{hint}"))
            continue
        if name in given:
            rows.append(Key(given[name].key, given[name].value, "no-effect", "", f"the later {path} wins"))
        try:
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
    settings_told = dict.fromkeys(to for row in inside for to in row.to.split(", ") if to)
    fates = [row.fate for row in inside]
    fate = next((one for one in ("mapped", "invalid", "unsupported", "no-effect") if one in fates), "no-effect")
    sheet.row("network_args", fate, ", ".join(settings_told), "each of its parts has a line" if inside else "empty")


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of a nested table, in the order of the file."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


# what a [[datasets]] or [[datasets.subsets]] table may hold, and the argument it stands for
_NAMES = """bucket_no_upscale bucket_reso_steps enable_bucket max_bucket_reso min_bucket_reso resolution
    validation_split validation_seed resize_interpolation skip_image_resolution network_multiplier
    caption_dropout_every_n_epochs caption_dropout_rate caption_extension caption_prefix caption_separator
    caption_suffix caption_tag_dropout_rate color_aug enable_wildcard face_crop_aug_range flip_aug keep_tokens
    keep_tokens_separator num_repeats random_crop secondary_separator shuffle_caption token_warmup_min
    token_warmup_step alpha_mask cache_info image_dir class_tokens is_reg metadata_file conditioning_data_dir
    custom_attributes"""
DATASET_KEYS = {name: name for name in _NAMES.split()} | {"batch_size": "train_batch_size"}


def read_datasets(sheet: Sheet, table: Mapping[str, Any], *, strict: bool = True) -> None:
    """The [[dataset]] tables of a dataset_config; what a subset does not say, its dataset or [general] says.

    `strict`: an unknown key stops sd-scripts; else (other tools' files of that shape) it is passed over.
    """
    general = _level(sheet, table.get("general", {}), "general", strict)
    tables: list[dict[str, Any]] = []
    for n, dataset in enumerate(table.get("datasets", [])):
        middle = general | _level(sheet, {k: v for k, v in dataset.items() if k != "subsets"}, f"datasets.{n}", strict)
        for m, subset in enumerate(dataset.get("subsets", [])):
            chain = middle | _level(sheet, subset, f"datasets.{n}.subsets.{m}", strict)
            tables.append(_subset(sheet, chain, len(tables)))
    sheet.recipe["dataset"] = tables or [{"folder": UNSET, "missing": "empty"}]
    for key, value in table.items():
        if key not in ("general", "datasets"):
            sheet.add([Key(key, value, "invalid", "", "sd-scripts stops at an unknown table")])


def _level(sheet: Sheet, table: Mapping[str, Any], where: str, strict: bool) -> dict[str, Given]:
    chain: dict[str, Given] = {}
    for key, value in table.items():
        path, name = f"{where}.{key}", DATASET_KEYS.get(key)
        if name is None:
            why = "sd-scripts stops at an unknown key" if strict else "not among what is handed to sd-scripts"
            sheet.add([Key(path, value, "invalid" if strict else "no-effect", "", why)])
            continue
        try:
            read = read_value(name, value) if name in ARGUMENTS else value
        except Unreadable as error:
            sheet.add([Key(path, value, "invalid", "", str(error))])
            continue
        chain[name] = Given(path, value, read)
    return chain


def _subset(sheet: Sheet, chain: Mapping[str, Given], number: int) -> dict[str, Any]:
    place = f"dataset.{number}"
    view = scoped(sheet, dict(chain))
    table = settings(view, place)
    table["folder"] = str(view.value("image_dir") or UNSET)
    view.row("image_dir", "mapped", f"{place}.folder")
    table["repeats"] = max(1, view.value("num_repeats") or 1)
    zero = view.value("num_repeats") == 0
    view.row("num_repeats", "invalid" if zero else "mapped", "" if zero else f"{place}.repeats",
             "0 drops the folder" if zero else "")  # fmt: skip
    if view.value("is_reg"):
        table["weight"] = float(view.value("prior_loss_weight") or 1.0)
        view.row("is_reg", "mapped", f"{place}.weight")
        view.row("prior_loss_weight", "mapped", f"{place}.weight")
    else:
        view.no_effect("is_reg", "off")
    if "train_batch_size" in chain:
        sheet.given["train_batch_size"] = chain["train_batch_size"]
    _odd_subset_keys(view, table, place)
    elsewhere.rest(view)
    return table


def _odd_subset_keys(view: Sheet, table: dict[str, Any], place: str) -> None:
    tokens = view.value("class_tokens")
    if tokens:
        view.unsupported(
            "class_tokens", "the caption of pictures without one: name the folder '1_words', or write captions"
        )
    else:
        view.no_effect("class_tokens", "empty")
    for name, why in (
        ("metadata_file", "write the captions into files beside the pictures"),
        ("network_multiplier", "belongs to training with several networks"),
        ("skip_image_resolution", "remove small pictures, or see dataset.no_upscale"),
        ("custom_attributes", "nothing in training reads it"),
    ):
        if view.value(name):
            (view.no_effect if name == "custom_attributes" else view.unsupported)(name, why)
        else:
            view.no_effect(name, "empty")


def dataset_only(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """A dataset_config alone: everything else stays Kiln's own."""
    sheet = Sheet({}, DEFAULTS)
    read_datasets(sheet, table)
    if "train_batch_size" in sheet.given:
        sheet.mapped("train_batch_size", "train.batch", sheet.value("train_batch_size"))
    return sheet, finish(sheet)


def config(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """A `--config_file` of sdxl_train_network.py."""
    given, rows = read_config(table)
    sheet = Sheet(given, DEFAULTS)
    sheet.add(rows)
    asked = translate(sheet)
    network_args_row(sheet)
    return sheet, asked
