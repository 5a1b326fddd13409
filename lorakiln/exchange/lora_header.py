"""A recipe from a LoRA file: the ss_* metadata that sd-scripts writes, or Kiln's own recipe."""

import ast
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorakiln.base.errors import UserError
from lorakiln.base.recipe import parse
from lorakiln.exchange.arguments import ARGUMENTS, Unreadable, read_value
from lorakiln.exchange.dataset_config import dataset_tables
from lorakiln.exchange.report import Given, Key, Sheet
from lorakiln.exchange.sd_scripts import DEFAULTS, network_args_row, together, translate, with_network_args

RENAMED = {
    "ss_num_epochs": "max_train_epochs", "ss_optimizer": "optimizer_type",
    "ss_sd_model_name": "pretrained_model_name_or_path",
    "ss_vae_name": "vae", "ss_batch_size_per_device": "train_batch_size", "ss_lr_warmup_steps": "lr_warmup_steps",
    "ss_debiased_estimation": "debiased_estimation_loss",
}  # fmt: skip
RECORDS = (
    "ss_session_id", "ss_training_started_at", "ss_training_finished_at", "ss_num_train_images", "ss_num_reg_images",
    "ss_num_validation_images", "ss_num_batches_per_epoch", "ss_steps", "ss_epoch",
    "ss_total_batch_size", "ss_base_model_version", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_vae_hash",
    "ss_new_vae_hash", "ss_sd_scripts_commit_hash", "ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs",
    "ss_bucket_info", "sshs_model_hash", "sshs_legacy_hash",
)  # fmt: skip
PER_EPOCH = ("ss_num_batches_per_epoch", "ss_gradient_accumulation_steps")
# what is taken from an entry of ss_datasets, and from a subset of it
NAMES = {
    "batch_size_per_device": "batch_size", "resolution": "resolution", "enable_bucket": "enable_bucket",
    "min_bucket_reso": "min_bucket_reso", "max_bucket_reso": "max_bucket_reso",
}  # fmt: skip
RECORDED = {
    "num_repeats", "color_aug", "flip_aug", "random_crop", "shuffle_caption", "keep_tokens", "keep_tokens_separator",
    "secondary_separator", "enable_wildcard", "caption_prefix", "caption_suffix", "is_reg", "class_tokens",
}  # fmt: skip
LONGEST = 100_000_000  # bytes of header that the format allows


class Metadata(dict[str, Any]):
    """A LoRA's metadata, and which parts of the base its tensors are for: "unet", "te"."""

    parts: frozenset[str] = frozenset()


def read(path: Path) -> Metadata:
    """The metadata of a .safetensors file. UserError where there is none, or nothing about a training in it."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 2 <= size <= LONGEST:
                raise ValueError("no header")
            head = json.loads(stream.read(size))
        table = Metadata(head.pop("__metadata__", None) or {})
        table.parts = frozenset(part for part in ("unet", "te") for name in head if name.startswith(f"lora_{part}"))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not a .safetensors file ({error})") from None
    if not any(key.startswith("ss_") for key in table) and "lorakiln.recipe" not in table:
        raise UserError(f"{path}: its header says nothing of how it was trained (no ss_* keys)")
    return table


def header(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """The sheet with every key told, and the settings still to give."""
    if "lorakiln.recipe" in table:
        return _own(table)
    given: dict[str, Given] = {}
    rows: list[Key] = []
    for key, text in table.items():
        _take(key, text, given, rows)
    _optimizer(given)
    _parts(given, getattr(table, "parts", frozenset()))
    _length(given, rows, table)
    given.setdefault("network_module", Given("", None, "networks.lora"))
    sheet = Sheet(with_network_args(given), DEFAULTS | {"enable_bucket": True, "mixed_precision": "bf16"})
    sheet.add(rows)
    _datasets(sheet, table)
    asked = translate(sheet)
    network_args_row(sheet)
    for one in sheet.recipe["dataset"]:
        one.pop("extensions", None)  # a header does not say which captions were read
    return sheet, asked


def _parts(given: dict[str, Given], parts: frozenset[str]) -> None:
    """What a LoRA has no tensors for was not trained, whatever its rate."""
    for part, flag in (("unet", "network_train_unet_only"), ("te", "network_train_text_encoder_only")):
        if parts == {part}:
            given[flag] = Given("", None, True)


def _length(given: dict[str, Given], rows: list[Key], table: Mapping[str, Any]) -> None:
    """Epochs where the steps are theirs; else the steps, after which the run ended inside an epoch."""
    epochs, steps = given.get("max_train_epochs"), given.get("max_train_steps")
    if not (epochs and steps and epochs.read and steps.read):
        return
    batches, accumulate = (_count(table.get(name)) for name in PER_EPOCH)
    each = -(-batches // max(1, accumulate))
    if batches and steps.read != epochs.read * each:
        rows.append(Key(epochs.key, epochs.value, "no-effect", "", f"the run ended after {steps.read} steps"))
        del given["max_train_epochs"]
    else:
        rows.append(Key(steps.key, steps.value, "no-effect", "", f"the steps of its {epochs.read} epochs"))
        del given["max_train_steps"]


def _count(text: Any) -> int:
    return int(text) if str(text).isdecimal() else 0


def _datasets(sheet: Sheet, table: Mapping[str, Any]) -> None:
    """The datasets of a run with a dataset_config; their folders are named, but not where they lie."""
    if "ss_datasets" not in table:
        return
    text = table["ss_datasets"]
    try:
        datasets = [one for one in json.loads(str(text)) if isinstance(one, dict)]
    except (ValueError, TypeError, RecursionError):
        sheet.add([Key("ss_datasets", text, "invalid", "", "is not a list in JSON")])
        return
    if not datasets:
        sheet.add([Key("ss_datasets", text, "no-effect", "", "empty")])
        return
    dataset_tables(sheet, {"datasets": [_renamed(one) for one in datasets]}, strict=False)
    parts = [row for key, row in sheet.rows.items() if key.startswith("datasets.")]
    sheet.rows = {key: row for key, row in sheet.rows.items() if not key.startswith("datasets.")}
    fate, to = together(parts)
    sheet.add([Key("ss_datasets", text, fate, to, "its folders are named, but not where they lie")])
    if "train_batch_size" in sheet.given:
        sheet.given["train_batch_size"] = replace(sheet.given["train_batch_size"], key="ss_datasets", value=text)


def _renamed(dataset: dict[str, Any]) -> dict[str, Any]:
    """One dataset under a dataset_config's names."""
    subsets = dataset.get("subsets")
    kept = [{key: value for key, value in one.items() if key in RECORDED and value is not None}
            for one in (subsets if isinstance(subsets, list) else []) if isinstance(one, dict)]  # fmt: skip
    own = {NAMES.get(key, key): value for key, value in dataset.items() if key in NAMES and value is not None}
    return {**own, "subsets": kept}


def _own(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """A LoRA that Kiln wrote carries its whole recipe."""
    sheet = Sheet({}, {})
    try:
        recipe = json.loads(str(table["lorakiln.recipe"]))
    except json.JSONDecodeError as error:
        raise UserError(f"lorakiln.recipe: is no JSON ({error})") from None
    if not isinstance(recipe, dict):
        raise UserError(f"lorakiln.recipe: must be a JSON object, not {type(recipe).__name__}")
    sheet.recipe = parse(recipe, "lorakiln.recipe").model_dump()
    to = ", ".join(sheet.recipe)
    rows = [Key("lorakiln.recipe", table["lorakiln.recipe"], "mapped", to, "the whole recipe")]
    rows += [Key(key, text, "no-effect", "", "the recipe in lorakiln.recipe says it")
             for key, text in table.items() if key != "lorakiln.recipe"]  # fmt: skip
    sheet.add(rows)
    return sheet, []


def _take(key: str, text: Any, given: dict[str, Given], rows: list[Key]) -> None:
    name = RENAMED.get(key, key.removeprefix("ss_"))
    if key in RECORDS or not key.startswith("ss_"):
        rows.append(Key(key, text, "no-effect", "", "a record of that run, not a setting"))
        return
    if key == "ss_datasets":
        return
    if name in ARGUMENTS:
        try:
            read = _read(name, str(text))
        except Unreadable as error:
            rows.append(Key(key, text, "invalid", "", str(error)))
            return
        if name in given:
            rows.append(Key(given[name].key, given[name].value, "no-effect", "", f"{key} says it too"))
        given[name] = Given(key, text, read)
        return
    rows.append(Key(key, text, "no-effect", "", "sd-scripts knows no such argument"))


def _read(name: str, text: str) -> Any:
    """A value from its text; "None" is none. Resolutions are "(1024, 1024)", network arguments are JSON."""
    if text in ("None", ""):
        return None
    try:
        if name == "network_args":
            return [f"{key}={value}" for key, value in json.loads(text).items()]
        if name == "text_encoder_lr" and text.startswith("["):
            return [float(rate) for rate in ast.literal_eval(text)] or None
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError):
        raise Unreadable("cannot be read") from None
    if name == "resolution":
        return text.strip("()[] ").replace(" ", "")
    return read_value(name, text)


def _optimizer(given: dict[str, Given]) -> None:
    """`prodigyopt.prodigy.Prodigy(weight_decay=0.01,betas=(0.9, 0.99))` as type and arguments."""
    told = given.get("optimizer_type")
    if told is None or not told.read:
        return
    path, _, inside = str(told.read).partition("(")
    word = path.rpartition(".")[2]
    eight = "bitsandbytes" in path or word.lower().endswith("8bit")
    given["optimizer_type"] = Given(told.key, told.value, word if eight or word.lower() in KNOWN else path)
    words = _words(inside.removesuffix(")"))
    if words:
        given.setdefault("optimizer_args", Given("", None, words))


KNOWN = {"adamw", "adafactor", "prodigy", "came", "lion", "dadaptadam", "dadaptlion"}


def _words(text: str) -> list[str]:
    """`a=1,b=(0.9, 0.99)` as ["a=1", "b=(0.9, 0.99)"]: commas inside brackets do not split."""
    words, depth, word = [], 0, ""
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            words.append(word)
            word = ""
        else:
            word += letter
    return [one.strip() for one in [*words, word] if "=" in one]
