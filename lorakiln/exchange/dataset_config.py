"""sd-scripts' `dataset_config`: [general], [[datasets]] and their subsets as one [[dataset]] table a subset."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from lorakiln.exchange import elsewhere
from lorakiln.exchange.arguments import ARGUMENTS, BESIDE_FOLDERS, Unreadable, read_value
from lorakiln.exchange.pictures import scoped, settings
from lorakiln.exchange.report import UNSET, Given, Key, Sheet

KOHYA_FOLDER = re.compile(r"\d+_.*", re.DOTALL)


def _whole(value: Any) -> bool:
    return isinstance(value, int)


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _side(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2 and all(map(_whole, value))
    return _whole(value) or pair


def _range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, float) for one in value)


# what sd-scripts' schema takes for each key, and how that is said
Check = tuple[Callable[[Any], bool], str]
FLAG: Check = (lambda value: isinstance(value, bool), "true or false")
WHOLE: Check = (_whole, "a whole number")
NUMBER: Check = (_number, "a number")
FRACTION: Check = (lambda value: isinstance(value, float), "a number with a point, such as 0.1")
TEXT: Check = (lambda value: isinstance(value, str), "text")
SIDE: Check = (_side, "a whole number or two in a list")
RANGE: Check = (_range, "two numbers with a point in a list")
TABLE: Check = (lambda value: isinstance(value, Mapping), "a table")

DATASET: dict[str, Check] = {
    **dict.fromkeys(["bucket_no_upscale", "enable_bucket"], FLAG),
    **dict.fromkeys(
        ["batch_size", "bucket_reso_steps", "max_bucket_reso", "min_bucket_reso", "validation_seed"], WHOLE
    ),
    **dict.fromkeys(["resolution", "skip_image_resolution"], SIDE),
    **dict.fromkeys(["validation_split", "network_multiplier"], FRACTION),
}
SUBSET: dict[str, Check] = {
    **dict.fromkeys(["color_aug", "flip_aug", "random_crop", "shuffle_caption", "enable_wildcard", "cache_info"], FLAG),
    **dict.fromkeys(["num_repeats", "keep_tokens", "token_warmup_min", "caption_dropout_every_n_epochs"], WHOLE),
    **dict.fromkeys(["token_warmup_step", "caption_dropout_rate", "caption_tag_dropout_rate"], NUMBER),
    **dict.fromkeys(
        ["keep_tokens_separator", "secondary_separator", "caption_separator", "caption_prefix", "caption_suffix",
         "caption_extension", "class_tokens", "resize_interpolation"],
        TEXT,
    ),
    "face_crop_aug_range": RANGE, "custom_attributes": TABLE,
}  # fmt: skip
SUBSET_ONLY: dict[str, Check] = {
    **dict.fromkeys(["is_reg", "alpha_mask"], FLAG),
    **dict.fromkeys(["image_dir", "metadata_file", "conditioning_data_dir"], TEXT),
}
KEYS = {**DATASET, **SUBSET, **SUBSET_ONLY}
LEVELS = {"general": DATASET | SUBSET, "datasets": DATASET | SUBSET, "subsets": SUBSET | SUBSET_ONLY}


def dataset_tables(sheet: Sheet, table: Mapping[str, Any], *, strict: bool = True) -> None:
    """Fill the recipe's [[dataset]] tables; what a subset does not say, its dataset or [general] says.

    `strict`: sd-scripts stops at an unknown key, at one on the wrong level and at a value of the wrong type; else
    (another tool's file of that shape) an unknown key is passed over.
    """
    general = _level(sheet, _table(sheet, table, "general"), "general", strict)
    levels = [general]
    tables: list[dict[str, Any]] = []
    batches: list[Given] = []
    for n, dataset in enumerate(_tables(sheet, table, "datasets", "datasets")):
        own = {key: value for key, value in dataset.items() if key != "subsets"}
        middle = _level(sheet, own, f"datasets.{n}", strict)
        levels.append(middle)
        for m, subset in enumerate(_tables(sheet, dataset, "subsets", f"datasets.{n}.subsets")):
            chain = _level(sheet, subset, f"datasets.{n}.subsets.{m}", strict)
            tables.append(_subset(sheet, general | middle | chain, len(tables)))
        batches += [one[name] for one in [general | middle] for name in ["train_batch_size"] if name in one]
    sheet.recipe["dataset"] = tables
    _batch(sheet, batches)
    for given in [given for level in levels for given in level.values()]:
        if given.key not in sheet.rows:
            sheet.add([Key(given.key, given.value, "no-effect", "", "everything below it has a value of its own")])
    for key, value in table.items():
        if key not in ("general", "datasets"):
            sheet.add([Key(key, value, "invalid", "", "sd-scripts stops at an unknown table")])


def _table(sheet: Sheet, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if isinstance(value, Mapping):
        return value
    sheet.add([Key(key, value, "invalid", "", "must be a table")])
    return {}


def _tables(sheet: Sheet, table: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    """The tables of a list; one empty table where there is none, so that what stands above it is told."""
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        sheet.add([Key(where, value, "invalid", "", "must be a list of tables")])
        value = []
    return value or [{}]


def _level(sheet: Sheet, table: Mapping[str, Any], where: str, strict: bool) -> dict[str, Given]:
    """The arguments that one table gives, under sd-scripts' names, and rows for what it cannot give."""
    allowed = LEVELS["subsets" if ".subsets." in where else where.partition(".")[0]]
    chain: dict[str, Given] = {}
    for key, value in table.items():
        path = f"{where}.{key}"
        why = _fault(key, value, allowed) if strict else "" if key in KEYS else "not among what is handed to sd-scripts"
        if why:
            sheet.add([Key(path, value, "invalid" if strict else "no-effect", "", why)])
            continue
        name = "train_batch_size" if key == "batch_size" else key
        try:
            read = read_value(name, value) if name in ARGUMENTS or name in BESIDE_FOLDERS else value
        except Unreadable as error:
            sheet.add([Key(path, value, "invalid", "", str(error))])
            continue
        chain[name] = Given(path, value, read)
    return chain


def _fault(key: str, value: Any, allowed: Mapping[str, Check]) -> str:
    """Why sd-scripts stops at a key, or nothing."""
    if key not in KEYS:
        return "sd-scripts stops at an unknown key"
    if key not in allowed:
        place = "[[datasets.subsets]]" if key in SUBSET_ONLY else "[[datasets]] or [general]"
        return f"sd-scripts stops: belongs into {place}"
    fits, wanted = allowed[key]
    return "" if fits(value) else f"sd-scripts stops: must be {wanted}"


def _batch(sheet: Sheet, batches: list[Given]) -> None:
    """train.batch, the first dataset's; sd-scripts has one for each."""
    if not batches:
        return
    sheet.given["train_batch_size"] = batches[0]
    chosen = batches[0].read
    for one in batches[1:]:
        if one.key == batches[0].key:
            continue
        same = one.read == chosen
        why = "" if same else f"Kiln has one batch size, the first dataset's: {chosen}"
        row = Key(one.key, one.value, "mapped" if same else "unsupported", "train.batch" if same else "", why)
        sheet.rows.setdefault(one.key, row)


def _subset(sheet: Sheet, chain: Mapping[str, Given], number: int) -> dict[str, Any]:
    place = f"dataset.{number}"
    view = scoped(sheet, dict(chain))
    table = settings(view, place)
    folder = view.value("image_dir")
    table["folder"] = str(folder or UNSET)
    view.row("image_dir", "mapped" if folder else "invalid", f"{place}.folder" if folder else "",
             "" if folder else "there is no folder without a name")  # fmt: skip
    _repeats(view, table, place)
    if KOHYA_FOLDER.fullmatch(re.split(r"[/\\]", table["folder"].rstrip("/\\"))[-1]):
        table["folder_names"] = False  # a dataset_config takes num_repeats alone
    if view.value("is_reg"):
        table["weight"] = float(view.value("prior_loss_weight") or 0.0)
        table["heldout"] = 0.0
        view.row("is_reg", "mapped", f"{place}.weight")
        view.row("prior_loss_weight", "mapped", f"{place}.weight")
    else:
        view.no_effect("is_reg", "off")
    _odd_keys(view)
    elsewhere.rest(view, only=chain)
    return table


def _repeats(view: Sheet, table: dict[str, Any], place: str) -> None:
    repeats = view.value("num_repeats")
    table["repeats"] = 1 if repeats is None else max(1, repeats)
    if repeats is not None and repeats < 1:
        view.invalid("num_repeats", "below 1 drops the folder")
    else:
        view.row("num_repeats", "mapped", f"{place}.repeats")


def _odd_keys(view: Sheet) -> None:
    for name, why in (
        ("class_tokens", "the caption of pictures without one: write it into caption files, or a '10_words' folder"),
        ("metadata_file", "write the captions into files beside the pictures"),
        ("network_multiplier", "belongs to training with several networks"),
        ("skip_image_resolution", "remove small pictures, or see dataset.no_upscale"),
        ("custom_attributes", "nothing in training reads it"),
    ):
        if view.value(name) and name != "custom_attributes":
            view.unsupported(name, why)
        else:
            view.no_effect(name, why if view.value(name) else "empty")
