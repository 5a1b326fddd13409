"""A recipe from a LoRA file: the ss_* metadata that sd-scripts writes, or Kiln's own recipe."""

import ast
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakiln.base.errors import UserError
from lorakiln.exchange.arguments import ARGUMENTS, Unreadable, read_value
from lorakiln.exchange.report import Given, Key, Sheet
from lorakiln.exchange.sd_scripts import DEFAULTS, network_args_row, translate, with_network_args

RENAMED = {
    "ss_num_epochs": "max_train_epochs", "ss_optimizer": "optimizer_type",
    "ss_sd_model_name": "pretrained_model_name_or_path",
    "ss_vae_name": "vae", "ss_batch_size_per_device": "train_batch_size", "ss_lr_warmup_steps": "lr_warmup_steps",
    "ss_debiased_estimation": "debiased_estimation_loss",
}  # fmt: skip
RECORDS = (
    "ss_session_id", "ss_training_started_at", "ss_training_finished_at", "ss_num_train_images", "ss_num_reg_images",
    "ss_num_validation_images", "ss_num_batches_per_epoch", "ss_steps", "ss_epoch", "ss_max_train_steps",
    "ss_total_batch_size", "ss_base_model_version", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_vae_hash",
    "ss_new_vae_hash", "ss_sd_scripts_commit_hash", "ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs",
    "ss_bucket_info", "sshs_model_hash", "sshs_legacy_hash", "ss_datasets",
)  # fmt: skip
LONGEST = 100_000_000  # bytes of header that the format allows


def read(path: Path) -> dict[str, Any]:
    """The metadata of a .safetensors file. UserError where there is none, or nothing about a training in it."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 2 <= size <= LONGEST:
                raise ValueError("no header")
            table = json.loads(stream.read(size)).get("__metadata__") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a .safetensors file ({error})") from None
    if not any(key.startswith("ss_") for key in table) and "lorakiln.recipe" not in table:
        raise UserError(f"{path}: its header says nothing of how it was trained (no ss_* keys)")
    return dict(table)


def header(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """The sheet with every key told, and the settings still to give."""
    if "lorakiln.recipe" in table:
        return _own(table)
    given: dict[str, Given] = {}
    rows: list[Key] = []
    for key, text in table.items():
        _take(key, text, given, rows)
    _optimizer(given)
    given.setdefault("network_module", Given("", None, "networks.lora"))
    sheet = Sheet(with_network_args(given), DEFAULTS | {"enable_bucket": True, "mixed_precision": "bf16"})
    sheet.add(rows)
    asked = translate(sheet)
    network_args_row(sheet)
    return sheet, asked


def _own(table: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    """A LoRA that Kiln wrote carries its whole recipe."""
    sheet = Sheet({}, {})
    sheet.recipe = tomllib.loads(table["lorakiln.recipe"])
    rows = [Key("lorakiln.recipe", table["lorakiln.recipe"], "mapped", "", "the whole recipe")]
    rows += [Key(key, text, "no-effect", "", "the recipe in lorakiln.recipe says it")
             for key, text in table.items() if key != "lorakiln.recipe"]  # fmt: skip
    sheet.add(rows)
    return sheet, []


def _take(key: str, text: Any, given: dict[str, Given], rows: list[Key]) -> None:
    name = RENAMED.get(key, key.removeprefix("ss_"))
    if key in RECORDS or not key.startswith("ss_"):
        rows.append(Key(key, text, "no-effect", "", "a record of that run, not a setting"))
        return
    if key in ("ss_v2", "ss_gradient_checkpointing") or name in ARGUMENTS:
        try:
            given[name] = Given(key, text, _read(name, str(text)))
        except Unreadable as error:
            rows.append(Key(key, text, "invalid", "", str(error)))
        return
    rows.append(Key(key, text, "no-effect", "", "sd-scripts knows no such argument"))


def _read(name: str, text: str) -> Any:
    """A value from its text; "None" is none. Resolutions are "(1024, 1024)", network arguments are JSON."""
    if text in ("None", ""):
        return None
    if name == "network_args":
        table = json.loads(text)
        return [f"{key}={value}" for key, value in table.items()]
    if name == "resolution":
        return text.strip("()[] ").replace(" ", "")
    if name == "text_encoder_lr" and text.startswith("["):
        return [float(rate) for rate in ast.literal_eval(text)]
    if name == "max_grad_norm" or ARGUMENTS[name] in ("int", "float"):
        return read_value(name, text)
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
        given["optimizer_args"] = Given("", None, words)


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
