"""Which pictures, how cut and with which captions: sd-scripts' dataset arguments as [[dataset]] and [cache]."""

import math
import re
from typing import Any

from lorakiln.exchange.report import UNSET, Given, Sheet

BUCKETS = ("bucket_reso_steps", "min_bucket_reso", "max_bucket_reso", "bucket_no_upscale")
CAPTIONS = {
    "shuffle_caption": "shuffle",
    "keep_tokens": "keep_tokens",
    "keep_tokens_separator": "keep_separator",
    "caption_prefix": "prefix",
    "caption_suffix": "suffix",
    "enable_wildcard": "wildcards",
    "caption_dropout_rate": "caption_dropout",
    "caption_tag_dropout_rate": "tag_dropout",
    "flip_aug": "flip",
}


def pictures(sheet: Sheet) -> None:
    """The datasets of a run that is told by arguments alone: train_data_dir, and reg_data_dir for prior pictures."""
    table = settings(sheet)
    elsewhere = sheet.has("dataset_config")
    for name in ("train_data_dir", "reg_data_dir", "in_json"):
        if elsewhere and sheet.has(name):
            sheet.no_effect(name, "dataset_config takes its place")
    folder = None if elsewhere else sheet.value("train_data_dir")
    table["folder"] = str(folder or UNSET)
    sheet.recipe["dataset"] = [table]
    if folder:
        sheet.row("train_data_dir", "mapped", "dataset.0.folder")
    elif not sheet.told("train_data_dir"):
        sheet.no_effect("train_data_dir", "empty")
    if sheet.has("reg_data_dir") and not elsewhere:
        weight = float(sheet.value("prior_loss_weight"))
        prior = table | {"folder": str(sheet.value("reg_data_dir")), "weight": weight, "heldout": 0.0}
        sheet.recipe["dataset"].append(prior)
        sheet.row("reg_data_dir", "mapped", "dataset.1.folder")
        sheet.row("prior_loss_weight", "mapped", "dataset.1.weight")


def settings(sheet: Sheet, place: str = "dataset.0") -> dict[str, Any]:
    """One [[dataset]] table but for its folder, with the rows of its arguments; `place` is what the rows say."""
    table: dict[str, Any] = {"missing": "empty"}  # sd-scripts takes a picture without a caption as it is
    _captions(sheet, table, place)
    _size(sheet, table, place)
    _cuts(sheet, table, place)
    _masks(sheet, table, place)
    _heldout(sheet, table, place)
    return table


def _captions(sheet: Sheet, table: dict[str, Any], place: str) -> None:
    extension = sheet.value("caption_extention") or sheet.value("caption_extension") or ".caption"
    name = "caption_extention" if sheet.has("caption_extention") else "caption_extension"
    table["extensions"] = [str(extension)]
    why = ""
    if extension not in (".txt", ".caption", ".cap"):
        why = "no such file is meant to be found: the folder's name ('10_trigger') is the caption"
    sheet.row(name, "mapped", f"{place}.extensions", why)
    separator = sheet.value("keep_tokens_separator")
    for argument, key in CAPTIONS.items():
        value = sheet.value(argument)
        if argument == "keep_tokens" and separator:
            sheet.no_effect(argument, "keep_tokens_separator takes its place")
            continue
        if isinstance(value, int | float) and value < 0:
            sheet.no_effect(argument, "below 0 is off")
            continue
        if value is not None:
            table[key] = value if isinstance(value, bool | str) or key == "keep_tokens" else float(value)
        elif argument not in sheet.given:
            continue
        sheet.row(argument, "mapped", f"{place}.{key}")
    for argument, off, why in (
        ("caption_separator", ",", "Kiln's tags are separated by commas"),
        ("secondary_separator", None, "Kiln has no second separator"),
        ("caption_dropout_every_n_epochs", 0, "Kiln drops captions by chance (caption_dropout)"),
        ("token_warmup_step", 0, "Kiln shows all tags from the start"),
        ("token_warmup_min", 1, "Kiln shows all tags from the start"),
        ("weighted_captions", None, "Kiln reads '(word:1.2)' as it is written"),
    ):
        value = sheet.value(argument)
        if value is None or value == off:
            sheet.no_effect(argument, "off")
        else:
            sheet.unsupported(argument, why)
    _token_length(sheet, place)


def _token_length(sheet: Sheet, place: str) -> None:
    longest = sheet.value("max_token_length")
    if sheet.has("max_token_length") and longest > 75:
        sheet.always("max_token_length", f"{place}.extensions", "Kiln reads captions of any length whole")
    else:
        sheet.unsupported("max_token_length", "what lies beyond 75 tokens is cut off there; Kiln reads captions whole")


def _size(sheet: Sheet, table: dict[str, Any], place: str) -> None:
    """Resolution and buckets. Kiln's resolution is the side of a square, which with buckets stands for its area."""
    text = sheet.value("resolution")
    buckets = bool(sheet.value("enable_bucket"))
    table["bucket"] = buckets
    sheet.row("enable_bucket", "mapped", f"{place}.bucket")
    if text:
        _resolution(sheet, str(text), table, place)
    if not buckets:
        for name in BUCKETS:
            sheet.no_effect(name, "has no effect without enable_bucket")
        return
    small = bool(sheet.value("bucket_no_upscale"))
    table["no_upscale"] = small
    sheet.row("bucket_no_upscale", "mapped", f"{place}.no_upscale")
    step = sheet.value("bucket_reso_steps") or 64
    if step % 32:
        sheet.invalid("bucket_reso_steps", "SDXL training stops unless it is a multiple of 32; 64 is taken")
        step = 64
    table["bucket_step"] = step
    sheet.row("bucket_reso_steps", "mapped", f"{place}.bucket_step") if not sheet.told("bucket_reso_steps") else None
    for name, key in (("min_bucket_reso", "bucket_min"), ("max_bucket_reso", "bucket_max")):
        if small:
            sheet.no_effect(name, "bucket_no_upscale makes buckets by the pictures' own sizes")
        elif sheet.value(name) is not None:
            table[key] = sheet.value(name)
            sheet.row(name, "mapped", f"{place}.{key}")


def _resolution(sheet: Sheet, text: str, table: dict[str, Any], place: str) -> None:
    """Kiln's side of a square from "1024,1024" or "1024"; with buckets only the number of pixels counts."""
    words = text.split(",")
    if len(words) > 2 or not all(re.fullmatch(r"\s*\+?\d+\s*", word) and int(word) for word in words):
        sheet.invalid("resolution", "must be one or two whole numbers, such as '1024,1024'")
        return
    width, height = (list(map(int, words)) * 2)[:2]
    side = max(8, math.isqrt(width * height) // 8 * 8)
    table["resolution"] = side
    if width == height == side:
        sheet.row("resolution", "mapped", f"{place}.resolution")
    else:
        sheet.unsupported("resolution", f"Kiln's is the side of a square; {side} has about as many pixels")


def _cuts(sheet: Sheet, table: dict[str, Any], place: str) -> None:
    cached = bool(sheet.value("cache_latents") or sheet.value("cache_latents_to_disk"))
    for argument, why in (
        ("color_aug", "Kiln never changes colours"),
        ("face_crop_aug_range", "Kiln does not cut around faces"),
    ):
        if sheet.has(argument):
            sheet.unsupported(argument, why)
        else:
            sheet.no_effect(argument, "off")
    if sheet.value("random_crop") and cached:
        sheet.invalid("random_crop", "stops while latents are cached")
    elif "random_crop" in sheet.given:
        table["random_crop"] = bool(sheet.value("random_crop"))
        sheet.row("random_crop", "mapped", f"{place}.random_crop")
    interpolation = sheet.value("resize_interpolation")
    if interpolation == "lanczos":
        sheet.always("resize_interpolation", f"{place}.resolution", "Kiln always resizes with Lanczos")
    else:
        sheet.unsupported("resize_interpolation", "Kiln always resizes with Lanczos")


def _masks(sheet: Sheet, table: dict[str, Any], place: str) -> None:
    folder, masked = sheet.value("conditioning_data_dir"), bool(sheet.value("masked_loss"))
    if sheet.value("alpha_mask"):
        table["masks"] = "alpha"
        sheet.row("alpha_mask", "mapped", f"{place}.masks")
    elif folder and masked:
        table["masks"] = str(folder)
        sheet.row("conditioning_data_dir", "mapped", f"{place}.masks")
    else:
        sheet.no_effect("conditioning_data_dir", "has no effect without masked_loss")
        sheet.no_effect("alpha_mask", "off")
    if masked and table.get("masks"):
        sheet.row("masked_loss", "mapped", f"{place}.masks")
    else:
        sheet.no_effect("masked_loss", "has no effect without masks" if masked else "off")


def _heldout(sheet: Sheet, table: dict[str, Any], place: str) -> None:
    """validation_split as the share that is held out; sd-scripts picks other pictures, and shares copies out."""
    share = sheet.value("validation_split")
    if not share:
        sheet.no_effect("validation_split", "0 is off")
    elif 0 < share < 1:
        table["heldout"] = float(share)
        sheet.row("validation_split", "mapped", f"{place}.heldout")
    else:
        sheet.invalid("validation_split", "must be from 0 to below 1")


def judging(sheet: Sheet) -> None:
    """[judge]: the loss on held-out pictures, which sd-scripts measures after every epoch unless told otherwise."""
    names = ("validate_every_n_epochs", "validate_every_n_steps")
    if not any(table.get("heldout") for table in sheet.recipe["dataset"]):
        for name in names:
            sheet.no_effect(name, "there is no validation_split")
        return
    epochs = sheet.value(names[0])
    sheet.mapped(names[0], "judge.epochs", 1 if epochs is None else epochs)
    sheet.mapped(names[1], "judge.steps", sheet.value(names[1]) or 0)


def cache(sheet: Sheet) -> None:
    """[cache]: latents on disk, in memory or nowhere. Captions cost nothing to cache, so Kiln decides that itself."""
    disk, memory = bool(sheet.value("cache_latents_to_disk")), bool(sheet.value("cache_latents"))
    where = "disk" if disk else "memory" if memory else "off"
    sheet.set("cache.latents", where)
    sheet.mapped("cache_latents", "cache.latents", where)
    sheet.mapped("cache_latents_to_disk", "cache.latents", where)
    text = sheet.has("cache_text_encoder_outputs") or sheet.has("cache_text_encoder_outputs_to_disk")
    trains_text = sheet.setting("optim.text_lr") not in (None, 0.0)
    for name in ("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"):
        if text and trains_text:
            sheet.invalid(name, "stops while the text encoders are trained")
        elif sheet.has(name):
            sheet.mapped(name, "cache.text", "memory")
        else:
            sheet.no_effect(name, "off; Kiln caches captions by itself while the text encoders are frozen")


def scoped(sheet: Sheet, chain: dict[str, Given]) -> Sheet:
    """A sheet that shares rows and recipe with `sheet`, and sees `chain` as its arguments."""
    view = Sheet({**sheet.given, **chain}, sheet.defaults)
    view.recipe, view.rows = sheet.recipe, sheet.rows
    return view
